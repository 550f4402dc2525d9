//! Changes of the bonds that are killed at every system call that writes, or that find no room: afterwards the bonds are
//! as before or as behind the change, never between, and the next command does what was left.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use sepulcher::codex::{Codex, Peer, PeerState};
use sepulcher::peer::audit::Log;
use sepulcher::sys::cmd::Command;
use sepulcher::tree::Sha256Digest;

use crate::cases::load;
use crate::judge::program;
use crate::peer::{KEY, OTHER, Site};
use crate::support::{copy, sepulcher};

/// System calls that write. A file that is opened to be made is empty until the next of these.
const WRITING: [&str; 11] = [
    "write",
    "fsync",
    "fchmod",
    "chmod",
    "rename",
    "unlink",
    "mkdir",
    "link",
    "linkat",
    "ftruncate",
    "fdatasync",
];
/// No change writes more often with one system call; a loop that never ends would be a defect of the test.
const MOST: usize = 60;

const PEER: &str = "wraith";

/// A Codex in which `wraith` is bonded, or not yet.
fn site(bonded: bool) -> Site {
    let site = Site::new();
    if bonded {
        site.run(&["peer", "bond", PEER, "--public-key", KEY, "--no-config"]);
    }
    site
}

fn peer(codex: &Codex) -> Option<&Peer> {
    codex.peer(&PEER.parse().unwrap())
}

/// Kills `words` at every writing system call, each time from the same state, and looks at what is left. `known` says
/// whether a peer is one of the two that may be found.
fn killed_everywhere(strace: &Command, before: &Site, words: &[&str], after: fn(&Peer) -> bool) {
    let start = load(&before.codex());
    let mut kills = 0;
    for call in WRITING {
        for nth in 1.. {
            assert!(nth < MOST, "{call} is called without end");
            let scratch = tempfile::Builder::new().prefix("sepulcher-killed-").tempdir().unwrap();
            let codex = scratch.path().join("codex");
            copy(&before.codex(), &codex);
            if !killed(strace, &codex, words, &format!("{call}:signal=SIGKILL:when={nth}")) {
                break;
            }
            kills += 1;
            let point = format!("{words:?} killed at {call} {nth}");
            let done = whole(&codex, &start, after, &point);
            healed(&codex, words, done, after, &point);
        }
    }
    // Fewer would mean that the tracer does not see the program's calls.
    assert!(kills >= 12, "{words:?} was killed at {kills} points only");
}

/// Runs the command below the tracer; whether it was killed. If not, it must have succeeded.
fn killed(strace: &Command, codex: &Path, words: &[&str], injection: &str) -> bool {
    let traced =
        strace.clone().args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("inject={injection}"));
    let traced = traced.arg(env!("CARGO_BIN_EXE_sepulcher")).args(words).arg("--codex").arg(codex);
    let run = traced.output().unwrap();
    let killed = run.status.signal() == Some(9) || run.status.code() == Some(128 + 9);
    assert!(killed || run.status.success(), "{injection}: {}", String::from_utf8_lossy(&run.stderr));
    killed
}

/// Asserts that the bonds are as before or behind the change; whether they are as behind it.
fn whole(folder: &Path, start: &Codex, after: fn(&Peer) -> bool, point: &str) -> bool {
    let codex = load(folder);
    let (old, new) = (peer(start), peer(&codex));
    let done = new.is_some_and(after);
    assert!(done || old == new, "{point}: {new:?} is neither before nor after");
    let others = |codex: &Codex| {
        let mut peers = codex.peers.clone();
        peers.remove(&PEER.parse().unwrap());
        peers
    };
    assert_eq!(others(&codex), others(start), "{point}: another bond changed");
    for file in needed(&codex) {
        let key = fs::read(folder.join("secrets").join(&file)).unwrap_or_default();
        assert!(sepulcher::codex::key::SharedKey::parse(&key).is_ok(), "{point}: {file} is no key");
    }
    log(folder, point);
    done
}

/// Preshared keys that the peer's handshakes need.
fn needed(codex: &Codex) -> BTreeSet<String> {
    let bonded = peer(codex).filter(|peer| peer.state == PeerState::Active && peer.preshared);
    bonded.map(|peer| format!("peers/{PEER}.{}.psk", peer.generation)).into_iter().collect()
}

fn log(folder: &Path, point: &str) -> Log {
    let bytes = fs::read(folder.join("audit.jsonl")).unwrap_or_default();
    Log::read(&bytes).unwrap_or_else(|broken| panic!("{point}: {broken}"))
}

/// Asserts that the next command does what was left, and that the killed one can be run again where it was not done.
fn healed(folder: &Path, words: &[&str], done: bool, after: fn(&Peer) -> bool, point: &str) {
    run(folder, &["peer", "grant", "phone", "metrics"], point);
    let codex = load(folder);
    for (name, peer) in &codex.peers {
        let dead = (peer.state == PeerState::Revoked).then_some(peer.public_key);
        for key in peer.replaced.iter().copied().chain(dead) {
            assert!(codex.revoked_keys.contains(&key), "{point}: the ledger lacks a key of {name}");
        }
    }
    let expected: BTreeSet<_> = needed(&codex).iter().map(|file| folder.join("secrets").join(file)).collect();
    assert_eq!(names(&folder.join("secrets/peers")), expected, "{point}: preshared keys");
    assert!(names(&folder.join("peers")).iter().all(|path| path.extension().unwrap() == "toml"), "{point}");
    let log = log(folder, point);
    let last = log.records.iter().rev().find(|(record, _)| record.peer.as_str() == PEER);
    if let Some((record, _)) = last {
        let file = fs::read(folder.join(format!("peers/{PEER}.toml"))).ok();
        assert_eq!(record.file_sha256, file.map(|bytes| Sha256Digest::of(&bytes)), "{point}: the log lies");
    }
    if !done {
        run(folder, words, point);
        assert!(peer(&load(folder)).is_some_and(after), "{point}: the second try");
    }
}

fn run(folder: &Path, words: &[&str], point: &str) {
    let run = sepulcher().args(words).arg("--codex").arg(folder).output().unwrap();
    assert!(run.status.success(), "{point}, then {words:?}: {}", String::from_utf8_lossy(&run.stderr));
}

fn names(folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_killed_bond_is_made_or_not() {
    let Some(strace) = program("a_killed_bond_is_made_or_not", "strace") else { return };
    let words = ["peer", "bond", PEER, "--public-key", KEY, "--no-config"];
    killed_everywhere(&strace, &site(false), &words, |peer| {
        peer.public_key.to_string() == KEY && peer.generation == 1 && peer.preshared
    });
}

#[test]
fn a_killed_revocation_is_done_or_not() {
    let Some(strace) = program("a_killed_revocation_is_done_or_not", "strace") else { return };
    let words = ["peer", "revoke", PEER, "--reason", "lost"];
    killed_everywhere(&strace, &site(true), &words, |peer| peer.state == PeerState::Revoked);
}

#[test]
fn a_killed_rotation_is_done_or_not() {
    let Some(strace) = program("a_killed_rotation_is_done_or_not", "strace") else { return };
    let words = ["peer", "rotate", PEER, "--public-key", OTHER, "--no-config"];
    killed_everywhere(&strace, &site(true), &words, |peer| {
        peer.public_key.to_string() == OTHER && peer.generation == 2
    });
}

#[test]
fn a_killed_healing_is_gone_on_with() {
    let Some(strace) = program("a_killed_healing_is_gone_on_with", "strace") else { return };
    let site = site(true);
    // What a command leaves that revoked `ghoul` and was killed behind the rename, and others that were killed before it.
    site.run(&["peer", "bond", "ghoul"]);
    let key = site.text("secrets/peers/ghoul.1.psk");
    site.run(&["peer", "revoke", "ghoul"]);
    fs::remove_file(site.codex().join("revoked")).unwrap();
    for (file, text) in [
        ("secrets/peers/ghoul.1.psk", key.as_str()),
        ("secrets/peers/.wraith.2.psk.7.tmp", ""),
        ("peers/.wraith.toml.7.tmp", "public-key = "),
    ] {
        fs::write(site.codex().join(file), text).unwrap();
    }
    let log = site.text("audit.jsonl");
    fs::write(site.codex().join("audit.jsonl"), &log[..log.len() - 9]).unwrap();
    let words = ["peer", "rotate", PEER, "--public-key", OTHER, "--no-config"];
    killed_everywhere(&strace, &site, &words, |peer| {
        peer.public_key.to_string() == OTHER && peer.generation == 2
    });
}

#[test]
fn half_a_line_in_ledger_and_log_is_ended_and_passed_over() {
    let site = site(true);
    for (file, piece) in [("revoked", "DD5yKRfzExcV5"), ("audit.jsonl", "{\"seq\":2,\"ti")] {
        let text = site.text(file) + piece;
        fs::write(site.codex().join(file), text).unwrap();
    }
    site.run(&["peer", "revoke", PEER]);
    assert!(site.text("revoked").starts_with(&format!("DD5yKRfzExcV5\n{KEY} {PEER} 1 ")));
    let told = site.run(&["audit", "verify"]);
    assert!(
        told.starts_with("2 records, the chain is whole\n") && told.contains("note: line 2 is a piece"),
        "{told}"
    );
}

/// A file system of its own around the command; `prepare` is shell that makes it out of `$1`, the Codex. Prints the
/// digests of all files before, the command's outcome, the digests behind.
pub fn within(site: &Site, prepare: &str, words: &str) -> (String, String, String) {
    let script = format!(
        "set -e\n{prepare}\n\
         look() {{ find . -type f ! -name .lock ! -name filler -exec sha256sum {{}} + | sort; }}\n\
         look; echo ==; set +e; $2 {words} --codex . 2>&1; echo \"ended with $?\"; set -e; echo ==; look\n"
    );
    let mut unshare = Command::new("unshare").arg("--mount");
    if !rustix::process::geteuid().is_root() {
        unshare = unshare.arg("--map-root-user");
    }
    let shell =
        unshare.args(["sh", "-c", &script, "sh"]).arg(site.codex()).arg(env!("CARGO_BIN_EXE_sepulcher"));
    let run = shell.output().unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    let mut parts = said.split("==\n").map(str::to_owned);
    let mut next = || parts.next().unwrap();
    (next(), next(), next())
}

#[test]
fn a_read_only_folder_is_told_and_nothing_changes() {
    let prepare = "mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"; cd \"$1\"";
    for words in ["peer bond ghoul", "peer revoke wraith", "peer rotate wraith"] {
        let (before, said, behind) = within(&site(true), prepare, words);
        assert!(said.contains("ended with 74"), "{said}");
        assert!(
            said.contains("Read-only file system") && said.contains("hint: nothing has changed"),
            "{said}"
        );
        assert_eq!(before, behind, "{words}");
    }
    let (_, said, _) = within(&site(true), prepare, "peer list");
    assert!(said.contains("wraith") && said.contains("ended with 0"), "{said}");
}

#[test]
fn a_full_disk_at_any_point_leaves_the_bonds_as_they_were_or_the_change_done() {
    for words in ["peer bond ghoul", "peer rotate wraith", "peer revoke wraith"] {
        let mut ends = BTreeSet::new();
        for pages in 0..6 {
            let prepare = format!(
                "mkdir \"$1.room\"; mount -t tmpfs -o size=1m tmpfs \"$1.room\"; cp -r \"$1/.\" \"$1.room\"; cd \"$1.room\"\n\
                 dd if=/dev/zero of=filler bs=4096 2>/dev/null || true; truncate -s -{} filler",
                pages * 4096
            );
            let (before, said, behind) = within(&site(true), &prepare, words);
            let code = said.lines().find_map(|line| line.strip_prefix("ended with ")).unwrap().to_owned();
            match code.as_str() {
                "0" => assert_ne!(before, behind),
                "74" if said.contains("the change is done") => assert_ne!(before, behind),
                _ => {
                    assert!(
                        said.contains("No space left on device") && said.contains("nothing has changed"),
                        "{said}"
                    );
                    assert_eq!(
                        (code.as_str(), &before),
                        ("74", &behind),
                        "{words} with {pages} pages: {said}"
                    );
                }
            }
            ends.insert(code);
        }
        assert_eq!(ends, ["0", "74"].map(str::to_owned).into(), "{words}");
    }
}

#[test]
fn the_ledger_is_read_before_the_bonds_that_it_is_about() {
    let Some(strace) = program("the_ledger_is_read_before_the_bonds_that_it_is_about", "strace") else {
        return;
    };
    let site = site(true);
    site.run(&["peer", "revoke", PEER]);
    let trace = tempfile::NamedTempFile::new().unwrap();
    let traced = strace.args(["-f", "-qq", "-e", "trace=open,openat,openat2", "-o"]).arg(trace.path());
    let run = traced.arg(env!("CARGO_BIN_EXE_sepulcher")).args(["peer", "list", "--codex"]).arg(site.codex());
    assert!(run.output().unwrap().status.success());
    let calls = fs::read_to_string(trace.path()).unwrap();
    let opened = |file: &str| calls.find(file).unwrap_or_else(|| panic!("{file} is not read:\n{calls}"));
    // A peer that is rotated in between would have its old key in its file and in the ledger.
    assert!(opened("/revoked\"") < opened("phone.toml\""), "{calls}");
}
