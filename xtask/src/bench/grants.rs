//! What a peer's packets pay for the grants of others: throughput and round trips through tunnel and both rulesets.

#[path = "../../../tests/topology/netavark.rs"]
mod netavark;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sepulcher::codex::Codex;
use sepulcher::reach;
use sepulcher::render::{BRIDGE, nftables};
use sepulcher::sys::wireguard::SecretKey;

use super::lab::{Agent, Interface, Lab, Running, until};
use super::{example_sources, line, middle, ms, parsed, peer_address, with_peers};
use crate::Result;
use crate::netns::Netns;

/// Grants in the tables that are compared.
const GRANTS: [u32; 3] = [10, 1000, 10_000];

/// Rounds, each with every table in turn, so that what disturbs one disturbs all.
const ROUNDS: usize = 9;

/// Seconds that one transfer takes.
const SECONDS: &str = "4";

/// Round trips of one round; a median is taken of each.
const TRIPS: usize = 500;

/// The port of the example's Oculus, which every peer is granted.
const PORT: u16 = 6006;

/// The host's address in the forest, and whoever dials it.
const UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DIALLER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A pod with the agent behind a host with its ruleset, as on the appliance, and a bonded peer that is at the end of the table.
struct Way {
    gateway: Interface,
    _host: Netns,
    peer: Interface,
    _agent: Agent,
    to: SocketAddrV4,
}

/// Measures all tables in turn and prints a line each.
pub fn measure(lab: &Lab) -> Result<()> {
    let ways = GRANTS.into_iter().map(|grants| Way::new(lab, grants)).collect::<Result<Vec<_>>>()?;
    let cables = Cables::new(lab)?;
    let mut bits = vec![Vec::new(); ways.len()];
    let mut trips = vec![Vec::new(); ways.len()];
    let mut bare = Vec::new();
    for _ in 0..ROUNDS {
        bare.push(cables.trip()?);
        for (index, way) in ways.iter().enumerate() {
            trips[index].push(way.trip()?);
            bits[index].push(way.throughput(lab)?);
        }
    }
    let bits: Vec<f64> = bits.into_iter().map(|rounds| middle(rounds, f64::total_cmp)).collect();
    let trips: Vec<Duration> = trips.into_iter().map(|rounds| middle(rounds, Ord::cmp)).collect();
    let bare = middle(bare, Ord::cmp);
    let added: Vec<Duration> = trips.iter().map(|trip| trip.saturating_sub(bare)).collect();
    line("the same cables bare, a round trip", "none", &ms(bare));
    for (index, grants) in GRANTS.iter().enumerate() {
        line(&format!("{grants} grants, throughput"), "none", &format!("{:.0} Mbit/s", bits[index] / 1e6));
        line(&format!("{grants} grants, a round trip"), "none", &ms(trips[index]));
        line("  added by tunnel and rulesets", "none", &ms(added[index]));
        if index > 0 {
            let ratio = |times: &[Duration]| times[index].as_secs_f64() / times[0].as_secs_f64();
            line("  throughput by that of 10", "0.95 at least", &format!("{:.3}", bits[index] / bits[0]));
            line("  round trip by that of 10", "1.05 at most", &format!("{:.3}", ratio(&trips)));
            line("  added latency by that of 10", "1.05 at most", &format!("{:.3}", ratio(&added)));
        }
    }
    Ok(())
}

/// The way from peer to pod with nothing in it: no tunnel, no ruleset.
struct Cables {
    pod: Netns,
    _host: Netns,
    peer: Netns,
    to: SocketAddrV4,
}

impl Cables {
    fn new(lab: &Lab) -> Result<Self> {
        let [pod, host, peer] = ["pod", "host", "peer"].map(|role| Netns::new(&lab.tools, role));
        let (pod, host, peer) = (pod?, host?, peer?);
        let codex = parsed(&example_sources())?;
        wire(&codex, [&pod, &host, &peer])?;
        peer.ip(&format!("route add {} via {UPLINK}", codex.pod.network))?;
        Ok(Self { pod, _host: host, peer, to: SocketAddrV4::new(codex.pod.address, PORT) })
    }

    fn trip(&self) -> Result<Duration> {
        trip(&self.pod, &self.peer, self.to)
    }
}

/// Puts a host between pod and peer that hands packets on.
fn wire(codex: &Codex, [pod, host, peer]: [&Netns; 3]) -> Result<()> {
    let (address, gateway, prefix) = (codex.pod.address, codex.pod.gateway, codex.pod.network.prefix());
    for (netns, name, here, there, prefix) in
        [(peer, "up0", UPLINK, DIALLER, 24), (pod, BRIDGE, gateway, address, prefix)]
    {
        host.ip(&format!("link add {name} type veth peer name eth0 netns {}", netns.name))?;
        for (netns, name, address) in [(host, name, here), (netns, "eth0", there)] {
            netns.ip(&format!("address add {address}/{prefix} dev {name}"))?;
            netns.ip(&format!("link set {name} up"))?;
        }
    }
    pod.ip(&format!("route add default via {gateway}"))?;
    host.within(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))
}

/// The host's ruleset, and beside it what Netavark makes of published ports.
fn guard(lab: &Lab, host: &Netns, codex: &Codex) -> Result<()> {
    let published: Vec<_> = reach::published(codex)
        .into_iter()
        .map(|(protocol, port)| (port.to_string(), protocol.to_string()))
        .collect();
    let published = published.iter().map(|(port, protocol)| (port.as_str(), protocol.as_str()));
    let (address, network) = (codex.pod.address.to_string(), codex.pod.network.to_string());
    for ruleset in [nftables::host(codex)?, netavark::ruleset(published, &address, &network)] {
        lab.tools.command("nft")?.args(["-f", "-"]).within(host.launcher()).stdin(ruleset).read()?;
    }
    Ok(())
}

impl Way {
    fn new(lab: &Lab, grants: u32) -> Result<Self> {
        // The example's Oculus gives each peer one grant.
        let mut sources = with_peers(&example_sources(), grants - 1)?;
        let (key, address) = (SecretKey::generate(), peer_address(grants));
        let bond =
            format!("public-key = \"{}\"\naddress = \"{address}\"\ngrants = [\"oculus\"]\n", key.public());
        sources.insert("peers/measured.toml", bond);
        let codex = parsed(&sources)?;
        let folder = lab.codex(&format!("grants-{grants}"), &sources)?;
        let gateway = lab.interface(&format!("gate{grants}"), "wg0")?;
        let host = Netns::new(&lab.tools, &format!("host{grants}"))?;
        let peer = lab.interface(&format!("peer{grants}"), "wg0")?;
        guard(lab, &host, &codex)?;
        wire(&codex, [&gateway.netns, &host, &peer.netns])?;
        let agent = lab.agent(&gateway, &folder)?;
        let secret = SecretKey::parse(&fs::read(folder.join("secrets/tether.key"))?)?;
        let (wg0, network, port) = (codex.tether.address, codex.tether.network, codex.tether.port);
        let settings = format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = {UPLINK}:{port}\nAllowedIPs = {network}\n",
            key.to_file().trim(),
            secret.public(),
        );
        lab.wg(&peer, "setconf")?.arg("/dev/stdin").stdin(settings).read()?;
        peer.netns.ip(&format!("address add {address}/32 dev wg0"))?;
        peer.netns.ip(&format!("link set wg0 mtu {} up", codex.tether.mtu))?;
        peer.netns.ip(&format!("route add {network} dev wg0"))?;
        Ok(Self { gateway, _host: host, peer, _agent: agent, to: SocketAddrV4::new(wg0, PORT) })
    }

    /// Bits a second that one TCP stream carries from the peer to the gateway.
    fn throughput(&self, lab: &Lab) -> Result<f64> {
        let iperf = |netns: &Netns| -> Result<_> {
            Ok(lab.tools.command("iperf3")?.args(["-p", &PORT.to_string()]).within(netns.launcher()))
        };
        let log = lab.folder.join("iperf3.log");
        let server = iperf(&self.gateway.netns)?.args(["-s", "-1", "--forceflush"]);
        let _server = Running::start(&server, &log)?;
        until("iperf3 serves", || Ok(fs::read_to_string(&log)?.contains("Server listening")))?;
        let client = iperf(&self.peer.netns)?.args(["-J", "-t", SECONDS, "-c", &self.to.ip().to_string()]);
        let told = client.read()?;
        let told: serde_json::Value = serde_json::from_slice(&told)?;
        Ok(told["end"]["sum_received"]["bits_per_second"].as_f64().ok_or("iperf3 tells no figure")?)
    }

    fn trip(&self) -> Result<Duration> {
        trip(&self.gateway.netns, &self.peer.netns, self.to)
    }
}

/// The median time of one byte from the peer to the pod and back.
fn trip(pod: &Netns, peer: &Netns, to: SocketAddrV4) -> Result<Duration> {
    let listener = pod.within(|| Ok(TcpListener::bind(to)?))?;
    let echo = thread::spawn(move || -> std::io::Result<()> {
        // The agent asks whoever listens on a declared port, with the address that it asks for as its own.
        let mut stream = loop {
            let (stream, from) = listener.accept()?;
            if from.ip() != *to.ip() {
                break stream;
            }
        };
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let times = peer.within(|| {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let mut times = Vec::new();
        for _ in 0..TRIPS {
            let start = Instant::now();
            stream.write_all(&[1])?;
            stream.read_exact(&mut [0])?;
            times.push(start.elapsed());
        }
        Ok(times)
    })?;
    echo.join().map_err(|_| "the echo broke off")??;
    Ok(middle(times, Ord::cmp))
}
