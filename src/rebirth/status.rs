//! What a machine has to say about its bodies.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::entry::Tries;
use super::intent::{self, Record};
use super::machine::Machine;
use super::record::{Activated, SCHEMA, Verdict};
use super::version::Version;
use super::{Error, inbox, kept};
use crate::codex::time::Timestamp;
use crate::sys::{fs, record};
use crate::tree::Sha256Digest;

/// More than any status has, in bytes.
const LIMIT: u64 = 1 << 20;

/// Everything about a machine's bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The appliance's name.
    pub name: String,
    /// Version of the body that runs.
    pub running: Version,
    /// Whether it is healthy now; `None` as long as nobody has looked.
    pub health: Option<Verdict>,
    /// The slots.
    pub slots: Vec<Slot>,
    /// The body that is staged.
    pub staged: Option<Waiting>,
    /// The last body that the machine was told to become, and how that went.
    pub rebirth: Option<Activated>,
    /// What became of what was asked for lately, the oldest first.
    #[serde(default)]
    pub asked: Vec<Record>,
    /// What comes next, in a sentence.
    pub next: String,
}

/// A slot and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Slot {
    /// Its device.
    pub device: String,
    /// The version of its body; `None` for an empty one.
    pub version: Option<Version>,
    /// Verity root hash of its body.
    pub root_hash: Option<Sha256Digest>,
    /// Whether it is the one that runs.
    pub running: bool,
    /// The boot entry that leads to it.
    pub entry: Option<String>,
    /// That entry's counter; `None` for a body that is proven healthy.
    pub tries: Option<Tries>,
}

/// A body that waits to be activated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// Its version.
    pub version: Version,
    /// The digest that `activate` wants.
    pub digest: Sha256Digest,
    /// When it was staged.
    pub at: Timestamp,
}

/// Where the verdict on this boot is.
fn health_file(machine: &Machine) -> PathBuf {
    machine.root().join("run/sepulcher/health.json")
}

/// Where a program that may not look itself finds the last status.
pub fn published(root: &std::path::Path) -> PathBuf {
    root.join("run/sepulcher/rebirth.json")
}

/// Keeps the verdict on this boot.
///
/// # Errors
/// The file cannot be written.
pub fn keep_health(machine: &Machine, verdict: &Verdict) -> Result<(), Error> {
    let bytes = serde_json::to_vec(verdict).map_err(Error::Untold)?;
    Ok(fs::write_atomic(&health_file(machine), 0o644, &bytes)?)
}

/// The verdict on this boot; `None` as long as there is none.
///
/// # Errors
/// The file cannot be read.
pub fn health(machine: &Machine) -> Result<Option<Verdict>, Error> {
    let bytes = fs::if_there(fs::read_bounded(&health_file(machine), LIMIT))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Looks at slots, entries and records.
///
/// # Errors
/// See [`Error`].
pub fn look(machine: &Machine) -> Result<Status, Error> {
    let running = machine.running()?;
    let entries = machine.entries(&running.name)?;
    let slot = |slot: super::machine::Slot| {
        let entry = entries.iter().find(|entry| Some(&entry.version) == slot.version.as_ref());
        Slot {
            root_hash: slot.root_hash,
            running: slot.running,
            entry: entry.map(ToString::to_string),
            tries: entry.and_then(|entry| entry.tries),
            version: slot.version,
            device: slot.device,
        }
    };
    let slots: Vec<Slot> = machine.slots(&running)?.into_iter().map(slot).collect();
    let health = health(machine)?;
    let (staged, rebirth) = (kept::staged(machine)?, kept::activated(machine)?);
    let staged =
        staged.map(|staged| Waiting { version: staged.version, digest: staged.digest, at: staged.at });
    let asked = intent::latest(inbox::records(machine.root())?).into_iter();
    // What came of a snapshot names peers, and is for who holds that grant.
    let asked = asked.map(|record| Record { outcome: None, ..record }).collect();
    let next = next(&running.version, &slots, staged.as_ref(), rebirth.as_ref());
    Ok(Status {
        schema: SCHEMA,
        name: running.name,
        running: running.version,
        health,
        slots,
        staged,
        rebirth,
        asked,
        next,
    })
}

fn next(running: &Version, slots: &[Slot], staged: Option<&Waiting>, rebirth: Option<&Activated>) -> String {
    let own = slots.iter().find(|slot| slot.running).and_then(|slot| slot.tries);
    if let Some(Tries { left, .. }) =
        own.filter(|_| slots.iter().any(|slot| !slot.running && slot.entry.is_some()))
    {
        return format!("body {running} has to prove healthy; {left} attempt(s) are left behind this one");
    }
    let open = rebirth.filter(|rebirth| rebirth.outcome.is_none() && rebirth.version != *running);
    match (open, staged) {
        (Some(rebirth), _) => format!("{rebirth} with the next boot"),
        (None, Some(staged)) if rebirth.is_none_or(|rebirth| rebirth.digest != staged.digest) => {
            format!("body {} waits for `sepulcher rebirth activate {}`", staged.version, staged.digest)
        }
        _ => "nothing is pending".to_owned(),
    }
}

/// Looks, and keeps what is seen for those who may not.
///
/// # Errors
/// See [`Error`].
pub fn publish(machine: &Machine) -> Result<Status, Error> {
    let status = look(machine)?;
    let bytes = serde_json::to_vec(&status).map_err(Error::Untold)?;
    fs::write_atomic(&published(machine.root()), 0o644, &bytes)?;
    Ok(status)
}

/// The last status that was kept; `None` as long as there is none.
///
/// # Errors
/// It cannot be read.
pub fn read(root: &std::path::Path) -> Result<Option<Status>, Error> {
    Ok(record::read(&published(root), LIMIT)?)
}
