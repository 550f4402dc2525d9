//! Podman itself on a machine that boots and loses its power.

use std::path::{Path, PathBuf};

use sepulcher::image::toolbox::Toolbox;
use sepulcher::sys::cmd::Command;

use crate::judge::toolbox;
use crate::support::repository;

/// What it keeps.
const STATE: &str = "var/lib/containers";

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

/// A machine whose power is lost at the end of each boot.
pub struct Machine {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl Machine {
    fn new(root: &Path) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), root: root.to_owned() };
        for name in ["root", STATE] {
            std::fs::create_dir_all(machine.folder.path().join(name)).unwrap();
        }
        machine
    }

    /// Root of the files that it keeps.
    pub fn kept(&self) -> &Path {
        self.folder.path()
    }

    /// Boots, runs a shell line and loses power; what the line printed last.
    pub fn boot(&self, line: &str) -> Result<String, String> {
        let settings = repository("images/system/tree/etc/containers");
        let alone =
            Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        let folder = |name: &str| self.folder.path().join(name);
        let told = alone
            .args([BOOT, "sh"])
            .args([&self.root, &folder("root"), &folder(STATE), &settings])
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

/// A machine, and where its programs are from; or a loud line that says why this test is skipped.
pub fn machine(test: &str) -> Option<(Machine, &'static Toolbox)> {
    let toolbox = toolbox(test)?;
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "{test} cannot run: root is needed");
        eprintln!("SKIPPED {test}: root is needed");
        return None;
    }
    Some((Machine::new(toolbox.root()), toolbox))
}
