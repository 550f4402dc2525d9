//! The exchange of the folder of peers, and what stands before it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::codex::time::Timestamp;
use crate::peer::audit::{Entry, Who};
use crate::peer::store::{Error, Place, add_to_ledger, record};
use crate::snapshot::merge::Merge;
use crate::sys::journal::Appended;
use crate::sys::{fs, tree};
use crate::tree::Sha256Digest;

/// Writes the folder of peers as it is from then on. Files that stay are the same files; so are those that are no bonds.
pub(super) fn shadowed(peers: &Path, shadow: &Path, merged: &Merge) -> Result<(), fs::Error> {
    fs::create_dir_all(shadow)?;
    fs::set_mode(shadow, 0o755)?;
    let changed: BTreeMap<String, Option<&String>> = merged
        .changed
        .iter()
        .map(|changed| (format!("{}.toml", changed.name), changed.text.as_ref()))
        .collect();
    let old = fs::if_there(fs::list(peers))?.unwrap_or_default();
    for path in &old {
        let name = path.file_name().unwrap_or_default();
        if !changed.contains_key(name.to_string_lossy().as_ref()) {
            fs::link(path, &shadow.join(name))?;
        }
    }
    for (name, text) in &changed {
        if let Some(text) = text {
            fs::write_atomic(&shadow.join(name), 0o644, text.as_bytes())?;
        }
    }
    fs::sync_parent(&shadow.join("any"))
}

/// Ledger, log, and the exchange of the peers, if there is one; on an error, ledger and log are as before.
pub(super) fn exchange(
    place: &Place,
    who: &Who,
    merged: &Merge,
    shadow: Option<&Path>,
    now: Timestamp,
) -> Result<(), Error> {
    let ledger = add_to_ledger(&place.bonds, &merged.before)?;
    let Some(shadow) = shadow else { return Ok(()) };
    let entries: Vec<Entry> = merged
        .changed
        .iter()
        .map(|changed| Entry {
            time: now,
            who: who.clone(),
            verb: changed.verb,
            peer: changed.name.clone(),
            generation: changed.generation,
            file_sha256: changed.text.as_ref().map(|text| Sha256Digest::of(text.as_bytes())),
        })
        .collect();
    let log = if entries.is_empty() {
        None
    } else {
        match record(&place.bonds, &entries) {
            Ok(log) => Some(log),
            Err(error) => {
                undo(place, [ledger])?;
                return Err(error);
            }
        }
    };
    swapped(shadow, &place.bonds.join("peers")).or_else(|error| {
        if !matches!(error, Error::Unfinished(_)) {
            undo(place, [log, ledger])?;
        }
        Err(error)
    })
}

/// Exchanges the folder of peers. Where it is exchanged, and only that this lasts is not certain, the change is done.
fn swapped(shadow: &Path, peers: &Path) -> Result<(), Error> {
    let inode = fs::inode(shadow)?;
    tree::swap(shadow, peers).map_err(|error| {
        if fs::inode(peers).is_ok_and(|there| there == inode) {
            Error::Unfinished(error)
        } else {
            error.into()
        }
    })
}

fn undo<const N: usize>(place: &Place, appended: [Option<Appended>; N]) -> Result<(), Error> {
    for file in appended.into_iter().flatten() {
        file.undo().map_err(|source| fs::Error { action: "shorten", path: place.bonds.clone(), source })?;
    }
    Ok(())
}
