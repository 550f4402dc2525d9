//! What a change of the bonds writes: bond, revoke, rotate, grant.
//!
//! Pure: a [`Request`] and a [`Situation`] become a [`Change`], which says in words and in bytes what is to be done.
//! One request language serves the command line, the console and the tether. A peer's private key never comes here:
//! whoever asks makes it and keeps it.

mod allocate;
pub mod audit;
mod broken;
mod client;
mod edit;
mod ending;
mod migrate;
mod observed;
pub mod store;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codex::key::{PublicKey, SharedKey};
use crate::codex::ledger;
use crate::codex::name::Name;
use crate::codex::time::{Length, Timestamp};
use crate::codex::{Codex, Parse, Peer, PeerState, Sources, preshared_file, render_all};

pub use broken::Broken;
pub use client::Client;
use edit::Edited;
pub(crate) use edit::{buried, tombstone};
pub use ending::Ending;
pub use observed::{Observed, ObservedPeer};
pub use view::{PeerView, StateWord};

/// What is asked for; as JSON `{"verb":"bond","name":"phone",…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// Add a peer.
    Bond(Bond),
    /// Cut a peer off for good.
    Revoke(Revoke),
    /// Give a peer another key.
    Rotate(Rotate),
    /// Let a peer reach more.
    Grant(Granting),
    /// Let a peer reach less.
    Ungrant(Granting),
    /// Set or remove a peer's expiry.
    Extend(Extend),
    /// Tell all peers; changes nothing.
    List(List),
    /// Several of these together, over the tether.
    Batch(Batch),
}

/// A new peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bond {
    /// Its name.
    pub name: Name,
    /// Its public key.
    pub public_key: PublicKey,
    /// Its address; without one the lowest free.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address; without one the lowest free, where the tether has such a network.
    #[serde(default)]
    pub address6: Option<Ipv6Addr>,
    /// What it is.
    #[serde(default)]
    pub kind: Kind,
    /// Words of `grants`: services, doors of the agent, `*`.
    #[serde(default)]
    pub grants: Vec<String>,
    /// From when on it is cut off.
    #[serde(default)]
    pub expires: Option<Ending>,
    /// Whether a preshared key is made.
    #[serde(default)]
    pub preshared: bool,
    /// What the peer dials, a name or an address; without one, the Codex's.
    #[serde(default)]
    pub dial: Option<String>,
    /// Whether the answer holds the peer's configuration: then all that belongs into it must be known.
    #[serde(default)]
    pub client: bool,
}

/// What a new peer is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// A phone, a laptop.
    #[default]
    Device,
    /// Another appliance or site.
    Lych {
        /// `host:port` to dial.
        endpoint: Option<String>,
        /// PersistentKeepalive in seconds; without one the default.
        keepalive: Option<u16>,
        /// Networks behind it.
        routes: Vec<String>,
    },
}

/// A peer to cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Its name.
    pub name: Name,
    /// Why, for people.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A peer that gets another key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Its name.
    pub name: Name,
    /// Its new public key.
    pub public_key: PublicKey,
    /// Whether a preshared key is made.
    #[serde(default)]
    pub preshared: bool,
    /// How long the old key stays accepted; without it, not at all.
    #[serde(default)]
    pub overlap: Option<Length>,
    /// What the peer dials, a name or an address; without one, the Codex's.
    #[serde(default)]
    pub dial: Option<String>,
    /// Whether the answer holds the peer's configuration: then all that belongs into it must be known.
    #[serde(default)]
    pub client: bool,
}

/// Grants to add or to take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granting {
    /// The peer's name.
    pub name: Name,
    /// Words of `grants`.
    pub grants: Vec<String>,
}

/// A new expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// The peer's name.
    pub name: Name,
    /// From when on it is cut off; `None` is never.
    pub expires: Option<Ending>,
}

/// Nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {}

/// Requests that are granted together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The requests, none of them a batch.
    pub requests: Vec<Request>,
    /// Decide and tell, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a request meets.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Law, bonds and ledger.
    pub codex: &'a Codex,
    /// The texts that it was read from.
    pub sources: &'a Sources,
    /// Bonds that are left out of both because they hold mistakes.
    pub broken: &'a [Broken],
    /// The appliance's own public key, where it is known.
    pub host_key: Option<PublicKey>,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Situation<'a> {
    /// The broken bond of that name.
    fn broken_bond(&self, name: &Name) -> Option<&'a Broken> {
        self.broken.iter().find(|broken| broken.name().as_ref() == Some(name))
    }
}

/// What a request changes: everything concerns one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The peer.
    pub name: Name,
    /// Its file, relative to the folder of bonds.
    pub file: String,
    /// What that file says from now on.
    pub text: String,
    /// A preshared key to be kept, and its file relative to the folder of secrets. To be written before the peer.
    pub preshared: Option<(String, SharedKey)>,
    /// Preshared keys, relative to the folder of secrets, that nobody needs once the peer is written.
    pub stale: Vec<String>,
    /// Keys that never come back from now on, and those that an earlier command did not come to add. To be added to the
    /// ledger after the peer is written, which holds them too.
    pub ledger: Vec<ledger::Entry>,
    /// What changes, a line each, for people.
    pub lines: Vec<String>,
    /// The peer as it is from now on.
    pub peer: Arc<Peer>,
}

impl Change {
    /// Makes of `codex`, which it was decided on, the Codex as it is from now on.
    pub fn apply(&self, codex: &mut Codex) {
        codex.peers.insert(self.name.clone(), self.peer.clone());
        codex.revoked_keys.extend(self.ledger.iter().map(|entry| entry.key));
    }
}

/// Why a request cannot be granted. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Diagnostics of the Codex, laid out.
    pub report: Option<String>,
}

impl Refused {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), report: None }
    }
}

/// Decides what `request` changes. `fresh` makes a preshared key.
///
/// # Errors
/// [`Refused`], with what to do about it.
pub fn change(
    request: &Request,
    situation: &Situation<'_>,
    fresh: &mut dyn FnMut() -> SharedKey,
) -> Result<Change, Refused> {
    let (name, edited) = match request {
        Request::Bond(bond) => (&bond.name, edit::bond(bond, situation)?),
        Request::Revoke(revoke) => (&revoke.name, edit::revoke(revoke, situation)?),
        Request::Rotate(rotate) => (&rotate.name, edit::rotate(rotate, situation)?),
        Request::Grant(granting) => (&granting.name, edit::grant(granting, situation)?),
        Request::Ungrant(granting) => (&granting.name, edit::ungrant(granting, situation)?),
        Request::Extend(extend) => (&extend.name, edit::extend(extend, situation)?),
        Request::List(List {}) => {
            return Err(Refused::new("a list changes nothing", "ask for a change"));
        }
        Request::Batch(_) => {
            return Err(Refused::new("a batch stands within a batch", "ask for its requests themselves"));
        }
    };
    let preshared = edited.fresh_preshared.then(fresh);
    // What is only taken away from may go on naming what this body's law does not have.
    let parse = match request {
        Request::Revoke(_) | Request::Ungrant(_) => Codex::parse_living,
        _ => Codex::parse_part,
    };
    made(name, edited, preshared, parse, situation)
}

/// Changes that time has made due: overlaps that are over, whose keys are dead from now on.
pub fn due(situation: &Situation<'_>) -> Result<Vec<Change>, Refused> {
    let over = situation.codex.active().filter(|(_, peer)| edit::is_over(peer, situation.now));
    let ended = |name| made(name, edit::end_overlap(name, situation)?, None, Codex::parse_living, situation);
    over.map(|(name, _)| ended(name)).collect()
}

/// The change that an edited file makes.
fn made(
    name: &Name,
    edited: Edited,
    preshared: Option<SharedKey>,
    parse: Parse,
    situation: &Situation<'_>,
) -> Result<Change, Refused> {
    let file = format!("peers/{name}.toml");
    let peer = parsed(&file, name, &edited.text, parse, situation)?;
    let Codex { peers, revoked_keys, .. } = situation.codex;
    let before = peers.get(name).map(Arc::as_ref);
    let preshared = preshared.map(|key| (preshared_file(name, peer.generation), key));
    let stale = stale(name, before, &peer);
    let after = peers.iter().filter(|(other, _)| *other != name).chain([(name, &peer)]);
    let ledger = missing(after, revoked_keys, situation.now);
    Ok(Change {
        name: name.clone(),
        file,
        text: edited.text,
        preshared,
        stale,
        ledger,
        lines: edited.lines,
        peer,
    })
}

/// Entries that the ledger lacks: what a command that was killed half-way did not add any more.
pub fn missing_entries(codex: &Codex, now: Timestamp) -> Vec<ledger::Entry> {
    missing(codex.peers.iter(), &codex.revoked_keys, now)
}

fn missing<'a>(
    peers: impl Iterator<Item = (&'a Name, &'a Arc<Peer>)>,
    revoked: &BTreeSet<PublicKey>,
    now: Timestamp,
) -> Vec<ledger::Entry> {
    let dead = peers.flat_map(|(name, peer)| dead_keys(name, peer, now));
    dead.filter(|entry| !revoked.contains(&entry.key)).collect()
}

/// Keys of a peer that never come back.
fn dead_keys(name: &Name, peer: &Peer, now: Timestamp) -> Vec<ledger::Entry> {
    let at = peer.revocation.at.unwrap_or(now);
    let entry = |key, generation| ledger::Entry { key, name: name.clone(), generation, at };
    let before = peer.generation.saturating_sub(1).max(1);
    let mut dead: Vec<_> = peer.replaced.iter().map(|key| entry(*key, before)).collect();
    if peer.state == PeerState::Revoked {
        dead.push(entry(peer.public_key, peer.generation));
    }
    // An overlap that is over is not yet among `replaced`: a bonded peer's file names the key until [`due`] takes it
    // out, and may not name one of the ledger.
    if let Some(overlap) = peer.overlap.as_ref().filter(|_| peer.state == PeerState::Revoked) {
        dead.push(entry(overlap.public_key, before));
    }
    dead
}

/// Preshared keys that `before` needed and `after` does not.
fn stale(name: &Name, before: Option<&Peer>, after: &Peer) -> Vec<String> {
    let kept = after.preshared_files(name);
    let needed = before.map(|before| before.preshared_files(name)).unwrap_or_default();
    needed.into_iter().filter(|file| !kept.contains(file)).collect()
}

/// Reads the peer's new text within its law; what it may not share with others was looked at by the edit.
fn parsed(
    file: &str,
    name: &Name,
    text: &str,
    parse: Parse,
    situation: &Situation<'_>,
) -> Result<Arc<Peer>, Refused> {
    // Networks behind other peers are compared too; no other peer needs to be read again.
    let routed = situation.codex.peers.iter().filter(|(_, peer)| !peer.routes().is_empty());
    let routed: BTreeSet<_> = routed.map(|(name, _)| format!("peers/{name}.toml")).collect();
    let law = situation
        .sources
        .iter()
        .filter(|(other, _)| !other.starts_with("peers/") || (*other != file && routed.contains(*other)));
    let alone: Sources = law.chain([(file, text)]).collect();
    let codex = parse(&alone).map_err(|mistakes| Refused {
        message: format!("`{name}` would not be valid"),
        hint: None,
        report: Some(render_all(&mistakes, &alone, false)),
    })?;
    let missing =
        || Refused::new(format!("`{name}` was not understood"), "this is a defect: please report it");
    codex.peers.get(name).cloned().ok_or_else(missing)
}
