//! What a peer, or who sits at the console, asks of the machine's bodies and snapshots, from the wish to what became of it:
//! pure.
//!
//! A wish is kept as a file, the intent, which somebody else than who wrote it carries out: [`Intent::judge`] knows what
//! may be carried out, and nothing else is.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::record::SCHEMA;
use super::version::Version;
use crate::codex::Door;
use crate::codex::name::Name;
use crate::codex::time::{Length, Timestamp};
use crate::peer::audit::Who;
use crate::snapshot::store::{Restored, Whole};
use crate::snapshot::wish::{Create, Named, Prune, Restore};
use crate::tree::Sha256Digest;

/// The longest intent, in bytes.
pub const LIMIT: u64 = 4096;
/// How many of one peer may wait: others, and who sits at the console, are heard all the same.
pub const SHARE: usize = 4;
/// How many may wait.
pub const WAITING: usize = 16;
/// How many records are kept; a nonce that is among them is not taken again.
pub const RECORDS: usize = 1000;
/// The longest text that is kept of why something failed, in bytes: a list of ten thousand peers is for who asks at once.
const REASON: usize = 2048;
/// How many lines are kept of what a restore changed.
const LINES: usize = 40;
/// Of how many of the latest intents is told.
const TOLD: usize = 2 * WAITING;
/// How old an intent may be.
const FRESH: Length = Length::from_seconds(3600);
/// How far the clock may have gone back since it was written.
const AHEAD: Length = Length::from_seconds(300);

/// A number that is used once: 16 to 64 hexadecimal digits, chosen by who asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce(String);

/// The text is no such number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a nonce is 16 to 64 hexadecimal digits in lower case")]
pub struct NotANonce;

impl FromStr for Nonce {
    type Err = NotANonce;

    fn from_str(text: &str) -> Result<Self, NotANonce> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits && (16..=64).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(NotANonce) }
    }
}

impl From<[u8; 32]> for Nonce {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::codex::serde_as_text!(Nonce);

/// What is wished for. There is nothing else that anybody can have done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wish {
    /// Fetch an update and write it to the slot that does not run.
    #[serde(rename_all = "kebab-case")]
    Stage {
        /// Its address.
        source: String,
        /// Whether it may be older than what runs.
        #[serde(default)]
        allow_downgrade: bool,
    },
    /// Become the staged body.
    Activate {
        /// Its digest.
        digest: Sha256Digest,
    },
    /// Return to the body before.
    Rollback {
        /// The version of the body that runs, and is to be left.
        leave: Version,
    },
    /// Keep a snapshot.
    CreateSnapshot(Create),
    /// Read a snapshot whole.
    VerifySnapshot(Named),
    /// Put a snapshot back.
    RestoreSnapshot(Restore),
    /// Remove all but the latest snapshots.
    PruneSnapshots(Prune),
}

impl Wish {
    /// The door whose grant it needs.
    pub fn door(&self) -> Door {
        match self {
            Self::Stage { .. } | Self::Activate { .. } | Self::Rollback { .. } => Door::Rebirth,
            Self::CreateSnapshot(_)
            | Self::VerifySnapshot(_)
            | Self::RestoreSnapshot(_)
            | Self::PruneSnapshots(_) => Door::Snapshots,
        }
    }
}

/// A question of a peer about the machine's bodies, as it goes to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// How they stand.
    Status {},
    /// Have something done.
    Wish {
        /// Tells this wish from every other.
        nonce: Nonce,
        /// What.
        wish: Wish,
    },
}

/// A wish that waits to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Tells it from every other.
    pub nonce: Nonce,
    /// Whose it is.
    pub who: Who,
    /// When it was written.
    pub at: Timestamp,
    /// What is wished for.
    pub wish: Wish,
}

/// What became of an intent. Bodies of other versions read it, too, and may write more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// The file that it was in.
    pub file: String,
    /// The peer whose it was, as far as that is known.
    pub peer: Option<Name>,
    /// How far it came.
    pub state: State,
    /// Why, where it was refused or failed.
    pub reason: Option<String>,
    /// What the command would have ended with on the machine, where it failed.
    #[serde(default, rename = "exit-code", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// What came of it, where there is more to tell than that it is done, and this program knows of such a thing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    pub outcome: Option<Outcome>,
}

/// An outcome; `None` for one of a newer body.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Outcome>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// A body was staged.
    Staged {
        /// Its version.
        version: Version,
        /// The digest that `activate` wants.
        digest: Sha256Digest,
        /// What its law takes from peers and publisher, a line each, for people.
        takes: Vec<String>,
    },
    /// A snapshot was made.
    Created {
        /// Its name.
        name: String,
    },
    /// A snapshot was read, and is whole.
    Verified(Whole),
    /// A snapshot was put back.
    Restored(Restored),
    /// Snapshots were removed.
    Pruned {
        /// Their names.
        removed: Vec<String>,
        /// How many more.
        #[serde(default)]
        more: usize,
    },
}

impl Record {
    /// The same with no more of its texts than is kept.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { reason: self.reason.map(short), outcome: self.outcome.map(Outcome::bounded), ..self }
    }
}

impl Outcome {
    /// The same with the beginning of what it lists: ten thousand peers are for who restores on the machine.
    fn bounded(mut self) -> Self {
        match &mut self {
            Self::Created { .. } | Self::Verified(_) => {}
            Self::Restored(Restored { plan: lines, .. }) | Self::Staged { takes: lines, .. } => {
                if cut(lines) > 0 {
                    lines.push("…".to_owned());
                }
            }
            Self::Pruned { removed, more } => *more += cut(removed),
        }
        self
    }
}

/// Keeps the beginning of a list; how many lines go.
fn cut(lines: &mut Vec<String>) -> usize {
    let mut length = 0;
    let fits = |line: &&String| {
        length += line.len();
        length <= REASON
    };
    let kept = lines.iter().take(LINES).take_while(fits).count();
    lines.drain(kept..).count()
}

/// How far an intent came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing was done.
    Refused,
    /// It is being carried out, or was when the machine stopped: it is not begun again.
    Taken,
    /// It was carried out.
    Done,
    /// It was tried in vain.
    Failed,
}

impl Intent {
    /// The file that it waits in.
    pub fn file(&self) -> String {
        format!("{}.json", self.nonce)
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > LIMIT {
            return Err(format!("it is longer than {LIMIT} bytes"));
        }
        let intent: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no intent: {error}"))?;
        if intent.schema == SCHEMA { Ok(intent) } else { Err(format!("it is of schema {}", intent.schema)) }
    }

    /// Whether it may be carried out `now`: fresh, for the first time, of somebody who may, and within what they can have
    /// done. `may` tells whether the peer whose it is holds the grant for a door.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &self,
        file: &str,
        used: &BTreeSet<String>,
        may: impl FnOnce(Door) -> Result<(), String>,
        now: Timestamp,
    ) -> Result<(), String> {
        if file != self.file() {
            return Err("its file does not bear its nonce".to_owned());
        }
        if used.contains(file) {
            return Err("its nonce was used before".to_owned());
        }
        // A rollback that comes late names another body than the one that runs.
        let is_timed = self.who != Who::Console;
        if is_timed && (self.at.after(FRESH) < now || now.after(AHEAD) < self.at) {
            return Err(format!("it was written at {}, which is not now", self.at));
        }
        match &self.who {
            Who::Peer(_) => may(self.wish.door())?,
            // Who may is decided there, by a device that is online or the recovery phrase.
            Who::Console if matches!(self.wish, Wish::Rollback { .. }) => {}
            who @ (Who::Console | Who::Uid(_)) => return Err(format!("{who} has no such thing done")),
        }
        match &self.wish {
            Wish::Stage { source, .. } if !source.contains("://") => {
                Err("a peer names an address, not a path of this machine".to_owned())
            }
            Wish::Stage { .. }
            | Wish::Activate { .. }
            | Wish::Rollback { .. }
            | Wish::CreateSnapshot(_)
            | Wish::VerifySnapshot(_)
            | Wish::RestoreSnapshot(_)
            | Wish::PruneSnapshots(_) => Ok(()),
        }
    }
}

/// Reads records, a JSON line each; one that cannot be read is left out.
pub fn records(text: &str) -> Vec<Record> {
    let record = |line| serde_json::from_str::<Record>(line).ok();
    text.lines().filter_map(record).map(Record::bounded).collect()
}

/// How far the latest intents came, which is told to who asks how things stand; the oldest first.
pub fn latest(records: Vec<Record>) -> Vec<Record> {
    let mut seen = BTreeSet::new();
    let last = records.into_iter().rev().filter(|record| seen.insert(record.file.clone()));
    let mut last: Vec<Record> = last.take(TOLD).collect();
    last.reverse();
    last
}

/// The beginning of a text that is kept.
pub fn short(mut text: String) -> String {
    if text.len() > REASON {
        text.truncate(text.floor_char_boundary(REASON));
        text.push_str(" …");
    }
    text
}

/// The files whose nonces were used.
pub fn used(records: &[Record]) -> BTreeSet<String> {
    records.iter().filter(|record| record.state != State::Refused).map(|record| record.file.clone()).collect()
}

#[cfg(test)]
mod tests;
