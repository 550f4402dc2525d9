//! Peers as the agent finds them in the kernel: what its door answers to `GET /v1/peers`.

use serde::{Deserialize, Serialize};

use crate::codex::key::PublicKey;

/// What the interface holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Version of this shape: 1.
    pub schema: u32,
    /// Interface name.
    pub interface: String,
    /// The appliance's public key.
    pub public_key: Option<PublicKey>,
    /// When it was looked, in seconds since the epoch, by the appliance's clock.
    pub now: u64,
    /// Its peers.
    pub peers: Vec<ObservedPeer>,
    /// Keys that it holds as peers and no bond can name, base64: of low order or in disguise, and about to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<String>,
}

/// A peer of the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPeer {
    /// Its public key.
    pub public_key: PublicKey,
    /// Where it was heard from last, `address:port`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its last handshake, in seconds since the epoch.
    #[serde(default)]
    pub last_handshake: Option<u64>,
    /// Bytes that came from it.
    pub received: u64,
    /// Bytes that went to it.
    pub sent: u64,
    /// Packets of its addresses that the ruleset refused, since it was last quiet for an hour.
    pub denied: u64,
    /// Whether the kernel holds it.
    pub held: bool,
}
