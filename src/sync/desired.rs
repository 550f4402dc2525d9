//! Codex → desired state of the WireGuard interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Desired, DesiredPeer, Prefix};
use crate::codex::key::{PublicKey, SharedKey};
use crate::codex::name::{DnsName, Name};
use crate::codex::net::Port;
use crate::codex::{Codex, Endpoint, Peer, PeerKind};

/// Addresses of the host names that are dialled, as far as they are known.
pub type DialTargets = BTreeMap<DnsName, IpAddr>;

/// Preshared keys by the public key that they belong to.
pub type PresharedKeys = BTreeMap<PublicKey, SharedKey>;

impl Desired {
    /// What `codex` asks of the interface whose private key belongs to `public_key`.
    ///
    /// A peer whose endpoint is a name without a known address is bonded all the same; it is dialled once
    /// the name is known, and may dial us before. A key that needs a preshared one which is not among `shared`
    /// is not bonded: it must not get in without.
    pub fn of(codex: &Codex, public_key: PublicKey, known: &DialTargets, shared: &PresharedKeys) -> Self {
        let tether = &codex.tether;
        let mut addresses =
            BTreeSet::from([Prefix { address: tether.address.into(), length: tether.network.prefix() }]);
        if let Some((network, address)) = tether.network6 {
            addresses.insert(Prefix { address: address.into(), length: network.prefix() });
        }
        let mut peers = BTreeMap::new();
        let mut overlaps = BTreeMap::new();
        for (name, peer) in codex.active() {
            for (key, preshared) in keys(peer) {
                let preshared = if preshared { shared.get(&key).cloned().map(Some) } else { Some(None) };
                if let Some(preshared) = preshared {
                    peers.insert(key, wanted(name, peer, preshared, known));
                }
            }
            if let Some(old) = &peer.overlap
                && peers.contains_key(&old.public_key)
                && peers.contains_key(&peer.public_key)
            {
                overlaps.insert(old.public_key, peer.public_key);
            }
        }
        Self {
            public_key,
            listen_port: tether.port,
            mtu: u32::from(tether.mtu),
            addresses,
            routes: codex.active().flat_map(|(_, peer)| routes(peer)).collect(),
            peers,
            overlaps,
        }
    }
}

/// The keys by which a peer gets in, and whether each needs a preshared one.
fn keys(peer: &Peer) -> impl Iterator<Item = (PublicKey, bool)> {
    let old = peer.overlap.iter().map(|old| (old.public_key, old.preshared));
    old.chain([(peer.public_key, peer.preshared)])
}

fn wanted(name: &Name, peer: &Peer, preshared: Option<SharedKey>, known: &DialTargets) -> DesiredPeer {
    let (endpoint, named, keepalive) = dial(peer, known);
    DesiredPeer { name: name.clone(), allowed_ips: allowed_ips(peer), endpoint, named, keepalive, preshared }
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

/// Where a peer is dialled, the host name and port that this stands for, and the keepalive.
fn dial(peer: &Peer, known: &DialTargets) -> (Option<SocketAddr>, Option<(DnsName, Port)>, u16) {
    let PeerKind::Lych { endpoint, keepalive, .. } = &peer.kind else { return (None, None, 0) };
    let (address, named) = match endpoint {
        None => (None, None),
        Some((Endpoint::Ip(address), port)) => (Some(SocketAddr::new(*address, port.get())), None),
        Some((Endpoint::Dns(name), port)) => {
            let address = known.get(name).map(|address| SocketAddr::new(*address, port.get()));
            (address, Some((name.clone(), *port)))
        }
    };
    (address, named, *keepalive)
}
