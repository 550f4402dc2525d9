//! `sepulcher snapshot` on a workstation's Codex: round trips, damage, what stays dead, and being killed anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use sepulcher::codex::PeerState;
use sepulcher::peer::audit::Log;
use sepulcher::snapshot::{Manifest, Snapshot, archive};
use sepulcher::sys::cmd::Command;
use sepulcher::sys::wireguard::SecretKey;

use crate::cases::load;
use crate::judge::program;
use crate::peer::{KEY, OTHER, Site};
use crate::support::{copy, sepulcher};

/// Bonds by name, and the preshared keys.
fn state(codex: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["peers", "secrets/peers"] {
        for entry in fs::read_dir(codex.join(folder)).unwrap().map(Result::unwrap) {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn create(site: &Site) -> String {
    site.run(&["snapshot", "create"]).trim().to_owned()
}

fn file(site: &Site, name: &str) -> PathBuf {
    site.codex().join(format!("snapshots/{name}.tar.zst"))
}

/// A site where `wraith` is bonded with a preshared key, and its snapshot.
fn kept() -> (Site, String) {
    let site = Site::new();
    site.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config"]);
    let name = create(&site);
    (site, name)
}

#[test]
fn what_is_created_is_listed_shown_verified_and_restored() {
    let (site, name) = kept();
    let before = state(&site.codex());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&file(&site, &name)), 0o600);
    assert_eq!(mode(&site.codex().join("snapshots")), 0o700);
    assert_eq!(site.text("snapshots/.gitignore"), "*\n");
    assert!(site.run(&["snapshot", "list"]).contains(&name));
    let shown = site.run(&["snapshot", "show"]);
    assert!(shown.contains("secrets/peers/wraith.1.psk") && !shown.contains("tether.key"), "{shown}");
    assert!(site.run(&["snapshot", "verify", &name]).contains("is whole"));
    site.run(&["peer", "grant", "wraith", "metrics"]);
    site.run(&["peer", "bond", "ghoul"]);
    let plan = site.run(&["snapshot", "restore", "--dry-run"]);
    assert!(plan.contains("- peer ghoul") && plan.contains("~ peer wraith as it was"), "{plan}");
    let told = site.run(&["snapshot", "restore", &name]);
    assert!(told.contains(&format!("{name} is restored; what was before is ")), "{told}");
    assert_eq!(state(&site.codex()), before);
    assert!(site.run(&["audit", "verify"]).contains("the chain is whole"));
    assert!(!site.run(&["audit", "verify"]).contains("edited by hand"));
    // What was before is a snapshot too, and brings the peer back that left.
    site.run(&["snapshot", "restore"]);
    assert!(site.text("peers/ghoul.toml").contains("public-key"));
}

#[test]
fn a_dry_run_changes_nothing_and_a_second_restore_has_nothing_to_do() {
    let (site, name) = kept();
    for words in [
        &["snapshot", "create", "--dry-run"][..],
        &["snapshot", "prune", "--keep", "1", "--dry-run"],
        &["snapshot", "restore", "--dry-run"],
    ] {
        site.run(words);
        let names =
            fs::read_dir(site.codex().join("snapshots")).unwrap().map(|entry| entry.unwrap().file_name());
        let kept = names.filter(|name| !name.to_string_lossy().starts_with('.'));
        assert_eq!(kept.count(), 1, "{words:?}");
    }
    let told = site.run(&["snapshot", "restore"]);
    assert!(told.ends_with(&format!("all is as {name} says\n")), "{told}");
}

#[test]
fn the_revoked_stay_revoked_the_rotated_stay_rotated_and_a_revival_is_on_record() {
    let (site, name) = kept();
    site.run(&["peer", "revoke", "wraith", "--reason", "lost"]);
    site.run(&["peer", "rotate", "phone", "--public-key", OTHER, "--no-config"]);
    let told = site.run(&["snapshot", "restore"]);
    assert!(told.contains("= peer wraith stays revoked"), "{told}");
    assert!(told.contains("= peer phone keeps its newer key"), "{told}");
    let peer = |name: &str| site.load().peers[&name.parse().unwrap()].clone();
    assert_eq!(peer("wraith").state, PeerState::Revoked);
    assert_eq!(peer("phone").public_key.to_string(), OTHER);
    let ledger = site.text("revoked");
    site.run(&["snapshot", "restore", "--revive", "wraith"]);
    assert_eq!(peer("wraith").state, PeerState::Active);
    assert!(site.text("revoked").starts_with(&ledger), "the ledger only grows");
    assert!(site.codex().join("secrets/peers/wraith.1.psk").exists());
    assert!(site.run(&["audit", "show"]).contains("revive"));
    // The next command leaves it alive, and a second revocation holds.
    site.run(&["peer", "grant", "wraith", "metrics"]);
    assert_eq!(peer("wraith").state, PeerState::Active);
    site.run(&["peer", "revoke", "wraith"]);
    assert!(site.run(&["snapshot", "restore", &name]).contains("stays revoked"));
}

#[test]
fn damage_is_refused_and_told() {
    let (site, name) = kept();
    let path = file(&site, &name);
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for (bytes, what) in [(&whole[..whole.len() / 2], "truncated"), (&changed, "changed"), (b"", "empty")] {
        fs::write(&path, bytes).unwrap();
        for verb in ["verify", "restore"] {
            site.refuses(&["snapshot", verb, &name], 1, &["no whole snapshot"]);
        }
        assert!(site.run(&["snapshot", "list"]).contains(&name), "{what}");
    }
    site.refuses(&["snapshot", "restore", "nobody"], 1, &["there is no snapshot `nobody`"]);
    site.refuses(&["snapshot", "restore", "../codex"], 1, &["no name of a snapshot"]);
}

/// Puts a snapshot with another manifest in the place of one.
fn rewrite(site: &Site, name: &str, change: impl Fn(&mut Manifest)) {
    let Snapshot { mut manifest, parts } = archive::unpack(&fs::read(file(site, name)).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(file(site, name), archive::pack(&Snapshot { manifest, parts }).unwrap()).unwrap();
}

#[test]
fn a_soul_newer_than_the_body_or_a_manifest_that_lies_is_refused() {
    let (site, name) = kept();
    rewrite(&site, &name, |manifest| manifest.body = "9.1.0".to_owned());
    site.refuses(&["snapshot", "restore"], 1, &["never newer than its body", "install 9.1.0 or later"]);
    rewrite(&site, &name, |manifest| manifest.parts[0].size += 1);
    site.refuses(&["snapshot", "verify"], 1, &["is not as the manifest says"]);
}

#[test]
fn prune_keeps_the_latest() {
    let (site, first) = kept();
    let names = [first, create(&site), create(&site)];
    site.refuses(&["snapshot", "prune", "--keep", "0"], 1, &["no snapshot would be left"]);
    let told = site.run(&["snapshot", "prune", "--keep", "1"]);
    assert_eq!(told, format!("- {}\n- {}\n", names[0], names[1]));
    assert!(!file(&site, &names[0]).exists() && file(&site, &names[2]).exists());
}

/// Turns a bit of a snapshot's bonds, behind its manifest.
fn rots(site: &Site, name: &str) {
    let path = file(site, name);
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.len() - 20;
    bytes[place] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn prune_counts_what_is_whole_alone() {
    let (site, first) = kept();
    let names = [first, create(&site), create(&site)];
    rots(&site, &names[2]);
    let pruned = sepulcher()
        .args(["snapshot", "prune", "--keep", "1", "--codex"])
        .arg(site.codex())
        .assert()
        .success();
    let output = pruned.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("- {}\n", names[0]));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&format!("{} does not count: ", names[2])), "{told}");
    site.run(&["snapshot", "verify", &names[1]]);
    // It goes when it is none of the latest any more.
    let last = create(&site);
    let told = site.run(&["snapshot", "prune", "--keep", "1"]);
    assert_eq!(told, format!("- {}\n- {}\n", names[1], names[2]));
    assert!(file(&site, &last).exists());
}

#[test]
fn a_copy_from_elsewhere_takes_the_place_of_what_has_rotted() {
    let scratch = tempfile::tempdir().unwrap();
    let (site, name) = kept();
    let export = scratch.path().join("soul.age");
    let (key, recipient) = identity(scratch.path(), "key");
    let [export, key] = [&export, &key].map(|path| path.to_str().unwrap());
    site.run(&["snapshot", "export", export, "--recipient", &recipient]);
    rots(&site, &name);
    site.refuses(&["snapshot", "restore", &name], 1, &["no whole snapshot"]);
    let imported = site.run(&["snapshot", "import", export, "--identity", key]);
    let copy = format!("{name}-2");
    assert!(imported.contains(&copy), "{imported}");
    site.run(&["snapshot", "verify", &copy]);
    assert_eq!(site.run(&["snapshot", "import", export, "--identity", key]), imported);
}

#[test]
fn a_restore_that_would_leave_the_log_no_room_for_revocations_is_refused() {
    let (site, name) = kept();
    site.run(&["peer", "grant", "wraith", "metrics"]);
    let log = fs::read(site.codex().join("audit.jsonl")).unwrap();
    fs::write(site.codex().join("audit.jsonl"), log.repeat((48 << 20) / log.len() + 1)).unwrap();
    site.refuses(&["snapshot", "restore", &name], 1, &["the log of changes is full"]);
}

/// An age key pair: the file with the private half, and the public one.
pub fn identity(folder: &Path, name: &str) -> (PathBuf, String) {
    use age::secrecy::ExposeSecret as _;
    let key = age::x25519::Identity::generate();
    let path = folder.join(name);
    fs::write(&path, format!("{}\n", key.to_string().expose_secret())).unwrap();
    (path, key.to_public().to_string())
}

#[test]
fn a_lost_machine_comes_back_from_an_export_with_addresses_and_identity() {
    let scratch = tempfile::tempdir().unwrap();
    let (site, _) = kept();
    site.run(&["peer", "revoke", "laptop"]);
    site.run(&["snapshot", "create", "--with-identity"]);
    let export = scratch.path().join("soul.age");
    let export = export.to_str().unwrap();
    let (path, recipient) = identity(scratch.path(), "key");
    let (wrong, _) = identity(scratch.path(), "wrong");
    site.run(&["snapshot", "export", export, "--recipient", &recipient, "--with-identity"]);
    site.refuses(&["snapshot", "export", export, "--recipient", &recipient], 1, &["is there already"]);
    let sealed = fs::read(export).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1"));

    let fresh = Site::new();
    for file in ["secrets/tether.key", "peers/phone.toml"] {
        fs::remove_file(fresh.codex().join(file)).unwrap();
    }
    let path = path.to_str().unwrap();
    fresh.refuses(
        &["snapshot", "import", export, "--identity", wrong.to_str().unwrap()],
        1,
        &["no key of the identity file opens this export"],
    );
    let imported = fresh.run(&["snapshot", "import", export, "--identity", path]);
    assert_eq!(fresh.run(&["snapshot", "import", export, "--identity", path]), imported, "once is enough");
    let told = fresh.run(&["snapshot", "restore", "--with-identity"]);
    assert!(told.contains("the host's private key") && told.contains("- peer laptop"), "{told}");
    assert_eq!(fresh.load(), site.load());
    assert_eq!(state(&fresh.codex()), state(&site.codex()));
    assert_eq!(fresh.text("secrets/tether.key"), site.text("secrets/tether.key"));
    assert!(fresh.run(&["audit", "verify"]).contains("the chain is whole"));

    let plain = scratch.path().join("plain.age");
    let plain = plain.to_str().unwrap();
    site.run(&["snapshot", "export", plain, "--recipient", &recipient]);
    let other = Site::new();
    other.run(&["snapshot", "import", plain, "--identity", path]);
    other.refuses(&["snapshot", "restore", "--with-identity"], 1, &["does not hold the host's private key"]);
    fs::write(plain, &sealed[..sealed.len() - 1]).unwrap();
    other.refuses(&["snapshot", "import", plain, "--identity", path], 1, &["no whole snapshot"]);
}

#[test]
fn an_export_takes_its_place_where_there_are_no_second_names_and_where_there_are_only_these() {
    let claim = "an_export_takes_its_place_where_there_are_no_second_names_and_where_there_are_only_these";
    let Some(strace) = program(claim, "strace") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (site, _) = kept();
    let (_, recipient) = identity(scratch.path(), "key");
    // FAT, and what some file systems over the network say.
    for (name, fault) in [("fat", "inject=linkat:error=EPERM"), ("network", "inject=renameat2:error=EINVAL")]
    {
        let file = scratch.path().join(name);
        let traced = strace.clone().args(["-qq", "-o", "/dev/null", "-e", fault]);
        let traced = traced.arg(env!("CARGO_BIN_EXE_sepulcher")).args(["snapshot", "export"]).arg(&file);
        let run = traced.args(["--recipient", &recipient, "--codex"]).arg(site.codex()).output().unwrap();
        assert!(run.status.success(), "{fault}: {}", String::from_utf8_lossy(&run.stderr));
        assert!(fs::read(&file).unwrap().starts_with(b"age-encryption.org/v1"), "{fault}");
    }
    let left = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
}

/// System calls that write.
const WRITING: [&str; 13] = [
    "write",
    "fsync",
    "fchmod",
    "chmod",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "link",
    "linkat",
    "ftruncate",
];

/// Kills a command at every writing system call.
fn killed_everywhere(strace: &Command, start: &Site, words: &[&str], whole: impl Fn(&Path, &str)) {
    let kills = everywhere(strace, start, words, (&WRITING, "signal=SIGKILL"), whole);
    assert!(kills >= 12, "{words:?} was killed at {kills} points only");
}

/// Does something to a command at every call of some kinds, from the same state each time, and looks at what is left; at
/// how many.
fn everywhere(
    strace: &Command,
    start: &Site,
    words: &[&str],
    (calls, fault): (&[&str], &str),
    whole: impl Fn(&Path, &str),
) -> u32 {
    let mut faults = 0;
    for call in calls {
        for nth in 1..80 {
            let scratch = tempfile::Builder::new().prefix("sepulcher-killed-").tempdir().unwrap();
            let codex = scratch.path().join("codex");
            copy(&start.codex(), &codex);
            let injection = format!("inject={call}:{fault}:when={nth}");
            let traced = strace.clone().args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(injection);
            let traced = traced.arg(env!("CARGO_BIN_EXE_sepulcher")).args(words).arg("--codex").arg(&codex);
            let run = traced.output().unwrap();
            if run.status.success() {
                break;
            }
            let ended = run.status.signal() == Some(9) || matches!(run.status.code(), Some(137 | 74));
            assert!(ended, "{call} {nth}: {}", String::from_utf8_lossy(&run.stderr));
            faults += 1;
            whole(&codex, &format!("{fault} at {call} {nth}"));
        }
    }
    faults
}

fn run(codex: &Path, words: &[&str], point: &str) -> String {
    let run = sepulcher().args(words).arg("--codex").arg(codex).output().unwrap();
    assert!(run.status.success(), "{point}, then {words:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn a_killed_creation_leaves_a_whole_snapshot_or_none() {
    let Some(strace) = program("a_killed_creation_leaves_a_whole_snapshot_or_none", "strace") else { return };
    let (site, _) = kept();
    killed_everywhere(&strace, &site, &["snapshot", "create", "--with-identity"], |codex, point| {
        let names: Vec<_> = fs::read_dir(codex.join("snapshots")).unwrap().map(|e| e.unwrap()).collect();
        for entry in names.iter().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')) {
            assert!(archive::unpack(&fs::read(entry.path()).unwrap()).is_ok(), "{point}");
        }
        run(codex, &["snapshot", "create"], point);
        let left = fs::read_dir(codex.join("snapshots")).unwrap();
        let left =
            left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
        assert_eq!(left.count(), 0, "{point}: a piece with keys in it stays");
    });
}

#[test]
fn a_killed_or_failed_restore_is_done_or_not() {
    let Some(strace) = program("a_killed_or_failed_restore_is_done_or_not", "strace") else { return };
    let (site, name) = kept();
    site.run(&["peer", "rotate", "phone", "--public-key", OTHER, "--no-config"]);
    site.run(&["peer", "revoke", "wraith"]);
    site.run(&["peer", "bond", "ghoul"]);
    site.run(&["peer", "grant", "laptop", "metrics"]);
    let words = ["snapshot", "restore", name.as_str(), "--revive", "wraith"];
    let before = load(&site.codex());
    let done = tempfile::tempdir().unwrap();
    copy(&site.codex(), &done.path().join("codex"));
    run(&done.path().join("codex"), &words, "unkilled");
    let after = load(&done.path().join("codex"));
    assert_ne!(before.peers, after.peers);
    let revived = KEY.parse().unwrap();
    let whole = |codex: &Path, point: &str| {
        let found = load(codex);
        assert!(
            found.peers == before.peers || found.peers == after.peers,
            "{point}: between before and after"
        );
        let dead = before.revoked_keys.iter().filter(|key| **key != revived);
        assert!(dead.into_iter().all(|key| found.revoked_keys.contains(key)), "{point}: the ledger forgot");
        for (name, peer) in &found.peers {
            for file in peer.preshared_files(name) {
                assert!(codex.join("secrets").join(&file).exists(), "{point}: {file} is missing");
            }
        }
        let done = found.peers == after.peers;
        // The next command mends ledger and log, and the restore can be run again.
        run(codex, &["peer", "grant", "phone", "metrics"], point);
        let told = run(codex, &["audit", "verify"], point);
        assert!(!told.contains("edited by hand"), "{point}: {told}");
        Log::read(&fs::read(codex.join("audit.jsonl")).unwrap()).unwrap();
        if !done {
            assert!(load(codex).revoked_keys.contains(&revived), "{point}: a revival that was not");
            run(codex, &words, point);
            let laptop = "laptop".parse().unwrap();
            assert_eq!(load(codex).peers[&laptop], after.peers[&laptop], "{point}");
        }
    };
    killed_everywhere(&strace, &site, &words, whole);
    let failures = everywhere(&strace, &site, &words, (&["fsync", "fdatasync"], "error=EIO"), whole);
    assert!(failures >= 6, "only {failures} failures to sync");
}

#[test]
fn a_killed_or_failed_restore_has_the_key_with_the_bonds_that_go_with_it() {
    let claim = "a_killed_or_failed_restore_has_the_key_with_the_bonds_that_go_with_it";
    let Some(strace) = program(claim, "strace") else { return };
    let (site, _) = kept();
    site.run(&["snapshot", "create", "--with-identity"]);
    let name = site.run(&["snapshot", "list"]).lines().last().unwrap().split(' ').next().unwrap().to_owned();
    let path = "secrets/tether.key";
    let kept = site.text(path);
    let now = SecretKey::generate().to_file().to_string();
    fs::write(site.codex().join(path), &now).unwrap();
    site.run(&["peer", "grant", "laptop", "metrics"]);
    let words = ["snapshot", "restore", name.as_str(), "--with-identity"];
    let before = load(&site.codex()).peers;
    let whole = |codex: &Path, point: &str| {
        run(codex, &["snapshot", "create"], point);
        let key = fs::read_to_string(codex.join(path)).unwrap();
        let expected = if load(codex).peers == before { &now } else { &kept };
        assert!(key == *expected, "{point}: the key of one state, bonds of the other");
        let left = fs::read_dir(codex.join("secrets")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".tether")).collect();
        assert!(left.is_empty(), "{point}: {left:?}");
        run(codex, &words, point);
        assert_eq!(fs::read_to_string(codex.join(path)).unwrap(), kept, "{point}");
    };
    killed_everywhere(&strace, &site, &words, whole);
    let failures = everywhere(&strace, &site, &words, (&["fsync", "fdatasync"], "error=EIO"), whole);
    assert!(failures >= 6, "only {failures} failures to sync");
}

#[test]
fn a_full_or_read_only_disk_changes_nothing() {
    for (prepare, told) in [
        ("mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"; cd \"$1\"", "Read-only file system"),
        (
            "mkdir \"$1.room\"; mount -t tmpfs -o size=1m tmpfs \"$1.room\"; cp -r \"$1/.\" \"$1.room\"; cd \"$1.room\"\n\
             dd if=/dev/zero of=filler bs=4096 2>/dev/null || true",
            "No space left on device",
        ),
    ] {
        for verb in ["create", "restore"] {
            let (site, name) = kept();
            site.run(&["peer", "grant", "wraith", "metrics"]);
            let words = if verb == "create" {
                "snapshot create".to_owned()
            } else {
                format!("snapshot restore {name}")
            };
            let (before, said, behind) = crate::peer_faults::within(&site, prepare, &words);
            assert!(said.contains(told) && said.contains("ended with 74"), "{words}: {said}");
            assert_eq!(before, behind, "{words}");
        }
    }
}

#[test]
fn over_the_tether_volumes_stay_nothing_is_only_tried_and_no_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken.age");
    fs::write(&taken, "x").unwrap();
    let (taken, free) = (taken.to_str().unwrap(), folder.path().join("free.age"));
    let free = free.to_str().unwrap();
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let cases: [(&[&str], &str); 6] = [
        (&["export", free, "--recipient", &recipient, "--with-volumes"], "volumes do not go over the tether"),
        (&["export", free, "--recipient", &recipient, "--dry-run"], "nothing is only tried"),
        (&["export", taken, "--recipient", &recipient], "is there already"),
        (&["create", "--dry-run"], "nothing is only tried"),
        (&["restore", "--dry-run"], "nothing is only tried"),
        (&["prune", "--keep", "1", "--dry-run"], "nothing is only tried"),
    ];
    for (words, said) in cases {
        // Nobody listens there, and nobody is asked.
        let run = sepulcher().args(["--host", "127.0.0.1:1", "snapshot"]).args(words).assert().code(1);
        let told = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(told.contains(said) && told.contains("hint: "), "{words:?}: {told}");
    }
    let bare = sepulcher().args(["--host", "127.0.0.1:1", "snapshot", "export", free]).assert().code(2);
    assert!(String::from_utf8_lossy(&bare.get_output().stderr).contains("--recipient"));
    assert_eq!(fs::read(taken).unwrap(), b"x");
    assert!(!Path::new(free).exists());
}

#[test]
fn the_latest_is_the_last_that_was_made_whatever_the_clock_said() {
    let (site, first) = kept();
    // A clock that was ahead for a while, and a file that somebody laid there.
    let ahead = "2099-01-01T000000Z";
    fs::rename(file(&site, &first), file(&site, ahead)).unwrap();
    fs::copy(file(&site, ahead), file(&site, "mine")).unwrap();
    let second = create(&site);
    assert_eq!(second, format!("{ahead}-2"));
    fs::remove_file(file(&site, "mine")).unwrap();
    assert!(site.run(&["snapshot", "show"]).contains(&second));
    site.run(&["snapshot", "prune", "--keep", "1"]);
    assert!(file(&site, &second).exists() && !file(&site, ahead).exists());
}

#[test]
fn what_another_law_had_is_taken_away_kept_and_put_back() {
    let site = Site::new();
    site.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config", "--grant", "echo", "bonds"]);
    let path = site.codex().join("peers/wraith.toml");
    let text = site.text("peers/wraith.toml").replace("\"echo\"", "\"echo\", \"gone\"");
    fs::write(&path, &text).unwrap();
    let name = create(&site);
    site.run(&["peer", "ungrant", "wraith", "bonds"]);
    assert!(site.text("peers/wraith.toml").contains("grants = [\"echo\", \"gone\"]"));
    site.refuses(&["peer", "grant", "wraith", "metrics"], 1, &["there is no service `gone`"]);
    let told = site.run(&["snapshot", "restore", &name]);
    assert!(told.contains("note: peers/wraith.toml: there is no service `gone` to grant"), "{told}");
    assert_eq!(site.text("peers/wraith.toml"), text);
    site.run(&["peer", "ungrant", "wraith", "gone"]);
    assert_eq!(load(&site.codex()).active().count(), 3);
}
