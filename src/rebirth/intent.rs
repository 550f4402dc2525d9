//! What a peer asks of the machine's bodies and snapshots, from its wish to what became of it: pure.
//!
//! A wish is kept as a file, the intent, which somebody else than who wrote it carries out: [`Intent::judge`] knows what
//! may be carried out, and nothing else is.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::record::SCHEMA;
use super::version::Version;
use crate::codex::name::Name;
use crate::codex::time::{Length, Timestamp};
use crate::codex::{Codex, Door};
use crate::snapshot::store::{Restored, Whole};
use crate::snapshot::wish::{Create, Named, Prune, Restore};
use crate::tree::Sha256Digest;

/// The longest intent, in bytes.
pub const LIMIT: u64 = 4096;
/// How many may wait.
pub const WAITING: usize = 16;
/// How many records are kept; a nonce that is among them is not taken again.
pub const RECORDS: usize = 1000;
/// The longest text that is kept of why something failed, in bytes: a list of ten thousand peers is for who asks at once.
const REASON: usize = 2048;
/// How many lines are kept of what a restore changed.
const LINES: usize = 40;
/// How many of the latest records are told.
const TOLD: usize = 8;
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

/// What is wished for. There is nothing else that a peer can have done.
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
    pub peer: Name,
    /// When it was written.
    pub at: Timestamp,
    /// What is wished for.
    pub wish: Wish,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// The file that it was in.
    pub file: String,
    /// Whose it was, as far as that is known.
    pub peer: Option<Name>,
    /// How far it came.
    pub state: State,
    /// Why, where it was refused or failed.
    pub reason: Option<String>,
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

    /// Whether it may be carried out `now`: fresh, for the first time, of a peer that may, and within what a peer can
    /// have done.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &self,
        file: &str,
        used: &BTreeSet<String>,
        codex: &Codex,
        now: Timestamp,
    ) -> Result<(), String> {
        if file != self.file() {
            return Err("its file does not bear its nonce".to_owned());
        }
        if used.contains(file) {
            return Err("its nonce was used before".to_owned());
        }
        if self.at.after(FRESH) < now || now.after(AHEAD) < self.at {
            return Err(format!("it was written at {}, which is not now", self.at));
        }
        permitted(codex, &self.peer, self.wish.door(), now)?;
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

/// Whether a peer may ask for what that door opens.
///
/// # Errors
/// Why not.
pub fn permitted(codex: &Codex, peer: &Name, door: Door, now: Timestamp) -> Result<(), String> {
    let may = codex.peers.get(peer).is_some_and(|peer| peer.may(door, now));
    if may { Ok(()) } else { Err(format!("`{peer}` does not hold the grant `{}`", door.word())) }
}

/// Reads records, a JSON line each; one that cannot be read is left out.
pub fn records(text: &str) -> Vec<Record> {
    let record = |line| serde_json::from_str::<Record>(line).ok();
    text.lines().filter_map(record).map(Record::bounded).collect()
}

/// The latest records, which are told to who asks how things stand; the oldest first.
pub fn latest(mut records: Vec<Record>) -> Vec<Record> {
    records.drain(..records.len().saturating_sub(TOLD));
    records
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
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;
    use crate::codex::Sources;

    const NOW: u64 = 1_800_000_000;

    fn codex() -> Codex {
        let peer = |last: u8, grants: &str, more: &str| {
            let key = crate::sys::wireguard::SecretKey::generate().public();
            format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = [{grants}]\n{more}")
        };
        let sources: Sources = [
            ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
            ("peers/laptop.toml", peer(2, "\"rebirth\"", "")),
            ("peers/phone.toml", peer(3, "\"*\", \"bonds\"", "")),
            ("peers/archivist.toml", peer(5, "\"snapshots\"", "")),
            ("peers/guest.toml", peer(4, "\"rebirth\"", "expires = 2001-01-01T00:00:00Z\n")),
        ]
        .into_iter()
        .collect();
        Codex::parse(&sources).unwrap()
    }

    fn intent(peer: &str, wish: Wish) -> Intent {
        let nonce = "0123456789abcdef".parse().unwrap();
        Intent { schema: SCHEMA, nonce, peer: peer.parse().unwrap(), at: Timestamp::from_epoch(NOW), wish }
    }

    fn stage(source: &str) -> Wish {
        Wish::Stage { source: source.to_owned(), allow_downgrade: false }
    }

    fn create() -> Wish {
        Wish::CreateSnapshot(Create { note: Some("before the move".to_owned()), ..Create::default() })
    }

    fn verify() -> Wish {
        Wish::VerifySnapshot(Named::default())
    }

    fn prune() -> Wish {
        Wish::PruneSnapshots(Prune { keep: NonZeroUsize::MIN })
    }

    fn restore() -> Wish {
        let revive = ["phone".parse().unwrap()].into();
        Wish::RestoreSnapshot(Restore { revive, with_volumes: true, ..Restore::default() })
    }

    fn judged(intent: &Intent, used: &[&str], now: u64) -> Result<(), String> {
        let used = used.iter().map(|&file| file.to_owned()).collect();
        intent.judge(&intent.file(), &used, &codex(), Timestamp::from_epoch(now))
    }

    #[test]
    fn an_intent_reads_back_as_it_was_written() {
        let rollback = Wish::Rollback { leave: "2~rc1".parse().unwrap() };
        let activate = Wish::Activate { digest: Sha256Digest::of(b"") };
        for wish in [stage("https://a/"), activate, rollback, create(), verify(), restore()] {
            let intent = intent("laptop", wish);
            assert_eq!(Intent::parse(&serde_json::to_vec(&intent).unwrap()).unwrap(), intent);
        }
    }

    #[test]
    fn only_who_holds_the_grant_is_heard_and_only_once_and_soon() {
        let good = intent("laptop", stage("https://updates.example/2.tar"));
        judged(&good, &[], NOW).unwrap();
        judged(&good, &["fedcba9876543210.json"], NOW + 3600).unwrap();
        let why = |intent: &Intent, used: &[&str], now| judged(intent, used, now).unwrap_err();
        assert!(why(&good, &["0123456789abcdef.json"], NOW).contains("used before"));
        for now in [NOW + 3601, NOW - 301] {
            assert!(why(&good, &[], now).contains("which is not now"));
        }
        for peer in ["phone", "guest", "nobody"] {
            assert!(why(&intent(peer, stage("https://a/b")), &[], NOW).contains("the grant `rebirth`"));
        }
        for source in ["/etc/passwd", "updates", "../x.tar"] {
            assert!(why(&intent("laptop", stage(source)), &[], NOW).contains("not a path"));
        }
        let other = good.judge("other.json", &BTreeSet::new(), &codex(), Timestamp::from_epoch(NOW));
        assert!(other.unwrap_err().contains("nonce"));
    }

    #[test]
    fn each_wish_needs_the_grant_of_its_own_door() {
        for (peer, door, wishes) in [
            ("laptop", "snapshots", [stage("https://a/"), create(), verify(), restore(), prune()]),
            ("archivist", "rebirth", [create(), stage("https://a/"), verify(), restore(), prune()]),
        ] {
            for wish in wishes {
                let held = (wish.door() == Door::Rebirth) == (peer == "laptop");
                match judged(&intent(peer, wish), &[], NOW) {
                    Ok(()) => assert!(held, "{peer}"),
                    Err(why) => assert!(!held && why.contains(&format!("the grant `{door}`")), "{why}"),
                }
            }
        }
    }

    #[test]
    fn of_a_long_plan_the_beginning_is_kept_however_often_it_is_read() {
        let restored = |plan| {
            let (name, before) = ("2026-11-29T160000Z".to_owned(), Some("2026-11-29T160100Z".to_owned()));
            let outcome = Some(Outcome::Restored(Restored { name, plan, before }));
            let (at, file) = (Timestamp::from_epoch(NOW), "0123456789abcdef.json".to_owned());
            Record { at, file, peer: None, state: State::Done, reason: None, outcome }.bounded()
        };
        let plan = |record: &Record| match &record.outcome {
            Some(Outcome::Restored(restored)) => restored.plan.clone(),
            other => panic!("{other:?}"),
        };
        let short = vec!["+ peer phone".to_owned(); 3];
        assert_eq!(plan(&restored(short.clone())), short);
        for long in [vec!["+ peer phone".to_owned(); 10_000], vec!["x".repeat(1000); 3]] {
            let cut = restored(long);
            assert!(plan(&cut).last().unwrap() == "…" && serde_json::to_vec(&cut).unwrap().len() < 4096);
            assert_eq!(records(&serde_json::to_string(&cut).unwrap()), [cut]);
        }
    }

    #[test]
    fn what_a_newer_body_has_to_tell_of_a_wish_is_left_out_and_that_it_is_done_is_not() {
        let line = |outcome: &str| {
            format!(
                r#"{{"at":"2026-11-29T16:00:00Z","file":"0123456789abcdef.json","peer":"laptop","state":"done","reason":null,"outcome":{outcome}}}"#
            )
        };
        let read =
            records(&[line(r#"{"washed":{"name":"x"}}"#), line(r#"{"created":{"name":"x"}}"#)].join("\n"));
        let outcomes: Vec<_> = read.iter().map(|record| (record.state, record.outcome.is_some())).collect();
        assert_eq!(outcomes, [(State::Done, false), (State::Done, true)]);
    }

    #[test]
    fn of_many_removed_snapshots_the_others_are_counted() {
        let removed = vec!["2026-11-29T160000Z".to_owned(); 100];
        let cut = Outcome::Pruned { removed, more: 0 }.bounded();
        let Outcome::Pruned { removed, more } = &cut else { panic!("another outcome") };
        assert!(*more > 0 && removed.len() + more == 100);
        assert_eq!(cut.clone().bounded(), cut, "however often it is read");
    }

    #[test]
    fn what_is_not_known_is_no_intent() {
        let good = serde_json::to_value(intent("laptop", stage("https://a/"))).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            changed[key] = value;
            Intent::parse(changed.to_string().as_bytes()).unwrap_err()
        };
        assert!(with("schema", 2.into()).contains("schema 2"));
        assert!(with("wish", serde_json::json!({"run": {"command": "sh"}})).contains("unknown variant"));
        assert!(
            with("wish", serde_json::json!({"stage": {"source": "https://a/", "as": "root"}}))
                .contains("unknown field")
        );
        assert!(
            with("wish", serde_json::json!({"create-snapshot": {"to": "/etc"}})).contains("unknown field")
        );
        assert!(with("shell", "sh".into()).contains("unknown field"));
        for nonce in ["", "0123456789abcde", "../../../../etc/x", "0123456789ABCDEF"] {
            assert!(with("nonce", nonce.into()).contains("a nonce is"), "{nonce}");
        }
        assert!(with("peer", "x".repeat(5000).into()).contains("longer than"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Intent::parse(&bytes);
            let _ = records(&String::from_utf8_lossy(&bytes));
        }
    }
}
