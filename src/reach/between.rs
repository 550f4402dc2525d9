//! What peers may reach of each other, through the pod.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::cause::{grant_command, held, peer_cause};
use super::rule::Rule;
use super::{Fate, Place, Reach, Verdict, has_address};
use crate::codex::name::Name;
use crate::codex::net::Net4;
use crate::codex::{Codex, Grants, Peer, PeerState};

/// One element of the sets `between` (IPv4) and `between6` (IPv6): a peer may open connections to another one's address, or
/// to a network behind it.
///
/// Displays as nft writes the element: `10.88.16.2 . 10.88.16.3`, `10.88.16.2 . 192.168.7.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Between {
    /// Tunnel address of who holds the grant.
    pub from: IpAddr,
    /// Tunnel address of who is granted, or a network behind it.
    pub to: IpAddr,
    /// Prefix length of that; all bits for an address.
    pub prefix: u8,
}

impl Between {
    fn address(from: impl Into<IpAddr>, to: impl Into<IpAddr>) -> Self {
        let to = to.into();
        Self { from: from.into(), to, prefix: if to.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, prefix } = self;
        write!(f, "{from} . {to}")?;
        if *prefix == if to.is_ipv4() { 32 } else { 128 } { Ok(()) } else { write!(f, "/{prefix}") }
    }
}

/// Every grant that active peers hold of other active ones.
pub fn between(codex: &Codex) -> BTreeSet<Between> {
    let to = |peer: &Peer| -> Vec<Between> {
        let granted = peer.grants.peers.iter().filter_map(|name| codex.peers.get(name));
        let granted = granted.filter(|granted| granted.state == PeerState::Active);
        granted.flat_map(|granted| elements(peer, granted)).collect()
    };
    codex.active().flat_map(|(_, peer)| to(peer)).collect()
}

/// Elements by which `peer` reaches `granted`. Networks behind a peer are IPv4 alone.
fn elements(peer: &Peer, granted: &Peer) -> Vec<Between> {
    let six = peer.address6.zip(granted.address6);
    let routes = granted.routes().iter().map(|route| Between {
        from: peer.address.into(),
        to: route.address().into(),
        prefix: route.prefix(),
    });
    let four = Between::address(peer.address, granted.address);
    [four].into_iter().chain(six.map(|(from, to)| Between::address(from, to))).chain(routes).collect()
}

impl Reach<'_> {
    /// What a peer, with its address of the packet's family, asks of another one or of what is behind it.
    pub(super) fn to_peer(&self, (name, from): (&Name, IpAddr), to: &Name, place: Place) -> Verdict {
        let denied = |why: String| Verdict::new(Fate::Denied, Rule::BetweenDenied, why);
        let (Place::At(address), Some(peer), Some(granted)) = (place, self.peer(name), self.peer(to)) else {
            return denied("no bond in force has this address".to_owned());
        };
        let word = Grants::peer_word(to);
        let behind = !has_address(granted, address);
        let routes = behind.then(|| peer_cause(to, "routes", "routes this network"));
        if name == to {
            return denied(format!("`{name}` does not reach itself through the appliance")).causes(routes);
        }
        if !peer.grants.peers.contains(to) {
            return denied(format!(
                "`{name}` does not hold the grant `{word}`, which `*` does not hold either"
            ))
            .causes([peer_cause(name, "grants", "does not hold it")])
            .causes(routes)
            .remedy(grant_command(name, &word));
        }
        let rule = if from.is_ipv4() { Rule::Between } else { Rule::Between6 };
        let why = format!("`{name}` holds the grant `{word}`");
        let verdict = Verdict::new(Fate::Allowed, rule, why).causes([held(name, &word)]).causes(routes);
        let covers = |one: &Between| match (one.to, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => Net4::around(network, one.prefix).contains(address),
            _ => one.to == address,
        };
        let element = elements(peer, granted).iter().find(|one| covers(one)).map(Between::to_string);
        Verdict { element, ..verdict }
    }
}
