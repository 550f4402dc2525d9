//! Outsider, host, pod and peers, each a namespace, with the rendered rulesets between them. Behind `wg0` are no tunnels here
//! but a cable: what WireGuard proves about a source address is taken as proven.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use sepulcher::codex::{Codex, Protocol, Sources};
use sepulcher::reach;
use sepulcher::render::{BRIDGE, nftables};
use sepulcher::sys::wireguard::SecretKey;

use crate::lab::Machine;
use crate::netavark;
use crate::packets::{Ask, Listeners};

/// The uplink's addresses, the outsider's beside them.
pub const UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const UPLINK6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10);
pub const OUTSIDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
pub const OUTSIDER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);

/// Hears what a machine's own rulesets let in, whether or not anything answers or the answer comes back: each attempt is known
/// by its source port or identifier. And it counts the errors that a machine is told, which a socket may miss.
const EAR: &str = "table inet ear {
    set ports { type inet_proto . inet_service; size 65535; flags dynamic; }
    set pings { typeof icmp id; size 65535; flags dynamic; }
    set pings6 { typeof icmpv6 id; size 65535; flags dynamic; }
    chain input {
        type filter hook input priority 300; policy accept;
        meta l4proto { tcp, udp } add @ports { meta l4proto . th sport }
        icmp type echo-request add @pings { icmp id }
        icmpv6 type echo-request add @pings6 { icmpv6 id }
    }
    chain told {
        type filter hook prerouting priority raw; policy accept;
        icmp type { destination-unreachable, redirect, time-exceeded, parameter-problem } counter
        icmpv6 type { destination-unreachable, time-exceeded, parameter-problem, nd-redirect } counter
    }
}";

/// The machines, wired; on each something listens on every port that matters.
pub struct Arena {
    pub outsider: Machine,
    pub host: Machine,
    pub pod: Machine,
    pub peers: Machine,
    _listeners: [Listeners; 4],
}

impl Arena {
    /// Loads what the Codex renders. `behind` are all addresses that somebody behind `wg0` may send from, `ports`
    /// those that are listened on.
    pub fn new(codex: &Codex, behind: &[IpAddr], ports: &[u16], folder: &Path) -> Self {
        let [outsider, host, pod, peers] = [(); 4].map(|()| Machine::new());
        load(&host, &nftables::host(codex).unwrap(), &folder.join("host.nft"));
        load(&pod, &nftables::pod(codex).unwrap(), &folder.join("pod.nft"));
        wire(codex, [&outsider, &host, &pod, &peers]);
        let published = reach::published(codex);
        let published: Vec<_> =
            published.iter().map(|(protocol, port)| (port.to_string(), protocol.to_string())).collect();
        let published = published.iter().map(|(port, protocol)| (port.as_str(), protocol.as_str()));
        let (address, network) = (codex.pod.address.to_string(), codex.pod.network.to_string());
        load(&host, &netavark::ruleset(published, &address, &network), &folder.join("netavark.nft"));
        for machine in [&outsider, &host, &pod, &peers] {
            load(machine, EAR, &folder.join("ear.nft"));
        }
        // The outsider pretends to be everybody, the pod too: so it hears as well what was meant for them and left in clear.
        take(&peers, behind);
        take(&outsider, &[behind, &[codex.pod.address.into()]].concat());
        let there = mac(&peers, "eth0");
        let six = behind.iter().filter(|address| address.is_ipv6());
        let ways =
            six.map(|address| format!("ip neigh replace {address} lladdr {there} dev wg0 nud permanent\n"));
        pod.sh(&format!("{}true", ways.collect::<String>()));
        let six = codex.tether.network6.map(|(_, address)| address.into());
        let here = [codex.pod.address.into(), codex.tether.address.into()].into_iter().chain(six);
        let listeners = [
            (&outsider, [behind, &[OUTSIDER.into(), OUTSIDER6.into()]].concat()),
            (&host, vec![UPLINK.into(), UPLINK6.into(), codex.pod.gateway.into()]),
            (&pod, here.collect()),
            (&peers, behind.to_vec()),
        ];
        let listeners =
            listeners.map(|(machine, addresses)| Listeners::on(machine.network(), addresses, ports.to_vec()));
        Self { outsider, host, pod, peers, _listeners: listeners }
    }

    /// What was let in anywhere until now: for each attempt protocol and source port, or the identifier of a ping.
    pub fn delivered(&self) -> BTreeSet<(&'static str, u16)> {
        let mut all = BTreeSet::new();
        for machine in [&self.outsider, &self.host, &self.pod, &self.peers] {
            let listed =
                machine.sh("for set in ports pings pings6; do nft --numeric list set inet ear $set; done");
            for list in listed.split("elements = {").skip(1) {
                let elements = list.split('}').next().unwrap().split(',').map(str::trim);
                all.extend(elements.map(|element| match element.split_once(" . ") {
                    Some(("6" | "tcp", port)) => ("tcp", port.parse().unwrap()),
                    Some(("17" | "udp", port)) => ("udp", port.parse().unwrap()),
                    Some(_) => panic!("{element} is of no protocol that is asked"),
                    None => ("ping", element.parse().unwrap()),
                }));
            }
        }
        all
    }
}

/// How many errors of ICMP have come to a machine, those over IPv6 too.
pub fn told(machine: &Machine) -> u64 {
    ["icmp type", "icmpv6 type"].map(|rule| machine.counted("chain inet ear told", rule)).iter().sum()
}

/// What is noted of an attempt when it is let in.
pub fn noted(ask: Ask, number: u16) -> (&'static str, u16) {
    match ask {
        Ask::Port(Protocol::Tcp, _) => ("tcp", number),
        Ask::Port(Protocol::Udp, _) => ("udp", number),
        Ask::Echo => ("ping", number),
    }
}

fn take(machine: &Machine, addresses: &[IpAddr]) {
    let lines = addresses.iter().map(|address| add(*address, "eth0") + "\n");
    machine.sh(&format!("{}true", lines.collect::<String>()));
}

/// An address of one's own alone, without a route to it, and without asking whether somebody has it.
pub fn add(address: IpAddr, interface: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("ip address add {address}/32 dev {interface}"),
        IpAddr::V6(address) => format!("ip address add {address}/128 dev {interface} nodad noprefixroute"),
    }
}

/// A Codex with peers from 10.88.16.2 on, `p2` and so forth, that hold these grants, and their addresses. `law` goes behind
/// the appliance's name.
pub fn bonded(law: &str, grants: &[&str]) -> (Codex, Vec<IpAddr>) {
    let mut sources = Sources::default();
    sources.insert("lychd.toml", format!("schema = 1\n[appliance]\nname = \"arena\"\n{law}"));
    for (last, grants) in (2..).zip(grants) {
        let key = SecretKey::generate().public();
        let text = format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = {grants}\n");
        sources.insert(format!("peers/p{last}.toml"), text);
    }
    let codex = Codex::parse(&sources).unwrap();
    let peers = codex.peers.values().map(|peer| peer.address.into()).collect();
    (codex, peers)
}

/// Puts a ruleset in force.
pub fn load(machine: &Machine, ruleset: &str, file: &Path) {
    fs::write(file, ruleset).unwrap();
    machine.sh(&format!("nft -f {}", file.display()));
}

/// The cables, and routes as the appliance has them. Everybody hands packets on and believes every source address: what
/// keeps a packet away is the policy.
fn wire(codex: &Codex, [outsider, host, pod, peers]: [&Machine; 4]) {
    let (gateway, address) = (codex.pod.gateway, codex.pod.address);
    let (wg0, tether) = (codex.tether.address, codex.tether.network);
    let prefix = codex.pod.network.prefix();
    host.plug("up0", &format!("{UPLINK}/24"), outsider, &format!("{OUTSIDER}/24"));
    host.plug(BRIDGE, &format!("{gateway}/{prefix}"), pod, &format!("{address}/{prefix}"));
    pod.plug("wg0", &format!("{wg0}/{}", tether.prefix()), peers, "169.254.0.1/32");
    for machine in [outsider, host, pod, peers] {
        machine.sh("cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding; \
             for name in ipv4/conf/*/rp_filter; do echo 0 > $name; done; echo 0 2147483647 > ipv4/ping_group_range");
    }
    outsider.sh(&format!(
        "ip address add {OUTSIDER6}/64 dev eth0 nodad; ip route add 10.0.0.0/8 via {UPLINK}; ip route add 172.16.0.0/12 via {UPLINK}"
    ));
    apart(outsider);
    host.sh(&format!(
        "ip address add {UPLINK6}/64 dev up0 nodad; ip route add {tether} via {address}; \
         ip route add default via {OUTSIDER}; ip -6 route add default via {OUTSIDER6}"
    ));
    pod.sh(&format!("ip route add default via {gateway}"));
    for network in reach::beyond(codex).into_iter().filter(|network| *network != tether) {
        pod.sh(&format!("ip route add {network} dev wg0"));
        // A host that knew the way: that the pod hands on nothing is the policy.
        host.sh(&format!("ip rule add from {gateway} to {network} lookup 77"));
    }
    host.sh(&format!("ip route add default via {address} table 77"));
    // A tunnel asks nobody for the way.
    peers.sh(&format!(
        "ip route add {wg0} dev eth0 onlink; ip route add default via {wg0} dev eth0 onlink; true"
    ));
    apart(peers);
    if let Some((network6, wg0)) = codex.tether.network6 {
        outsider.sh(&format!("ip -6 route add {network6} via {UPLINK6}"));
        pod.sh(&format!("ip address add {wg0}/{} dev wg0 nodad", network6.prefix()));
        let here = mac(pod, "wg0");
        peers.sh(&format!(
            "ip -6 route add {wg0} dev eth0; ip neigh replace {wg0} lladdr {here} dev eth0 nud permanent; \
             ip -6 route add default via {wg0} dev eth0 onlink"
        ));
    }
}

/// Has what is sent from one address of a machine to another leave by the cable, as if each were a machine of its own: what
/// begins here looks for a way before it looks whether an address is one of ours.
fn apart(machine: &Machine) {
    for family in ["-4", "-6"] {
        machine.sh(&format!(
            "ip {family} rule add pref 1 iif lo lookup main; ip {family} rule add pref 2 lookup local; \
             ip {family} rule del pref 0"
        ));
    }
    machine.sh("for name in /proc/sys/net/ipv4/conf/*/accept_local; do echo 1 > $name; done");
}

/// A cable's hardware address.
fn mac(machine: &Machine, interface: &str) -> String {
    let shown = machine.sh(&format!("ip -o link show {interface}"));
    shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned()
}
