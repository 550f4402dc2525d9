//! The two rulesets: what the host lets through, and what the pod does.
//!
//! Each is one `table inet sepulcher`, replaced in one transaction. The pod's grants are elements of two
//! sets, so that the agent can add and delete single ones: [`grants`] is their source.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use minijinja::context;

use super::{BRIDGE, RenderError, caddy, template};
use crate::codex::net::{Net4, Port};
use crate::codex::{Codex, DOOR_PORT, Protocol, Service, Tier};
use crate::tree::Tree;

/// One element of the sets `grants` (IPv4) and `grants6` (IPv6): a peer may reach a port through `wg0`.
///
/// Displays as nft writes the element: `10.88.16.2 . tcp . 6006`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The peer's tunnel address.
    pub address: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub port: Port,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {} . {}", self.address, protocol(self.protocol), self.port)
    }
}

/// Every grant of the active peers.
pub fn grants(codex: &Codex) -> BTreeSet<Grant> {
    let all: BTreeSet<_> = codex.services.values().flat_map(|service| tether_ports(codex, service)).collect();
    let mut grants = BTreeSet::new();
    for (_, peer) in codex.active() {
        let mut ports = if peer.grants.every_service { all.clone() } else { BTreeSet::new() };
        let named = peer.grants.services.iter().filter_map(|name| codex.services.get(name));
        ports.extend(named.flat_map(|service| tether_ports(codex, service)));
        if !peer.grants.doors.is_empty() {
            ports.insert((Protocol::Tcp, DOOR_PORT));
        }
        let addresses = [Some(IpAddr::V4(peer.address)), peer.address6.map(IpAddr::V6)];
        for address in addresses.into_iter().flatten() {
            grants.extend(ports.iter().map(|&(protocol, port)| Grant { address, protocol, port }));
        }
    }
    grants
}

/// IPv4 networks that live behind `wg0`, the elements of the set `beyond`: the tether's own and those that
/// active peers route.
pub fn beyond(codex: &Codex) -> BTreeSet<Net4> {
    let routes = codex.active().flat_map(|(_, peer)| peer.routes());
    routes.copied().chain([codex.tether.network]).collect()
}

/// Ports through which a service is reached over `wg0`: its own of tier tether, and the Veil's when the
/// service has a route of that tier.
fn tether_ports(codex: &Codex, service: &Service) -> BTreeSet<(Protocol, Port)> {
    let own = service.ports.iter().filter(|port| port.tier == Tier::Tether);
    let mut ports: BTreeSet<_> = own.map(|port| (port.protocol, port.number)).collect();
    if service.routes.iter().any(|route| route.tier == Tier::Tether) {
        ports.extend(caddy::tether_ports(codex).into_iter().map(|port| (Protocol::Tcp, port)));
    }
    ports
}

/// Ports that are published on the uplink: the tether's and those of the forest.
pub fn published(codex: &Codex) -> BTreeSet<(Protocol, Port)> {
    let ports = codex.services.values().flat_map(|service| &service.ports);
    let forest = ports.filter(|port| port.tier == Tier::Forest).map(|port| (port.protocol, port.number));
    forest.chain([(Protocol::Udp, codex.tether.port)]).collect()
}

/// The host's ruleset: `/usr/share/sepulcher/nftables/host.nft`.
pub fn host(codex: &Codex) -> Result<String, RenderError> {
    template::render(
        "host.nft",
        context! {
            bridge => BRIDGE,
            published => published_elements(codex),
            pod_network => codex.pod.network.to_string(),
            pod_address => codex.pod.address.to_string(),
            tether_network => codex.tether.network.to_string(),
            tether_network6 => codex.tether.network6.map(|(network, _)| network.to_string()),
        },
    )
}

/// The pod's ruleset: `/usr/share/sepulcher/nftables/pod.nft`, and what the agent loads.
pub fn pod(codex: &Codex) -> Result<String, RenderError> {
    let (grants, grants6): (Vec<_>, Vec<_>) =
        grants(codex).into_iter().partition(|grant| grant.address.is_ipv4());
    template::render(
        "pod.nft",
        context! {
            published => published_elements(codex),
            grants => elements(grants),
            grants6 => elements(grants6),
            beyond => elements(beyond(codex)),
            pod_address => codex.pod.address.to_string(),
            tether_network => codex.tether.network.to_string(),
            tether_address => codex.tether.address.to_string(),
            tether_network6 => codex.tether.network6.map(|(network, _)| network.to_string()),
            tether_address6 => codex.tether.network6.map(|(_, address)| address.to_string()),
        },
    )
}

pub(super) fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    tree.file("usr/share/sepulcher/nftables/host.nft", host(codex)?)?;
    tree.file("usr/share/sepulcher/nftables/pod.nft", pod(codex)?)?;
    Ok(())
}

fn published_elements(codex: &Codex) -> minijinja::Value {
    elements(published(codex).into_iter().map(|(kind, port)| format!("{} . {port}", protocol(kind))))
}

/// `a, b, c`, one a line when there are many: elements are made of numbers and addresses alone.
fn elements<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> minijinja::Value {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(",\n\t\t\t     ");
        }
        // Writing to a string cannot fail.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{item}"));
    }
    template::safe(text)
}

/// As nft names it.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
