//! What is seen of the peers in the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::codex::key::PublicKey;
use crate::sync::{Observed, ObservedPeer, Prefix};

/// Answer to `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Version of this shape: 1.
    pub schema: u32,
    /// Interface name.
    pub interface: String,
    /// The host's public key.
    pub public_key: Option<PublicKey>,
    /// Time of the observation, in seconds since the epoch.
    pub now: u64,
    /// The peers that the interface holds, by key. Two keys of one peer are two of them.
    pub peers: Vec<SeenPeer>,
}

/// A peer that the interface holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenPeer {
    /// Its public key.
    pub public_key: PublicKey,
    /// Where its packets come from or go to.
    pub endpoint: Option<String>,
    /// Last handshake in seconds since the epoch.
    pub last_handshake: Option<u64>,
    /// Bytes received from it.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
    /// Packets of its addresses that the ruleset refused, since it was last quiet for an hour.
    pub denied: u64,
    /// True: it is in the kernel.
    pub held: bool,
}

impl Seen {
    /// From what the interface holds and what the ruleset has counted, by address.
    pub fn of(interface: &str, observed: &Observed, denied: &BTreeMap<IpAddr, u64>, now: u64) -> Self {
        let peers = observed.peers.iter().map(|(key, peer)| seen(*key, peer, denied)).collect();
        Self { schema: 1, interface: interface.to_owned(), public_key: observed.public_key, now, peers }
    }
}

fn seen(public_key: PublicKey, peer: &ObservedPeer, denied: &BTreeMap<IpAddr, u64>) -> SeenPeer {
    let own = peer.allowed_ips.iter().filter(|prefix| **prefix == Prefix::host(prefix.address));
    SeenPeer {
        public_key,
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        last_handshake: peer.traffic.last_handshake,
        received: peer.traffic.received,
        sent: peer.traffic.sent,
        denied: own.filter_map(|prefix| denied.get(&prefix.address)).sum(),
        held: true,
    }
}
