//! What a machine remembers of its bodies: the one that is staged, the one that it was told to become, and how each
//! attempt went. Bodies of other versions read these records, too, and may write more into them than this one knows.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::version::Version;
use crate::codex::time::Timestamp;
use crate::tree::Sha256Digest;

/// The version of all records.
pub const SCHEMA: u32 = 1;

/// One part of a body as it lies in its slot, or waits for its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
}

/// A body that is written to its slot, verified, and not chosen yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Staged {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its version.
    pub version: Version,
    /// The digest that `activate` wants: of its bundle's SHA256SUMS.
    pub digest: Sha256Digest,
    /// Verity root hash.
    pub root_hash: Sha256Digest,
    /// Schema of the bonds that it reads and writes.
    #[serde(default = "first_schema")]
    pub codex_schema: u32,
    /// When it was staged.
    pub at: Timestamp,
    /// Root file system.
    pub root: Part,
    /// Its hash tree.
    pub verity: Part,
    /// Kernel image, which waits in the file `kernel.efi` beside the record.
    pub kernel: Part,
    /// Its law: path → text.
    pub law: BTreeMap<String, String>,
    /// What that law takes from peers and publisher of the one that was in force, a line each, for people; not kept.
    #[serde(skip)]
    pub takes: Vec<String>,
}

/// What records say that do not say it.
fn first_schema() -> u32 {
    1
}

/// A body that the machine was told to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Activated {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its version.
    pub version: Version,
    /// Its digest.
    pub digest: Sha256Digest,
    /// The version that was running.
    pub from: Version,
    /// When.
    pub at: Timestamp,
    /// The snapshot that was made before.
    pub snapshot: Option<String>,
    /// Attempts to be it, the oldest first.
    pub tries: Vec<Try>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// One attempt to be a new body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Try {
    /// The kernel's name for this boot.
    pub boot: String,
    /// When it came so far that it could tell.
    pub at: Timestamp,
    /// What it found; `None` while it looks, and for ever when it hung or died.
    pub verdict: Option<Verdict>,
}

/// How healthy a body is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// When it was found.
    pub at: Timestamp,
    /// What is not as it should be, a line each; none for a healthy body.
    pub failed: Vec<String>,
}

/// How a Rebirth ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Which of the three.
    pub end: End,
    /// When it was known.
    pub at: Timestamp,
}

/// The ends that a Rebirth can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The new body proved healthy.
    Healthy,
    /// It did not in three attempts, and the old one is back.
    FellBack,
    /// Somebody called the old one back.
    RolledBack,
}

impl Activated {
    /// Notes that an attempt has begun, once a boot.
    pub fn begin(&mut self, boot: &str, at: Timestamp) {
        if self.tries.last().is_none_or(|last| last.boot != boot) {
            self.tries.push(Try { boot: boot.to_owned(), at, verdict: None });
        }
    }

    /// Notes how it ended.
    pub fn ended(&mut self, end: End, at: Timestamp) {
        self.outcome = Some(Outcome { end, at });
    }

    /// Notes what an attempt found. Behind the end nothing is an attempt any more.
    pub fn found(&mut self, boot: &str, verdict: Verdict) {
        if self.outcome.is_some() {
            return;
        }
        self.begin(boot, verdict.at);
        if verdict.failed.is_empty() {
            self.ended(End::Healthy, verdict.at);
        }
        if let Some(last) = self.tries.last_mut() {
            last.verdict = Some(verdict);
        }
    }

    /// Why its attempts failed, a line each.
    pub fn reasons(&self) -> Vec<String> {
        let fell = self.outcome.as_ref().is_some_and(|outcome| outcome.end == End::FellBack);
        let told = self.tries.iter().enumerate().map(|(index, attempt)| {
            let what = match &attempt.verdict {
                None => "it came up and gave no verdict: it hung or died".to_owned(),
                Some(verdict) if verdict.failed.is_empty() && fell => {
                    "it was healthy, but was never blessed".to_owned()
                }
                Some(verdict) if verdict.failed.is_empty() => "it was healthy".to_owned(),
                Some(verdict) => verdict.failed.join("; "),
            };
            format!("attempt {}: {what}", index + 1)
        });
        if self.tries.is_empty() {
            return vec!["no attempt came so far that it could tell anything".to_owned()];
        }
        told.collect()
    }
}

impl fmt::Display for Activated {
    /// One sentence about how it stands or ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, from, .. } = self;
        match self.outcome.as_ref().map(|outcome| outcome.end) {
            None => write!(f, "body {version} is to take the place of {from}"),
            Some(End::Healthy) => write!(f, "body {version} took the place of {from} and proved healthy"),
            Some(End::FellBack) => write!(f, "body {version} did not prove healthy, and {from} is back"),
            Some(End::RolledBack) => write!(f, "body {version} was rolled back to {from}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activated() -> Activated {
        Activated {
            schema: SCHEMA,
            version: "2".parse().unwrap(),
            digest: Sha256Digest::of(b""),
            from: "1".parse().unwrap(),
            at: Timestamp::from_epoch(0),
            snapshot: None,
            tries: Vec::new(),
            outcome: None,
        }
    }

    fn verdict(failed: &[&str]) -> Verdict {
        let failed = failed.iter().map(|&text| text.to_owned()).collect();
        Verdict { at: Timestamp::from_epoch(9), failed }
    }

    #[test]
    fn attempts_are_counted_by_boot_and_told_with_what_they_found() {
        let mut activated = activated();
        assert_eq!(activated.reasons(), ["no attempt came so far that it could tell anything"]);
        activated.begin("a", Timestamp::from_epoch(1));
        activated.found("a", verdict(&["ports: tcp 6006 has no listener", "wg0: missing"]));
        activated.begin("b", Timestamp::from_epoch(2));
        activated.begin("b", Timestamp::from_epoch(3));
        assert_eq!(
            activated.reasons(),
            [
                "attempt 1: ports: tcp 6006 has no listener; wg0: missing",
                "attempt 2: it came up and gave no verdict: it hung or died"
            ]
        );
        assert_eq!(activated.to_string(), "body 2 is to take the place of 1");
        activated.found("c", verdict(&[]));
        assert_eq!(activated.to_string(), "body 2 took the place of 1 and proved healthy");
        assert_eq!(activated.tries.len(), 3);
        assert_eq!(activated.reasons()[2], "attempt 3: it was healthy");
        activated.ended(End::FellBack, Timestamp::from_epoch(10));
        assert_eq!(activated.reasons()[2], "attempt 3: it was healthy, but was never blessed");
    }

    #[test]
    fn a_verdict_after_the_end_does_not_change_it() {
        let mut activated = activated();
        activated.outcome = Some(Outcome { end: End::RolledBack, at: Timestamp::from_epoch(5) });
        activated.found("a", verdict(&[]));
        assert_eq!(activated.to_string(), "body 2 was rolled back to 1");
        assert!(activated.tries.is_empty());
    }

    #[test]
    fn the_boots_of_a_proven_body_are_no_attempts() {
        let mut activated = activated();
        activated.found("a", verdict(&[]));
        for boot in ["a", "b", "c"] {
            activated.found(boot, verdict(&["wg0: missing"]));
        }
        assert_eq!(activated.reasons(), ["attempt 1: it was healthy"]);
    }
}
