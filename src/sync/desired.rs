//! Codex → desired state of the WireGuard interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Desired, DesiredPeer, Prefix};
use crate::codex::key::PublicKey;
use crate::codex::name::DnsName;
use crate::codex::{Codex, Endpoint, Peer, PeerKind, PeerState};

/// Addresses of the host names that are dialled, as far as they are known.
pub type DialTargets = BTreeMap<DnsName, IpAddr>;

/// Host names that are dialled and have no known address yet.
pub type Unresolved = BTreeSet<DnsName>;

impl Desired {
    /// What `codex` asks of the interface whose private key belongs to `public_key`.
    ///
    /// A peer whose endpoint is a name without a known address is bonded all the same; it is dialled once
    /// the name is known, and may dial us before.
    pub fn of(codex: &Codex, public_key: PublicKey, known: &DialTargets) -> Self {
        let tether = &codex.tether;
        let mut addresses =
            BTreeSet::from([Prefix { address: tether.address.into(), length: tether.network.prefix() }]);
        if let Some((network, address)) = tether.network6 {
            addresses.insert(Prefix { address: address.into(), length: network.prefix() });
        }
        let active = codex.peers.iter().filter(|(_, peer)| peer.state == PeerState::Active);
        let peers: BTreeMap<_, _> = active
            .clone()
            .map(|(name, peer)| {
                let (endpoint, keepalive) = dial(peer, known);
                let wanted =
                    DesiredPeer { name: name.clone(), allowed_ips: allowed_ips(peer), endpoint, keepalive };
                (peer.public_key, wanted)
            })
            .collect();
        Self {
            public_key,
            listen_port: tether.port,
            mtu: u32::from(tether.mtu),
            addresses,
            routes: active.flat_map(|(_, peer)| routes(peer)).collect(),
            peers,
        }
    }
}

/// The host names that active peers of `codex` are dialled by.
pub fn dialled_names(codex: &Codex) -> Unresolved {
    codex
        .peers
        .values()
        .filter(|peer| peer.state == PeerState::Active)
        .filter_map(|peer| match &peer.kind {
            PeerKind::Lych { endpoint: Some((Endpoint::Dns(name), _)), .. } => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn allowed_ips(peer: &Peer) -> BTreeSet<Prefix> {
    std::iter::once(Prefix::host(peer.address))
        .chain(peer.address6.map(Prefix::host))
        .chain(routes(peer))
        .collect()
}

fn routes(peer: &Peer) -> impl Iterator<Item = Prefix> {
    peer.routes().iter().copied().map(Prefix::from)
}

fn dial(peer: &Peer, known: &DialTargets) -> (Option<SocketAddr>, u16) {
    match &peer.kind {
        PeerKind::Device => (None, 0),
        PeerKind::Lych { endpoint, keepalive, .. } => {
            let endpoint = endpoint.as_ref().and_then(|(host, port)| {
                let address = match host {
                    Endpoint::Ip(address) => Some(*address),
                    Endpoint::Dns(name) => known.get(name).copied(),
                };
                address.map(|address| SocketAddr::new(address, port.get()))
            });
            (endpoint, *keepalive)
        }
    }
}
