//! Snapshots in a list.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{List, remote, tell};
use crate::cli::Failure;
use crate::cli::control::snapshots::Stand;
use crate::cli::output::table;
use crate::codex::name::Name;
use crate::codex::plain;
use crate::codex::time::Timestamp;
use crate::rebirth::intent::{Record, State};
use crate::snapshot::Manifest;
use crate::snapshot::store::{self, Kept};

/// A snapshot as it is told in a list: a manifest names every file, and is too long for many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its file's length in bytes.
    pub size: u64,
    /// What it is and holds; `None` where that cannot be read.
    pub holds: Option<Holds>,
    /// Why it cannot.
    pub error: Option<String>,
}

/// A manifest in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// Version of the program that made it.
    pub body: String,
    /// When it was made.
    pub created: Timestamp,
    /// How many changes of the bonds were on record.
    pub generation: u64,
    /// How many files it holds.
    pub files: usize,
    /// Whether the host's private key is among them.
    pub identity: bool,
    /// Volumes that it holds.
    pub volumes: Vec<Name>,
    /// What somebody wrote to it.
    pub note: Option<String>,
}

impl From<Kept> for Listed {
    fn from(kept: Kept) -> Self {
        let Kept { name, size, manifest } = kept;
        match manifest {
            Ok(manifest) => Self { name, size, holds: Some(manifest.into()), error: None },
            Err(error) => Self { name, size, holds: None, error: Some(error) },
        }
    }
}

impl From<Manifest> for Holds {
    fn from(manifest: Manifest) -> Self {
        Self {
            body: manifest.body,
            created: manifest.created,
            generation: manifest.generation,
            files: manifest.parts.len(),
            identity: manifest.identity,
            volumes: manifest.volumes.into_iter().map(|volume| volume.name).collect(),
            note: manifest.note,
        }
    }
}

/// Runs `sepulcher snapshot list`.
pub fn run(args: &List) -> Result<(), Failure> {
    if let Some(remote) = args.place.remote()? {
        let Stand { snapshots, asked } = remote::list(&remote)?;
        let value = json!({ "schema": 1, "snapshots": snapshots, "asked": asked });
        return tell(args, &value, &(shown(&snapshots) + &wishes(&asked)));
    }
    let all = store::list(&args.place()?)?;
    let entry = |kept: &Kept| {
        let (manifest, error) = (kept.manifest.as_ref().ok(), kept.manifest.as_ref().err());
        json!({ "name": kept.name, "size": kept.size, "manifest": manifest, "error": error })
    };
    let value = json!({ "schema": 1, "snapshots": all.iter().map(entry).collect::<Vec<_>>() });
    tell(args, &value, &shown(&all.into_iter().map(Listed::from).collect::<Vec<_>>()))
}

/// What became of wishes, for people: a line each.
fn wishes(asked: &[Record]) -> String {
    let line = |record: &Record| {
        let state = match record.state {
            State::Refused => "refused",
            State::Taken => "begun",
            State::Done => "done",
            State::Failed => "failed",
        };
        let reason = record.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
        format!("asked for at {}: {state} {}", record.at, plain(reason)).trim_end().to_owned() + "\n"
    };
    asked.iter().map(line).collect()
}

/// The list for people.
fn shown(all: &[Listed]) -> String {
    if all.is_empty() {
        return "there is no snapshot\n".to_owned();
    }
    let headings = ["NAME", "BODY", "CHANGES", "FILES", "BYTES", "NOTE"].map(str::to_owned).to_vec();
    let row = |listed: &Listed| match &listed.holds {
        Some(holds) => vec![
            listed.name.clone(),
            holds.body.clone(),
            holds.generation.to_string(),
            holds.files.to_string(),
            listed.size.to_string(),
            holds.note.clone().unwrap_or_default(),
        ],
        None => vec![listed.name.clone(), listed.error.clone().unwrap_or_default()],
    };
    table(&[headings].into_iter().chain(all.iter().map(row)).collect::<Vec<_>>())
}
