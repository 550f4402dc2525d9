use serde::de::DeserializeOwned;

use super::*;
use crate::codex::key::PublicKey;
use crate::peer::{self, Kind as PeerKind, Request};
use crate::sys::fs;
use crate::sys::wireguard::SecretKey;

const LAW: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n";

/// A machine with a peer that may manage bonds, and others that may not.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let place = Place::appliance(root.path());
    fs::create_dir_all(&place.law).unwrap();
    fs::create_dir_all(&place.bonds.join("peers")).unwrap();
    fs::write(&place.law.join("lychd.toml"), 0o644, LAW.as_bytes()).unwrap();
    for (at, (name, more)) in [
        ("laptop", "grants = [\"bonds\"]"),
        ("phone", "grants = [\"*\"]"),
        ("keeper", "grants = [\"rebirth\"]"),
        ("archivist", "grants = [\"snapshots\"]"),
        ("lost", "grants = [\"bonds\"]\nstate = \"revoked\""),
        ("guest", "grants = [\"bonds\"]\nexpires = 2001-01-01T00:00:00Z"),
    ]
    .iter()
    .enumerate()
    {
        let key = key();
        let text = format!("public-key = \"{key}\"\naddress = \"10.88.16.{}\"\n{more}\n", at + 2);
        fs::write(&place.bonds.join(format!("peers/{name}.toml")), 0o644, text.as_bytes()).unwrap();
    }
    root
}

/// Has a sealed image run there.
fn seal(root: &Path) {
    fs::create_dir_all(&root.join("usr/lib")).unwrap();
    fs::create_dir_all(&root.join("proc")).unwrap();
    fs::write(&root.join("usr/lib/os-release"), 0o644, b"IMAGE_ID=lychd\nIMAGE_VERSION=1\n").unwrap();
    let cmdline = format!("roothash={:064}\n", 0);
    fs::write(&root.join("proc/cmdline"), 0o644, cmdline.as_bytes()).unwrap();
}

fn key() -> PublicKey {
    SecretKey::generate().public()
}

fn bond(name: &str) -> Request {
    Request::Bond(peer::Bond {
        name: name.parse().unwrap(),
        public_key: key(),
        address: None,
        address6: None,
        kind: PeerKind::Device,
        grants: vec!["*".to_owned()],
        expires: None,
        preshared: true,
        dial: None,
        client: false,
    })
}

/// What is answered to the request of a peer, as it goes over the wire.
fn ask(root: &Path, peer: &str, body: &[u8]) -> Answer<Replies> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let line = serde_json::json!({ "schema": 1, "peer": peer, "request": body }).to_string();
    let answer = answer(root, line.as_bytes()).to_line().unwrap();
    assert_eq!(answer.iter().position(|byte| *byte == b'\n'), Some(answer.len() - 1));
    serde_json::from_slice(&answer).unwrap()
}

fn refused<T: std::fmt::Debug>(answer: Answer<T>) -> String {
    match answer {
        Answer::Error(told) => told.message,
        Answer::Ok(replies) => panic!("{replies:?}"),
    }
}

fn granted(answer: Answer<Replies>) -> Vec<crate::peer::store::Reply> {
    match answer {
        Answer::Ok(replies) => replies.into(),
        Answer::Error(told) => panic!("{told:?}"),
    }
}

fn has(root: &Path, name: &str) -> bool {
    Place::appliance(root).bonds.join(format!("peers/{name}.toml")).exists()
}

#[test]
fn a_peer_with_the_grant_bonds_and_is_on_record() {
    let root = machine();
    let body = wire::body(&[bond("tablet")], false).unwrap();
    let replies = granted(ask(root.path(), "laptop", &body));
    assert_eq!(replies[0].peer.as_ref().unwrap().name.as_str(), "tablet");
    assert!(has(root.path(), "tablet"));
    let log = fs::read(&Place::appliance(root.path()).bonds.join("audit.jsonl")).unwrap();
    assert!(String::from_utf8(log).unwrap().contains("peer laptop"));
}

#[test]
fn nobody_else_does_whatever_the_agent_says() {
    let root = machine();
    for peer in ["phone", "lost", "guest", "nobody"] {
        let body = wire::body(&[bond("tablet")], false).unwrap();
        assert!(refused(ask(root.path(), peer, &body)).contains("does not hold the grant `bonds`"), "{peer}");
    }
    assert!(!has(root.path(), "tablet"));
}

#[test]
fn several_requests_are_granted_together_and_a_dry_run_changes_nothing() {
    let root = machine();
    let body = wire::body(&[bond("tablet"), bond("watch")], true).unwrap();
    let replies = granted(ask(root.path(), "laptop", &body));
    assert!(replies.len() == 2 && !has(root.path(), "tablet"));
    let body = wire::body(&[bond("tablet"), bond("phone")], false).unwrap();
    assert!(refused(ask(root.path(), "laptop", &body)).contains("`phone` is taken"));
    assert!(!has(root.path(), "tablet"));
}

#[test]
fn a_list_is_told_and_a_batch_within_a_batch_is_not_read() {
    let root = machine();
    let list = Request::List(peer::List {});
    let replies =
        granted(ask(root.path(), "laptop", &wire::body(std::slice::from_ref(&list), true).unwrap()));
    assert_eq!(replies[0].peers.as_ref().unwrap().len(), 6);
    let batch = |requests| Request::Batch(peer::Batch { requests, dry_run: false });
    let nested = serde_json::to_vec(&batch(vec![batch(vec![bond("tablet")])])).unwrap();
    assert!(refused(ask(root.path(), "laptop", &nested)).contains("within a batch"));
    assert!(!has(root.path(), "tablet"));
}

#[test]
fn what_is_not_a_question_is_refused_with_a_reason() {
    let root = machine();
    let long = vec![b' '; usize::try_from(wire::QUESTION).unwrap() + 1];
    let cases: [(&[u8], &str); 6] = [
        (b"", "was not understood"),
        (b"\xff\xfe", "was not understood"),
        (b"{\"schema\":2,\"peer\":\"laptop\",\"request\":{\"verb\":\"list\"}}", "schema 2"),
        (b"{\"schema\":1,\"peer\":\"../x\",\"request\":{\"verb\":\"list\"}}", "was not understood"),
        (b"{\"schema\":1,\"peer\":\"laptop\",\"request\":{\"verb\":\"format\"}}", "was not understood"),
        (&long, "longer than"),
    ];
    for (line, why) in cases {
        assert!(refused(answer(root.path(), line)).contains(why), "{:?}", String::from_utf8_lossy(line));
    }
}

#[test]
fn a_failure_comes_over_the_wire_as_it_is_without_driving_a_terminal() {
    let failure = Failure::new(Kind::Unavailable, "no\x1b[2J").hint("wait").report("a\nb");
    let told: wire::Told = (&failure).into();
    let back = Failure::from(told);
    assert_eq!(back.kind, Kind::Unavailable);
    assert_eq!(back.to_string(), "a\nb\n\nerror: no␛[2J\nhint: wait\n");
}

/// Whether `work` is carried out after `meanwhile`, which happens while it waits for the lock.
fn behind_the_lock<T: Send>(place: &Place, meanwhile: impl FnOnce(), work: impl FnOnce() -> T + Send) -> T {
    use crate::sys::journal::Lock;
    let lock = Lock::acquire(&place.bonds.join(".lock"), std::time::Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        // Long enough to come to the lock; where it is not, the test only proves less.
        std::thread::sleep(std::time::Duration::from_millis(200));
        meanwhile();
        drop(lock);
        working.join().unwrap()
    })
}

#[test]
fn who_is_revoked_while_its_request_waits_changes_nothing() {
    let root = machine();
    let place = Place::appliance(root.path());
    let file = place.bonds.join("peers/laptop.toml");
    let tombstone = || {
        let text = String::from_utf8(fs::read(&file).unwrap()).unwrap() + "state = \"revoked\"\n";
        fs::write_atomic(&file, 0o644, text.as_bytes()).unwrap();
    };
    let body = wire::body(&[bond("tablet")], false).unwrap();
    let said = refused(behind_the_lock(&place, tombstone, || ask(root.path(), "laptop", &body)));
    assert!(said.contains("does not hold the grant `bonds`"), "{said}");
    assert!(!has(root.path(), "tablet"));
}

#[test]
fn what_was_proven_before_the_lock_is_judged_again_behind_it() {
    let root = machine();
    let place = Place::appliance(root.path());
    let only_while_phone_is_there = |bonds: &store::Bonds, _| {
        let phone = bonds.codex.peers.contains_key(&"phone".parse().unwrap());
        let refused = crate::peer::Refused { message: "gone".to_owned(), hint: None, report: None };
        if phone { Ok(()) } else { Err(refused) }
    };
    let (who, request) = (Who::Console, bond("tablet"));
    let remove = || fs::remove_file(&place.bonds.join("peers/phone.toml")).unwrap();
    let work = || {
        let allowed = |bonds: &store::Bonds, now| only_while_phone_is_there(bonds, now);
        store::execute_if(&place, &who, &request, &allowed).map(|_| ())
    };
    assert!(behind_the_lock(&place, remove, work).is_err());
    assert!(!has(root.path(), "tablet"));
}

#[test]
fn a_broken_bond_keeps_nobody_from_being_cut_off() {
    let root = machine();
    let place = Place::appliance(root.path());
    fs::write(&place.bonds.join("peers/broken.toml"), 0o644, b"nonsense").unwrap();
    let request = |words: &[(&str, &str)]| {
        let body: serde_json::Map<_, _> =
            words.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        serde_json::to_vec(&body).unwrap()
    };
    let said = refused(ask(root.path(), "laptop", &wire::body(&[bond("tablet")], false).unwrap()));
    assert!(said.contains("peers/broken.toml is broken"), "{said}");
    granted(ask(root.path(), "laptop", &request(&[("verb", "revoke"), ("name", "phone")])));
    let phone = fs::read(&place.bonds.join("peers/phone.toml")).unwrap();
    assert!(String::from_utf8(phone).unwrap().contains("state = \"revoked\""));
    assert_eq!(fs::read(&place.bonds.join("peers/broken.toml")).unwrap(), b"nonsense");
    // It is told, and ended over the tether too.
    let list = granted(ask(root.path(), "laptop", &request(&[("verb", "list")])));
    assert_eq!(list[0].broken[0].file, "peers/broken.toml");
    granted(ask(root.path(), "laptop", &request(&[("verb", "revoke"), ("name", "broken")])));
    granted(ask(root.path(), "laptop", &wire::body(&[bond("tablet")], false).unwrap()));
}

/// What is answered to a question about bodies.
fn ask_of_bodies(root: &Path, peer: &str, question: &str) -> Result<rebirth::Told, Failure> {
    ask_about("rebirth", root, peer, question)
}

/// What is answered to one about snapshots.
fn ask_of_snapshots(root: &Path, peer: &str, question: &str) -> Result<snapshots::Told, Failure> {
    ask_about("snapshots", root, peer, question)
}

fn ask_about<T: DeserializeOwned>(
    about: &str,
    root: &Path,
    peer: &str,
    question: &str,
) -> Result<T, Failure> {
    let line = format!(r#"{{"schema":1,"peer":"{peer}","{about}":{question}}}"#);
    match serde_json::from_slice(&answer(root, line.as_bytes()).to_line().unwrap()).unwrap() {
        Answer::Ok(told) => Ok(told),
        Answer::Error(told) => Err(told.into()),
    }
}

const STAGE: &str = r#"{"wish":{"nonce":"0123456789abcdef","wish":{"stage":{"source":"https://a/2.tar"}}}}"#;

#[test]
fn a_wish_waits_as_a_file_and_only_once_and_only_of_who_may() {
    let machine = machine();
    let root = machine.path();
    fs::create_dir_all(&root.join("var/lib/sepulcher/rebirth")).unwrap();
    let intents = root.join("var/lib/sepulcher/intents");
    let failure = ask_of_bodies(root, "keeper", STAGE).unwrap_err();
    assert!(failure.to_string().contains("no sealed image") && !fs::exists(&intents).unwrap(), "{failure}");
    seal(root);
    for peer in ["phone", "laptop", "guest", "lost", "nobody"] {
        let failure = ask_of_bodies(root, peer, STAGE).unwrap_err();
        assert!(failure.to_string().contains("the grant `rebirth`"), "{failure}");
        assert!(!fs::exists(&intents).unwrap());
    }
    let told = ask_of_bodies(root, "keeper", STAGE).unwrap();
    assert!(matches!(told, rebirth::Told::Accepted(file) if file == "0123456789abcdef.json"));
    assert_eq!(fs::list(&intents).unwrap(), [intents.join("0123456789abcdef.json")]);
    assert!(ask_of_bodies(root, "keeper", STAGE).is_err());
    let local = STAGE.replace("https://a/2.tar", "/etc/passwd").replace("abcdef", "fedcba");
    assert!(ask_of_bodies(root, "keeper", &local).unwrap_err().to_string().contains("not a path"));
    assert_eq!(fs::list(&intents).unwrap().len(), 1);
    let failure = ask_of_bodies(root, "keeper", r#"{"status":{}}"#).unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure}");
}

#[test]
fn a_peer_is_told_what_became_of_its_own_wishes_alone() {
    let machine = machine();
    let root = machine.path();
    seal(root);
    let status = serde_json::json!({
        "schema": 1, "name": "lychd", "running": "1", "health": null, "slots": [], "staged": null,
        "rebirth": null, "next": "nothing is pending",
    });
    let record = |peer: &str| {
        let (at, file) = ("2026-11-29T16:00:00Z", format!("{}.json", "0".repeat(16)));
        let reason = format!("why {peer} waits in vain");
        serde_json::json!({ "at": at, "file": file, "peer": peer, "state": "failed", "reason": reason })
    };
    let records: String = ["keeper", "archivist"].map(|peer| record(peer).to_string() + "\n").concat();
    for (file, text) in [
        ("run/sepulcher/rebirth.json", status.to_string()),
        ("var/lib/sepulcher/rebirth/intents.jsonl", records),
    ] {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, 0o600, text.as_bytes()).unwrap();
    }
    let rebirth::Told::Status(status) = ask_of_bodies(root, "keeper", r#"{"status":{}}"#).unwrap() else {
        panic!("another answer")
    };
    let snapshots::Told::List(stand) = ask_of_snapshots(root, "archivist", r#"{"list":{}}"#).unwrap() else {
        panic!("another answer")
    };
    for (asked, peer) in [(&status.asked, "keeper"), (&stand.asked, "archivist")] {
        let reasons: Vec<_> = asked.iter().filter_map(|record| record.reason.as_deref()).collect();
        assert_eq!(reasons, [format!("why {peer} waits in vain")]);
    }
}

#[test]
fn what_a_snapshot_holds_is_told_to_who_may_and_a_damaged_one_is_no_answer() {
    let machine = machine();
    let root = machine.path();
    fs::create_dir_all(&root.join("var/lib/sepulcher/secrets")).unwrap();
    let place = Place::appliance(root);
    let order = crate::snapshot::wish::Create { bonds_only: true, ..Default::default() };
    let host = crate::snapshot::store::Host::new(&|_| {});
    let name = crate::snapshot::store::create(&place, &host, order.order(false)).unwrap().0.unwrap();
    let shown = |peer: &str| ask_of_snapshots(root, peer, r#"{"show":{}}"#);
    let snapshots::Told::Show(told) = shown("archivist").unwrap() else { panic!("another answer") };
    assert_eq!(told.name, name);
    assert!(told.manifest.parts.iter().any(|part| part.path == "peers/keeper.toml"), "{:?}", told.manifest);
    assert!(shown("keeper").unwrap_err().to_string().contains("the grant `snapshots`"));
    for snapshot in ["../secrets/tether.key", "2001-01-01T000000Z"] {
        let question = format!(r#"{{"show":{{"snapshot":"{snapshot}"}}}}"#);
        let failure = ask_of_snapshots(root, "archivist", &question).unwrap_err();
        assert!(failure.to_string().contains("snapshot list"), "{failure}");
    }
    let file = root.join(format!("var/lib/sepulcher/snapshots/{name}.tar.zst"));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write_atomic(&file, 0o600, &bytes).unwrap();
    assert!(shown("archivist").unwrap_err().to_string().contains("no whole snapshot"));
}

/// A snapshot that a peer is handed, opened with its identity.
fn opened(root: &Path, more: &str) -> Result<crate::snapshot::Snapshot, Failure> {
    use age::secrecy::ExposeSecret as _;
    use base64::Engine as _;
    let identity = age::x25519::Identity::generate();
    let question = format!(r#"{{"export":{{"recipients":["{}"]{more}}}}}"#, identity.to_public());
    let snapshots::Told::Export(exported) = ask_of_snapshots(root, "archivist", &question)? else {
        panic!("another answer")
    };
    let sealed = base64::engine::general_purpose::STANDARD.decode(exported.sealed).unwrap();
    let secret = identity.to_string();
    let opened = crate::snapshot::seal::open(sealed.as_slice(), secret.expose_secret()).unwrap();
    let snapshot = crate::snapshot::archive::read(opened, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(exported.digest, crate::snapshot::store::digest(&snapshot.manifest));
    Ok(snapshot)
}

#[test]
fn a_snapshot_leaves_encrypted_for_who_may_alone() {
    use crate::snapshot::store::{Creation, Host, create};
    let machine = machine();
    let root = machine.path();
    let place = Place::appliance(root);
    let said = opened(root, "").unwrap_err().to_string();
    assert!(said.contains("there is no snapshot") && said.contains("hint: "), "{said}");
    fs::create_dir_all(&place.secrets).unwrap();
    let key = SecretKey::generate();
    fs::write(&place.secrets.join("tether.key"), 0o600, key.to_file().as_bytes()).unwrap();
    let kept = |identity| {
        let creation = Creation { identity, ..Creation::default() };
        create(&place, &Host::new(&|_| {}), creation).unwrap().0.unwrap()
    };
    let with_key = kept(true);
    let snapshot = opened(root, "").unwrap();
    assert!(snapshot.text("peers/laptop.toml").is_some() && !snapshot.manifest.identity);
    let snapshot = opened(root, r#","with-identity":true"#).unwrap();
    assert_eq!(snapshot.text("secrets/tether.key"), Some(key.to_file().as_str()));
    // The latest holds no key: the older one is named.
    let bare = kept(false);
    let said = opened(root, r#","with-identity":true"#).unwrap_err().to_string();
    assert!(said.contains("does not hold the host's private key"), "{said}");
    opened(root, &format!(r#","with-identity":true,"snapshot":"{with_key}""#)).unwrap();
    for name in ["2001-01-01T000000Z", "../bonds", ""] {
        assert!(opened(root, &format!(r#","snapshot":"{name}""#)).is_err(), "{name:?}");
    }
    let clear = ask_of_snapshots(root, "archivist", r#"{"export":{"recipients":[]}}"#).unwrap_err();
    assert!(clear.to_string().contains("for a recipient alone"), "{clear}");
    let snapshots::Told::List(all) = ask_of_snapshots(root, "archivist", r#"{"list":{}}"#).unwrap() else {
        panic!("another answer")
    };
    let all = all.snapshots;
    assert_eq!(all.iter().map(|listed| listed.name.as_str()).collect::<Vec<_>>(), [&with_key, &bare]);
    assert!(all[0].holds.as_ref().unwrap().identity && !all[1].holds.as_ref().unwrap().identity);
    for peer in ["phone", "laptop", "keeper", "guest", "lost", "nobody"] {
        for question in [r#"{"list":{}}"#, r#"{"export":{"recipients":[]}}"#] {
            let failure = ask_of_snapshots(root, peer, question).unwrap_err();
            assert!(failure.to_string().contains("the grant `snapshots`"), "{failure}");
        }
    }
}

#[test]
fn the_longest_export_fits_into_an_answer() {
    let longest = snapshots::LONGEST as u64;
    assert!(longest.div_ceil(3) * 4 + wire::QUESTION < wire::ANSWER);
    assert!(snapshots::fits("2027", snapshots::LONGEST).is_ok());
    let said = snapshots::fits("2027", snapshots::LONGEST + 1).unwrap_err().to_string();
    assert!(said.contains("go over the tether") && said.contains("hint: "), "{said}");
}

#[test]
fn a_wish_about_snapshots_waits_where_one_about_bodies_does_and_needs_its_own_grant() {
    let machine = machine();
    let root = machine.path();
    fs::create_dir_all(&root.join("var/lib/sepulcher/rebirth")).unwrap();
    let wish = |digit: char, wish: &str| {
        format!(r#"{{"wish":{{"nonce":"{}","wish":{wish}}}}}"#, digit.to_string().repeat(16))
    };
    let restore = wish('1', r#"{"restore-snapshot":{"with-volumes":true}}"#);
    // Where nobody carries wishes out, none is kept.
    let failure = ask_of_snapshots(root, "archivist", &restore).unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure}");
    seal(root);
    let told = ask_of_snapshots(root, "archivist", &restore).unwrap();
    assert!(matches!(told, snapshots::Told::Accepted(file) if file == "1111111111111111.json"));
    for peer in ["phone", "laptop", "keeper", "guest", "lost", "nobody"] {
        let create = wish('2', r#"{"create-snapshot":{}}"#);
        let failure = ask_of_snapshots(root, peer, &create).unwrap_err();
        assert!(failure.to_string().contains("the grant `snapshots`"), "{failure}");
        // Nor by the other way, for who holds that one's grant.
        let failure = ask_of_bodies(root, peer, &create).unwrap_err();
        assert!(failure.to_string().contains("does not hold the grant"), "{failure}");
    }
    let stage = wish('3', r#"{"stage":{"source":"https://a/2.tar"}}"#);
    let failure = ask_of_snapshots(root, "archivist", &stage).unwrap_err();
    assert!(failure.to_string().contains("the grant `rebirth`"), "{failure}");
    let intents = root.join("var/lib/sepulcher/intents");
    assert_eq!(fs::list(&intents).unwrap(), [intents.join("1111111111111111.json")]);
}
