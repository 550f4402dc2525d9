//! Snapshots over the tether: the program on a device asks, the agent passes on, and the machine's own programs answer and
//! carry out.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use age::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sepulcher::snapshot::{Snapshot, archive, seal};

use crate::gateway::{Device, Gateway, SEPULCHER};
use crate::lab::{can_run, scratch, until};
use crate::updates;

/// A sealed machine whose bonds are the gateway's, and what its service manager does: a program for each question, and
/// another one for the wishes that it may have kept.
fn host(root: &Path, gateway: &Gateway) {
    updates::host(root, gateway);
    let state = root.join("var/lib/sepulcher");
    fs::remove_dir_all(state.join("codex")).unwrap();
    symlink(gateway.folder.join("bonds"), state.join("codex")).unwrap();
    fs::create_dir_all(state.join("secrets")).unwrap();
    fs::create_dir_all(state.join("rebirth")).unwrap();
    fs::create_dir_all(state.join("intents")).unwrap();
    fs::copy(gateway.folder.join("tether.key"), state.join("secrets/tether.key")).unwrap();
    let control = UnixListener::bind(gateway.folder.join("control.sock")).unwrap();
    let root = root.to_owned();
    thread::spawn(move || {
        for stream in control.incoming() {
            let question = OwnedFd::from(stream.unwrap());
            let answer = question.try_clone().unwrap();
            let program = |verb| {
                let mut command = Command::new(SEPULCHER);
                command.arg(verb).arg("--root").arg(&root);
                command
            };
            program("control").stdin(question).stdout(answer).status().unwrap();
            program("reactor").status().unwrap();
        }
    });
}

/// What a verb says on a device.
fn ask(device: &Device, words: &[&str]) -> Result<String, String> {
    let mut command = device.machine.command(SEPULCHER);
    let output = command.args(["--host", "10.88.16.1"]).args(words).output().unwrap();
    let said = if output.status.success() { &output.stdout } else { &output.stderr };
    let said = String::from_utf8_lossy(said).trim_end().to_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// What an export holds.
fn opened(file: &Path, identity: &age::x25519::Identity) -> Snapshot {
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = identity.to_string();
    let opened = seal::open(fs::File::open(file).unwrap(), secret.expose_secret()).unwrap();
    archive::read(opened, &mut |_, _, _| Ok(())).unwrap()
}

#[test]
fn who_holds_the_grant_keeps_takes_away_and_puts_back_and_nobody_else_does() {
    if !can_run("who_holds_the_grant_keeps_takes_away_and_puts_back_and_nobody_else_does") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let [archivist, keeper] = [0, 1].map(|number| Device::new(&gateway, number));
    for (name, device, grant) in [("archivist", &archivist, "snapshots"), ("keeper", &keeper, "rebirth")] {
        gateway.bond(name, &device.file("").replace("oculus", grant));
    }
    let _running = gateway.running(1);
    host(&folder.join("root"), &gateway);

    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let file = folder.join("soul.age");
    let export = ["snapshot", "export", file.to_str().unwrap(), "--recipient", &recipient];
    let said = until("the archivist is answered", || ask(&archivist, &export).err());
    assert!(said.contains("there is no snapshot") && !file.exists(), "{said}");

    let name = ask(&archivist, &["snapshot", "create", "--bonds-only", "--with-identity", "--note", "kept"])
        .unwrap();
    let list = ask(&archivist, &["snapshot", "list"]).unwrap();
    assert!(list.contains(&name) && list.contains("kept") && list.contains(": done"), "{list}");
    let [show, verify] = ["show", "verify"].map(|verb| ["snapshot", verb, name.as_str()]);
    let shown = ask(&archivist, &show).unwrap();
    assert!(shown.contains("peers/keeper.toml") && shown.contains("private key  contained"), "{shown}");
    let digest = shown.lines().find(|line| line.starts_with("digest")).unwrap().rsplit(' ').next().unwrap();
    let said = ask(&archivist, &verify).unwrap();
    assert!(said.contains("is whole") && said.contains(digest), "{said}");
    ask(&archivist, &export).unwrap();
    let bonds = opened(&file, &identity);
    assert!(bonds.text("peers/keeper.toml").is_some() && bonds.text("secrets/tether.key").is_none());
    assert!(ask(&archivist, &export).unwrap_err().contains("is there already"));
    let whole = folder.join("whole.age");
    let words = ["snapshot", "export", whole.to_str().unwrap(), "--recipient", &recipient, "--with-identity"];
    ask(&archivist, &words).unwrap();
    let key = fs::read_to_string(folder.join("tether.key")).unwrap();
    assert_eq!(opened(&whole, &identity).text("secrets/tether.key"), Some(key.as_str()));

    let tablet = Device::new(&gateway, 2);
    gateway.bond("tablet", &tablet.file(""));
    let restore = ["snapshot", "restore", name.as_str()];
    let prune = ["snapshot", "prune", "--keep", "1"];
    for words in
        [&["snapshot", "list"][..], &export, &["snapshot", "create"], &show, &verify, &restore, &prune]
    {
        let said = ask(&keeper, words).unwrap_err();
        assert!(said.contains("grant `snapshots`") || said.contains("is there already"), "{said}");
    }
    let said = ask(&archivist, &["rebirth", "stage", "http://10.88.16.3/lab_2.tar"]).unwrap_err();
    assert!(said.contains("grant `rebirth`"), "{said}");
    assert!(folder.join("bonds/peers/tablet.toml").exists());
    let said = ask(&archivist, &restore).unwrap();
    assert!(said.contains("- peer tablet") && said.contains(&format!("{name} is restored")), "{said}");
    assert!(!folder.join("bonds/peers/tablet.toml").exists());
    let record = fs::read_to_string(folder.join("bonds/audit.jsonl")).unwrap();
    assert!(record.contains("\"peer archivist\"") && record.contains("\"restore\""), "{record}");

    let kept = folder.join(format!("root/var/lib/sepulcher/snapshots/{name}.tar.zst"));
    let mut bytes = fs::read(&kept).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&kept, bytes).unwrap();
    for words in [&show, &verify] {
        let said = ask(&archivist, words).unwrap_err();
        assert!(said.contains("no whole snapshot"), "{said}");
    }

    // What was there before the restore is the latest.
    assert_eq!(ask(&archivist, &prune).unwrap(), format!("- {name}"));
    let list = ask(&archivist, &["snapshot", "list"]).unwrap();
    assert!(!list.lines().any(|line| line.starts_with(&name)) && list.contains("before "), "{list}");
}

#[test]
fn the_longest_export_comes_through_whole() {
    if !can_run("the_longest_export_comes_through_whole") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let archivist = Device::new(&gateway, 0);
    gateway.bond("archivist", &archivist.file("").replace("oculus", "snapshots"));
    let _running = gateway.running(1);
    let longest = random(5 << 20);
    let answer = serde_json::json!({"ok": {"export": {
        "name": "2026-11-29T160000Z", "digest": "0".repeat(64), "identity": false, "without": ["traces"],
        "sealed": STANDARD.encode(&longest),
    }}});
    let control = UnixListener::bind(gateway.folder.join("control.sock")).unwrap();
    thread::spawn(move || {
        for stream in control.incoming() {
            let stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            writeln!(&stream, "{answer}").unwrap();
        }
    });
    let file = folder.join("soul.age");
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let export = ["snapshot", "export", file.to_str().unwrap(), "--recipient", &recipient];
    until("the export is there", || ask(&archivist, &export).ok());
    assert!(fs::read(&file).unwrap() == longest);
}

fn random(length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(length).read_to_end(&mut bytes).unwrap();
    bytes
}
