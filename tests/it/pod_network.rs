//! The pod's network by Podman itself: what its unit runs at each boot, with the state of the boots before.

use std::path::{Path, PathBuf};

use sepulcher::codex::{Codex, Sources};
use sepulcher::render::render;
use sepulcher::sys::cmd::Command;

use crate::cases::{QUADLETS, on_disk};
use crate::judge::{generate, toolbox};
use crate::support::repository;

/// A machine for the time of one command: the toolbox as its root, with all that is written forgotten but for Podman's state.
/// Arguments: the toolbox, an empty folder, the state, the image's settings of Podman, the command.
const BOOT: &str = r#"set -e
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mkdir -p proc sys dev run tmp root etc/containers var/lib/containers
for name in bin sbin lib lib64; do [ -e "$name" ] || ln -s "usr/$name" "$name"; done
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs tmpfs run
mount --bind "$3" var/lib/containers
cp -r "$4"/. etc/containers
exec chroot . /usr/bin/bash -c "set -e; $5"
"#;

/// A network called so, and its subnet.
const INSPECT: &str = "podman network inspect sepulcher --format '{{range .Subnets}}{{.Subnet}}{{end}}'";

/// A machine whose power is lost at the end of each boot.
struct Machine {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl Machine {
    fn new(root: &Path) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), root: root.to_owned() };
        for name in ["root", "state"] {
            std::fs::create_dir(machine.folder.path().join(name)).unwrap();
        }
        machine
    }

    /// Boots, runs a shell line and loses power; what the line printed last.
    fn boot(&self, line: &str) -> Result<String, String> {
        let settings = repository("images/system/tree/etc/containers");
        let alone =
            Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        let folder = |name: &str| self.folder.path().join(name);
        let told = alone
            .args([BOOT, "sh"])
            .args([&self.root, &folder("root"), &folder("state"), &settings])
            .arg(line)
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            .output()
            .unwrap();
        if !told.status.success() {
            return Err(String::from_utf8(told.stderr).unwrap());
        }
        Ok(String::from_utf8(told.stdout).unwrap().lines().last().unwrap_or_default().to_owned())
    }
}

/// An appliance of that name with that network of its pod.
fn codex(name: &str, network: &str) -> Codex {
    let mut sources = Sources::default();
    let law = format!("schema = 1\n[appliance]\nname = \"{name}\"\n[pod]\nnetwork = \"{network}\"\n");
    sources.insert("lychd.toml", law);
    Codex::parse(&sources).unwrap()
}

/// What a law's network unit runs under these keys, and then a container in the place of the pod: it is there when the power is
/// lost, as the pod is.
fn start(quadlet: &Command, codex: &Codex, keys: &[&str]) -> String {
    let (_guard, root) = on_disk(&render(codex).unwrap());
    let units = generate(quadlet, &root.join(QUADLETS)).unwrap();
    let name = format!("{}-network.service", codex.appliance.name);
    let (_, unit) = units.iter().find(|(unit, _)| *unit == name).unwrap();
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let commands: String =
        lines.filter(|(key, _)| keys.contains(key)).map(|(_, command)| format!("{command}; ")).collect();
    let network = format!("sepulcher:ip={}", codex.pod.address);
    format!("{commands}podman create --replace --name pod --network {network} --rootfs /usr true; {INSPECT}")
}

#[test]
fn the_pods_network_is_the_laws_after_a_rebirth_and_after_a_rollback() {
    let test = "the_pods_network_is_the_laws_after_a_rebirth_and_after_a_rollback";
    let Some(toolbox) = toolbox(test) else { return };
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "{test} cannot run: root is needed");
        eprintln!("SKIPPED {test}: root is needed");
        return;
    }
    let quadlet = toolbox.command("quadlet").unwrap();
    let [old, new] = ["10.88.0.0/24", "10.99.0.0/24"];
    let machine = Machine::new(toolbox.root());
    for (name, network) in [("lychd", old), ("lychd", new), ("lychd", old), ("home", old), ("lychd", new)] {
        let line = start(&quadlet, &codex(name, network), &["ExecStartPre", "ExecStart"]);
        assert_eq!(machine.boot(&line).as_deref(), Ok(network), "{name}");
    }
    // By itself Podman says that all is well, and leaves the network as it is.
    let line = start(&quadlet, &codex("lychd", old), &["ExecStart"]);
    assert_eq!(machine.boot(&line).as_deref(), Ok(new));
}
