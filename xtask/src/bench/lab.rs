//! The agent in a network namespace of its own, with so many peers: what the measurements of the Tether share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sepulcher::codex::{Backend, Sources};
use sepulcher::image::toolbox::Toolbox;
use sepulcher::sys::cmd::Command;
use sepulcher::sys::wireguard::SecretKey;
use sepulcher::tether::status::Status;

use crate::Result;
use crate::netns::Netns;

/// Nothing here takes longer, also where a machine is emulated.
const PATIENCE: Duration = Duration::from_secs(600);

/// Programs, and where to write.
pub struct Lab {
    /// iproute2, WireGuard's tools, nft, iperf3.
    pub tools: Toolbox,
    /// Our program.
    pub program: PathBuf,
    /// The WireGuard that is measured.
    pub backend: Backend,
    pub folder: PathBuf,
}

/// A WireGuard interface in a namespace.
pub struct Interface {
    pub name: String,
    pub netns: Netns,
    /// Of the userspace implementation.
    _daemon: Option<Running>,
}

impl Lab {
    /// Writes into `folder`.
    pub fn new(tools: Toolbox, program: PathBuf, backend: Backend, folder: &Path) -> Self {
        Self { tools, program, backend, folder: folder.to_owned() }
    }

    /// Writes a Codex into a folder of its own, with a new key of the host.
    pub fn codex(&self, name: &str, sources: &Sources) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        for (name, text) in sources.iter() {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            fs::write(path, text)?;
        }
        fs::create_dir_all(folder.join("secrets"))?;
        fs::write(folder.join("secrets/tether.key"), SecretKey::generate().to_file().as_bytes())?;
        Ok(folder)
    }

    /// An interface without a configuration, in a new namespace of this role.
    pub fn interface(&self, role: &str, name: &str) -> Result<Interface> {
        let netns = Netns::new(&self.tools, role)?;
        let daemon = match self.backend {
            Backend::Kernel => {
                netns.ip(&format!("link add {name} type wireguard"))?;
                None
            }
            Backend::Userspace => {
                let command = self.tools.command("wireguard-go")?.args(["-f", name]).within(netns.launcher());
                Some(Running::start(&command, &self.folder.join("wireguard.log"))?)
            }
        };
        let interface = Interface { name: name.to_owned(), netns, _daemon: daemon };
        let show = self.wg(&interface, "show")?;
        until("the interface answers", || Ok(show.read().is_ok()))?;
        Ok(interface)
    }

    /// `wg VERB` of an interface.
    pub fn wg(&self, interface: &Interface, verb: &str) -> Result<Command> {
        Ok(self.tools.command("wg")?.args([verb, &interface.name]).within(interface.netns.launcher()))
    }

    /// Starts the agent of a Codex and waits until it is ready.
    pub fn agent(&self, interface: &Interface, codex: &Path) -> Result<Agent> {
        let role = &interface.netns.name;
        let [status, log, door] =
            ["json", "log", "sock"].map(|end| self.folder.join(format!("{role}.{end}")));
        let _ = fs::remove_file(&status);
        let backend = match self.backend {
            Backend::Kernel => "kernel",
            Backend::Userspace => "userspace",
        };
        let command = Command::new(&self.program)
            .args(["tether", "run", "--backend", backend, "--interface", &interface.name])
            .args([Path::new("--law"), codex, Path::new("--bonds"), codex])
            .args([Path::new("--key"), &codex.join("secrets/tether.key"), Path::new("--status"), &status])
            .args([Path::new("--secrets"), &codex.join("secrets"), Path::new("--door"), &door])
            .args([Path::new("--nft"), &self.tools.shims().join("nft")])
            .within(interface.netns.launcher());
        let agent = Agent { running: Running::start(&command, &log)?, status };
        until("the agent is ready", || Ok(agent.status().is_some_and(|status| status.ready)))
            .map_err(|error| format!("{error}:\n{}", fs::read_to_string(log).unwrap_or_default()))?;
        Ok(agent)
    }
}

/// An agent that is ready.
pub struct Agent {
    pub running: Running,
    status: PathBuf,
}

impl Agent {
    fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(&self.status).ok()?).ok()
    }

    /// How often it has told its status within a time: once a look.
    pub fn looks_within(&self, time: Duration) -> usize {
        let told = || self.status().map(|status| status.written_ms);
        let (end, mut last, mut looks) = (Instant::now() + time, told(), 0);
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
            let now = told();
            looks += usize::from(now != last);
            last = now;
        }
        looks
    }

    /// Waits until it has read back so many peers.
    pub fn until_it_holds(&self, count: u32) -> Result<()> {
        until("the agent holds the peer", || {
            Ok(self.status().is_some_and(|status| status.peers.held == count as usize))
        })
    }
}

/// A process that ends with its owner.
pub struct Running(Child);

impl Running {
    pub fn start(command: &Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        let mut command = command.to_std();
        Ok(Self(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?))
    }

    /// How often its threads went to sleep and were woken, since they started.
    pub fn wake_ups(&self) -> Result<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            sum += field(&thread?.path().join("status"), "voluntary_ctxt_switches:")?;
        }
        Ok(sum)
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> Result<u64> {
        field(Path::new(&format!("/proc/{}/status", self.0.id())), "VmRSS:")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A number of a process's status.
fn field(status: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(status)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// Asks a thousand times a second whether something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > end {
            return Err(format!("{what} did not come within {} s", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
