//! `sepulcher peer list` and `show`: what the bonds declare beside what the kernel shows.

use std::collections::BTreeMap;
use std::path::Path;

use indicatif::HumanBytes;
use serde::Serialize;

use crate::cli::output::{age, length, table};
use crate::cli::{Failure, Kind};
use crate::codex::key::PublicKey;
use crate::codex::time::Timestamp;
use crate::peer::{Broken, Observed, ObservedPeer, PeerView, StateWord};
use crate::sys::fs;
use crate::sys::http::unix;
use crate::tether::door::PEERS;

/// Columns of the table; those behind [`DECLARED`] need an agent.
const HEADINGS: [&str; 10] =
    ["NAME", "ADDRESS", "KIND", "GRANTS", "STATE", "HANDSHAKE", "ENDPOINT", "RECEIVED", "SENT", "DENIED"];
const DECLARED: usize = 5;
/// Grants take no more characters of the table than that; `show` tells all.
const GRANTS: usize = 32;

/// Bonds and kernel side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Version of this shape: 1.
    schema: u32,
    /// Whether an agent was asked; without one, nothing is known of the kernel.
    observed: bool,
    /// When the agent looked, by its clock, which all times here go by.
    now: Option<Timestamp>,
    /// Bonds, by name.
    peers: Vec<Row>,
    /// Bonds that are not in force as they stand, by file.
    broken: Vec<BrokenRow>,
    /// Peers of the kernel that no bond declares.
    undeclared: Vec<ObservedPeer>,
}

/// A bond, and what the kernel shows of it; `None` where nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    #[serde(flatten)]
    declared: PeerView,
    held: Option<bool>,
    last_handshake: Option<Timestamp>,
    endpoint: Option<String>,
    received: Option<u64>,
    sent: Option<u64>,
    denied: Option<u64>,
}

/// A bond that holds mistakes, and whether the kernel holds a key that is in it: the agent keeps it as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenRow {
    #[serde(flatten)]
    bond: Broken,
    held: Option<bool>,
    last_handshake: Option<Timestamp>,
}

/// All about one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Found<'a> {
    /// A bond that can be read.
    Sound(&'a Row),
    /// One that cannot.
    Broken(&'a BrokenRow),
}

/// What the agent of this machine sees; `None` where none runs.
///
/// # Errors
/// An agent that is there and does not answer.
pub fn observe(door: &Path) -> Result<Option<Observed>, Failure> {
    if !fs::exists(door)? {
        return Ok(None);
    }
    let body = unix::get(door, PEERS).map_err(|error| {
        Failure::from_error(Kind::Unavailable, &error)
            .hint("the agent says why: journalctl --unit '*-vpn.service'; `sepulcher peer list --codex DIR` asks no agent")
    })?;
    parse(&body).map(Some)
}

/// What an agent's door has answered.
pub fn parse(body: &[u8]) -> Result<Observed, Failure> {
    let told = serde_json::from_slice::<Observed>(body);
    told.map_err(|error| {
        Failure::new(Kind::Unavailable, format!("the agent's answer was not understood: {error}")).hint(
            "this program and the appliance may be of different versions: `sepulcher --version` on both",
        )
    })
}

/// Joins bonds with what the kernel holds.
pub fn join((declared, broken): (Vec<PeerView>, Vec<Broken>), observed: Option<Observed>) -> Overview {
    let now = observed.as_ref().map(|observed| Timestamp::from_epoch(observed.now));
    let seen = observed.is_some();
    let peers = observed.into_iter().flat_map(|observed| observed.peers).filter(|peer| peer.held);
    let mut held: BTreeMap<PublicKey, ObservedPeer> = peers.map(|peer| (peer.public_key, peer)).collect();
    let peers = declared.into_iter().map(|view| row(view, seen, &mut held)).collect();
    let broken = broken.into_iter().map(|bond| broken_row(bond, seen, &mut held)).collect();
    Overview { schema: 1, observed: seen, now, peers, broken, undeclared: held.into_values().collect() }
}

/// Takes a bond's keys out of what is held.
fn row(declared: PeerView, seen: bool, held: &mut BTreeMap<PublicKey, ObservedPeer>) -> Row {
    let keys = [Some(declared.public_key), declared.overlap_public_key];
    let found: Vec<ObservedPeer> = keys.into_iter().flatten().filter_map(|key| held.remove(&key)).collect();
    // While two keys overlap, the peer is where the one is that it used last.
    let newest = found.iter().max_by_key(|peer| peer.last_handshake);
    let sum = |count: fn(&ObservedPeer) -> u64| (!found.is_empty()).then(|| found.iter().map(count).sum());
    Row {
        held: seen.then_some(!found.is_empty()),
        last_handshake: newest.and_then(|peer| peer.last_handshake).map(Timestamp::from_epoch),
        endpoint: newest.and_then(|peer| peer.endpoint.clone()),
        received: sum(|peer| peer.received),
        sent: sum(|peer| peer.sent),
        // Denials are counted by address, which both keys share.
        denied: found.iter().map(|peer| peer.denied).max(),
        declared,
    }
}

/// The same of one that is broken: its own keys are not known, those that it names are.
fn broken_row(bond: Broken, seen: bool, held: &mut BTreeMap<PublicKey, ObservedPeer>) -> BrokenRow {
    let found: Vec<ObservedPeer> = bond.public_keys.iter().filter_map(|key| held.remove(key)).collect();
    let last = found.iter().filter_map(|peer| peer.last_handshake).max();
    BrokenRow {
        held: seen.then_some(!found.is_empty()),
        last_handshake: last.map(Timestamp::from_epoch),
        bond,
    }
}

impl Overview {
    /// The time that ages count from: that of the agent, or `clock` where none was asked. This machine's clock may differ
    /// from the appliance's.
    pub fn time(&self, clock: Timestamp) -> Timestamp {
        self.now.unwrap_or(clock)
    }

    /// The bond of that name.
    pub fn find(&self, name: &str) -> Option<Found<'_>> {
        let sound = self.peers.iter().find(|row| row.declared.name.as_str() == name).map(Found::Sound);
        let named = |row: &&BrokenRow| row.bond.name().is_some_and(|own| own.as_str() == name);
        sound.or_else(|| self.broken.iter().find(named).map(Found::Broken))
    }

    /// A table with a heading; of bonds alone where no agent was asked.
    pub fn table(&self, now: Timestamp) -> String {
        let headings = HEADINGS.map(str::to_owned).to_vec();
        let peers = self.peers.iter().map(|row| row.cells(now));
        let broken = self.broken.iter().map(|row| row.cells(now));
        let undeclared = self.undeclared.iter().map(|peer| stranger(peer, now));
        let mut rows: Vec<Vec<String>> =
            [headings].into_iter().chain(peers).chain(broken).chain(undeclared).collect();
        if !self.observed {
            for row in &mut rows {
                row.truncate(DECLARED);
            }
        }
        table(&rows)
    }
}

impl Row {
    /// Whether bond and kernel agree, in words.
    fn state(&self, now: Timestamp) -> String {
        let word = match self.declared.state {
            StateWord::Active => "active",
            StateWord::Expired => "expired",
            StateWord::Revoked => "revoked",
        };
        match (self.declared.state, self.held, self.declared.overlap_until) {
            (StateWord::Active, Some(false), _) => "declared, not in the kernel".to_owned(),
            (StateWord::Expired | StateWord::Revoked, Some(true), _) => {
                format!("{word}, still in the kernel")
            }
            (StateWord::Active, _, Some(until)) => {
                format!("{word}, old key for {}", length(until.epoch().saturating_sub(now.epoch())))
            }
            _ => word.to_owned(),
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let Row { declared, held: _, last_handshake, endpoint, received, sent, denied } = self;
        let here = self.held == Some(true);
        vec![
            declared.name.to_string(),
            declared.address.to_string(),
            declared.kind.clone(),
            shortened(&declared.grants.join(",")),
            self.state(now),
            if here { handshake(*last_handshake, now) } else { "-".to_owned() },
            endpoint.clone().unwrap_or_else(|| "-".to_owned()),
            bytes(*received),
            bytes(*sent),
            denied.map_or("-".to_owned(), |count| count.to_string()),
        ]
    }

    fn details(&self, now: Timestamp) -> String {
        let Row { declared, held, last_handshake, endpoint, received, sent, denied } = self;
        let moment = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let mut lines = vec![
            ("name", Some(declared.name.to_string())),
            ("state", Some(self.state(now))),
            ("public key", Some(declared.public_key.to_string())),
            ("address", Some(declared.address.to_string())),
            ("IPv6 address", declared.address6.map(|address| address.to_string())),
            ("kind", Some(declared.kind.clone())),
            ("networks behind it", (!declared.routes.is_empty()).then(|| declared.routes.join(" "))),
            (
                "grants",
                Some(if declared.grants.is_empty() { "none".to_owned() } else { declared.grants.join(" ") }),
            ),
            ("key generation", Some(declared.generation.to_string())),
            ("preshared key", Some(if declared.preshared { "yes" } else { "no" }.to_owned())),
            ("bonded", moment(declared.created)),
            ("expires", moment(declared.expires)),
            ("revoked", moment(declared.revoked)),
            ("reason", declared.reason.clone()),
            ("old key until", moment(declared.overlap_until)),
        ];
        if *held == Some(true) {
            lines.extend([
                ("handshake", Some(handshake(*last_handshake, now))),
                ("endpoint", Some(shown(endpoint))),
                ("received", Some(bytes(*received))),
                ("sent", Some(bytes(*sent))),
                ("packets denied", denied.map(|count| count.to_string())),
            ]);
        }
        let lines = lines.into_iter().filter_map(|(what, value)| Some(vec![what.to_owned(), value?]));
        table(&lines.collect::<Vec<_>>())
    }
}

impl BrokenRow {
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let name = self.bond.name().map_or_else(|| self.bond.file.clone(), |name| name.to_string());
        let here = self.held == Some(true);
        let seen = if here { handshake(self.last_handshake, now) } else { "-".to_owned() };
        let none = || "-".to_owned();
        let reason = self.bond.reasons.first().cloned().unwrap_or_default();
        vec![name, none(), none(), none(), format!("broken: {reason}"), seen, none(), none(), none(), none()]
    }

    fn details(&self, now: Timestamp) -> String {
        let words = |list: Vec<String>| (!list.is_empty()).then(|| list.join(" "));
        let Broken { file, reasons, public_keys, addresses, .. } = &self.bond;
        let mut lines = vec![("file", Some(file.clone())), ("state", Some("broken".to_owned()))];
        lines.extend(reasons.iter().map(|reason| ("mistake", Some(reason.clone()))));
        lines.extend([
            ("keys in it", words(public_keys.iter().map(ToString::to_string).collect())),
            ("addresses in it", words(addresses.iter().map(ToString::to_string).collect())),
            ("handshake", (self.held == Some(true)).then(|| handshake(self.last_handshake, now))),
            ("remedy", Some(self.bond.remedy())),
        ]);
        let lines = lines.into_iter().filter_map(|(what, value)| Some(vec![what.to_owned(), value?]));
        table(&lines.collect::<Vec<_>>())
    }
}

impl Found<'_> {
    /// All of it, a line each.
    pub fn details(self, now: Timestamp) -> String {
        match self {
            Found::Sound(row) => row.details(now),
            Found::Broken(row) => row.details(now),
        }
    }
}

/// A peer of the kernel that no bond declares; its key stands for its name.
fn stranger(peer: &ObservedPeer, now: Timestamp) -> Vec<String> {
    let ObservedPeer { public_key, endpoint, last_handshake, received, sent, denied, held: _ } = peer;
    vec![
        public_key.to_string(),
        "-".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
        "in the kernel, not declared".to_owned(),
        handshake(last_handshake.map(Timestamp::from_epoch), now),
        endpoint.clone().unwrap_or_else(|| "-".to_owned()),
        bytes(Some(*received)),
        bytes(Some(*sent)),
        denied.to_string(),
    ]
}

fn handshake(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or("never".to_owned(), |at| age(now.epoch().saturating_sub(at.epoch())))
}

fn bytes(count: Option<u64>) -> String {
    count.map_or("-".to_owned(), |count| HumanBytes(count).to_string())
}

fn shortened(grants: &str) -> String {
    match grants.char_indices().nth(GRANTS) {
        None if grants.is_empty() => "-".to_owned(),
        None => grants.to_owned(),
        Some((end, _)) => format!("{}…", &grants[..end]),
    }
}

#[cfg(test)]
#[path = "list/tests.rs"]
mod tests;
