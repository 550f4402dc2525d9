//! Writes one change: everything that can fail comes before the rename that makes it true.

use std::path::Path;

use super::{Error, Place};
use crate::codex::ledger::{self, LEDGER};
use crate::peer::Change;
use crate::peer::audit::{self, End, Entry};
use crate::sys::fs;
use crate::sys::journal::{self, Appended, append};

/// Carries out `change` and puts `entry` on record.
///
/// # Errors
/// Before the rename: nothing has changed. Behind it: [`Error::Unfinished`].
pub fn commit(place: &Place, entry: &Entry, change: &Change) -> Result<(), Error> {
    prepared(place, entry, change).inspect_err(|error| {
        if let (Some((file, _)), false) = (&change.preshared, matches!(error, Error::Unfinished(_))) {
            // The error that brought us here is the one to tell; the next command removes the key.
            let _ = fs::remove_file(&place.secrets.join(file));
        }
    })?;
    finish(place, change).map_err(Error::Unfinished)
}

/// Up to the rename.
fn prepared(place: &Place, entry: &Entry, change: &Change) -> Result<(), Error> {
    if let Some((file, key)) = &change.preshared {
        place.make_secrets()?;
        let mut text = key.to_text();
        text.push('\n');
        fs::write_atomic(&place.secrets.join(file), 0o600, text.as_bytes())?;
    }
    let path = place.bonds.join(&change.file);
    fs::create_dir_all(fs::folder_of(&path))?;
    let temporary = fs::write_temporary(&path, 0o644, change.text.as_bytes())?;
    let named = record(&place.bonds, std::slice::from_ref(entry)).and_then(|record| {
        fs::rename(&temporary, &path).map_err(|error| {
            // The file has its new name, and only that this lasts is not certain: the change is done.
            if matches!(fs::exists(&temporary), Ok(false)) {
                return Error::Unfinished(error);
            }
            match record.undo() {
                Ok(()) => error.into(),
                Err(source) => {
                    Error::File(fs::Error { action: "shorten", path: place.bonds.join(audit::FILE), source })
                }
            }
        })
    });
    if named.is_err() {
        fs::remove_file(&temporary)?;
    }
    named
}

/// Adds entries to the log of changes, durably.
pub fn record(bonds: &Path, entries: &[Entry]) -> Result<Appended, Error> {
    let path = bonds.join(audit::FILE);
    let (tail, whole) = journal::tail(&path, audit::TAIL)?;
    let lines = End::of(&tail, whole)?.lines(entries);
    Ok(append(&path, 0o600, lines.as_bytes())?)
}

/// Adds dead keys to the ledger, durably.
pub fn bury(bonds: &Path, entries: &[ledger::Entry]) -> Result<(), fs::Error> {
    let lines: Vec<_> = entries.iter().map(ToString::to_string).collect();
    add_to_ledger(bonds, &lines).map(|_| ())
}

/// Adds lines to the ledger, durably; `None` where there is none to add.
pub fn add_to_ledger(bonds: &Path, lines: &[String]) -> Result<Option<Appended>, fs::Error> {
    if lines.is_empty() {
        return Ok(None);
    }
    let path = bonds.join(LEDGER);
    let (tail, _) = journal::tail(&path, 1)?;
    // A killed command may have left half a line.
    let gap = if tail.last().is_some_and(|byte| *byte != b'\n') { "\n" } else { "" };
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    append(&path, 0o644, format!("{gap}{lines}").as_bytes()).map(Some)
}

/// Behind the rename.
fn finish(place: &Place, change: &Change) -> Result<(), fs::Error> {
    bury(&place.bonds, &change.ledger)?;
    for file in &change.stale {
        fs::remove_file(&place.secrets.join(file))?;
    }
    Ok(())
}
