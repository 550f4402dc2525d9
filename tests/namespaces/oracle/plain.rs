//! What a Codex opens, in plain words and with nothing of the product's: neither the model nor the renderer has a part in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sepulcher::codex::Protocol;

use super::From;
use super::law::{Bond, DOOR, Law, SHELL, State, TETHER, Veil, WEB, WEB2};
use crate::arena::{OUTSIDER, OUTSIDER6, UPLINK, UPLINK6};
use crate::packets::{Ask, Attempt};

/// What every generated Codex leaves as it is unless it says otherwise.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 1));
const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 10));
const WG0: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 16, 1));
const WG0_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 1));

/// Whether an attempt arrives.
pub fn reaches(law: &Law, from: From, attempt: &Attempt) -> bool {
    let (source, to) = (attempt.from.ip(), attempt.to);
    match from {
        // What is behind a peer the host does not know, only the pod does: it answers such a ping as any.
        From::Outside if is_spoofed(law, source) => {
            let behind = in_force(law).any(|bond| bond.behind() == Some(source));
            behind && law.echo && to == UPLINK && attempt.ask == Ask::Echo
        }
        // The forest: what is public at the uplink's address, over IPv4; pings where they are wanted.
        From::Outside => match attempt.ask {
            Ask::Port(protocol, port) => to == UPLINK && is_public(law, protocol, port),
            Ask::Echo => law.echo && (to == UPLINK || to == UPLINK6),
        },
        From::Host if to == POD => {
            matches!(attempt.ask, Ask::Port(protocol, port) if is_public(law, protocol, port))
        }
        From::Host => is_elsewhere(law, to),
        From::Pod => {
            // What lies behind a peer goes there or nowhere, also when the peer is in force no more.
            let behind = law.bonds.iter().any(|bond| bond.behind() == Some(to));
            let out = to.is_ipv4() && is_elsewhere(law, to) && !behind;
            to == POD || to == WG0 || to == WG0_6 || out || in_force(law).any(|bond| has(bond, to))
        }
        From::Behind => holder(law, source).is_some_and(|bond| by_peer(law, bond, to, attempt.ask)),
    }
}

/// What a peer in force reaches through the tunnel.
fn by_peer(law: &Law, bond: &Bond, to: IpAddr, ask: Ask) -> bool {
    match (to, ask) {
        (WG0 | WG0_6, Ask::Echo) => true,
        (POD | WG0 | WG0_6, Ask::Port(protocol, port)) => is_granted(law, bond, protocol, port),
        (GATEWAY, Ask::Port(Protocol::Tcp, SHELL)) => law.shell && holds(bond, "shell"),
        _ => {
            let granted = |other: &&Bond| holds(bond, &format!("peer:p{}", other.number));
            in_force(law).filter(granted).any(|other| has(other, to))
        }
    }
}

/// A port of the pod is a peer's by the grant of the service that has it with the tier `tether`, by name or by `*`; the agent's
/// by the grant of any door, by name alone; the Veil's when it serves something, by the grant of a service with a pinned route.
fn is_granted(law: &Law, bond: &Bond, protocol: Protocol, port: u16) -> bool {
    let holds_service = |name: &str| holds(bond, name) || holds(bond, "*");
    let mut services = law.services.iter().enumerate();
    if services.any(|(number, service)| {
        service.ports.contains(&(port, word(protocol), "tether")) && holds_service(&format!("s{number}"))
    }) {
        return true;
    }
    if protocol == Protocol::Udp {
        return false;
    }
    if port == DOOR {
        return ["bonds", "metrics", "rebirth", "snapshots"].iter().any(|door| holds(bond, door));
    }
    let Some(Veil { tier, second }) = law.veil else { return false };
    let (first, second) = (port == WEB, port == WEB2 && second);
    if holds_service("veil") && (second || first && tier == "tether") {
        return true;
    }
    let mut services = law.services.iter().enumerate();
    let pinned = services
        .any(|(number, service)| service.routes.contains(&"tether") && holds_service(&format!("s{number}")));
    pinned && (first || second)
}

/// Whether a port is published on the uplink.
fn is_public(law: &Law, protocol: Protocol, port: u16) -> bool {
    let declared =
        law.services.iter().any(|service| service.ports.contains(&(port, word(protocol), "forest")));
    let veil = law.veil.is_some_and(|veil| veil.tier == "forest");
    match protocol {
        Protocol::Tcp => declared || (veil && port == WEB),
        Protocol::Udp => declared || port == TETHER,
    }
}

/// Whether nobody outside may speak with that address.
pub fn is_spoofed(law: &Law, source: IpAddr) -> bool {
    let ours = match source {
        IpAddr::V4(address) => matches!(address.octets(), [10, 88, 0 | 16..=31, _]),
        IpAddr::V6(address) => law.six && address.segments()[..4] == [0xfd88, 0, 0, 0],
    };
    ours || in_force(law).any(|bond| has(bond, source))
}

/// Bonded, and its time is not over.
pub fn in_force(law: &Law) -> impl Iterator<Item = &Bond> {
    law.bonds.iter().filter(|bond| matches!(bond.state, State::Active | State::Ending))
}

/// The peer in force that speaks with an address.
pub fn holder(law: &Law, address: IpAddr) -> Option<&Bond> {
    in_force(law).find(|bond| address == bond.address() || (law.six && address == bond.address6()))
}

/// Whether an address is a peer's or behind it.
fn has(bond: &Bond, address: IpAddr) -> bool {
    address == bond.address() || address == bond.address6() || Some(address) == bond.behind()
}

fn holds(bond: &Bond, word: &str) -> bool {
    bond.words.contains(word)
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Whether WireGuard alone keeps an attempt away, which is a mere cable here: nothing is sent to a key that is no peer's in
/// force, and what comes with such an address never leaves the tunnel. What the ruleset lets everybody do there is not tried.
pub fn is_tunnels(law: &Law, from: From, attempt: &Attempt) -> bool {
    match from {
        From::Pod => is_tethers(attempt.to) && !in_force(law).any(|bond| has(bond, attempt.to)),
        From::Behind => {
            let own = attempt.to == WG0 || attempt.to == WG0_6;
            own && attempt.ask == Ask::Echo && holder(law, attempt.from.ip()).is_none()
        }
        From::Outside | From::Host => false,
    }
}

/// Whether an address lies on the uplink's side: also that of a network whose peer is in force no more.
pub fn is_elsewhere(law: &Law, address: IpAddr) -> bool {
    let ours = matches!(address, IpAddr::V4(address) if address.octets()[..2] == [10, 99]);
    address == OUTSIDER || address == OUTSIDER6 || (ours && !in_force(law).any(|bond| has(bond, address)))
}

/// Whether an address is one that peers have, or may have.
fn is_tethers(address: IpAddr) -> bool {
    let peers = match address {
        IpAddr::V4(address) => matches!(address.octets(), [10, 88, 16..=31, _]),
        IpAddr::V6(address) => address.segments()[0] == 0xfd88,
    };
    peers && address != WG0 && address != WG0_6
}
