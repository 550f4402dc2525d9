//! Volumes of services in snapshots: on an appliance's files, with Podman and systemd played by scripts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::{copy, repository};

/// Podman, as far as it is asked: containers are files with their state, volumes are folders.
const PODMAN: &str = r#"#!/bin/sh
root=$(dirname "$(dirname "$0")")
echo "podman $*" >> "$root/log"
[ ! -e "$root/on-$1" ] || . "$root/on-$1"
[ ! -e "$root/fails-$1" ] || { echo "it cannot $1" >&2; exit 125; }
case "$1" in
    volume) for path in "$root"/volumes/*; do echo "$(basename "$path") $path/_data"; done ;;
    ps) for path in "$root"/containers/*; do echo "$(basename "$path") $(cat "$path")"; done ;;
    pause) echo paused > "$root/containers/$2"; [ ! -e "$root/waits" ] || sleep 10 ;;
    unpause) echo running > "$root/containers/$2" ;;
    exec) shift 2; "$@" ;;
esac
"#;

/// systemd: units of containers.
const SYSTEMCTL: &str = r#"#!/bin/sh
root=$(dirname "$(dirname "$0")")
echo "systemctl $*" >> "$root/log"
verb=$1
shift 2
if [ "$verb" = show ]; then
    shift 2
    for unit; do
        name="$root/containers/systemd-$(basename "$unit" .service)"
        if [ -e "$name" ]; then echo active; else echo inactive; fi
        echo
    done
    exit
fi
for unit; do
    [ ! -e "$root/fails-$verb" ] || { rm "$root/fails-$verb"; echo "it cannot $verb" >&2; exit 1; }
    name="$root/containers/systemd-$(basename "$unit" .service)"
    if [ "$verb" = stop ]; then rm -f "$name"; else echo running > "$name"; fi
done
"#;

const PHYLACTERY: &str = "systemd-lychd-phylactery";

/// An appliance's files.
struct Machine(tempfile::TempDir);

impl Machine {
    /// The example's, with two services that run and have a volume each.
    fn new() -> Self {
        let machine = Self(tempfile::Builder::new().prefix("sepulcher-volumes-").tempdir().unwrap());
        copy(&repository("examples/lychd"), &machine.path("usr/share/sepulcher/codex"));
        copy(&repository("examples/lychd/peers"), &machine.path("var/lib/sepulcher/codex/peers"));
        fs::create_dir_all(machine.path("var/lib/sepulcher/secrets")).unwrap();
        for (name, script) in [("podman", PODMAN), ("systemctl", SYSTEMCTL)] {
            machine.write(&format!("bin/{name}"), script);
            fs::set_permissions(machine.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755))
                .unwrap();
        }
        for (container, volume) in [(PHYLACTERY, "phylactery-data"), ("systemd-lychd-veil", "veil-data")] {
            machine.write(&format!("containers/{container}"), "running\n");
            machine.write(&format!("volumes/lychd-{volume}/_data/17/base"), "first\n");
            symlink("17/base", machine.data(volume).join("link")).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn data(&self, volume: &str) -> PathBuf {
        self.path(&format!("volumes/lychd-{volume}/_data"))
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A service of the law, as it is from now on.
    fn law(&self, service: &str, more: &str) {
        let path = format!("usr/share/sepulcher/codex/services/{service}.toml");
        let text = fs::read_to_string(self.path(&path)).unwrap();
        self.write(&path, &format!("{text}\n{more}"));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.env_clear().env("PATH", path).arg("snapshot").args(words).arg("--root").arg(self.0.path());
        command.stdin(Stdio::null());
        command
    }

    /// What a command printed, and what it said beside; it must end with `code`.
    fn ends(&self, words: &[&str], code: i32) -> (String, String) {
        let output = self.command(words).output().unwrap();
        let [out, told] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(output.status.code(), Some(code), "{words:?}: {told}");
        (out, told)
    }

    fn run(&self, words: &[&str]) -> String {
        self.ends(words, 0).0.trim().to_owned()
    }

    fn refuses(&self, words: &[&str], parts: &[&str]) {
        let told = self.ends(words, 1).1;
        for part in ["error: ", "hint: "].iter().chain(parts) {
            assert!(told.contains(part), "{words:?}: {part:?} is missing from:\n{told}");
        }
    }

    fn state(&self, container: &str) -> String {
        fs::read_to_string(self.path("containers").join(container)).unwrap_or_default().trim().to_owned()
    }

    /// What was asked of Podman and systemd since the last look, without questions.
    fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        fs::write(self.path("log"), "").unwrap();
        let question = |line: &&str| {
            ["podman ps", "podman volume", "systemctl show"].iter().any(|question| line.starts_with(question))
        };
        log.lines().filter(|line| !question(line)).map(str::to_owned).collect()
    }

    /// Names of snapshots, and of whatever else is in their folder but the lock.
    fn kept(&self) -> Vec<String> {
        let names = fs::read_dir(self.path("var/lib/sepulcher/snapshots")).into_iter().flatten();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }

    /// Begins with a command, which must not end by itself, and waits for `done`.
    fn begun(&self, words: &[&str], done: impl Fn() -> bool) -> Child {
        let child = self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < end, "{words:?} does not come that far");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }
}

/// Everything below a folder: mode, owner, kind and content by path.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, String)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, metadata) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
        let name = path.strip_prefix(folder).unwrap().to_owned();
        let content = if metadata.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, what)| (name.join(inner), what)));
            "a folder".to_owned()
        } else if metadata.is_symlink() {
            format!("to {}", fs::read_link(&path).unwrap().display())
        } else {
            fs::read_to_string(&path).unwrap()
        };
        found.insert(name, (metadata.permissions().mode(), metadata.uid(), content));
    }
    found
}

#[test]
fn a_service_is_frozen_while_its_volume_is_read_and_goes_on_behind_it() {
    let machine = Machine::new();
    let before = files(&machine.path("volumes"));
    let name = machine.run(&["create"]);
    assert_eq!(files(&machine.path("volumes")), before);
    assert_eq!(
        machine.asked(),
        [
            format!("podman pause {PHYLACTERY}"),
            "podman pause systemd-lychd-veil".to_owned(),
            format!("podman unpause {PHYLACTERY}"),
            "podman unpause systemd-lychd-veil".to_owned(),
        ]
    );
    let shown = machine.run(&["show"]);
    assert!(shown.contains("phylactery-data of phylactery: 6 bytes in 4 entries"), "{shown}");
    assert!(!shown.contains("not contained      volume"), "{shown}");
    assert!(machine.run(&["verify", &name]).contains("2 volumes"));
    assert_eq!(machine.kept(), [format!("{name}.tar.zst")]);
    // Anybody's tar reads it.
    let file = fs::File::open(machine.path(&format!("var/lib/sepulcher/snapshots/{name}.tar.zst"))).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    assert!(paths.collect::<Vec<_>>().contains(&"volumes/veil-data/17/base".into()));
    machine.run(&["create", "--bonds-only"]);
    assert!(machine.asked().is_empty());
    assert!(machine.run(&["show"]).contains("volume phylactery-data"));
}

#[test]
fn a_service_with_hooks_goes_on_a_cache_is_left_out_and_a_stopped_one_is_read_as_it_is() {
    let machine = Machine::new();
    machine.law(
        "phylactery",
        "[snapshot]\npause = [\"/bin/echo\", \"pause\"]\nresume = [\"/bin/echo\", \"go on\"]\n",
    );
    let veil = "usr/share/sepulcher/codex/services/veil.toml";
    let text = fs::read_to_string(machine.path(veil)).unwrap();
    machine.write(veil, &text.replace("target = \"/var", "snapshot = false\ntarget = \"/var"));
    let (_, told) = machine.ends(&["create"], 0);
    assert!(told.contains("note: not contained: volume veil-data"), "{told}");
    let exec = |words: &str| format!("podman exec {PHYLACTERY} /bin/echo {words}");
    assert_eq!(machine.asked(), [exec("pause"), exec("go on")]);
    machine.write(&format!("containers/{PHYLACTERY}"), "exited\n");
    machine.run(&["create"]);
    assert!(machine.asked().is_empty());
    machine.write(&format!("containers/{PHYLACTERY}"), "stopping\n");
    machine.refuses(&["create"], &["the service phylactery is stopping"]);
}

#[test]
fn what_is_no_file_is_passed_over_and_said() {
    let machine = Machine::new();
    let _socket = std::os::unix::net::UnixListener::bind(machine.data("veil-data").join("socket")).unwrap();
    let (_, told) = machine.ends(&["create"], 0);
    assert!(told.contains("volume veil-data: socket is no file, and is passed over"), "{told}");
    let many =
        |number| std::os::unix::net::UnixListener::bind(machine.data("veil-data").join(format!("s{number}")));
    let _many: Vec<_> = (0..30).map(|number| many(number).unwrap()).collect();
    let (_, told) = machine.ends(&["create"], 0);
    assert!(told.contains("note: 11 more are no files") && told.lines().count() < 30, "{told}");
}

#[test]
fn a_service_that_cannot_be_paused_refuses_the_snapshot_and_all_go_on() {
    let machine = Machine::new();
    machine.law("veil", "[snapshot]\npause = [\"/bin/false\"]\nresume = [\"/bin/echo\", \"go on\"]\n");
    machine.refuses(&["create"], &["the service veil cannot be paused", "--bonds-only"]);
    assert_eq!(machine.state(PHYLACTERY), "running");
    assert!(machine.asked().contains(&"podman exec systemd-lychd-veil /bin/echo go on".to_owned()));
    assert!(machine.kept().is_empty(), "{:?}", machine.kept());
}

#[test]
fn a_volume_that_cannot_be_read_refuses_the_snapshot_and_all_go_on() {
    let machine = Machine::new();
    fs::rename(machine.data("veil-data"), machine.path("elsewhere")).unwrap();
    symlink(machine.path("elsewhere"), machine.data("veil-data")).unwrap();
    assert!(machine.ends(&["create"], 74).1.contains("veil-data"));
    assert_eq!(machine.state(PHYLACTERY), "running");
    assert!(machine.kept().is_empty(), "{:?}", machine.kept());
}

#[test]
fn ctrl_c_lets_the_services_go_on_and_a_kill_leaves_that_to_the_next_command() {
    let machine = Machine::new();
    machine.write("waits", "");
    let paused = || machine.state(PHYLACTERY) == "paused";
    // The freeze itself takes its time; the signal finds it there.
    let mut child = machine.begun(&["create"], paused);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    child.wait().unwrap();
    assert_eq!(machine.state(PHYLACTERY), "paused");
    fs::remove_file(machine.path("waits")).unwrap();
    // The unit of whoever carries wishes out ends with this; every other command that changes snapshots does it, too.
    let ended = Command::new(env!("CARGO_BIN_EXE_sepulcher"))
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", machine.path("bin").display()))
        .args(["reactor", "--ended", "--root"])
        .arg(machine.0.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{told}");
    assert!(told.contains("the service phylactery was left paused, and is resumed"), "{told}");
    assert_eq!(machine.state(PHYLACTERY), "running");
    machine.run(&["create", "--bonds-only"]);
    assert_eq!(machine.kept().len(), 1, "{:?}", machine.kept());

    // Too much to read in the time that the signal takes.
    let large = fs::File::create(machine.data("phylactery-data").join("large")).unwrap();
    large.set_len(8 << 30).unwrap();
    let mut child = machine.begun(&["create"], || machine.state("systemd-lychd-veil") == "paused");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    assert_eq!(machine.state(PHYLACTERY), "running");
    assert_eq!(machine.kept().len(), 1, "{:?}", machine.kept());
}

#[test]
fn a_service_that_cannot_be_resumed_keeps_no_bonds_from_being_kept() {
    let machine = Machine::new();
    machine.law("veil", "[snapshot]\npause = [\"/bin/true\"]\nresume = [\"/bin/false\"]\n");
    machine.refuses(&["create"], &["the service veil stays paused"]);
    assert_eq!(machine.state(PHYLACTERY), "running");
    assert!(machine.ends(&["create", "--bonds-only"], 0).1.contains("the service veil stays paused"));
    machine.refuses(&["create"], &["an earlier command with volumes cannot be ended"]);
    machine.write("containers/systemd-lychd-veil", "exited\n");
    machine.run(&["create"]);
}

#[test]
fn a_volume_that_may_not_fit_is_refused_before_anybody_is_paused() {
    let machine = Machine::new();
    let large = fs::File::create(machine.data("phylactery-data").join("large")).unwrap();
    large.set_len(8 << 40).unwrap();
    machine.refuses(&["create"], &["the volumes may take 8388", "snapshot prune"]);
    assert!(machine.asked().is_empty());
}

#[test]
fn bonds_that_would_leave_no_room_for_revocations_are_refused() {
    let machine = Machine::new();
    let snapshots = machine.path("var/lib/sepulcher/snapshots");
    fs::create_dir_all(&snapshots).unwrap();
    let mut within = Command::new("unshare");
    within.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        within.arg("--map-root-user");
    }
    within.args(["sh", "-c", "mount -t tmpfs -o size=8m none \"$1\" && shift && exec \"$@\"", "sh"]);
    within.arg(snapshots).arg(env!("CARGO_BIN_EXE_sepulcher"));
    let output = within.args(["snapshot", "create", "--bonds-only", "--root"]).arg(machine.0.path()).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the snapshot may take 17 MiB, and ") && told.contains("prune --keep 1"), "{told}");
}

/// A file system that shares blocks, as long as the value lives.
struct Btrfs(PathBuf);

impl Btrfs {
    /// One in a file of `machine`, in the place of a folder of it; `None` where this machine mounts none.
    fn mounted(claim: &str, machine: &Machine, folder: &str) -> Option<Self> {
        let mkfs = crate::judge::program(claim, "mkfs.btrfs")?;
        if !rustix::process::geteuid().is_root()
            || !fs::read_to_string("/proc/filesystems").unwrap().contains("\tbtrfs")
        {
            let why = "it mounts a btrfs, which takes root and a kernel that knows it";
            assert!(std::env::var_os("CI").is_none(), "{claim}: {why}");
            eprintln!("SKIPPED {claim}: {why}");
            return None;
        }
        let (image, folder) = (machine.path("btrfs.raw"), machine.path(folder));
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        mkfs.arg("--quiet").arg(&image).read().unwrap();
        let inside = machine.path("inside");
        fs::rename(&folder, &inside).unwrap();
        fs::create_dir(&folder).unwrap();
        let mount =
            Command::new("mount").args(["-t", "btrfs", "-o", "loop"]).args([&image, &folder]).status();
        assert!(mount.unwrap().success());
        let mounted = Self(folder.clone());
        copy(&inside, &folder);
        Some(mounted)
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        // Whoever still uses it lets it go later; the folder is temporary.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn where_blocks_are_shared_a_service_goes_on_before_its_volume_is_read() {
    let claim = "where_blocks_are_shared_a_service_goes_on_before_its_volume_is_read";
    let machine = Machine::new();
    let Some(_btrfs) = Btrfs::mounted(claim, &machine, "volumes") else { return };
    let base = machine.data("phylactery-data").join("17/base");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o640)).unwrap();
    let before = files(&machine.path("volumes"));
    // What a killed command left.
    let stale = machine.path("volumes/lychd-veil-data/.sepulcher.copy");
    machine.write("volumes/lychd-veil-data/.sepulcher.copy/old", "old");
    machine.write("var/lib/sepulcher/snapshots/.copies", &format!("[{stale:?}]"));
    // As soon as the service goes on it writes; the snapshot must not hold that. What is read by then is the copy.
    let copy = machine.path("volumes/lychd-phylactery-data/.sepulcher.copy/17/base");
    let goes_on = format!("cp {} $root/copied; echo later > {}\n", copy.display(), base.display());
    machine.write("on-unpause", &goes_on);
    let socket = std::os::unix::net::UnixListener::bind(machine.data("veil-data").join("socket")).unwrap();
    let (name, told) = machine.ends(&["create"], 0);
    assert!(told.contains("volume veil-data: socket is no file, and is passed over"), "{told}");
    drop(socket);
    fs::remove_file(machine.data("veil-data").join("socket")).unwrap();
    assert_eq!(fs::read_to_string(machine.path("copied")).unwrap(), "first\n");
    assert_eq!(fs::read_to_string(&base).unwrap(), "later\n");
    assert_eq!(machine.state(PHYLACTERY), "running");
    fs::remove_file(machine.path("on-unpause")).unwrap();
    machine.run(&["restore", name.trim(), "--with-volumes"]);
    assert_eq!(files(&machine.path("volumes")), before);
}

#[test]
fn what_ran_while_its_volume_was_read_is_no_snapshot() {
    let machine = Machine::new();
    // Somebody restarts a service that is frozen.
    let state = machine.path(&format!("containers/{PHYLACTERY}"));
    let state = state.display();
    machine.write("on-ps", &format!("[ $(cat {state}) != paused ] || echo running > {state}\n"));
    machine.refuses(&["create"], &["the service phylactery ran or was restarted"]);
    assert!(machine.kept().is_empty(), "{:?}", machine.kept());
    // Or starts one that was stopped.
    machine.write(&format!("containers/{PHYLACTERY}"), "exited\n");
    let veil = machine.path("containers/systemd-lychd-veil");
    machine.write("on-ps", &format!("[ $(cat {}) != paused ] || echo running > {state}\n", veil.display()));
    machine.refuses(&["create"], &["the service phylactery ran or was restarted"]);
    assert_eq!(machine.state("systemd-lychd-veil"), "running");
    assert!(machine.kept().is_empty(), "{:?}", machine.kept());
}

/// A machine with a snapshot of its volumes, which have changed since.
fn changed() -> (Machine, BTreeMap<PathBuf, (u32, u32, String)>) {
    let machine = Machine::new();
    let base = machine.data("phylactery-data").join("17/base");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o640)).unwrap();
    let kept = files(&machine.path("volumes"));
    machine.run(&["create"]);
    fs::write(base, "second\n").unwrap();
    machine.write("volumes/lychd-veil-data/_data/new", "later\n");
    machine.asked();
    (machine, kept)
}

#[test]
fn volumes_are_put_back_with_their_services_stopped_and_what_was_before_is_kept() {
    let (machine, kept) = changed();
    let now = files(&machine.path("volumes"));
    let told = machine.run(&["restore"]);
    assert!(
        told.contains("note: volume veil-data stays as it is now; `--with-volumes` puts it back"),
        "{told}"
    );
    assert!(
        machine
            .run(&["restore", "--with-volumes", "--dry-run"])
            .contains("~ volume phylactery-data: 6 bytes")
    );
    assert!(machine.asked().is_empty());
    assert_eq!(files(&machine.path("volumes")), now);
    let told = machine.run(&["restore", "--with-volumes"]);
    assert!(told.contains("is restored; what was before is "), "{told}");
    assert_eq!(files(&machine.path("volumes")), kept);
    let units = "lychd-phylactery.service lychd-veil.service";
    assert_eq!(
        machine.asked(),
        [format!("systemctl stop -- {units}"), format!("systemctl start -- {units}")]
    );
    assert_eq!(machine.state(PHYLACTERY), "running");
    machine.run(&["restore", "--with-volumes"]);
    assert_eq!(files(&machine.path("volumes")), now);
}

#[test]
fn a_restore_that_fails_has_the_old_volumes_back_and_the_services_run() {
    let (machine, _) = changed();
    let now = files(&machine.path("volumes"));
    machine.write("fails-stop", "");
    machine.refuses(&["restore", "--with-volumes"], &["the services cannot be stopped"]);
    assert_eq!(files(&machine.path("volumes")), now);
    assert_eq!(machine.state(PHYLACTERY), "running");
    // Somebody starts it again while it is to be stopped.
    let state = machine.path(&format!("containers/{PHYLACTERY}"));
    let start =
        format!("[ $(grep -c 'systemctl stop' $root/log) = 0 ] || echo running > {}\n", state.display());
    machine.asked();
    machine.write("on-ps", &start);
    assert_eq!(machine.command(&["restore", "--with-volumes"]).output().unwrap().status.code(), Some(1));
    fs::remove_file(machine.path("on-ps")).unwrap();
    assert_eq!(files(&machine.path("volumes")), now);
    assert_eq!(machine.state(PHYLACTERY), "running");
    let name = machine.kept().into_iter().find(|name| name.ends_with(".tar.zst")).unwrap();
    let path = machine.path(&format!("var/lib/sepulcher/snapshots/{name}"));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    machine.asked();
    let name = name.trim_end_matches(".tar.zst");
    machine.refuses(&["restore", name, "--with-volumes"], &["no whole snapshot"]);
    assert_eq!(files(&machine.path("volumes")), now);
    machine.run(&["create", "--bonds-only"]);
    machine.refuses(&["restore", "--with-volumes"], &["the snapshot holds no volumes"]);
}

#[test]
fn bonds_can_be_changed_while_volumes_are_read_and_the_restore_gives_way() {
    let (machine, _) = changed();
    let now = files(&machine.path("volumes"));
    let codex = machine.path("var/lib/sepulcher/codex");
    // What a command does to bonds, while the services are stopped.
    let change = format!(
        "[ -e {} ] || flock -w 5 {codex}/.lock sh -c 'echo >> {codex}/peers/phone.toml' || touch $root/waited\n",
        machine.path(&format!("containers/{PHYLACTERY}")).display(),
        codex = codex.display()
    );
    machine.write("on-ps", &change);
    machine.refuses(&["restore", "--with-volumes"], &["the bonds were changed while the volumes were read"]);
    assert!(!machine.path("waited").exists(), "it had to wait");
    assert_eq!(files(&machine.path("volumes")), now);
    assert_eq!(machine.state(PHYLACTERY), "running");
    fs::remove_file(machine.path("on-ps")).unwrap();
    // What was kept before that is a snapshot of its own by now.
    let names = machine.kept();
    let first = names.iter().filter_map(|name| name.strip_suffix(".tar.zst")).min_by_key(|name| name.len());
    machine.run(&["restore", first.unwrap(), "--with-volumes"]);
    assert_ne!(files(&machine.path("volumes")), now);
}

#[test]
fn a_service_that_does_not_start_again_has_what_was_put_back_and_it_is_said() {
    let (machine, kept) = changed();
    machine.write("fails-start", "");
    machine
        .refuses(&["restore", "--with-volumes"], &["the services cannot be started", "journalctl -u lychd"]);
    assert_eq!(files(&machine.path("volumes")), kept);
    machine.run(&["create", "--bonds-only"]);
    assert_eq!(files(&machine.path("volumes")), kept);
}

#[test]
fn a_service_that_only_tries_to_start_is_stopped_too_and_one_that_is_stopped_stays_so() {
    let (machine, kept) = changed();
    fs::remove_file(machine.path(&format!("containers/{PHYLACTERY}"))).unwrap();
    machine.run(&["restore", "--with-volumes"]);
    assert_eq!(files(&machine.path("volumes")), kept);
    let units = "lychd-phylactery.service lychd-veil.service";
    let start = "systemctl start -- lychd-veil.service".to_owned();
    assert_eq!(machine.asked(), [format!("systemctl stop -- {units}"), start]);
    assert_eq!(machine.state(PHYLACTERY), "");
}

#[test]
fn what_a_service_has_run_on_since_is_never_taken_from_it() {
    let claim = "what_a_service_has_run_on_since_is_never_taken_from_it";
    let Some(strace) = crate::judge::program(claim, "strace") else { return };
    let (machine, _) = changed();
    let log = machine.path("trace");
    // Killed behind the exchange of both volumes; then somebody starts the services by hand, and they write.
    let mut traced =
        strace.args(["-qq", "-o"]).arg(&log).args(["-e", "inject=renameat2:signal=SIGKILL:when=3"]);
    let command = machine.command(&["restore", "--with-volumes"]);
    fs::remove_file(machine.path("var/lib/sepulcher/codex/peers/phone.toml")).unwrap();
    traced = traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        traced = traced.env(name, value.unwrap_or_default());
    }
    assert!(!traced.output().unwrap().status.success());
    let base = machine.data("phylactery-data").join("17/base");
    assert_eq!(fs::read_to_string(&base).unwrap(), "first\n", "the volume is exchanged");
    machine.write(&format!("containers/{PHYLACTERY}"), "running\n");
    fs::write(&base, "third\n").unwrap();
    // The unit of the first boot, run again.
    let mut awaken = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
    awaken.env_clear().env("PATH", format!("{}:/usr/bin:/bin", machine.path("bin").display()));
    assert!(awaken.args(["awaken", "--root"]).arg(machine.0.path()).output().unwrap().status.success());
    assert_eq!(fs::read_to_string(&base).unwrap(), "third\n");
    machine.run(&["create", "--bonds-only"]);
    assert_eq!(fs::read_to_string(&base).unwrap(), "third\n");
    machine.run(&["create"]);
}

#[test]
fn a_snapshot_of_a_newer_image_is_refused_wherever_both_are_known() {
    let machine = Machine::new();
    let image = |name: &str, version: &str| {
        let text = format!("ID=debian\nIMAGE_ID={name}\nIMAGE_VERSION={version}\n");
        machine.write("usr/lib/os-release", &text);
    };
    // As every one was that does not say it.
    let older = machine.run(&["create", "--bonds-only"]);
    image("lychd", "10");
    let name = machine.run(&["create"]);
    assert!(machine.run(&["show"]).contains("image               10"), "{}", machine.run(&["show"]));
    let restore = ["restore", name.as_str(), "--with-volumes"];
    machine.asked();
    image("lychd", "9");
    let told = ["is of body 10 of lychd, and this one is 9", "sepulcher rebirth stage", "older snapshot"];
    machine.refuses(&["restore", &name], &told);
    machine.refuses(&["restore", &name, "--dry-run"], &told);
    machine.refuses(&restore, &told);
    assert!(machine.asked().is_empty(), "no service is stopped for it");
    machine.run(&["restore", &older]);
    for (other, version) in [("lychd", "10"), ("lychd", "11"), ("another", "9")] {
        image(other, version);
        machine.run(&restore);
    }
    fs::remove_file(machine.path("usr/lib/os-release")).unwrap();
    machine.run(&restore);
}

#[test]
fn links_are_kept_to_the_letter() {
    let machine = Machine::new();
    let long = format!("a//{}", "b".repeat(200));
    for (number, target) in ["/", "a//b", "./a", "a/.", "a//", &long].iter().enumerate() {
        symlink(target, machine.data("veil-data").join(format!("link-{number}"))).unwrap();
    }
    let before = files(&machine.path("volumes"));
    machine.run(&["create"]);
    machine.run(&["restore", "--with-volumes"]);
    assert_eq!(files(&machine.path("volumes")), before);
}

#[test]
fn a_volume_that_is_not_there_yet_is_no_restored_one() {
    let (machine, _) = changed();
    fs::remove_dir_all(machine.path("volumes/lychd-veil-data")).unwrap();
    machine
        .refuses(&["restore", "--with-volumes"], &["volume veil-data is not there yet", "start lychd-veil"]);
    assert_eq!(machine.state(PHYLACTERY), "running");
}

#[test]
fn volumes_travel_when_that_is_said_and_are_left_out_and_named_otherwise() {
    let (machine, kept) = changed();
    let scratch = tempfile::tempdir().unwrap();
    let (key, recipient) = crate::snapshot::identity(scratch.path(), "key");
    let [with, without] = ["with.age", "without.age"].map(|name| scratch.path().join(name));
    let [with, without, key] = [&with, &without, &key].map(|path| path.to_str().unwrap());
    let told = machine.ends(&["export", without, "--recipient", &recipient], 0).1;
    assert!(told.contains("volume phylactery-data is left out"), "{told}");
    machine.run(&["export", with, "--recipient", &recipient, "--with-volumes"]);
    let fresh = Machine::new();
    fresh.write("volumes/lychd-veil-data/_data/own", "");
    let told = fresh.ends(&["import", with, "--identity", key], 0).1;
    assert!(told.contains("volume veil-data is left out"), "{told}");
    fresh.refuses(&["restore", "--with-volumes"], &["the snapshot holds no volumes"]);
    let name = fresh.run(&["import", without, "--identity", key]);
    let whole = fresh.run(&["import", with, "--identity", key, "--with-volumes"]);
    assert_eq!(fresh.run(&["import", with, "--identity", key, "--with-volumes"]), whole, "once is enough");
    assert_eq!(fresh.kept().len(), 2, "{name} {:?}", fresh.kept());
    fresh.run(&["restore", &whole, "--with-volumes"]);
    assert_eq!(files(&fresh.path("volumes")), kept);
    let sealed = fs::read(with).unwrap();
    fs::write(with, &sealed[..sealed.len() - 1]).unwrap();
    fresh.refuses(&["import", with, "--identity", key, "--with-volumes"], &["no whole snapshot"]);
    fresh.run(&["create", "--bonds-only"]);
    let third = scratch.path().join("third.age");
    let words = ["export", third.to_str().unwrap(), "--recipient", &recipient, "--with-volumes"];
    fresh.refuses(&words, &["holds no volumes"]);
}

#[test]
fn a_killed_restore_has_the_old_bonds_and_volumes_or_the_new_ones_wherever_it_is() {
    let claim = "a_killed_restore_has_the_old_bonds_and_volumes_or_the_new_ones_wherever_it_is";
    let Some(strace) = crate::judge::program(claim, "strace") else { return };
    let (_, kept) = changed();
    let (mut outcomes, mut boots) = ([0; 2], false);
    for (call, step) in [("renameat2", 1), ("rename", 1), ("mkdirat", 2), ("unlinkat", 2), ("fchmod", 3)] {
        for nth in (1..30).step_by(step) {
            let (machine, _) = changed();
            let now = files(&machine.path("volumes"));
            let peers = machine.path("var/lib/sepulcher/codex/peers");
            let inode = || fs::metadata(&peers).unwrap().ino();
            let before = inode();
            // Most times bonds change with the volumes.
            let bonds_change = nth % 3 != 0;
            if bonds_change {
                fs::remove_file(peers.join("phone.toml")).unwrap();
            }
            let mut traced = strace.clone().args(["-qq", "-o", "/dev/null", "-e"]);
            traced = traced.arg(format!("inject={call}:signal=SIGKILL:when={nth}"));
            let command = machine.command(&["restore", "--with-volumes"]);
            traced = traced.arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                traced = traced.env(name, value.unwrap_or_default());
            }
            if traced.output().unwrap().status.success() {
                break;
            }
            let point = format!("{call} {nth}");
            boots = !boots;
            if boots {
                // The machine boots instead: no service runs, and none is asked for.
                for container in fs::read_dir(machine.path("containers")).unwrap() {
                    fs::remove_file(container.unwrap().path()).unwrap();
                }
                machine.asked();
                let mut awaken = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
                awaken
                    .env_clear()
                    .env("PATH", machine.path("bin"))
                    .args(["awaken", "--root"])
                    .arg(machine.0.path());
                assert!(awaken.output().unwrap().status.success(), "{point}");
                assert!(machine.asked().is_empty(), "{point}");
            } else {
                machine.run(&["create", "--bonds-only"]);
                assert_eq!(machine.state(PHYLACTERY), "running", "{point}");
            }
            let found = files(&machine.path("volumes"));
            assert!(found == now || found == kept, "{point}: {found:?}");
            let done = found == kept;
            assert_eq!(inode() != before, done, "{point}: peers of one state, volumes of the other");
            assert_eq!(peers.join("phone.toml").exists(), done || !bonds_change, "{point}");
            outcomes[usize::from(found == kept)] += 1;
        }
    }
    assert!(outcomes[0] >= 5 && outcomes[1] >= 1, "{outcomes:?}");
}
