//! A container engine for the tests: the one that `DOCKER_HOST` names, or a Docker of our own.
//!
//! Our own comes out of locked packages. It has network, mounts and processes to itself and sees the packages as
//! its `/usr`, so that nothing of the machine is used or changed: no firewall tables, no bridges, no daemon that stays.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, image, reproduce};

/// How long the engine may take to listen, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What runs first in the namespaces, with the packages' `/usr` and the engine's folder as arguments. `/run` hides
/// the sockets of other engines. There is no NAT and no forwarding: topologies are closed worlds.
const START: &str = r#"set -e
mount -t tmpfs tmpfs /run
mount --bind "$1" /usr
PATH=/usr/sbin:/usr/bin exec dockerd --config-file "$2/daemon.json" --data-root "$2/data" \
  --exec-root /run/docker --pidfile /run/docker.pid --host "unix://$2/docker.sock" --cgroup-parent "$3" \
  --exec-opt native.cgroupdriver=cgroupfs --bridge none --userland-proxy=false \
  --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false
"#;

/// An engine that answers. One of our own ends with this value.
pub struct Engine {
    /// Its address, as `DOCKER_HOST` says it.
    pub host: String,
    _own: Option<Daemon>,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, else one of our own.
    ///
    /// # Errors
    /// When this machine cannot run one: with what it lacks.
    pub fn ready() -> Result<Self> {
        match std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
            Some(host) => Ok(Self { host, _own: None }),
            None => Self::own(),
        }
    }

    fn own() -> Result<Self> {
        if let Some(reason) = missing() {
            return Err(
                format!("no container engine: {reason}; or name a running one with DOCKER_HOST").into()
            );
        }
        let packages = image::toolbox("tools-engine")?;
        let daemon = Daemon::start(&packages.file("usr"))?;
        let host = format!("unix://{}", daemon.folder.path().join("docker.sock").display());
        Ok(Self { host, _own: Some(daemon) })
    }
}

/// What this machine lacks for an engine of our own.
fn missing() -> Option<&'static str> {
    if !reproduce::is_root() {
        Some("it needs root: run it as root")
    } else if !fs::symlink_metadata("/bin").is_ok_and(|bin| bin.is_symlink()) {
        Some("/bin is not a link to /usr/bin here, and the engine brings its own /usr")
    } else {
        None
    }
}

struct Daemon {
    /// `unshare`, the daemon's parent.
    parent: Child,
    folder: tempfile::TempDir,
    cgroup: String,
}

impl Daemon {
    fn start(usr: &Path) -> Result<Self> {
        // Short: the path of a socket has room for 107 bytes.
        let folder = tempfile::Builder::new().prefix("sepulcher-engine-").tempdir()?;
        fs::write(folder.path().join("daemon.json"), "{}\n")?;
        let log = File::create(folder.path().join("log"))?;
        let cgroup = format!("/sepulcher-{}", std::process::id());
        let parent = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                START,
                "sh",
            ])
            .args([usr, folder.path(), Path::new(&cgroup)])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut daemon = Self { parent, folder, cgroup };
        daemon.wait_until_it_listens()?;
        Ok(daemon)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let socket = self.folder.path().join("docker.sock");
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = self.parent.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(10).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                return Err(format!("dockerd does not listen; its last words:\n{}", last.join("\n")).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The daemon's process as this machine numbers it.
    fn process(&self) -> Option<String> {
        let id = self.parent.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked first, so that it stops its containers in order; its namespaces take the rest with them.
        if let Some(process) = self.process() {
            let _ = Command::new("kill").arg(process).status();
        }
        let start = Instant::now();
        while matches!(self.parent.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        // Both fail only when it has ended already.
        let _ = self.parent.kill();
        let _ = self.parent.wait();
        for folder in cgroups(&self.cgroup) {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Where a control group is in the hierarchies of this machine: one (v2) or many (v1).
fn cgroups(name: &str) -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&top).into_iter().flatten().flatten().map(|entry| entry.path());
    below
        .chain([top.clone()])
        .map(|hierarchy| hierarchy.join(&name[1..]))
        .filter(|path| path.is_dir())
        .collect()
}
