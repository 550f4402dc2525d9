//! A gateway, and devices around it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sepulcher::codex::key::PublicKey;
use sepulcher::sys::wireguard::SecretKey;
use sepulcher::tether::status::Status;

use crate::device::Device;
use crate::engine::{self, Image};
use crate::host::{Host, Rights, until};

/// A network of containers, and what is kept of it when its test fails.
pub struct World {
    /// The test's name.
    claim: &'static str,
    network: String,
    image: &'static Image,
    folder: tempfile::TempDir,
    _turn: Turn,
}

/// Tests run beside each other, but for those that measure.
static TURN: RwLock<()> = RwLock::new(());

enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl World {
    /// A network of its own for a test; `None` when it cannot run here.
    pub fn new(claim: &'static str) -> Option<Self> {
        let guard = TURN.read().unwrap_or_else(PoisonError::into_inner);
        Self::in_turn(claim, Turn::Shared { _guard: guard })
    }

    /// The same, and no other test runs at that time.
    pub fn alone(claim: &'static str) -> Option<Self> {
        let guard = TURN.write().unwrap_or_else(PoisonError::into_inner);
        Self::in_turn(claim, Turn::Alone { _guard: guard })
    }

    fn in_turn(claim: &'static str, turn: Turn) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let image = engine::machine(claim)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let network = format!("sepulcher-{}-{number}", std::process::id());
        let folder = tempfile::Builder::new().prefix("sepulcher-topology-").tempdir().unwrap();
        Some(Self { claim, network, image, folder, _turn: turn })
    }

    /// A machine on the network.
    pub fn host(&self, name: &str, argv: &[&str], rights: Rights) -> Host {
        self.host_on(&self.network, name, argv, rights)
    }

    /// A machine on another network than most.
    pub fn host_on(&self, network: &str, name: &str, argv: &[&str], rights: Rights) -> Host {
        Host::start(name, network, self.image, argv, rights, self.log(name))
    }

    /// The name of a network of this world behind the one that everybody is on.
    pub fn inner(&self) -> String {
        format!("{}-inner", self.network)
    }

    /// A program beside those of `other`, in the same network namespace.
    pub fn beside(&self, other: &Host, name: &str, argv: &[&str], rights: Rights) -> Host {
        Host::start(name, &other.network(), self.image, argv, rights, self.log(name))
    }

    /// Where a container's output is kept when the test fails.
    pub fn log(&self, name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/topology/{}/{name}.log", self.claim))
    }

    /// A new folder of ours.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// An appliance's pod: the holder of its network with a userspace WireGuard in it, a service, and the agent.
pub struct Gateway {
    /// Holds the network namespace.
    pub pod: Host,
    /// `sepulcher tether run`.
    pub agent: Host,
    /// Its address outside of the tunnel.
    pub outside: Ipv4Addr,
    /// Its public key.
    pub key: PublicKey,
    /// The Codex, law and bonds in one.
    pub codex: PathBuf,
    run: PathBuf,
    sockets: PathBuf,
    /// What runs beside it in the pod.
    pub services: Vec<Host>,
}

/// The services of every gateway: one that answers with a page, one that takes and gives bytes, one that nobody is granted.
const SERVICES: [(&str, &[u16]); 3] = [("oculus", &[6006]), ("iperf", &[5201, 5202]), ("worker", &[9464])];

impl Gateway {
    /// A gateway whose Tether is the network `tether`; ready once this returns.
    pub fn new(world: &World, name: &str, tether: &str) -> Self {
        let pod = Self::pod(world, name, None);
        let (outside, network) = pod.outside();
        let codex = world.folder(&format!("{name}/codex"));
        write_law(&codex, name, tether, &(outside, network));
        let oculus = ["sepulcher", "stand-in", "oculus", "6006", "9464", "--path", "/traces"];
        let iperf = ["bash", "-c", "iperf3 --server --port 5202 & exec iperf3 --server"];
        let services = [("oculus", oculus.as_slice()), ("iperf", &iperf)]
            .map(|(service, argv)| world.beside(&pod, &format!("{name}-{service}"), argv, Rights::default()));
        Self::awaken(world, name, pod, outside, codex, services.into())
    }

    /// The holder of a gateway's network, with a userspace WireGuard in it: on a network of that name, or where
    /// everybody is. Its kernel would hand packets on: what keeps it from that is the ruleset alone.
    pub fn pod(world: &World, name: &str, network: Option<&str>) -> Host {
        let mounts = vec![(sockets(world, name), "/var/run/wireguard")];
        let rights =
            Rights { capabilities: &["NET_ADMIN"], tun: true, forwards: true, mounts, ..Rights::default() };
        let (name, argv) = (format!("{name}-pod"), ["wireguard-go", "-f", "wg0"]);
        let pod = match network {
            Some(network) => world.host_on(network, &name, &argv, rights),
            None => world.host(&name, &argv, rights),
        };
        until("wireguard-go serves wg0", || pod.try_sh("wg show wg0").ok());
        pod
    }

    /// Starts the agent in a pod; ready once this returns.
    pub fn awaken(
        world: &World,
        name: &str,
        pod: Host,
        outside: Ipv4Addr,
        codex: PathBuf,
        services: Vec<Host>,
    ) -> Self {
        let run = world.folder(&format!("{name}/run"));
        fs::create_dir_all(codex.join("secrets")).unwrap();
        let secret = SecretKey::generate();
        fs::write(codex.join("secrets/tether.key"), secret.to_file().as_bytes()).unwrap();
        let sockets = sockets(world, name);
        let agent = agent(world, name, world.image, &pod, &[&codex, &run, &sockets]);
        let gateway = Self { pod, agent, outside, key: secret.public(), codex, run, sockets, services };
        until("the agent is ready", || gateway.status().filter(|status| status.ready));
        gateway
    }

    /// Kills the agent, removes its container, and has one of another image do its work. `meanwhile` is done while
    /// there is none. Ready once this returns.
    pub fn replace_agent(self, world: &World, image: &Image, meanwhile: impl FnOnce(&Self)) -> Self {
        self.agent.kill();
        meanwhile(&self);
        let before = self.status().map_or(0, |status| status.written_ms);
        let Self { pod, agent: old, outside, key, codex, run, sockets, services } = self;
        let name = old.name.strip_suffix("-agent").unwrap().to_owned();
        drop(old);
        let agent = agent(world, &name, image, &pod, &[&codex, &run, &sockets]);
        let gateway = Self { pod, agent, outside, key, codex, run, sockets, services };
        until("the other agent is ready", || {
            gateway.status().filter(|status| status.ready && status.written_ms > before)
        });
        gateway
    }

    /// Ends everything at once and starts it again; the agent is ready once this returns.
    pub fn reboot(&self) {
        self.agent.kill();
        self.services.iter().for_each(Host::kill);
        self.pod.kill();
        self.pod.restart();
        until("wireguard-go serves wg0", || self.pod.try_sh("wg show wg0").ok());
        assert_eq!(self.pod.outside().0, self.outside, "the law names its address");
        self.services.iter().for_each(Host::restart);
        self.agent.restart();
        self.looks_again();
    }

    /// Lays down a pass for the Veil's pinned routes, as only the agent should.
    pub fn lay_pass(&self, owner: &str, address: &str) {
        fs::write(self.run.join("veil").join(owner).join(address), "").unwrap();
    }

    /// What the agent told last.
    pub fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(self.run.join("tether.json")).ok()?).ok()
    }

    /// Waits until the agent has looked again.
    pub fn looks_again(&self) {
        let before = self.status().map_or(0, |status| status.written_ms);
        until("the agent looks again", || {
            self.status().filter(|status| status.ready && status.written_ms > before)
        });
    }

    /// Bytes exchanged with a device, as the interface counts them; `None` when it is no peer.
    pub fn traffic(&self, device: &Device) -> Option<u64> {
        let shown = self.pod.sh("wg show wg0 transfer");
        let line = shown.lines().find(|line| line.starts_with(&device.key.to_string()))?;
        line.split_whitespace().skip(1).map(|count| count.parse::<u64>().ok()).sum()
    }

    /// How many grants a tunnel address has.
    pub fn grants_of(&self, address: &str) -> usize {
        self.pod.sh("nft list set inet sepulcher grants").matches(&format!("{address} .")).count()
    }
}

/// Starts the agent of the gateway `name` out of `image`. `folders` are those of the Codex, of what it tells, and of the
/// tunnel's socket.
fn agent(world: &World, name: &str, image: &Image, pod: &Host, folders: &[&PathBuf; 3]) -> Host {
    let inside = ["/codex", "/run/sepulcher/agent", "/var/run/wireguard"];
    let mounts = folders.iter().map(|folder| (*folder).clone()).zip(inside).collect();
    let rights = Rights { capabilities: &["NET_ADMIN"], read_only: true, mounts, ..Rights::default() };
    let name = format!("{name}-agent");
    Host::start(&name, &pod.network(), image, &AGENT, rights, world.log(&name))
}

/// Where a userspace WireGuard listens for its agent.
fn sockets(world: &World, name: &str) -> PathBuf {
    world.folder(&format!("{name}/wireguard"))
}

const AGENT: [&str; 13] = [
    "sepulcher",
    "tether",
    "run",
    "--backend",
    "userspace",
    "--law",
    "/codex",
    "--bonds",
    "/codex",
    "--secrets",
    "/codex/secrets",
    "--key",
    "/codex/secrets/tether.key",
];

fn write_law(codex: &Path, name: &str, tether: &str, outside: &(Ipv4Addr, String)) {
    for folder in ["services", "peers", "secrets"] {
        fs::create_dir_all(codex.join(folder)).unwrap();
    }
    let (address, network) = outside;
    let law = format!(
        "schema = 1\n[appliance]\nname = \"{name}\"\n[pod]\nnetwork = \"{network}\"\naddress = \"{address}\"\n\
         [tether]\nbackend = \"userspace\"\nnetwork = \"{tether}\"\nendpoint = \"gateway.example\"\n"
    );
    fs::write(codex.join("lychd.toml"), law).unwrap();
    for (service, ports) in SERVICES {
        let ports = ports.iter().map(|port| format!("[[port]]\nnumber = {port}\ntier = \"tether\"\n"));
        let text =
            format!("description = \"{service}\"\nrootfs = \"stand-in\"\n{}", ports.collect::<String>());
        fs::write(codex.join(format!("services/{service}.toml")), text).unwrap();
    }
}
