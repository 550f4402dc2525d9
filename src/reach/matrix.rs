//! What is worth trying with packets: every source against every address and port that the Codex names, and some
//! that it does not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Family, Place, Reach, Source, Target, Verdict};
use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::{DOOR_PORT, Protocol};

/// Numbers that nobody has to declare to be tried: SSH, HTTP, a high one.
const OTHERS: [u16; 4] = [22, 80, 443, 40000];
/// Peers that are tried by name; the others are like them.
const PEERS: usize = 8;

/// A packet, and what the Codex says becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Who sends it.
    pub from: Source,
    /// Where to, and what for.
    pub to: Target,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl Reach<'_> {
    /// Every case, in a fixed order.
    pub fn matrix(&self) -> Vec<Case> {
        let (ports, places) = (self.ports(), self.places());
        let mut cases = Vec::new();
        for from in self.sources() {
            for place in places.iter().copied().filter(|place| self.makes_sense(&from, *place)) {
                let each = |protocol| ports.iter().map(move |port| Target::Port(place, protocol, *port));
                let targets = each(Protocol::Tcp).chain(each(Protocol::Udp)).chain([Target::Echo(place)]);
                cases.extend(targets.map(|to| {
                    let verdict = self.verdict(&from, &to);
                    Case { from: from.clone(), to, verdict }
                }));
            }
        }
        cases
    }

    fn sources(&self) -> Vec<Source> {
        let mut sources = vec![Source::Forest, Source::Host, Source::Pod];
        sources.extend(self.peers().take(PEERS).map(|(name, _)| Source::Peer(name.clone())));
        sources.extend(self.unheld().map(|address| Source::Stranger(address.into())));
        sources
    }

    /// A tunnel address that no peer in force has: that of a revoked one before others.
    fn unheld(&self) -> Option<std::net::Ipv4Addr> {
        let network = self.codex().tether.network;
        let free = |address: &std::net::Ipv4Addr| {
            network.contains(*address)
                && *address != self.codex().tether.address
                && self.holder((*address).into()).is_none()
        };
        let graves = self.codex().peers.values().map(|peer| peer.address);
        let first = network.first_host().to_bits();
        let others = (first..network.last().to_bits()).map(std::net::Ipv4Addr::from_bits);
        graves.chain(others).find(free)
    }

    fn ports(&self) -> BTreeSet<Port> {
        let declared = self.codex().services.values().flat_map(|service| &service.ports);
        let named: BTreeSet<Port> = declared
            .map(|port| port.number)
            .chain(self.codex().host.iter().map(|service| service.port))
            .chain([self.codex().tether.port, DOOR_PORT])
            .collect();
        // Off by one is the mistake that a range would make.
        let beside = named.iter().filter_map(|port| port.checked_add(1));
        let others = OTHERS.into_iter().filter_map(Port::new);
        named.iter().copied().chain(beside).chain(others).collect()
    }

    fn places(&self) -> Vec<Place> {
        let (pod, tether) = (&self.codex().pod, &self.codex().tether);
        let mut addresses: Vec<IpAddr> = vec![pod.address.into(), pod.gateway.into(), tether.address.into()];
        addresses.extend(tether.network6.map(|(_, own)| IpAddr::V6(own)));
        for (_, peer) in self.peers().take(PEERS) {
            addresses.push(peer.address.into());
            addresses.extend(peer.address6.map(IpAddr::V6));
            addresses.extend(peer.routes().iter().map(|route| IpAddr::V4(route.first_host())));
        }
        let uplinks = [Family::V4, Family::V6].map(Place::Uplink);
        uplinks.into_iter().chain(addresses.into_iter().map(Place::At)).collect()
    }

    /// Whether a packet tells anything: not one to oneself, and not one that never comes near the appliance.
    fn makes_sense(&self, from: &Source, place: Place) -> bool {
        let own = |name: &Name, address: IpAddr| self.holder(address) == Some(name);
        match (from, place) {
            (Source::Peer(_) | Source::Stranger(_) | Source::Host, Place::Uplink(_)) => false,
            (Source::Peer(name), Place::At(address)) => !own(name, address),
            _ => true,
        }
    }
}
