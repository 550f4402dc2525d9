//! What a peer's packets pay for the grants of others: throughput and round trips through tunnel and ruleset.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sepulcher::sys::wireguard::SecretKey;

use super::lab::{Agent, Interface, Lab, Running, until};
use super::{example_sources, line, middle, ms, parsed, peer_address, with_peers};
use crate::Result;

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

/// Whoever dials, on the pod's network.
const DIALLER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 77);

/// A gateway with the agent, and a bonded peer that is at the end of the table.
struct Way {
    gateway: Interface,
    peer: Interface,
    _agent: Agent,
    to: SocketAddrV4,
}

/// Measures all tables in turn and prints a line each.
pub fn measure(lab: &Lab) -> Result<()> {
    let ways = GRANTS.into_iter().map(|grants| Way::new(lab, grants)).collect::<Result<Vec<_>>>()?;
    let mut bits = vec![Vec::new(); ways.len()];
    let mut trips = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (index, way) in ways.iter().enumerate() {
            trips[index].push(way.trip()?);
            bits[index].push(way.throughput(lab)?);
        }
    }
    let bits: Vec<f64> = bits.into_iter().map(|rounds| middle(rounds, f64::total_cmp)).collect();
    let trips: Vec<Duration> = trips.into_iter().map(|rounds| middle(rounds, Ord::cmp)).collect();
    for (index, grants) in GRANTS.iter().enumerate() {
        line(&format!("{grants} grants, throughput"), "none", &format!("{:.0} Mbit/s", bits[index] / 1e6));
        line(&format!("{grants} grants, a round trip"), "none", &ms(trips[index]));
        if index > 0 {
            let trip = trips[index].as_secs_f64() / trips[0].as_secs_f64();
            line("  throughput by that of 10", "0.95 at least", &format!("{:.3}", bits[index] / bits[0]));
            line("  round trip by that of 10", "1.05 at most", &format!("{trip:.3}"));
        }
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
        let peer = lab.interface(&format!("peer{grants}"), "wg0")?;
        let prefix = codex.pod.network.prefix();
        gateway.netns.ip(&format!("link add eth0 type veth peer name eth0 netns {}", peer.netns.name))?;
        for (netns, address) in [(&gateway.netns, codex.pod.address), (&peer.netns, DIALLER)] {
            netns.ip(&format!("address add {address}/{prefix} dev eth0"))?;
            netns.ip("link set eth0 up")?;
        }
        let agent = lab.agent(&gateway, &folder)?;
        let host = SecretKey::parse(&fs::read(folder.join("secrets/tether.key"))?)?;
        let (wg0, network, port) = (codex.tether.address, codex.tether.network, codex.tether.port);
        let settings = format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = {}:{port}\nAllowedIPs = {network}\n",
            key.to_file().trim(),
            host.public(),
            codex.pod.address,
        );
        lab.wg(&peer, "setconf")?.arg("/dev/stdin").stdin(settings).read()?;
        peer.netns.ip(&format!("address add {address}/32 dev wg0"))?;
        peer.netns.ip(&format!("link set wg0 mtu {} up", codex.tether.mtu))?;
        peer.netns.ip(&format!("route add {network} dev wg0"))?;
        Ok(Self { gateway, peer, _agent: agent, to: SocketAddrV4::new(wg0, PORT) })
    }

    /// Bits a second that one TCP stream carries from the peer to the gateway.
    fn throughput(&self, lab: &Lab) -> Result<f64> {
        let iperf = |netns: &crate::netns::Netns| -> Result<_> {
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

    /// The median time of one byte to the gateway and back.
    fn trip(&self) -> Result<Duration> {
        let to = self.to;
        let listener = self.gateway.netns.within(|| Ok(TcpListener::bind(to)?))?;
        let echo = thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut byte = [0];
            while stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
            }
            Ok(())
        });
        let times = self.peer.netns.within(|| {
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
}
