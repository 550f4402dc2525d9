//! One peer: who it is, what it may reach, and which keys it has and had.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Endpoint;
#[cfg(doc)]
use super::Tether;
use super::key::PublicKey;
use super::name::Name;
use super::net::{Net4, Port};
use super::time::Timestamp;

/// One bonded (or once bonded) peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// WireGuard public key.
    pub public_key: PublicKey,
    /// Tunnel address.
    pub address: Ipv4Addr,
    /// Tunnel address in [`Tether::network6`].
    pub address6: Option<Ipv6Addr>,
    /// What the peer is.
    pub kind: PeerKind,
    /// Services it may reach.
    pub grants: Grants,
    /// Whether it is bonded.
    pub state: PeerState,
    /// Counts key changes; starts at 1.
    pub generation: u32,
    /// Whether handshakes also need the preshared key of this generation: [`preshared_file`].
    pub preshared: bool,
    /// When it was bonded, as far as that is known.
    pub created: Option<Timestamp>,
    /// From when on it is cut off.
    pub expires: Option<Timestamp>,
    /// When and why it was revoked, as far as that is known; a tombstone's only.
    pub revocation: Revocation,
    /// Keys that it had before; they never come back.
    pub replaced: BTreeSet<PublicKey>,
    /// The key that it had before, while that is still accepted.
    pub overlap: Option<Overlap>,
}

impl Peer {
    /// Networks behind it.
    pub fn routes(&self) -> &[Net4] {
        match &self.kind {
            PeerKind::Device => &[],
            PeerKind::Lych { routes, .. } => routes,
        }
    }

    /// Whether it is bonded no more because its time is over.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.state == PeerState::Active && self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether `door` opens to it at `now`.
    pub fn may(&self, door: Door, now: Timestamp) -> bool {
        self.state == PeerState::Active && !self.is_expired(now) && self.grants.doors.contains(&door)
    }

    /// The preshared keys that its handshakes need, as [`preshared_file`] names them for a peer called `name`.
    pub fn preshared_files(&self, name: &Name) -> Vec<String> {
        let own = self.preshared.then_some(self.generation);
        let before = self.overlap.as_ref().filter(|overlap| overlap.preshared);
        let before = before.map(|_| self.generation.saturating_sub(1));
        let generations = own.into_iter().chain(before).filter(|_| self.state == PeerState::Active);
        generations.map(|generation| preshared_file(name, generation)).collect()
    }
}

/// When and why a peer was revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: Option<Timestamp>,
    /// Why, for people.
    pub reason: Option<String>,
}

/// A key of the generation before that is still accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The key.
    pub public_key: PublicKey,
    /// Whether it needs the preshared key of its generation.
    pub preshared: bool,
    /// Until when.
    pub until: Timestamp,
}

/// The preshared key of a peer's generation, relative to the folder of secrets.
pub fn preshared_file(name: &Name, generation: u32) -> String {
    format!("peers/{name}.{generation}.psk")
}

/// What a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerKind {
    /// A phone, a laptop: dials us.
    Device,
    /// Another appliance or site: may be dialled, may route networks.
    Lych {
        /// Where to dial it, host and port.
        endpoint: Option<(Endpoint, Port)>,
        /// PersistentKeepalive in seconds; 0 is off.
        keepalive: u16,
        /// Networks behind it, disjoint from all others.
        routes: Vec<Net4>,
    },
}

/// What a peer may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Every tether-tier service (`"*"`); no door of the agent.
    pub every_service: bool,
    /// These services.
    pub services: BTreeSet<Name>,
    /// These doors of the agent.
    pub doors: BTreeSet<Door>,
    /// These other peers, and the networks behind them; not implied by `"*"`.
    pub peers: BTreeSet<Name>,
}

/// What stands before a peer's name in `grants`.
const PEER: &str = "peer:";

impl Grants {
    /// Whether they open the service of that name.
    pub fn hold(&self, service: &Name) -> bool {
        self.every_service || self.services.contains(service)
    }

    /// The word that grants a peer: `peer:laptop`.
    pub fn peer_word(name: &Name) -> String {
        format!("{PEER}{name}")
    }

    /// What a word that grants a peer calls it.
    pub fn peer_named(word: &str) -> Option<&str> {
        word.strip_prefix(PEER)
    }
}

/// What the agent itself offers to peers, at [`DOOR_PORT`] of the tether's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Managing bonds.
    Bonds,
    /// Figures for Prometheus.
    Metrics,
    /// Having the machine become another body.
    Rebirth,
    /// Having snapshots made, put back, and handed out encrypted.
    Snapshots,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bonds, Self::Metrics, Self::Rebirth, Self::Snapshots];

    /// The door that a word in `grants` names.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|door| door.word() == word)
    }

    /// The word in `grants`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bonds => "bonds",
            Self::Metrics => "metrics",
            Self::Rebirth => "rebirth",
            Self::Snapshots => "snapshots",
        }
    }
}

/// Whether a peer is bonded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Bonded.
    Active,
    /// Cut off for good; the file is a tombstone.
    Revoked,
}

/// TCP port on the tether's address through which the agent answers peers that hold a [`Door`].
pub const DOOR_PORT: Port = match Port::new(51821) {
    Some(port) => port,
    None => unreachable!(),
};

/// Whether the text of a bond says that it is revoked, whatever else it says: also where that makes it no TOML.
pub fn is_tombstone(text: &str) -> bool {
    match text.parse::<toml::Table>() {
        Ok(bond) => bond.get("state").and_then(toml::Value::as_str) == Some("revoked"),
        Err(_) => text.lines().any(says_revoked),
    }
}

fn says_revoked(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, value)| {
        key.trim() == "state" && value.trim_start().trim_start_matches(['"', '\'']).starts_with("revoked")
    })
}
