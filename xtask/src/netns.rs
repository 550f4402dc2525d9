//! Network namespaces of our own: hosts on one machine that vanish with the test.

use std::fs::File;
use std::os::fd::AsFd as _;

use sepulcher::image::toolbox::Toolbox;
use sepulcher::sys::cmd::Command;
use sepulcher::sys::netns;

use crate::Result;

/// A network namespace; dropping it removes it with everything in it.
pub struct Netns {
    ip: Command,
    /// Name under `ip netns`.
    pub name: String,
}

impl Netns {
    /// Makes an empty namespace; the name carries our process id so that two runs do not meet.
    pub fn new(toolbox: &Toolbox, role: &str) -> Result<Self> {
        let ip = toolbox.command("ip")?;
        remove_orphans(&ip)?;
        let name = format!("sepulcher-{}-{role}", std::process::id());
        ip.clone().args(["netns", "add", &name]).read()?;
        let netns = Self { ip, name };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Runs `ip` inside with the words of `args`.
    pub fn ip(&self, args: &str) -> Result<()> {
        self.ip.clone().args(["-n", &self.name]).args(args.split_whitespace()).read()?;
        Ok(())
    }

    /// What starts a program inside.
    pub fn launcher(&self) -> Command {
        self.ip.clone().args(["netns", "exec", &self.name])
    }

    /// Does something as a process inside would.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let network = File::open(format!("/run/netns/{}", self.name))?;
        netns::within(network.as_fd(), what)?
    }

    /// How many UDP datagrams have come in so far, whether or not somebody listens for them.
    pub fn datagrams(&self) -> Result<u64> {
        let told =
            String::from_utf8(Command::new("cat").arg("/proc/net/snmp").within(self.launcher()).read()?)?;
        let mut lines = told.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let counted = names.split(' ').zip(values.split(' '));
        let counted = counted.filter(|(name, _)| ["InDatagrams", "NoPorts", "InErrors"].contains(name));
        let counts: Vec<u64> =
            counted.map(|(_, count)| count.parse()).collect::<std::result::Result<_, _>>()?;
        if counts.len() == 3 { Ok(counts.iter().sum()) } else { Err("the kernel counts no datagrams".into()) }
    }

    /// Joins this namespace to a bridge in `hub` with an address.
    pub fn plug_into(&self, hub: &Netns, bridge: &str, port: &str, address: &str) -> Result<()> {
        hub.ip(&format!("link add {port} type veth peer name eth0 netns {}", self.name))?;
        hub.ip(&format!("link set {port} master {bridge} up"))?;
        self.ip(&format!("address add {address} dev eth0"))?;
        self.ip("link set eth0 up")
    }
}

/// Removes namespaces of runs that were killed: those that carry the id of a process that is no more.
fn remove_orphans(ip: &Command) -> Result<()> {
    let listed = String::from_utf8(ip.clone().args(["netns", "list"]).read()?)?;
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some((owner, _)) = name.strip_prefix("sepulcher-").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if owner.parse::<u32>().is_ok() && !std::path::Path::new("/proc").join(owner).exists() {
            ip.clone().args(["netns", "delete", name]).read()?;
        }
    }
    Ok(())
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A namespace that is gone already is what is wanted.
        let _ = self.ip.clone().args(["netns", "delete", &self.name]).read();
    }
}
