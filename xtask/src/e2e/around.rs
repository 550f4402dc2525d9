//! Hosts around a booted machine: a bridge, peers with WireGuard, and what they ask over HTTP.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sepulcher::image::toolbox::Toolbox;
use sepulcher::sys::cmd::Command;

use super::site::{HOST, Keys};
use super::{BOOT, Claim};
use crate::Result;
use crate::netns::Netns;
use crate::vm::{Machine, Running, Seen, Start, Uplink};

/// The tunnel address of the machine.
pub const WG0: &str = "10.88.16.1";

/// What the console shows before the machine's public key.
pub const KEY: &str = "tether public key: ";

/// A namespace with a bridge and a tap device for the machine in it.
pub fn hub(toolbox: &Toolbox) -> Result<Netns> {
    let hub = Netns::new(toolbox, "hub")?;
    hub.ip("link add br0 type bridge")?;
    hub.ip("link set br0 up")?;
    hub.ip("tuntap add tap0 mode tap")?;
    hub.ip("link set tap0 master br0 up")?;
    Ok(hub)
}

/// The socket of the debugger of a machine that [`boot`] has powered on.
pub fn debugger(scratch: &Path) -> PathBuf {
    scratch.join("debugger")
}

/// A machine on the hub's tap device.
pub fn machine<'a>(toolbox: &'a Toolbox, scratch: &'a Path, hub: &Netns, start: Start<'a>) -> Machine<'a> {
    let uplink = Uplink::Tap { name: "tap0".to_owned(), launcher: hub.launcher() };
    Machine { toolbox, start, scratch, uplink, processors: 2 }
}

/// Powers a fresh disk on until the machine tells its public key, which is returned.
pub fn boot(
    toolbox: &Toolbox,
    scratch: &Path,
    hub: &Netns,
    disk: &dyn Fn() -> Result<PathBuf>,
) -> Result<(Running, String)> {
    until_key(&|| {
        let disk = disk()?;
        machine(toolbox, scratch, hub, Start::Disk(&disk)).power_on_for(&debugger(scratch))
    })
}

/// Powers on until the machine tells its public key, which is returned. A kernel that the emulator starves of timer
/// interrupts (it says so) is powered on once more: that is the test bench's defect, and it is told.
pub fn until_key(power_on: &dyn Fn() -> Result<Running>) -> Result<(Running, String)> {
    const STARVED: &str = "rcu_preempt kthread starved";
    for attempt in 1.. {
        let mut running = power_on()?;
        match running.wait(BOOT, |line| line.contains(KEY) || line.contains(STARVED)) {
            Seen::Line(_, line) if line.contains(KEY) => {
                let key = line.rsplit(' ').next().unwrap_or_default().to_owned();
                return Ok((running, key));
            }
            Seen::Line(_, line) if attempt < 3 => {
                eprintln!("e2e: the emulator stalled ({line}); powering on again");
            }
            _ => return Err(format!("no key on the console; its last lines:\n{}", running.tail(60)).into()),
        }
    }
    Err("no attempt was made".into())
}

/// A namespace with a WireGuard interface in it.
pub struct Bonded {
    /// Where it is.
    pub netns: Netns,
    interface: String,
    wg: Command,
    _daemon: Daemon,
}

/// A process that ends with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks ten times a second whether something holds.
pub fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !holds()? {
        if Instant::now() > end {
            return Err(format!("{what} did not come within {} s", limit.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Bonded {
    /// A peer at `address` of the machine's uplink.
    pub fn new(toolbox: &Toolbox, hub: &Netns, keys: &Keys, address: &str) -> Result<Self> {
        let netns = Netns::new(toolbox, &keys.name)?;
        netns.plug_into(hub, "br0", &keys.name, address)?;
        // Userspace implementations share the folder of their sockets across namespaces: the name must be ours alone.
        let short: String = keys.name.chars().take(6).collect();
        let interface = format!("wg{short}{}", std::process::id() % 1_000_000);
        // In the foreground: as a daemon it would execute itself again, and what it is executed by is the toolbox's loader.
        let command = toolbox.command("wireguard-go")?.args(["-f", &interface]).within(netns.launcher());
        let daemon = Daemon(
            command.to_std().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?,
        );
        until(Duration::from_secs(10), "wireguard-go's interface", || {
            Ok(netns.ip(&format!("address add {}/32 dev {interface}", keys.address)).is_ok())
        })?;
        let bonded = Self { netns, interface, wg: toolbox.command("wg")?, _daemon: daemon };
        // Its socket comes a moment after the interface.
        until(Duration::from_secs(10), "wireguard-go's socket", || Ok(bonded.wg("show", &[]).is_ok()))?;
        Ok(bonded)
    }

    /// Configures the tunnel as the client configuration would, and brings it up.
    pub fn dial(&self, keys: &Keys, host_key: &str) -> Result<()> {
        self.configure(keys, host_key)?;
        self.netns.ip(&format!("link set {} mtu 1420 up", self.interface))?;
        self.netns.ip(&format!("route add 10.88.16.0/20 dev {}", self.interface))?;
        self.netns.ip(&format!("route add 10.88.0.0/24 dev {}", self.interface))
    }

    /// Gives the interface keys and its only peer, in place of those that it had.
    pub fn configure(&self, keys: &Keys, host_key: &str) -> Result<()> {
        let settings = format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {host_key}\nEndpoint = {HOST}:51820\n\
             AllowedIPs = 10.88.16.0/20, 10.88.0.0/24\nPersistentKeepalive = 5\n{}",
            keys.private,
            keys.preshared.as_ref().map(|key| format!("PresharedKey = {key}\n")).unwrap_or_default(),
        );
        self.wg.clone().args(["setconf", &self.interface, "/dev/stdin"]).stdin(settings).read()?;
        Ok(())
    }

    /// Runs `wg VERB` on its interface with more words.
    pub fn wg(&self, verb: &str, words: &[&str]) -> Result<String> {
        let command = self.wg.clone().args([verb, &self.interface]).args(words.iter().copied());
        Ok(String::from_utf8(command.read()?)?)
    }

    /// Seconds since 1970 of the latest handshake; 0 is never.
    pub fn handshake(&self) -> Result<u64> {
        let text = self.wg("show", &["latest-handshakes"])?;
        Ok(text.split_whitespace().nth(1).unwrap_or("0").parse()?)
    }
}

/// HTTP requests from inside a namespace.
pub struct Web<'a> {
    /// Where curl comes from.
    pub toolbox: &'a Toolbox,
}

/// What came back.
pub struct Answer {
    /// HTTP status.
    pub status: String,
    /// Body.
    pub body: String,
}

impl Web<'_> {
    fn curl(&self, from: &Netns, url: &str, limit: u32) -> Result<std::process::Output> {
        let limit = limit.to_string();
        let curl = self.toolbox.command("curl")?.args([
            "--silent",
            "--show-error",
            "--max-time",
            &limit,
            "--write-out",
            "\n%{http_code} %{time_connect}",
            url,
        ]);
        Ok(curl.within(from.launcher()).output()?)
    }

    /// A page from inside `from`.
    pub fn get(&self, from: &Netns, url: &str) -> Result<Answer> {
        let output = self.curl(from, url, 20)?;
        if !output.status.success() {
            return Err(format!("{url}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let text = String::from_utf8(output.stdout)?;
        let (body, told) = text.rsplit_once('\n').ok_or("curl printed no status")?;
        let status = told.split(' ').next().unwrap_or_default();
        Ok(Answer { status: status.to_owned(), body: body.to_owned() })
    }

    /// Holds when the answer has the words `wanted`.
    pub fn answers(&self, name: &'static str, from: &Netns, url: &str, wanted: &str) -> Claim {
        Claim::check(name, || {
            let Answer { status, body } = self.get(from, url)?;
            if body.contains(wanted) {
                Ok(body.trim().to_owned())
            } else {
                Err(format!("{url}: {status} {body}").into())
            }
        })
    }

    /// Holds when nothing comes back.
    pub fn silent(&self, name: &'static str, from: &Netns, url: &str) -> Claim {
        Claim::check(name, || self.stays_silent(from, url))
    }

    /// That nothing comes back: a time-out (curl's exit code 28) without a connection, not a refusal.
    pub fn stays_silent(&self, from: &Netns, url: &str) -> Result<String> {
        let output = self.curl(from, url, 4)?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let connected = !told.trim_end().ends_with(" 0.000000");
        match output.status.code() {
            Some(28) if !connected => Ok("nothing came back in 4 s".to_owned()),
            code => Err(format!("{url}: curl ended with {code:?}: {told}").into()),
        }
    }
}
