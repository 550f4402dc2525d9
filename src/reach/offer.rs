//! What the Codex opens, and to whom: the list that the rulesets' sets follow from.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::codex::name::Name;
use crate::codex::net::{Net4, Port};
use crate::codex::{Codex, DOOR_PORT, HostService, Peer, PeerState, Protocol, Service, Tier};

/// The Veil's port on `wg0` that is there whatever the Codex says.
const HTTP: Port = match Port::new(80) {
    Some(port) => port,
    None => unreachable!(),
};

/// A port that is open to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<'a> {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: Port,
    /// To whom.
    pub audience: Audience<'a>,
    /// Which declaration opens it.
    pub origin: Origin<'a>,
}

/// To whom a port is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// Everybody, on the uplink.
    Everyone,
    /// Peers that hold the grant of this service, through `wg0`.
    Holders(&'a Name),
    /// Peers that hold the grant of a door of the agent, through `wg0`.
    Doors,
}

/// Which declaration opens a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// `[tether]`: its own port.
    Tether,
    /// `[[port]]` of a service, counted from 0.
    Port(&'a Name, usize),
    /// `[[route]]` of a service, counted from 0, which the Veil serves.
    Route(&'a Name, usize),
    /// The agent's own.
    Door,
}

impl Audience<'_> {
    /// Whether `peer` is among them, through `wg0`.
    pub fn admits(self, peer: &Peer) -> bool {
        match self {
            Self::Everyone => false,
            Self::Holders(service) => peer.grants.hold(service),
            Self::Doors => !peer.grants.doors.is_empty(),
        }
    }
}

/// Everything that a Codex opens to anybody. A port that several declarations open is there for each of them.
pub fn offers(codex: &Codex) -> Vec<Offer<'_>> {
    let mut offers = vec![
        Offer {
            protocol: Protocol::Udp,
            port: codex.tether.port,
            audience: Audience::Everyone,
            origin: Origin::Tether,
        },
        Offer { protocol: Protocol::Tcp, port: DOOR_PORT, audience: Audience::Doors, origin: Origin::Door },
    ];
    let veil = veil_ports(codex);
    for (name, service) in &codex.services {
        for (index, port) in service.ports.iter().enumerate() {
            let audience = match port.tier {
                Tier::Pod => continue,
                Tier::Tether => Audience::Holders(name),
                Tier::Forest => Audience::Everyone,
            };
            let (protocol, number) = (port.protocol, port.number);
            offers.push(Offer { protocol, port: number, audience, origin: Origin::Port(name, index) });
        }
        // Whoever holds a service with a pinned route reaches the Veil, which serves it: see `veil_grants`.
        let pinned = service.routes.iter().position(|route| route.tier == Tier::Tether);
        offers.extend(pinned.into_iter().flat_map(|index| {
            let origin = Origin::Route(name, index);
            let audience = Audience::Holders(name);
            veil.iter().map(move |&port| Offer { protocol: Protocol::Tcp, port, audience, origin })
        }));
    }
    offers
}

/// The service that is the Veil.
pub fn veil(codex: &Codex) -> Option<(&Name, &Service)> {
    codex.services.iter().find(|(_, service)| service.veil)
}

/// TCP ports on which the Veil serves routes through `wg0`: 80 and its ports of tier tether. None when
/// there is no Veil or nothing to serve.
pub fn veil_ports(codex: &Codex) -> BTreeSet<Port> {
    let Some((_, veil)) = veil(codex) else { return BTreeSet::new() };
    if codex.services.values().all(|service| service.routes.is_empty()) {
        return BTreeSet::new();
    }
    let tether = veil.ports.iter().filter(|port| port.tier == Tier::Tether && port.protocol == Protocol::Tcp);
    tether.map(|port| port.number).chain([HTTP]).collect()
}

/// Ports that are published on the uplink, the elements of both sets `published`.
pub fn published(codex: &Codex) -> BTreeSet<(Protocol, Port)> {
    let offers = offers(codex).into_iter().filter(|offer| offer.audience == Audience::Everyone);
    offers.map(|offer| (offer.protocol, offer.port)).collect()
}

/// Ports that peers can be granted, the elements of the set `offered`.
pub fn offered(codex: &Codex) -> BTreeSet<(Protocol, Port)> {
    let offers = offers(codex).into_iter().filter(|offer| offer.audience != Audience::Everyone);
    offers.map(|offer| (offer.protocol, offer.port)).collect()
}

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
        write!(f, "{} . {} . {}", self.address, self.protocol, self.port)
    }
}

/// Every grant of the active peers.
pub fn grants(codex: &Codex) -> BTreeSet<Grant> {
    let offers = offers(codex);
    let of = |peer: &Peer| -> Vec<Grant> {
        let open: Vec<_> = offers.iter().filter(|offer| offer.audience.admits(peer)).collect();
        let each = |address| open.iter().map(move |offer| (address, offer.protocol, offer.port));
        let elements = addresses(peer.address, peer.address6).flat_map(each);
        elements.map(|(address, protocol, port)| Grant { address, protocol, port }).collect()
    };
    codex.active().flat_map(|(_, peer)| of(peer)).collect()
}

/// Whom the Veil serves pinned routes through `wg0`: the service that owns them, and an address that may ask. Beside
/// those of peers that hold the service there are the tether's own: containers are no strangers to each other.
pub fn veil_grants(codex: &Codex) -> BTreeSet<(Name, IpAddr)> {
    if veil_ports(codex).is_empty() {
        return BTreeSet::new();
    }
    let tether = &codex.tether;
    let own = addresses(tether.address, tether.network6.map(|(_, own)| own));
    let pinned = |service: &Service| service.routes.iter().any(|route| route.tier == Tier::Tether);
    let owners = codex.services.iter().filter(|(_, service)| pinned(service));
    let of = |(owner, _)| {
        let admitted = codex.active().filter(move |(_, peer)| Audience::Holders(owner).admits(peer));
        let askers = admitted.flat_map(|(_, peer)| addresses(peer.address, peer.address6));
        askers.chain(own.clone()).map(move |address| (Name::clone(owner), address))
    };
    owners.flat_map(of).collect()
}

fn addresses(four: Ipv4Addr, six: Option<Ipv6Addr>) -> impl Iterator<Item = IpAddr> + Clone {
    [Some(IpAddr::V4(four)), six.map(IpAddr::V6)].into_iter().flatten()
}

/// Whether `peer` may reach a service of the host: by its name alone.
pub fn holds_host(peer: &Peer, service: &HostService) -> bool {
    peer.grants.services.contains(&service.name)
}

/// What active peers may reach of the host, the elements of the set `host_grants`. The bridge is IPv4 alone.
pub fn host_grants(codex: &Codex) -> BTreeSet<Grant> {
    let of = |peer: &Peer| -> Vec<Grant> {
        let held = codex.host.iter().filter(|service| holds_host(peer, service));
        let address = IpAddr::V4(peer.address);
        held.map(|service| Grant { address, protocol: service.protocol, port: service.port }).collect()
    };
    codex.active().flat_map(|(_, peer)| of(peer)).collect()
}

/// IPv4 networks that lived behind peers which are in force no more, the elements of the set `gone`. What lies in another
/// one is left out: an element of nftables overlaps no other.
pub fn gone(codex: &Codex) -> BTreeSet<Net4> {
    let dead = codex.peers.values().filter(|peer| peer.state != PeerState::Active);
    let all: BTreeSet<Net4> = dead.flat_map(|peer| peer.routes()).chain(&codex.gone).copied().collect();
    let mut gone = BTreeSet::new();
    // In order, a network comes before all that lies in it.
    let mut last: Option<Net4> = None;
    for network in all {
        if !last.is_some_and(|last| last.contains(network.address())) {
            last = Some(network);
            gone.insert(network);
        }
    }
    gone
}

/// IPv4 networks that live behind `wg0`, the elements of the set `beyond`: the tether's own and those that
/// active peers route.
pub fn beyond(codex: &Codex) -> BTreeSet<Net4> {
    let routes = codex.active().flat_map(|(_, peer)| peer.routes());
    routes.copied().chain([codex.tether.network]).collect()
}
