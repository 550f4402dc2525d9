use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use super::*;
use crate::codex::key::PublicKey;
use crate::peer::store::Who;
use crate::rebirth::inbox::{self, Ended, Why};
use crate::rebirth::intent::{Intent, Wish};
use crate::rebirth::machine::Machine;
use crate::rebirth::status;
use crate::sys::wireguard::SecretKey;

/// A machine after its first boot, nobody bonded.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let place = Place::appliance(root.path());
    let runtime = root.path().join("run/sepulcher");
    for folder in [&place.law, &place.bonds.join("peers"), &place.secrets, &runtime] {
        fs::create_dir_all(folder).unwrap();
    }
    let law = "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nendpoint = \"lychd.example\"\n";
    fs::write(&place.law.join("lychd.toml"), 0o644, law.as_bytes()).unwrap();
    let secret = SecretKey::generate();
    fs::write(&place.secrets.join("tether.key"), 0o600, secret.to_file().as_bytes()).unwrap();
    fs::write(&runtime.join("tether.pub"), 0o644, format!("{}\n", secret.public()).as_bytes()).unwrap();
    root
}

/// What the console says to that, from its start to the end of its terminal.
fn typed(root: &Path, keys: &str) -> String {
    let mut out = Vec::new();
    let mut console = Console {
        root,
        place: Place::appliance(root),
        input: Input::new(Cursor::new(keys.to_owned())),
        out: &mut out,
        tty: None,
        pause: |_| {},
        wrong: 0,
    };
    console.run().unwrap();
    String::from_utf8(out).unwrap()
}

fn line<'a>(said: &'a str, start: &str) -> &'a str {
    said.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("no `{start}` in {said}"))
}

fn bonds(root: &Path) -> Vec<String> {
    let paths = fs::list(&Place::appliance(root).bonds.join("peers")).unwrap();
    paths.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_menu_tells_what_a_first_bond_needs_in_80_columns() {
    let root = machine();
    let said = typed(root.path(), "\ns\nh\n");
    assert!(said.contains("lychd\n") && said.contains("nobody is bonded"), "{said}");
    line(&said, "  tether public key: ").parse::<PublicKey>().unwrap();
    assert!(said.contains(KEYS));
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
}

#[test]
fn the_first_device_is_bonded_and_shown_once_with_a_recovery_phrase() {
    let root = machine();
    let said = typed(root.path(), "b\n\n\n\n");
    assert_eq!(bonds(root.path()), ["phone"]);
    let private = line(&said, "PrivateKey = ");
    let public = SecretKey::parse(private.as_bytes()).unwrap().public();
    let place = Place::appliance(root.path());
    let (_, codex) = store::load(&place).unwrap();
    let phone = &codex.peers[&"phone".parse().unwrap()];
    assert_eq!(phone.public_key, public);
    assert!(phone.grants.every_service && phone.grants.doors.contains(&crate::codex::Door::Bonds));
    assert_eq!(line(&said, "Endpoint = "), "lychd.example:51820");
    line(&said, "PresharedKey = ");
    // The code is drawn, and all of it is cleared away behind it.
    assert!(said.contains('▀') && said.rfind(CLEAR).unwrap() > said.find(private).unwrap());
    let phrase = line(&said, "recovery phrase: ");
    let recovery = place.secrets.join(recovery::FILE);
    let digest: Sha256Digest =
        String::from_utf8(fs::read(&recovery).unwrap()).unwrap().trim().parse().unwrap();
    assert!(proof::is_phrase(phrase, digest));
    assert_eq!(std::fs::metadata(&recovery).unwrap().permissions().mode() & 0o7777, 0o600);
    let log = String::from_utf8(fs::read(&place.bonds.join("audit.jsonl")).unwrap()).unwrap();
    assert!(log.contains("\"console\"") && !log.contains(private), "{log}");
}

#[test]
fn a_second_device_takes_the_phrase() {
    let root = machine();
    let first = typed(root.path(), "b\n\n\n\n");
    let phrase = line(&first, "recovery phrase: ").to_lowercase();
    for wrong in ["", "wrong", &phrase[1..], &"0".repeat(25)] {
        let said = typed(root.path(), &format!("b\n{wrong}\n"));
        assert!(said.contains("recovery phrase: ") && !said.contains("PrivateKey"), "{said}");
    }
    assert_eq!(bonds(root.path()), ["phone"]);
    let said = typed(root.path(), &format!("b\n{phrase}\nlamp\noculus\nb\n{phrase}\n\n\n\n"));
    assert!(said.contains("oculus"), "a grant of a service that does not exist is refused: {said}");
    assert!(said.contains("PrivateKey = ") && !said.contains("\nrecovery phrase: 0"), "{said}");
    assert_eq!(bonds(root.path()), ["laptop", "phone"]);
}

#[test]
fn a_second_device_is_vouched_for_by_one_that_is_online() {
    let root = machine();
    typed(root.path(), "b\n\n\n\n");
    let door = root.path().join("run/sepulcher/agent/door.sock");
    fs::create_dir_all(door.parent().unwrap()).unwrap();
    let (_, codex) = store::load(&Place::appliance(root.path())).unwrap();
    let key = codex.peers.values().next().unwrap().public_key;
    let listener = UnixListener::bind(&door).unwrap();
    let body = format!(
        "{{\"schema\":1,\"interface\":\"wg0\",\"public_key\":null,\"now\":1000,\"peers\":[{{\"public_key\":\"{key}\",\
         \"endpoint\":null,\"last_handshake\":990,\"received\":1,\"sent\":1,\"denied\":0,\"held\":true}}]}}"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 1024]);
            assert!(stream.read(&mut request).unwrap() > 0);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    let said = typed(root.path(), "s\nb\n\n\n\n");
    assert!(said.contains("handshake 10 s ago") && said.contains("phone is online"), "{said}");
    assert_eq!(bonds(root.path()), ["laptop", "phone"]);
    let (_, codex) = store::load(&Place::appliance(root.path())).unwrap();
    assert!(codex.peers[&"laptop".parse().unwrap()].grants.doors.is_empty());
}

/// A machine with a phone, which became body 2; the phone's phrase.
fn reborn() -> (tempfile::TempDir, String) {
    let root = machine();
    let phrase = line(&typed(root.path(), "b\n\n\n\n"), "recovery phrase: ").to_owned();
    let status = serde_json::json!({"schema": 1, "name": "lychd", "running": "2", "health": null, "slots": [],
        "staged": null, "next": "nothing is pending", "rebirth": {"schema": 1, "version": "2", "digest": Sha256Digest::of(b""),
        "from": "1", "at": "2026-11-30T09:00:00Z", "snapshot": null, "tries": [], "outcome": null}});
    fs::write(&status::published(root.path()), 0o644, status.to_string().as_bytes()).unwrap();
    fs::create_dir_all(&root.path().join("var/lib/sepulcher/rebirth")).unwrap();
    fs::create_dir_all(&root.path().join("var/lib/sepulcher/intents")).unwrap();
    (root, phrase)
}

#[test]
fn the_way_back_takes_the_phrase_and_the_version_that_is_left() {
    let (root, phrase) = reborn();
    let root = root.path();
    let asked = || inbox::records(root).unwrap().len();
    let gone = || Why { reason: "error: body 1 is no longer on this machine".to_owned(), exit_code: 1 };
    for keys in ["r\n".to_owned(), "r\nwrong\n2\n".to_owned(), format!("r\n{phrase}\n1\n\n3\n")] {
        assert!(!typed(root, &keys).contains("restarts"), "{keys}");
    }
    assert_eq!(fs::list(&root.join("var/lib/sepulcher/intents")).unwrap(), [""; 0].map(PathBuf::from));
    for (result, says) in [
        (Ok(None), "The machine restarts as the body before."),
        (Err(gone()), "body 1 is no longer on this machine"),
    ] {
        let before = asked();
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut act = |intent: &Intent| {
                    assert_eq!(intent.who, Who::Console);
                    assert_eq!(intent.wish, Wish::Rollback { leave: "2".parse().unwrap() });
                    Ended { result: result.clone(), restart: false }
                };
                while asked() < before + 2 {
                    inbox::take(&Machine::new(root), &mut act).unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            typed(root, &format!("r\n{phrase}\n1\n2\n"))
        });
        assert!(said.contains("body 2 runs: type that") && said.contains(says), "{said}");
    }
}

#[test]
fn a_machine_without_bodies_has_no_way_back() {
    let said = typed(machine().path(), "r\n");
    assert!(said.contains("not looked at its bodies yet, or has none"), "{said}");
}

#[test]
fn going_back_and_nonsense_change_nothing() {
    let root = machine();
    let nonsense = [
        "b\n",
        "b\nPhone\nPhone\nPhone\n",
        "b\nphone\nnobody\n",
        "q\nexit\n!sh\n\x03\x1a\x1c\n",
        "b\n\0\n\u{1b}[2J\n",
    ];
    for keys in nonsense {
        let said = typed(root.path(), keys);
        assert!(!said.contains("PrivateKey"), "{keys:?}: {said}");
    }
    assert!(bonds(root.path()).is_empty());
}

#[test]
fn a_broken_codex_is_told_and_the_menu_stays() {
    let root = machine();
    let law = Place::appliance(root.path()).law;
    fs::write(&law.join("lychd.toml"), 0o644, b"\x1b[2J").unwrap();
    let said = typed(root.path(), "b\ns\n");
    assert!(said.contains("the Codex holds") && !said.contains("\x1b["), "{said}");
    assert!(said.contains("b bond a device"));
}

#[test]
fn beside_a_broken_bond_nobody_is_the_first_and_others_can_be_bonded() {
    let root = machine();
    let peers = Place::appliance(root.path()).bonds.join("peers");
    fs::write(&peers.join("phone.toml"), 0o644, b"\x1b[2J").unwrap();
    let said = typed(root.path(), "b\ns\n");
    assert!(said.contains("A bonded device must be online") && !said.contains("PrivateKey"), "{said}");
    assert!(said.contains("peers/phone.toml is broken: ") && !said.contains("\x1b["), "{said}");
    fs::remove_file(&peers.join("phone.toml")).unwrap();
    let first = typed(root.path(), "b\n\n\n\n");
    let phrase = line(&first, "recovery phrase: ").to_lowercase();
    let text = String::from_utf8(fs::read(&peers.join("phone.toml")).unwrap()).unwrap();
    fs::write(&peers.join("phone.toml"), 0o644, (text.clone() + "slip\n").as_bytes()).unwrap();
    let said = typed(root.path(), &format!("b\n{phrase}\n\n\n\n"));
    assert!(said.contains("1 of which the file is broken") && said.contains("PrivateKey = "), "{said}");
    assert_eq!(bonds(root.path()), ["laptop", "phone"]);
    // Its address is still its own.
    fs::write(&peers.join("phone.toml"), 0o644, text.as_bytes()).unwrap();
    let (_, codex) = store::load(&Place::appliance(root.path())).unwrap();
    assert_eq!(codex.peers.len(), 2);
}
