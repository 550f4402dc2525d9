//! `peers/<name>.toml` as typed.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::reader::{At, Field, Table};
use super::scalar::{Dialled, Grant, KindWord};
use crate::codex::PeerState;
use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::key::PublicKey;
use crate::codex::net::Net4;
use crate::codex::time::Timestamp;

/// A peer; a `None` that is not optional in the Codex was wrong and is reported already.
#[derive(Debug)]
pub struct Peer {
    /// `public-key`.
    pub public_key: Option<At<PublicKey>>,
    /// `address`.
    pub address: Option<At<Ipv4Addr>>,
    /// `address6`.
    pub address6: Field<Ipv6Addr>,
    /// `kind` and the keys that belong to it.
    pub kind: Option<Kind>,
    /// `grants`.
    pub grants: Option<At<Vec<At<Grant>>>>,
    /// `state`.
    pub state: Option<At<PeerState>>,
    /// `generation`.
    pub generation: Option<At<u32>>,
    /// `preshared`.
    pub preshared: Option<At<bool>>,
    /// `created`.
    pub created: Field<Timestamp>,
    /// `expires`.
    pub expires: Field<Timestamp>,
    /// `revoked`.
    pub revoked: Field<Timestamp>,
    /// `reason`.
    pub reason: Field<String>,
    /// `replaced`.
    pub replaced: Field<Vec<At<PublicKey>>>,
    /// `[overlap]`, where it is written.
    pub overlap: Option<Box<Overlap>>,
}

/// `[overlap]`.
#[derive(Debug)]
pub struct Overlap {
    /// `public-key`.
    pub public_key: Option<At<PublicKey>>,
    /// `preshared`.
    pub preshared: Option<At<bool>>,
    /// `until`.
    pub until: Option<At<Timestamp>>,
}

/// What a peer is.
#[derive(Debug)]
pub enum Kind {
    /// `device`.
    Device,
    /// `lych`.
    Lych {
        /// `endpoint`.
        endpoint: Field<Dialled>,
        /// `keepalive`.
        keepalive: Option<At<u16>>,
        /// `routes`.
        routes: Field<Vec<At<Net4>>>,
    },
}

/// Reads `peers/<name>.toml`.
pub fn read(root: &mut Table<'_>) -> Peer {
    let peer = Peer {
        public_key: root.required("public-key", "\"<44 characters, from wg pubkey>\""),
        address: root.required("address", "\"10.88.16.2\""),
        address6: root.optional("address6"),
        kind: kind(root),
        grants: root.required("grants", "[\"oculus\"]"),
        state: root.defaulted("state", PeerState::Active),
        generation: root.defaulted("generation", 1),
        preshared: root.defaulted("preshared", false),
        created: root.optional("created"),
        expires: root.optional("expires"),
        revoked: root.optional("revoked"),
        reason: root.optional("reason"),
        replaced: root.optional("replaced"),
        overlap: overlap(root),
    };
    if let Some(At { value: 0, place }) = &peer.generation {
        let mistake = Diagnostic::error("generations are counted from 1", place);
        root.file().report(mistake.hint("write `generation = 1`, or remove it"));
    }
    only_a_tombstone(root, &peer);
    peer
}

fn overlap(root: &mut Table<'_>) -> Option<Box<Overlap>> {
    let mut table = root.optional_section("overlap")?;
    let overlap = Overlap {
        public_key: table.required("public-key", "\"<the key of the generation before>\""),
        preshared: table.defaulted("preshared", false),
        until: table.required("until", "2026-12-31T18:00:00Z"),
    };
    table.finish();
    Some(overlap.into())
}

/// What is said of a revocation belongs to a revoked peer.
fn only_a_tombstone(root: &Table<'_>, peer: &Peer) {
    if peer.state.as_ref().is_none_or(|state| state.value == PeerState::Revoked) {
        return;
    }
    let given = |key, place: &Place| {
        let mistake = Diagnostic::error(format!("`{key}` belongs to a revoked peer"), place);
        root.file().report(mistake.hint("write `state = \"revoked\"`, or remove it"));
    };
    if let Field::Given(at) = &peer.revoked {
        given("revoked", &at.place);
    }
    if let Field::Given(at) = &peer.reason {
        given("reason", &at.place);
    }
}

fn kind(root: &mut Table<'_>) -> Option<Kind> {
    let word = root.defaulted("kind", KindWord::Device);
    let endpoint: Field<Dialled> = root.optional("endpoint");
    let keepalive: Field<u16> = root.optional("keepalive");
    let routes: Field<Vec<At<Net4>>> = root.optional("routes");
    if word?.value == KindWord::Lych {
        let keepalive = match keepalive {
            Field::Absent => Some(At { value: 25, place: root.file().whole() }),
            Field::Wrong => None,
            Field::Given(at) => Some(*at),
        };
        return Some(Kind::Lych { endpoint, keepalive, routes });
    }
    let only_lych = |key: &str, place: &Place| {
        let mistake = Diagnostic::error(format!("`{key}` belongs to a peer of kind `lych`"), place);
        root.file().report(mistake.hint("write `kind = \"lych\"`, or remove it"));
    };
    if let Field::Given(at) = &endpoint {
        only_lych("endpoint", &at.place);
    }
    if let Field::Given(at) = &keepalive {
        only_lych("keepalive", &at.place);
    }
    if let Field::Given(at) = &routes {
        only_lych("routes", &at.place);
    }
    Some(Kind::Device)
}
