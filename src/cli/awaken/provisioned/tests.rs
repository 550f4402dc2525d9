use std::os::unix::fs::PermissionsExt as _;

use super::super::tests::{LAW, STATE, machine};
use super::super::{Args, run};
use super::*;
use crate::cli::provision::credential::tests::credential;
use crate::codex::key::SharedKey;

/// A machine that has not booted yet, with a credential on its ESP.
fn provisioned(credential: &Credential) -> tempfile::TempDir {
    let root = machine();
    put(root.path(), &credential.to_bytes().unwrap());
    root
}

fn put(root: &Path, bytes: &[u8]) {
    fs::create_dir_all(root.join(CREDENTIAL).parent().unwrap()).unwrap();
    fs::write(&root.join(CREDENTIAL), 0o755, bytes).unwrap();
}

fn awaken(root: &Path) -> Result<(), Failure> {
    run(&Args { root: root.to_owned() })
}

fn state(root: &Path, path: &str) -> Vec<u8> {
    fs::read(&root.join(STATE).join(path)).unwrap()
}

/// What a takeover ends with.
fn assert_taken(root: &Path, credential: &Credential) {
    let (name, bond) = credential.bonds.first_key_value().unwrap();
    assert_eq!(state(root, "secrets/tether.key"), credential.host.to_file().as_bytes());
    assert_eq!(state(root, &format!("codex/peers/{name}.toml")), bond.file.as_bytes());
    let shared = root.join(STATE).join(format!("secrets/peers/{name}.1.psk"));
    let text = fs::read(&shared).unwrap();
    assert!(SharedKey::parse(&text).ok() == bond.preshared);
    for secret in
        [shared, root.join(STATE).join("secrets/tether.key"), root.join(STATE).join("secrets/recovery")]
    {
        assert_eq!(std::fs::metadata(secret).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    assert_eq!(state(root, "secrets/recovery"), format!("{}\n", credential.recovery).as_bytes());
    assert!(!fs::exists(&root.join(CREDENTIAL)).unwrap());
    assert!(!fs::exists(&root.join(STATE).join("secrets").join(JOURNAL)).unwrap());
    let log = String::from_utf8(state(root, "codex/audit.jsonl")).unwrap();
    assert!(
        log.lines().count() == 1 && log.contains(&Sha256Digest::of(bond.file.as_bytes()).to_string()),
        "{log}"
    );
}

#[test]
fn a_first_boot_takes_identity_bonds_and_keys_over_and_wipes_the_credential() {
    let credential = credential();
    let root = provisioned(&credential);
    awaken(root.path()).unwrap();
    assert_taken(root.path(), &credential);
    // The law's seeds are bonded too.
    assert!(fs::exists(&root.path().join(STATE).join("codex/peers/phone.toml")).unwrap());
}

#[test]
fn a_first_boot_takes_over_what_services_are_told_in_secret() {
    let mut credential = credential();
    credential.secrets.insert("token".parse().unwrap(), b"s3cret\n".to_vec().into());
    let root = provisioned(&credential);
    let service = root.path().join(LAW).join("services/web.toml");
    fs::create_dir_all(service.parent().unwrap()).unwrap();
    let text = b"description = \"Web\"\nrootfs = \"stand-in\"\nsecrets = [\"token\"]\n";
    fs::write(&service, 0o644, text).unwrap();
    awaken(root.path()).unwrap();
    assert_taken(root.path(), &credential);
    assert_eq!(state(root.path(), "secrets/token"), b"s3cret\n");
    let mode = std::fs::metadata(root.path().join(STATE).join("secrets/token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_machine_with_an_identity_refuses_and_wipes() {
    let root = machine();
    awaken(root.path()).unwrap();
    let key = state(root.path(), "secrets/tether.key");
    put(root.path(), &credential().to_bytes().unwrap());
    awaken(root.path()).unwrap();
    assert_eq!(state(root.path(), "secrets/tether.key"), key);
    assert!(!fs::exists(&root.path().join(CREDENTIAL)).unwrap());
    assert!(!fs::exists(&root.path().join(STATE).join("codex/peers/tablet.toml")).unwrap());
}

#[test]
fn what_cannot_be_used_is_told_and_wiped_and_nothing_of_it_is_taken() {
    let whole = credential().to_bytes().unwrap();
    let altered = |change: &dyn Fn(&mut Credential)| {
        let mut credential = credential();
        change(&mut credential);
        credential.to_bytes().unwrap().to_vec()
    };
    let edit = |credential: &mut Credential, from: &str, to: &str| {
        let bond = credential.bonds.values_mut().next().unwrap();
        bond.file = bond.file.replace(from, to);
    };
    let cases: [(&str, Vec<u8>); 9] = [
        ("it is damaged", whole[..whole.len() - 1].to_vec()),
        ("not a credential", b"x".to_vec()),
        ("it is too long", vec![0; usize::try_from(LIMIT).unwrap() + 1]),
        ("it is for other", altered(&|credential| credential.appliance = "other".parse().unwrap())),
        (
            "names the secret `token`",
            altered(&|credential| {
                drop(credential.secrets.insert("token".parse().unwrap(), Vec::new().into()));
            }),
        ),
        ("do not agree", altered(&|credential| edit(credential, "10.88.16.9", "10.88.16.1"))),
        ("preshared key", altered(&|credential| edit(credential, "preshared = true", ""))),
        (
            "not a first bond",
            altered(&|credential| edit(credential, "preshared", "generation = 2\npreshared")),
        ),
        (
            "bonded by the law",
            altered(&|credential| {
                let bond = credential.bonds.pop_first().unwrap().1;
                credential.bonds.insert("phone".parse().unwrap(), bond);
            }),
        ),
    ];
    for (why, bytes) in cases {
        let root = machine();
        put(root.path(), &bytes);
        let [law, bonds, secrets] =
            [LAW, &format!("{STATE}/codex"), &format!("{STATE}/secrets")].map(|path| root.path().join(path));
        fs::create_dir_all(&secrets).unwrap();
        let places = Places { root: root.path(), law: &law, bonds: &bonds, secrets: &secrets };
        let told = take_over(&places, &|_| panic!("nothing is to be seeded")).unwrap();
        assert!(told.len() == 1 && told[0].contains(why), "{why}: {told:?}");
        assert!(fs::list(&secrets).unwrap().is_empty(), "{why}");
        assert!(!fs::exists(&root.path().join(CREDENTIAL)).unwrap(), "{why}");
        // It goes on with an identity of its own.
        awaken(root.path()).unwrap();
        assert!(fs::exists(&secrets.join("tether.key")).unwrap());
    }
}

#[test]
fn a_takeover_that_was_cut_off_is_finished_by_the_next_boot() {
    let credential = credential();
    let bytes = credential.to_bytes().unwrap();
    let (name, bond) = credential.bonds.first_key_value().unwrap();
    // What is there already when the power fails, one more step each time.
    for steps in 0..5 {
        let root = if steps == 0 { provisioned(&credential) } else { machine() };
        let state = root.path().join(STATE);
        fs::create_dir_all(&state.join("secrets/peers")).unwrap();
        fs::write(&state.join("secrets").join(JOURNAL), 0o600, &bytes).unwrap();
        if steps > 1 {
            fs::create_dir_all(&state.join("codex/.peers.new")).unwrap();
        }
        if steps > 2 {
            fs::create_dir_all(&state.join("codex/peers")).unwrap();
            for seed in fs::list(&root.path().join(LAW).join("peers")).unwrap() {
                let copy = state.join("codex/peers").join(seed.file_name().unwrap());
                fs::write(&copy, 0o644, &fs::read(&seed).unwrap()).unwrap();
            }
        }
        if steps > 3 {
            fs::write(&state.join(format!("codex/peers/{name}.toml")), 0o644, bond.file.as_bytes()).unwrap();
        }
        awaken(root.path()).unwrap();
        assert_taken(root.path(), &credential);
    }
}

#[test]
fn what_was_revoked_since_does_not_come_back() {
    let credential = credential();
    let root = provisioned(&credential);
    awaken(root.path()).unwrap();
    let bond = root.path().join(STATE).join("codex/peers/tablet.toml");
    let tombstone = [&fs::read(&bond).unwrap()[..], b"state = \"revoked\"\n"].concat();
    fs::write(&bond, 0o644, &tombstone).unwrap();
    let bytes = credential.to_bytes().unwrap();
    // The credential could not be wiped, or the journal not be removed.
    put(root.path(), &bytes);
    fs::write(&root.path().join(STATE).join("secrets").join(JOURNAL), 0o600, &bytes).unwrap();
    awaken(root.path()).unwrap();
    assert_eq!(fs::read(&bond).unwrap(), tombstone);
    assert!(!fs::exists(&root.path().join(CREDENTIAL)).unwrap());
}

#[test]
fn a_machine_that_cannot_read_its_esp_makes_no_identity() {
    let root = machine();
    // A folder in the file's place cannot be read as one.
    fs::create_dir_all(&root.path().join(CREDENTIAL)).unwrap();
    let failure = awaken(root.path()).unwrap_err();
    assert_eq!(failure.kind, Kind::Io);
    assert!(failure.to_string().contains("restart the machine"), "{failure}");
    assert!(!fs::exists(&root.path().join(STATE).join("secrets/tether.key")).unwrap());
}
