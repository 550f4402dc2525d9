use std::io::Write as _;

use age::secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::super::tests::{credential, site_of};
use super::super::{Args, Bond, run};
use super::*;
use crate::cli::awaken;
use crate::cli::provision::credential::tests::credential as first_bond;
use crate::codex::key::PublicKey;
use crate::peer::store::{Place, Who, execute, load};
use crate::peer::{Request, Revoke};
use crate::snapshot::Manifest;
use crate::snapshot::seal::{Recipient, seal};
use crate::snapshot::store::{Creation, Host, create, list, read};
use crate::sys::fs;

const CREDENTIAL: &str = "efi/EFI/sepulcher/provision.cred";
const STATE: &str = "var/lib/sepulcher";

/// A machine of the law `lychd` without peers of its own.
fn machine() -> tempfile::TempDir {
    let root = awaken::tests::machine();
    for name in ["phone", "laptop"] {
        fs::remove_file(&root.path().join(format!("{}/peers/{name}.toml", awaken::tests::LAW))).unwrap();
    }
    root
}

/// Boots a machine of a law without peers with a credential on its ESP.
fn boots_with(credential: &Credential) -> tempfile::TempDir {
    let root = machine();
    boots(&root, credential);
    root
}

/// Boots a machine with a credential on its ESP.
fn boots(root: &tempfile::TempDir, credential: &Credential) {
    let file = root.path().join(CREDENTIAL);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, 0o600, &credential.to_bytes().unwrap()).unwrap();
    awaken::tests::awaken(root.path()).unwrap();
    assert!(!fs::exists(&file).unwrap());
}

/// A machine whose tablet is bonded with a preshared key and whose pen is revoked; its snapshot, and the pen's key.
fn lost() -> (tempfile::TempDir, Snapshot, PublicKey) {
    let mut bonds = first_bond();
    let (_, pen) = first_bond().bonds.pop_first().unwrap();
    let pen = Bond { file: pen.file.replace("10.88.16.9", "10.88.16.10"), ..pen };
    bonds.bonds.insert(name("pen"), pen);
    let root = boots_with(&bonds);
    let place = Place::appliance(root.path());
    let key = load(&place).unwrap().1.peers[&name("pen")].public_key;
    let revoke = Request::Revoke(Revoke { name: name("pen"), reason: None });
    execute(&place, &Who::Uid(0), &revoke, false).unwrap();
    let creation = Creation { identity: true, ..Creation::default() };
    create(&place, &Host::new(&|_| ()), creation).unwrap();
    let snapshot = read(&place, None).unwrap().1;
    (root, snapshot, key)
}

fn key_of(text: &str) -> String {
    text.split('"').nth(1).unwrap().to_owned()
}

fn name(name: &str) -> Name {
    name.parse().unwrap()
}

/// Has the image of [`site`] take the place of a machine, as far as the disk goes.
fn takes(snapshot: &Snapshot) -> (tempfile::TempDir, Args) {
    takes_under("", snapshot)
}

/// The same where the law has a ledger.
fn takes_under(revoked: &str, snapshot: &Snapshot) -> (tempfile::TempDir, Args) {
    let (folder, mut args) = site_of(revoked, 0);
    let key = age::x25519::Identity::generate();
    let [sealed, identity] = ["soul.age", "key.txt"].map(|name| folder.path().join(name));
    fs::write(&identity, 0o600, key.to_string().expose_secret().as_bytes()).unwrap();
    let recipient: Recipient = key.to_public().to_string().parse().unwrap();
    let mut writer = seal(Vec::new(), &[recipient]).unwrap();
    writer.write_all(&archive::pack(snapshot).unwrap()).unwrap();
    fs::write(&sealed, 0o600, &writer.finish().unwrap()).unwrap();
    args.bond = None;
    (args.snapshot, args.identity) = (Some(sealed), Some(identity));
    (folder, args)
}

fn state(root: &tempfile::TempDir, path: &str) -> Vec<u8> {
    fs::read(&root.path().join(STATE).join(path)).unwrap()
}

#[test]
fn a_machine_takes_the_place_of_a_lost_one_with_identity_bonds_keys_ledger_and_log() {
    let (lost, snapshot, dead) = lost();
    let (_folder, args) = takes(&snapshot);
    run(&args).unwrap();
    let credential = credential(&args);
    assert!(credential.bonds.is_empty());
    let root = boots_with(&credential);
    for path in ["secrets/tether.key", "secrets/peers/tablet.1.psk", "codex/peers/tablet.toml"] {
        assert_eq!(state(&root, path), state(&lost, path), "{path}");
    }
    let (_, codex) = load(&Place::appliance(root.path())).unwrap();
    assert!(codex.revoked_keys.contains(&dead));
    // The log goes on where it ended.
    assert!(state(&root, "codex/audit.jsonl").starts_with(&state(&lost, "codex/audit.jsonl")));
    assert_eq!(state(&root, "secrets/recovery"), format!("{}\n", credential.recovery).as_bytes());
    // Whoever puts back the latest snapshot puts this one back.
    let names = |root: &tempfile::TempDir| list(&Place::appliance(root.path())).unwrap().len();
    assert_eq!(names(&root), 1);
    // What comes later changes nothing any more.
    let before = state(&root, "codex/audit.jsonl");
    awaken::tests::awaken(root.path()).unwrap();
    assert_eq!(state(&root, "codex/audit.jsonl"), before);
}

#[test]
fn one_that_was_cut_off_is_finished_by_the_next_boot() {
    let (lost, snapshot, _) = lost();
    let (_folder, args) = takes(&snapshot);
    run(&args).unwrap();
    let bytes = credential(&args).to_bytes().unwrap();
    // All was done but for the host's key, which goes last.
    let root = boots_with(&credential(&args));
    let secrets = root.path().join(STATE).join("secrets");
    fs::remove_file(&secrets.join("tether.key")).unwrap();
    fs::write(&secrets.join("provision.cred"), 0o600, &bytes).unwrap();
    let log = state(&root, "codex/audit.jsonl");
    awaken::tests::awaken(root.path()).unwrap();
    assert_eq!(state(&root, "secrets/tether.key"), state(&lost, "secrets/tether.key"));
    assert_eq!(state(&root, "codex/audit.jsonl"), log, "nothing is put back twice");
    assert!(!fs::exists(&secrets.join("provision.cred")).unwrap());
}

#[test]
fn bonds_of_the_law_are_older_than_those_of_the_snapshot() {
    let (_lost, snapshot, _) = lost();
    let (_folder, args) = takes(&snapshot);
    run(&args).unwrap();
    let root = awaken::tests::machine();
    let law = root.path().join(awaken::tests::LAW).join("peers");
    // A preshared key that is nowhere, a time that is over, another key: each would stand in the way of what is put back.
    let seed = String::from_utf8(fs::read(&law.join("phone.toml")).unwrap()).unwrap();
    let tablet = seed.replace("10.88.16.2", "10.88.16.9") + "expires = 2020-01-01T00:00:00Z\n";
    for (name, text) in [("phone", seed + "preshared = true\n"), ("tablet", tablet)] {
        fs::write(&law.join(format!("{name}.toml")), 0o644, text.as_bytes()).unwrap();
    }
    boots(&root, &credential(&args));
    let text = snapshot.text("peers/tablet.toml").unwrap();
    assert_eq!(state(&root, "codex/peers/tablet.toml"), text.as_bytes());
    assert!(!fs::exists(&root.path().join(STATE).join("codex/peers/phone.toml")).unwrap());
    // Who provisions it is told so before.
    let law = crate::sys::codex::load(&[&awaken::tests::machine().path().join(awaken::tests::LAW)]);
    let codex = Codex::parse(&law).unwrap();
    assert_eq!(unknown(&codex, &snapshot).map(Name::as_str).collect::<Vec<_>>(), ["laptop", "phone"]);
}

#[test]
fn a_log_that_was_written_without_its_bonds_is_written_anew() {
    let (lost, snapshot, _) = lost();
    let (_folder, args) = takes(&snapshot);
    run(&args).unwrap();
    let root = machine();
    let state_of = root.path().join(STATE);
    for folder in ["codex/peers", "secrets"] {
        fs::create_dir_all(&state_of.join(folder)).unwrap();
    }
    let log = state(&lost, "codex/audit.jsonl");
    fs::write(&state_of.join("codex/audit.jsonl"), 0o600, &log).unwrap();
    let bytes = credential(&args).to_bytes().unwrap();
    fs::write(&state_of.join("secrets/provision.cred"), 0o600, &bytes).unwrap();
    awaken::tests::awaken(root.path()).unwrap();
    let uncut = boots_with(&credential(&args));
    let lines =
        |root: &tempfile::TempDir| state(root, "codex/audit.jsonl").split(|byte| *byte == b'\n').count();
    assert_eq!(lines(&root), lines(&uncut), "nothing is on record that did not happen");
}

#[test]
fn whom_the_law_has_revoked_since_stays_out() {
    let (_lost, snapshot, _) = lost();
    let dead = key_of(snapshot.text("peers/tablet.toml").unwrap()) + "\n";
    let (_folder, args) = takes_under(&dead, &snapshot);
    run(&args).unwrap();
    let root = machine();
    fs::write(&root.path().join(awaken::tests::LAW).join("revoked"), 0o644, dead.as_bytes()).unwrap();
    boots(&root, &credential(&args));
    let host = credential(&args).host.to_file();
    assert_eq!(state(&root, "secrets/tether.key"), host.as_bytes());
    assert!(!fs::exists(&root.path().join(STATE).join("codex/peers/tablet.toml")).unwrap());
}

#[test]
fn the_image_of_another_appliance_has_other_versions() {
    let (_lost, snapshot, _) = lost();
    let manifest =
        Manifest { appliance: name("home"), image: Some("7".parse().unwrap()), ..snapshot.manifest.clone() };
    let (_folder, args) = takes(&Snapshot::new(snapshot.parts, manifest));
    run(&args).unwrap();
    boots_with(&credential(&args));
}

#[test]
fn without_the_hosts_key_the_machine_gets_a_new_one() {
    let (lost, snapshot, _) = lost();
    let (_folder, args) = takes(&snapshot.without_identity());
    run(&args).unwrap();
    let root = boots_with(&credential(&args));
    assert_ne!(state(&root, "secrets/tether.key"), state(&lost, "secrets/tether.key"));
    assert_eq!(state(&root, "codex/peers/tablet.toml"), state(&lost, "codex/peers/tablet.toml"));
}

#[test]
fn what_the_machine_would_refuse_is_refused_before_the_disk_changes() {
    type Spoil = fn(&mut Snapshot);
    let cases: [(&str, &str, Spoil); 5] = [
        ("tablet has the public key of the host itself", "without the host's", |snapshot| {
            let text = snapshot.text("peers/tablet.toml").unwrap();
            let [own, key] = [snapshot.manifest.host_key.unwrap().to_string(), key_of(text)];
            let text = text.replace(&key, &own);
            let mut parts = snapshot.parts.clone();
            parts.insert("peers/tablet.toml".to_owned(), text.into_bytes().into());
            *snapshot = Snapshot::new(parts, snapshot.manifest.clone());
        }),
        ("is of body 99.0.0", "install 99.0.0", |snapshot| {
            let manifest = Manifest { body: "99.0.0".to_owned(), ..snapshot.manifest.clone() };
            *snapshot = Snapshot::new(snapshot.parts.clone(), manifest);
        }),
        ("is of body 2 of lychd", "rebirth stage", |snapshot| {
            let image = Some("2".parse().unwrap());
            *snapshot =
                Snapshot::new(snapshot.parts.clone(), Manifest { image, ..snapshot.manifest.clone() });
        }),
        ("neither here nor in the snapshot", "that holds it", |snapshot| {
            let mut parts = snapshot.parts.clone();
            parts.remove("secrets/peers/tablet.1.psk");
            *snapshot = Snapshot::new(parts, snapshot.manifest.clone());
        }),
        ("do not fit the law", "another snapshot", |snapshot| {
            let mut parts = snapshot.parts.clone();
            let bond = parts.get_mut("peers/tablet.toml").unwrap();
            let text = String::from_utf8(bond.to_vec()).unwrap().replace("10.88.16.9", "10.1.2.3");
            *bond = text.into_bytes().into();
            *snapshot = Snapshot::new(parts, snapshot.manifest.clone());
        }),
    ];
    let (_lost, whole, _) = lost();
    for (why, remedy, spoil) in cases {
        let mut snapshot = whole.clone();
        spoil(&mut snapshot);
        let (folder, args) = takes(&snapshot);
        let disk = folder.path().join("lychd.raw");
        let before = fs::read(&disk).unwrap();
        let told = run(&args).unwrap_err().to_string();
        assert!(told.contains(why) && told.contains(remedy), "{why}: {told}");
        assert!(fs::read(&disk).unwrap() == before, "{why}");
    }
    let (folder, mut args) = takes(&whole);
    args.identity = Some(folder.path().join("other.txt"));
    let other = age::x25519::Identity::generate();
    fs::write(&folder.path().join("other.txt"), 0o600, other.to_string().expose_secret().as_bytes()).unwrap();
    let told = run(&args).unwrap_err().to_string();
    assert!(told.contains("key"), "{told}");
}

#[test]
fn a_machine_refuses_one_that_it_cannot_put_back_and_wipes_it() {
    let (_lost, snapshot, _) = lost();
    let mut credential = first_bond();
    credential.bonds.clear();
    let mut archived = archive::pack(&snapshot.without_identity()).unwrap().to_vec();
    let middle = archived.len() / 2;
    archived[middle] ^= 1;
    credential.snapshot = Some(Zeroizing::new(archived));
    let root = boots_with(&credential);
    let (_, codex) = load(&Place::appliance(root.path())).unwrap();
    assert!(codex.peers.is_empty());
    assert_ne!(state(&root, "secrets/tether.key"), credential.host.to_file().as_bytes());
    assert!(!fs::exists(&root.path().join(STATE).join("secrets/provision.cred")).unwrap());
}
