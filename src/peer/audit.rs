//! The log of all changes of the bonds: one JSON record a line, each with the digest of the record before it.
//!
//! Whoever changes a record, takes one out or puts one in has to write all that follow anew. Cutting off the end is not
//! noticed by the log alone: for that somebody keeps the digest of the last record elsewhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Change, Request};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::tree::Sha256Digest;

/// The log's file in the folder of bonds.
pub const FILE: &str = "audit.jsonl";

/// How much of the log's end is looked at to go on with it, in bytes: some hundred records.
pub const TAIL: u64 = 64 << 10;

/// The longest log that is read whole, in bytes: some hundred thousand changes.
pub const LIMIT: u64 = 64 << 20;

/// What the first record has in place of the digest of the one before it.
const START: Sha256Digest = Sha256Digest([0; 32]);

/// Who asked for a change. Displays as `uid 0`, `peer laptop` or `console`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A user of the machine.
    Uid(u32),
    /// A peer, over the tether.
    Peer(Name),
    /// Whoever sits at the console.
    Console,
}

impl Who {
    /// The peer that it is.
    pub fn peer(&self) -> Option<&Name> {
        match self {
            Self::Peer(name) => Some(name),
            Self::Uid(_) | Self::Console => None,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Peer(name) => write!(f, "peer {name}"),
            Self::Console => f.write_str("console"),
        }
    }
}

/// The text names nobody who can ask for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("who asks is written `uid 0`, `peer laptop` or `console`")]
pub struct Nobody;

impl FromStr for Who {
    type Err = Nobody;

    fn from_str(text: &str) -> Result<Self, Nobody> {
        match text.split_once(' ') {
            None if text == "console" => Ok(Self::Console),
            Some(("uid", uid)) => uid.parse().map(Self::Uid).map_err(|_| Nobody),
            Some(("peer", name)) => name.parse().map(Self::Peer).map_err(|_| Nobody),
            _ => Err(Nobody),
        }
    }
}

crate::codex::serde_as_text!(Who, Sha256Digest);

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// A peer was added.
    Bond,
    /// A peer was cut off for good.
    Revoke,
    /// A peer got another key.
    Rotate,
    /// A peer may reach more.
    Grant,
    /// A peer may reach less.
    Ungrant,
    /// A peer's expiry was set.
    Extend,
    /// The overlap of two keys ended.
    End,
    /// A snapshot was put back, and the peer is as it says, or no more.
    Restore,
    /// The same, and the peer came back though it was revoked or its time was over.
    Revive,
    /// A body of another schema started, and the peer is as it needs it, or no more.
    Migrate,
    /// Nothing was done, but the file of the record before was not as that record says: the command was killed before
    /// it was done, or somebody edited the file.
    Found,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bond => "bond",
            Self::Revoke => "revoke",
            Self::Rotate => "rotate",
            Self::Grant => "grant",
            Self::Ungrant => "ungrant",
            Self::Extend => "extend",
            Self::End => "end",
            Self::Restore => "restore",
            Self::Revive => "revive",
            Self::Migrate => "migrate",
            Self::Found => "found",
        })
    }
}

impl Verb {
    /// Whether it is done to many peers at once.
    pub(crate) fn is_of_many(self) -> bool {
        matches!(self, Self::Restore | Self::Revive | Self::Migrate)
    }

    /// What a request does; `None` when it changes nothing.
    pub fn of(request: &Request) -> Option<Self> {
        Some(match request {
            Request::Bond(_) => Self::Bond,
            Request::Revoke(_) => Self::Revoke,
            Request::Rotate(_) => Self::Rotate,
            Request::Grant(_) => Self::Grant,
            Request::Ungrant(_) => Self::Ungrant,
            Request::Extend(_) => Self::Extend,
            Request::List(_) | Request::Batch(_) => return None,
        })
    }
}

/// A change, without its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// Who asked for it.
    pub who: Who,
    /// What was done.
    pub verb: Verb,
    /// To which peer.
    pub peer: Name,
    /// The peer's generation from then on; 0 when there is no such peer.
    pub generation: u32,
    /// Digest of the peer's file from then on; `None` when there is none.
    pub file_sha256: Option<Sha256Digest>,
}

impl Entry {
    /// What is put on record about a change.
    pub fn of(verb: Verb, who: &Who, change: &Change, time: Timestamp) -> Self {
        Self {
            time,
            who: who.clone(),
            verb,
            peer: change.name.clone(),
            generation: change.peer.generation,
            file_sha256: Some(Sha256Digest::of(change.text.as_bytes())),
        }
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Counts the records from 1.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// Who asked for it.
    pub who: Who,
    /// What was done.
    pub verb: Verb,
    /// To which peer.
    pub peer: Name,
    /// The peer's generation from then on.
    pub generation: u32,
    /// Digest of the peer's file from then on.
    pub file_sha256: Option<Sha256Digest>,
    /// Digest of the line of the record before this one, without its line end.
    pub previous: Sha256Digest,
}

/// Where the log goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The last record and the digest of its line.
    pub last: Option<(Record, Sha256Digest)>,
    /// Whether the log's last line has no end: a command was killed while it wrote.
    pub torn: bool,
}

/// The last bytes of the log hold no record, though it is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log of changes does not end in a record")]
pub struct NoEnd;

/// The records that may be about changes that were not made: the last one, and all of a restore or migration that it
/// ends.
pub fn unsure(tail: &[u8]) -> Vec<Record> {
    let of_many = |record: &Record| record.verb.is_of_many();
    let mut records: Vec<Record> = Vec::new();
    for found in tail.rsplit(|byte| *byte == b'\n').filter_map(record) {
        let more = records.last().is_none_or(|last| {
            of_many(last) && of_many(&found) && last.time == found.time && last.seq == found.seq + 1
        });
        if !more {
            break;
        }
        records.push(found);
    }
    records
}

impl End {
    /// Finds the end in the last bytes of the log, which are all of it when `whole`.
    pub fn of(tail: &[u8], whole: bool) -> Result<Self, NoEnd> {
        let torn = tail.last().is_some_and(|byte| *byte != b'\n');
        let mut lines = tail.rsplit(|byte| *byte == b'\n');
        let last = lines.find_map(|line| Some((record(line)?, Sha256Digest::of(line))));
        // Without any record a log of torn lines alone begins anew.
        if last.is_none() && !whole { Err(NoEnd) } else { Ok(Self { last, torn }) }
    }

    /// The bytes that add `entries` to the log.
    pub fn lines(&self, entries: &[Entry]) -> String {
        let mut text = if self.torn { "\n".to_owned() } else { String::new() };
        let (mut seq, mut previous) =
            self.last.as_ref().map_or((0, START), |(record, digest)| (record.seq, *digest));
        for entry in entries {
            let Entry { time, who, verb, peer, generation, file_sha256 } = entry.clone();
            seq += 1;
            let record = Record { seq, time, who, verb, peer, generation, file_sha256, previous };
            let line = written(&record);
            previous = Sha256Digest::of(line.as_bytes());
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn written(record: &Record) -> String {
    // Texts and numbers alone: nothing of it can fail to be written as JSON.
    serde_json::to_string(record).unwrap_or_default()
}

fn record(line: &[u8]) -> Option<Record> {
    serde_json::from_slice(line).ok()
}

/// A log whose records follow from one another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// All records with the digests of their lines.
    pub records: Vec<(Record, Sha256Digest)>,
    /// Lines, counted from 1, that are no records: pieces that killed commands left.
    pub torn: Vec<usize>,
}

/// The log was tampered with, or a disk lost a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the log does not follow from the record before it")]
pub struct Broken {
    /// Line, counted from 1.
    pub line: usize,
}

impl Log {
    /// Reads a log and checks its chain.
    pub fn read(bytes: &[u8]) -> Result<Self, Broken> {
        let mut log = Self::default();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let Some(record) = record(line) else {
                log.torn.push(index + 1);
                continue;
            };
            let (seq, previous) = log.records.last().map_or((0, START), |(last, digest)| (last.seq, *digest));
            if record.seq != seq + 1 || record.previous != previous {
                return Err(Broken { line: index + 1 });
            }
            log.records.push((record, Sha256Digest::of(line)));
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests;
