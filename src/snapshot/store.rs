//! Snapshots on disk: each is whole and verified, or absent; a restore is done or not.
//!
//! Putting one back is done when the folder of peers is exchanged, which is one system call. What the new bonds need,
//! preshared keys and the ledger's lines, is durable before; old preshared keys go behind it, or with the next command.

mod restore;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use restore::{Restored, Wish, restore};

use super::{IDENTITY, Manifest, Parts, SCHEMA, Snapshot, archive, damaged, law_digest, not_contained};
use crate::codex::ledger::LEDGER;
use crate::codex::{Codex, SCHEMA as CODEX_SCHEMA, Sources, is_bond};
use crate::peer::audit::{self, End};
use crate::peer::store::{Error, PATIENCE, Place, is_temporary, load, remove};
use crate::peer::{Refused, missing_entries};
use crate::sys::journal::Lock;
use crate::sys::{clock, fs};
use crate::tree::Sha256Digest;

/// How a snapshot's file name ends.
pub const EXTENSION: &str = ".tar.zst";
/// The longest snapshot that is read, in bytes.
pub const LIMIT: u64 = 256 << 20;

/// A snapshot's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name: when it was made.
    pub name: String,
    /// Its file's length in bytes.
    pub size: u64,
    /// What it is and holds, or why that cannot be read.
    pub manifest: Result<Manifest, String>,
}

/// Where a place keeps its snapshots: beside the secrets.
pub fn folder(place: &Place) -> PathBuf {
    place.secrets.with_file_name("snapshots")
}

/// Nobody else changes bonds or snapshots while the value lives.
fn locked(place: &Place) -> Result<Lock, Error> {
    place.writable()?;
    Ok(Lock::acquire(&place.bonds.join(".lock"), PATIENCE)?)
}

/// Takes a snapshot, unless `dry_run`; its name is `None` then.
///
/// # Errors
/// The bonds hold mistakes, a key that they need is missing, or the disk refuses.
pub fn create(
    place: &Place,
    note: Option<&str>,
    identity: bool,
    dry_run: bool,
) -> Result<(Option<String>, Manifest), Error> {
    let lock = if dry_run { None } else { Some(locked(place)?) };
    let (sources, codex) = load(place)?;
    let snapshot = take(place, &sources, &codex, note, identity)?;
    if lock.is_none() {
        return Ok((None, snapshot.manifest));
    }
    Ok((Some(keep(place, &snapshot)?), snapshot.manifest))
}

/// Reads everything that belongs to a snapshot.
fn take(
    place: &Place,
    sources: &Sources,
    codex: &Codex,
    note: Option<&str>,
    identity: bool,
) -> Result<Snapshot, Error> {
    let now = clock::now();
    let mut parts: Parts = sources
        .iter()
        .filter(|(name, _)| is_bond(name))
        .map(|(name, text)| (name.to_owned(), Zeroizing::new(text.as_bytes().to_vec())))
        .collect();
    let missing = missing_entries(codex, now);
    if !missing.is_empty() {
        // What a killed command did not come to add.
        let ledger = parts.entry(LEDGER.to_owned()).or_default();
        for entry in &missing {
            ledger.extend_from_slice(format!("\n{entry}\n").as_bytes());
        }
    }
    let log = match fs::read_bounded(&place.bonds.join(audit::FILE), audit::LIMIT) {
        Err(error) if error.is_not_found() => Vec::new(),
        log => log?,
    };
    let last = End::of(&log, true)?.last;
    if !log.is_empty() {
        parts.insert(audit::FILE.to_owned(), Zeroizing::new(log));
    }
    for file in codex.peers.iter().flat_map(|(name, peer)| peer.preshared_files(name)) {
        let bytes = Zeroizing::new(fs::read_bounded(&place.secrets.join(&file), KEY_LIMIT)?);
        parts.insert(format!("secrets/{file}"), bytes);
    }
    if identity {
        let bytes = Zeroizing::new(fs::read_bounded(&place.secrets.join("tether.key"), KEY_LIMIT)?);
        parts.insert(IDENTITY.to_owned(), bytes);
    }
    let manifest = Manifest {
        schema: SCHEMA,
        body: super::BODY.to_owned(),
        codex_schema: CODEX_SCHEMA,
        appliance: codex.appliance.name.clone(),
        law: law_digest(sources),
        created: now,
        note: note.map(str::to_owned),
        generation: last.as_ref().map_or(0, |(record, _)| record.seq),
        audit_head: last.map(|(_, digest)| digest),
        host_key: place.host_key()?,
        identity,
        not_contained: not_contained(codex),
        parts: Vec::new(),
    };
    Ok(Snapshot::new(parts, manifest))
}

/// A key file is 45 bytes long.
const KEY_LIMIT: u64 = 4096;

/// Writes a snapshot beside its place, reads it back, and gives it a name that none has.
fn keep(place: &Place, snapshot: &Snapshot) -> Result<String, Error> {
    let folder = folder(place);
    make_folder(place, &folder)?;
    remove(&folder, is_temporary)?;
    let stem = snapshot.manifest.created.to_string().replace(':', "");
    let (name, path) = free_name(place, &stem)?;
    let bytes =
        archive::pack(snapshot).map_err(|source| fs::Error { action: "pack", path: path.clone(), source })?;
    let temporary = fs::write_temporary(&path, 0o600, &bytes)?;
    let named = verified(&temporary, snapshot).and_then(|()| Ok(fs::rename(&temporary, &path)?));
    if named.is_err() {
        fs::remove_file(&temporary)?;
    }
    named.map(|()| name)
}

/// Reads a file back, which must hold this snapshot.
fn verified(path: &Path, snapshot: &Snapshot) -> Result<(), Error> {
    let back = archive::unpack(&Zeroizing::new(fs::read_bounded(path, LIMIT)?))?;
    if back == *snapshot { Ok(()) } else { Err(damaged("the disk gave back other bytes").into()) }
}

fn free_name(place: &Place, stem: &str) -> Result<(String, PathBuf), fs::Error> {
    let mut count = 1;
    loop {
        let name = if count == 1 { stem.to_owned() } else { format!("{stem}-{count}") };
        let path = file(place, &name);
        if !fs::exists(&path)? {
            return Ok((name, path));
        }
        count += 1;
    }
}

/// Makes the folder for its owner alone.
fn make_folder(place: &Place, folder: &Path) -> Result<(), fs::Error> {
    fs::create_dir_all(folder)?;
    fs::set_mode(folder, 0o700)?;
    // Codexes are kept in version control; this folder is not.
    let ignore = folder.join(".gitignore");
    if folder.parent() == Some(place.law.as_path()) && !fs::exists(&ignore)? {
        fs::write_atomic(&ignore, 0o600, b"*\n")?;
    }
    fs::sync_parent(folder)
}

/// Names of all snapshots, the oldest first.
fn names(place: &Place) -> Result<Vec<String>, Error> {
    let found = fs::list_named(&folder(place), |name| !name.starts_with('.') && name.ends_with(EXTENSION));
    let paths = match found {
        Err(error) if error.is_not_found() => Vec::new(),
        found => found?,
    };
    let name = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(EXTENSION).unwrap_or(&name).to_owned()
    };
    let mut names: Vec<_> = paths.iter().map(name).collect();
    // Names are times, and those of one second count on.
    names.sort_by_key(|name| {
        let (stem, count) = name.split_once("Z-").unwrap_or((name.trim_end_matches('Z'), "1"));
        (stem.to_owned(), count.parse::<u64>().unwrap_or_default())
    });
    Ok(names)
}

/// The file of the snapshot of that name.
fn file(place: &Place, name: &str) -> PathBuf {
    folder(place).join(format!("{name}{EXTENSION}"))
}

/// All snapshots, the oldest first.
///
/// # Errors
/// The folder cannot be read; a snapshot that cannot is in the list.
pub fn list(place: &Place) -> Result<Vec<Kept>, Error> {
    let kept = |name: String| {
        let bytes = Zeroizing::new(fs::read_bounded(&file(place, &name), LIMIT)?);
        let manifest = archive::manifest(&bytes).map_err(|refused| refused.message);
        Ok(Kept { name, size: bytes.len() as u64, manifest })
    };
    names(place)?.into_iter().map(kept).collect()
}

/// Reads the snapshot of that name, or the latest, every digest checked.
///
/// # Errors
/// There is none, or it is damaged.
pub fn read(place: &Place, name: Option<&str>) -> Result<(String, Snapshot), Error> {
    let none = |what: String| {
        Refused::new(what, "`sepulcher snapshot list` tells which there are, `create` makes one")
    };
    let name = match name {
        Some(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
            return Err(none(format!("`{name}` is no name of a snapshot")).into());
        }
        Some(name) => name.to_owned(),
        None => names(place)?.pop().ok_or_else(|| none("there is no snapshot".to_owned()))?,
    };
    let bytes = match fs::read_bounded(&file(place, &name), LIMIT) {
        Err(error) if error.is_not_found() => {
            return Err(none(format!("there is no snapshot `{name}`")).into());
        }
        bytes => Zeroizing::new(bytes?),
    };
    let snapshot = archive::unpack(&bytes)?;
    Ok((name, snapshot))
}

/// Keeps a snapshot that came from elsewhere; where it is there already, that one's name is returned.
///
/// # Errors
/// The disk refuses.
pub fn import(place: &Place, snapshot: &Snapshot, dry_run: bool) -> Result<String, Error> {
    let _lock = if dry_run { None } else { Some(locked(place)?) };
    let same = |kept: &&Kept| kept.manifest.as_ref().is_ok_and(|manifest| *manifest == snapshot.manifest);
    if let Some(kept) = list(place)?.iter().find(same) {
        return Ok(kept.name.clone());
    }
    if dry_run {
        return Ok(snapshot.manifest.created.to_string().replace(':', ""));
    }
    keep(place, snapshot)
}

/// Removes all but the latest `keep` snapshots, unless `dry_run`; names those that go.
///
/// # Errors
/// The disk refuses.
pub fn prune(place: &Place, keep: usize, dry_run: bool) -> Result<Vec<String>, Error> {
    let _lock = if dry_run { None } else { Some(locked(place)?) };
    let mut names = names(place)?;
    names.truncate(names.len().saturating_sub(keep));
    if !dry_run {
        let folder = folder(place);
        remove(&folder, is_temporary)?;
        for name in &names {
            fs::remove_file(&file(place, name))?;
        }
        if !names.is_empty() {
            fs::sync_parent(&folder.join("any"))?;
        }
    }
    Ok(names)
}

/// The digest by which people tell two snapshots apart.
pub fn digest(manifest: &Manifest) -> Sha256Digest {
    // Texts and numbers alone: nothing of it can fail to be written as JSON.
    Sha256Digest::of(&serde_json::to_vec(manifest).unwrap_or_default())
}
