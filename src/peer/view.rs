//! A peer as it is told to people and programs.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::codex::key::PublicKey;
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Door, Grants, Peer, PeerKind, PeerState};

/// What the bonds say of a peer; nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub name: Name,
    /// Its public key.
    pub public_key: PublicKey,
    /// Its tunnel address.
    pub address: Ipv4Addr,
    /// Its IPv6 tunnel address.
    pub address6: Option<Ipv6Addr>,
    /// `device` or `lych`.
    pub kind: String,
    /// Networks behind it.
    pub routes: Vec<String>,
    /// Words of its grants.
    pub grants: Vec<String>,
    /// Whether it is bonded.
    pub state: StateWord,
    /// Which key it has, counted from 1.
    pub generation: u32,
    /// Whether it needs a preshared key.
    pub preshared: bool,
    /// When it was bonded.
    pub created: Option<Timestamp>,
    /// From when on it is cut off.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Why it was revoked.
    pub reason: Option<String>,
    /// Until when its key before is accepted too.
    pub overlap_until: Option<Timestamp>,
    /// Its key before, while that is accepted.
    pub overlap_public_key: Option<PublicKey>,
}

/// Whether a peer is bonded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateWord {
    /// Bonded.
    Active,
    /// Its time is over; it can be extended.
    Expired,
    /// Cut off for good.
    Revoked,
}

impl PeerView {
    /// What the bonds say of `name` at `now`.
    pub fn of(name: &Name, peer: &Peer, now: Timestamp) -> Self {
        let (kind, routes) = match &peer.kind {
            PeerKind::Device => ("device", Vec::new()),
            PeerKind::Lych { routes, .. } => ("lych", routes.iter().map(ToString::to_string).collect()),
        };
        let overlap = peer.overlap.as_ref().filter(|overlap| overlap.until > now);
        let state = match peer.state {
            PeerState::Revoked => StateWord::Revoked,
            PeerState::Active if peer.is_expired(now) => StateWord::Expired,
            PeerState::Active => StateWord::Active,
        };
        Self {
            name: name.clone(),
            public_key: peer.public_key,
            address: peer.address,
            address6: peer.address6,
            kind: kind.to_owned(),
            routes,
            grants: words(&peer.grants),
            state,
            generation: peer.generation,
            preshared: peer.preshared,
            created: peer.created,
            expires: peer.expires,
            revoked: peer.revocation.at,
            reason: peer.revocation.reason.clone(),
            overlap_until: overlap.map(|overlap| overlap.until),
            overlap_public_key: overlap.map(|overlap| overlap.public_key),
        }
    }

    /// Words of a peer's grants, as the Codex writes them.
    pub fn grants(peer: &Peer) -> Vec<String> {
        words(&peer.grants)
    }

    /// All peers of a Codex, by name.
    pub fn all(codex: &Codex, now: Timestamp) -> Vec<Self> {
        codex.peers.iter().map(|(name, peer)| Self::of(name, peer, now)).collect()
    }
}

/// Grants as the Codex writes them.
fn words(grants: &Grants) -> Vec<String> {
    let all = grants.every_service.then(|| "*".to_owned());
    let services: BTreeSet<_> = grants.services.iter().map(ToString::to_string).collect();
    all.into_iter()
        .chain(services)
        .chain(grants.doors.iter().map(|door| Door::word(*door).to_owned()))
        .chain(grants.peers.iter().map(Grants::peer_word))
        .collect()
}
