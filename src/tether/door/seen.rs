//! What is seen of the peers in the kernel: the answer to `GET /v1/peers`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::codex::key::PublicKey;
use crate::peer::{Observed, ObservedPeer};
use crate::sync::{self, Prefix};

/// From what the interface holds at `now` (seconds since the epoch) and what the ruleset has counted, by address.
/// Two keys of one peer are two peers here.
pub fn seen(
    interface: &str,
    observed: &sync::Observed,
    denied: &BTreeMap<IpAddr, u64>,
    now: u64,
) -> Observed {
    let peers = observed.peers.iter().map(|(key, peer)| one(*key, peer, denied)).collect();
    let strays = observed.strays.iter().map(ToString::to_string).collect();
    Observed {
        schema: 1,
        interface: interface.to_owned(),
        public_key: observed.public_key,
        now,
        peers,
        strays,
    }
}

fn one(public_key: PublicKey, peer: &sync::ObservedPeer, denied: &BTreeMap<IpAddr, u64>) -> ObservedPeer {
    let own = peer.allowed_ips.iter().filter(|prefix| **prefix == Prefix::host(prefix.address));
    ObservedPeer {
        public_key,
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        last_handshake: peer.traffic.last_handshake,
        received: peer.traffic.received,
        sent: peer.traffic.sent,
        denied: own.filter_map(|prefix| denied.get(&prefix.address)).sum(),
        held: true,
    }
}
