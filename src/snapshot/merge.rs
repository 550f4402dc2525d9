//! What putting a snapshot back changes: pure. What is dead stays dead, whichever of the two knows it.
//!
//! Per peer, the snapshot's file is taken, unless
//! - it is revoked now, or its time is over now: then it stays as it is now;
//! - it has a newer key now, or the snapshot's key is dead: then it stays as it is now, or stays out;
//! - the snapshot does not know it: then it leaves, and a later snapshot that knows it can bring it back.

use std::collections::{BTreeMap, BTreeSet};

use crate::codex::key::PublicKey;
use crate::codex::ledger::{self, LEDGER};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Peer, PeerState, Sources};
use crate::peer::audit::Verb;
use crate::peer::{Refused, buried, missing_entries, tombstone};

/// Bonds and the texts that they were read from.
#[derive(Debug, Clone, Copy)]
pub struct Bonds<'a> {
    /// Law, bonds and ledger.
    pub codex: &'a Codex,
    /// Their texts.
    pub sources: &'a Sources,
}

/// A peer that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its name.
    pub name: Name,
    /// [`Verb::Restore`] or [`Verb::Revive`].
    pub verb: Verb,
    /// Its file from then on; `None` when it leaves.
    pub text: Option<String>,
    /// Its generation from then on; 0 when it leaves.
    pub generation: u32,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Merge {
    /// Every peer's file from then on.
    pub files: BTreeMap<Name, String>,
    /// Those that are not as now.
    pub changed: Vec<Changed>,
    /// Lines to add to the ledger before the peers change: keys that no bonded peer uses, and revivals.
    pub before: Vec<String>,
    /// Lines to add behind it. The files hold these keys as dead, too.
    pub behind: Vec<String>,
    /// What changes, a line each, for people.
    pub lines: Vec<String>,
    /// The Codex from then on.
    pub codex: Codex,
    /// The texts that it was read from.
    pub sources: Sources,
}

impl Merge {
    /// Whether all is as the snapshot says already.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.before.is_empty() && self.behind.is_empty()
    }
}

/// Decides what the bonds of `soul` make of those of `now`; `revive` names peers that come back from the dead.
///
/// # Errors
/// A revival that is none, or bonds that do not fit the law or each other.
pub fn merge(
    now: Bonds<'_>,
    soul: Bonds<'_>,
    revive: &BTreeSet<Name>,
    time: Timestamp,
) -> Result<Merge, Refused> {
    let revived = revived(now, soul, revive, time)?;
    let mut dead = dead(now.codex, time);
    dead.extend(self::dead(soul.codex, time));
    dead.retain(|key| !revived.contains(key));
    let chooser = Chooser { now, soul, revive, time, dead: &dead };
    let names: BTreeSet<&Name> = now.codex.peers.keys().chain(soul.codex.peers.keys()).collect();
    let mut files = BTreeMap::new();
    let mut lines = Vec::new();
    for name in names {
        let (text, why) = chooser.choose(name)?;
        lines.extend(why);
        if let Some(text) = text {
            files.insert(name.clone(), text);
        }
    }
    let revivals = revived.iter().filter(|key| now.codex.revoked_keys.contains(key));
    let mut before: Vec<String> = revivals.map(|key| format!("{} {key} {time}", ledger::REVIVED)).collect();
    let (behind, early) = ledger_lines(now, soul, &revived, time);
    before.extend(early);
    let (sources, codex) = together(now, &files, before.iter().chain(&behind))?;
    let changed = changed(now, &codex, &files, revive);
    Ok(Merge { files, changed, before, behind, lines, codex, sources })
}

/// Keys that come back.
fn revived(
    now: Bonds<'_>,
    soul: Bonds<'_>,
    revive: &BTreeSet<Name>,
    time: Timestamp,
) -> Result<BTreeSet<PublicKey>, Refused> {
    let key = |name: &Name| {
        let bonded = |peer: &&Peer| peer.state == PeerState::Active && !peer.is_expired(time);
        if now.codex.peer(name).as_ref().is_some_and(bonded) {
            return Err(Refused::new(
                format!("`{name}` is bonded: it needs no revival"),
                "leave `--revive` out",
            ));
        }
        let Some(peer) = soul.codex.peer(name).filter(bonded) else {
            let hint =
                "`sepulcher snapshot show` tells whom it knows; choose another snapshot, or bond it anew";
            return Err(Refused::new(format!("the snapshot holds no living bond of `{name}`"), hint));
        };
        if now
            .sources
            .text(ledger::LAW_LEDGER)
            .is_some_and(|text| ledger::keys(text).any(|(key, _)| key == peer.public_key))
        {
            let hint = "take its key out of the law's `revoked` first; that is a new body";
            return Err(Refused::new(format!("the law itself revokes the key of `{name}`"), hint));
        }
        Ok(peer.public_key)
    };
    revive.iter().map(key).collect()
}

/// Keys that never come back, whether or not the ledger has them already.
fn dead(codex: &Codex, time: Timestamp) -> BTreeSet<PublicKey> {
    let missing = missing_entries(codex, time).into_iter().map(|entry| entry.key);
    codex.revoked_keys.iter().copied().chain(missing).collect()
}

struct Chooser<'a> {
    now: Bonds<'a>,
    soul: Bonds<'a>,
    revive: &'a BTreeSet<Name>,
    time: Timestamp,
    dead: &'a BTreeSet<PublicKey>,
}

type Chosen = (Option<String>, Option<String>);

impl Chooser<'_> {
    /// A peer's file from then on, and why it is not simply the snapshot's.
    fn choose(&self, name: &Name) -> Result<Chosen, Refused> {
        let file = format!("peers/{name}.toml");
        let text = |bonds: &Bonds<'_>| bonds.sources.text(&file).unwrap_or_default().to_owned();
        let (own, other) = (self.now.codex.peer(name), self.soul.codex.peer(name));
        if let (Some(peer), true) = (other, self.revive.contains(name)) {
            let line = format!("! peer {name} comes back from the dead: {}", peer.public_key);
            return Ok((Some(self.fit(name, text(&self.soul), peer, own)?), Some(line)));
        }
        let lives = |peer: &Peer| peer.state == PeerState::Active && !self.dead.contains(&peer.public_key);
        let keep = |why: &str| Ok((Some(text(&self.now)), Some(format!("= peer {name} {why}"))));
        match (own, other) {
            (Some(own), _) if own.state == PeerState::Revoked => match other {
                Some(other) if other.state == PeerState::Active => keep("stays revoked"),
                _ => Ok((Some(text(&self.now)), None)),
            },
            (own, Some(other)) if other.state == PeerState::Revoked => {
                let line = own.map(|own| format!("- peer {name} {} was revoked", own.public_key));
                Ok((Some(self.fit(name, text(&self.soul), other, own)?), line))
            }
            (Some(own), _) if lives(own) && own.is_expired(self.time) => keep("stays expired"),
            (Some(own), Some(other)) if lives(own) && outlived(own, other, &lives) => {
                keep("keeps its newer key")
            }
            (own, Some(other)) if lives(other) => {
                Ok((Some(self.fit(name, text(&self.soul), other, own)?), None))
            }
            // Gone it could be bonded anew, and a crash in between would lose what the snapshot's ledger knows.
            (Some(own), _) if !lives(own) => {
                let text =
                    tombstone(name, &text(&self.now), self.time, "its key is in the ledger of a snapshot")?;
                Ok((
                    Some(text),
                    Some(format!("- peer {name} {} is in the snapshot's ledger", own.public_key)),
                ))
            }
            (Some(own), _) => Ok((None, Some(format!("- peer {name} {} was bonded since", own.public_key)))),
            (None, Some(_)) => Ok((None, Some(format!("= peer {name} stays out: its key is dead")))),
            (None, None) => Ok((None, None)),
        }
    }

    /// The snapshot's file, in which every key that is dead is said to be: that of an overlap, and that which the peer
    /// has now.
    fn fit(&self, name: &Name, text: String, peer: &Peer, own: Option<&Peer>) -> Result<String, Refused> {
        let overlap = peer.overlap.as_ref().map(|overlap| overlap.public_key);
        let overlap = overlap.filter(|key| self.dead.contains(key) && peer.state == PeerState::Active);
        let known = |key: &PublicKey| *key == peer.public_key || peer.replaced.contains(key);
        let own = own.filter(|own| own.state == PeerState::Active).map(|own| own.public_key);
        let own = own.filter(|key| self.dead.contains(key) && !known(key) && Some(*key) != overlap);
        if overlap.is_none() && own.is_none() {
            return Ok(text);
        }
        buried(name, &text, overlap.is_some(), overlap.into_iter().chain(own))
    }
}

/// Whether the key of now is newer than that of the snapshot.
fn outlived(own: &Peer, other: &Peer, lives: &dyn Fn(&Peer) -> bool) -> bool {
    own.public_key != other.public_key && (own.generation >= other.generation || !lives(other))
        || own.generation > other.generation
}

/// Lines that the ledger lacks: those for behind the change of the peers, and those for before it.
fn ledger_lines(
    now: Bonds<'_>,
    soul: Bonds<'_>,
    revived: &BTreeSet<PublicKey>,
    time: Timestamp,
) -> (Vec<String>, Vec<String>) {
    let mut lines: BTreeMap<PublicKey, String> = BTreeMap::new();
    let text = soul.sources.text(LEDGER).unwrap_or_default();
    lines.extend(ledger::keys(text).map(|(key, (start, end))| (key, text[start..end].to_owned())));
    for entry in missing_entries(soul.codex, time).into_iter().chain(missing_entries(now.codex, time)) {
        lines.entry(entry.key).or_insert_with(|| entry.to_string());
    }
    lines.retain(|key, _| !now.codex.revoked_keys.contains(key) && !revived.contains(key));
    let used: BTreeSet<_> = now.codex.active().map(|(_, peer)| peer.public_key).collect();
    let (behind, before): (BTreeMap<_, _>, BTreeMap<_, _>) =
        lines.into_iter().partition(|(key, _)| used.contains(key));
    (behind.into_values().collect(), before.into_values().collect())
}

/// Reads the result as the next command would.
fn together<'a>(
    now: Bonds<'_>,
    files: &BTreeMap<Name, String>,
    lines: impl Iterator<Item = &'a String>,
) -> Result<(Sources, Codex), Refused> {
    let mut sources = super::law(now.sources);
    for (name, text) in files {
        sources.insert(format!("peers/{name}.toml"), text.clone());
    }
    let mut ledger = now.sources.text(LEDGER).unwrap_or_default().to_owned();
    if !ledger.is_empty() && !ledger.ends_with('\n') {
        ledger.push('\n');
    }
    lines.for_each(|line| ledger.push_str(&format!("{line}\n")));
    sources.insert(LEDGER, ledger);
    let hint = "change what is named above, or choose another snapshot";
    super::parsed(sources, Codex::parse_living, "the snapshot's bonds do not fit those of now", hint)
}

fn changed(
    now: Bonds<'_>,
    codex: &Codex,
    files: &BTreeMap<Name, String>,
    revive: &BTreeSet<Name>,
) -> Vec<Changed> {
    let names: BTreeSet<&Name> = now.codex.peers.keys().chain(files.keys()).collect();
    let differs = |name: &&Name| {
        now.sources.text(&format!("peers/{name}.toml")) != files.get(*name).map(String::as_str)
    };
    let change = |name: &Name| Changed {
        name: name.clone(),
        verb: if revive.contains(name) { Verb::Revive } else { Verb::Restore },
        text: files.get(name).cloned(),
        generation: codex.peers.get(name).map_or(0, |peer| peer.generation),
    };
    names.into_iter().filter(differs).map(change).collect()
}

#[cfg(test)]
mod tests;
