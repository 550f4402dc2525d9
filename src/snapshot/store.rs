//! Snapshots on disk: each is whole and verified, or absent; a restore is done or not.
//!
//! Putting one back is done when the folder of peers is exchanged, which is one system call. What the new bonds need,
//! preshared keys and the ledger's lines, is durable before; old preshared keys go behind it, or with the next command.
//! What is put back with the bonds, volumes and the host's private key, is so only with them: the number of their folder
//! is written down before it is exchanged.

mod back;
mod exchange;
mod identity;
mod journal;
mod paused;
mod restore;
mod take;
mod travel;
mod volumes;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use back::recover;
pub use back::recover_at_boot;
pub use restore::{Restored, Wish, foretell, restore};
pub use take::image;
use take::take;
pub use travel::{import, write_out};

use serde::{Deserialize, Serialize};

use super::{Manifest, Snapshot, archive, damaged};
use crate::codex::Door;
use crate::peer::Refused;
use crate::peer::store::{Error, PATIENCE, Place, Who, is_temporary, load_living, load_sound, may, remove};
use crate::sys::interrupt::Held;
use crate::sys::journal::Lock;
use crate::sys::services::Services;
use crate::sys::{clock, fs};
use crate::tree::Sha256Digest;

/// How a snapshot's file name ends.
pub const EXTENSION: &str = ".tar.zst";
/// A service may have any number of pipes in its volume; so many are told by their names.
const TOLD: usize = 20;

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

/// What runs the services whose volumes are meant, and who hears what is done to them.
pub struct Host<'a> {
    /// Podman and systemd.
    pub services: Services,
    /// Gets a line for people.
    pub tell: &'a dyn Fn(&str),
}

impl<'a> Host<'a> {
    /// This machine's.
    pub fn new(tell: &'a dyn Fn(&str)) -> Self {
        Self { services: Services::default(), tell }
    }
}

/// How much of a machine's state a snapshot of bonds leaves free, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Leaves {
    /// 16 MiB.
    #[default]
    Ample,
    /// 1 MiB, which takes many revocations: something waits for it that must not fail before them.
    Little,
}

/// What is to be kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Creation<'a> {
    /// Why, for people.
    pub note: Option<&'a str>,
    /// Whether the host's private key is contained.
    pub identity: bool,
    /// Whether volumes are, as far as the Codex does not leave them out. A Codex on a workstation has none.
    pub volumes: bool,
    /// What it leaves free where it holds bonds alone.
    pub leaves: Leaves,
    /// Decide and tell, and change nothing.
    pub dry_run: bool,
}

/// Nobody else changes bonds while the value lives.
fn bonds_locked(place: &Place) -> Result<Lock, Error> {
    Ok(Lock::acquire(&place.bonds.join(".lock"), PATIENCE)?)
}

/// Nobody else changes snapshots while the value lives, and what a killed command left is ended where it can be. Reading
/// volumes takes its time: bonds are changed meanwhile, so that nobody has to wait to be cut off.
fn locked(place: &Place, host: &Host<'_>) -> Result<Lock, Error> {
    place.writable()?;
    let folder = folder(place);
    make_folder(place, &folder)?;
    let lock = Lock::acquire(&folder.join(".lock"), PATIENCE)?;
    identity::settle(place)?;
    // Bonds can be kept and put back all the same; who wants volumes looks again.
    for done in [paused::resume_all(place, host).map(|()| None), recover(place, host, false)] {
        if let Some(line) = done.unwrap_or_else(|error| Some(error.to_string())) {
            (host.tell)(&line);
        }
    }
    Ok(lock)
}

/// Has services go on that a killed command left paused or stopped. The host's key is left to who restarts the machine with
/// it: an agent that finds another one under its interface gives up.
///
/// # Errors
/// Somebody is at it, the disk refuses, or a service.
pub fn resume(place: &Place, host: &Host<'_>) -> Result<(), Error> {
    let folder = folder(place);
    if !fs::exists(&folder)? {
        return Ok(());
    }
    let _lock = Lock::acquire(&folder.join(".lock"), PATIENCE)?;
    let resumed = paused::resume_all(place, host);
    if let Some(line) = recover(place, host, false)? {
        (host.tell)(&line);
    }
    resumed
}

/// Takes a snapshot, unless `dry_run`; its name is `None` then.
///
/// # Errors
/// The bonds hold mistakes, a key that they need is missing, a service cannot be paused, or the disk refuses.
pub fn create(
    place: &Place,
    host: &Host<'_>,
    creation: Creation<'_>,
) -> Result<(Option<String>, Manifest), Error> {
    let Creation { note, identity, volumes, leaves, dry_run } = creation;
    let lock = if dry_run { None } else { Some(locked(place, host)?) };
    let (snapshot, codex) = {
        let _bonds = if dry_run { None } else { Some(bonds_locked(place)?) };
        let (sources, codex) = load_living(place)?;
        (take(place, &sources, &codex, note, identity)?, codex)
    };
    if lock.is_none() {
        return Ok((None, snapshot.manifest));
    }
    let sources = if volumes { volumes::sources(place, &codex, host)? } else { Vec::new() };
    if sources.is_empty() {
        let name = keep(place, &snapshot, leaves)?;
        return Ok((Some(name), snapshot.manifest));
    }
    let held = held()?;
    volumes::fit(&folder(place), &sources)?;
    let (name, snapshot) = keep_with(place, host, &snapshot, &sources, &held)?;
    Ok((Some(name), snapshot.manifest))
}

/// Holds signals back while services are paused or stopped.
fn held() -> Result<Held, Error> {
    Held::new()
        .map_err(|error| Refused::new(format!("signals cannot be held back: {error}"), "try again").into())
}

/// Writes a new snapshot beside its place, reads it back, and gives it a name behind all others.
fn keep(place: &Place, snapshot: &Snapshot, leaves: Leaves) -> Result<String, Error> {
    keep_as(place, snapshot, leaves, &behind_all(place, stem(snapshot))?)
}

/// The same with a name that begins so, and that none has.
fn keep_as(place: &Place, snapshot: &Snapshot, leaves: Leaves, stem: &str) -> Result<String, Error> {
    let bytes = fs::context(archive::pack(snapshot), "pack", &folder(place))?;
    // A workstation revokes nobody: it has no need of the room.
    if place.bonds != place.law {
        volumes::room_for_bonds(&folder(place), bytes.len(), leaves)?;
    }
    let write = |file: &mut std::fs::File, path: &Path| {
        fs::context(file.write_all(&bytes), "write", path)?;
        Ok(snapshot.clone())
    };
    Ok(keep_file(place, stem, write)?.0)
}

/// The same with volumes that fit, whose services are paused meanwhile.
fn keep_with(
    place: &Place,
    host: &Host<'_>,
    snapshot: &Snapshot,
    sources: &[volumes::Source],
    held: &Held,
) -> Result<(String, Snapshot), Error> {
    let stem = behind_all(place, stem(snapshot))?;
    keep_file(place, &stem, |file, path| {
        let written = read_still(place, host, (file, path), snapshot, sources, held)?;
        for (name, skipped) in written.1.iter().take(TOLD) {
            (host.tell)(&format!("volume {name}: {} is no file, and is passed over", skipped.display()));
        }
        if let Some(more) = written.1.len().checked_sub(TOLD).filter(|more| *more > 0) {
            (host.tell)(&format!("{more} more are no files, and are passed over"));
        }
        Ok(written.0)
    })
}

/// Writes the volumes as they are while their services are paused. Where the file system shares blocks, the services go on
/// before anything is read.
fn read_still(
    place: &Place,
    host: &Host<'_>,
    (file, path): (&mut std::fs::File, &Path),
    snapshot: &Snapshot,
    sources: &[volumes::Source],
    held: &Held,
) -> Result<(Snapshot, volumes::Skipped), Error> {
    let mut write = |sources: &[_]| volumes::write(file, path, snapshot, sources, held);
    let mut paused = Some(paused::pause(place, host, sources)?);
    let mut resume = || paused.take().map_or(Ok(()), |paused| paused::resume(place, host, paused));
    let written = volumes::copied(place, sources, held).and_then(|copies| match copies {
        None => write(sources),
        Some(copies) => resume().and_then(|()| write(&copies)),
    });
    // Whatever came of it.
    let resumed = resume().and(volumes::remove_copies(place));
    match (written, resumed) {
        (Err(error), Err(second)) => {
            (host.tell)(&second.to_string());
            Err(error)
        }
        (written, resumed) => resumed.and(written),
    }
}

/// Has `write` fill a file beside its place, reads it back, and gives it its name. Whatever goes wrong, it is gone.
fn keep_file(
    place: &Place,
    stem: &str,
    write: impl FnOnce(&mut std::fs::File, &Path) -> Result<Snapshot, Error>,
) -> Result<(String, Snapshot), Error> {
    let folder = folder(place);
    make_folder(place, &folder)?;
    remove(&folder, is_temporary)?;
    let (name, path) = free_name(place, stem)?;
    let (temporary, mut file) = fs::open_temporary(&path, 0o600)?;
    let kept = write(&mut file, &path).and_then(|snapshot| {
        fs::context(file.sync_all(), "sync", &path)?;
        fs::forget(&file, &path)?;
        verified(&temporary, &snapshot)?;
        fs::rename(&temporary, &path)?;
        Ok(snapshot)
    });
    if kept.is_err() {
        fs::remove_file(&temporary)?;
    }
    Ok((name, kept?))
}

/// Reads a file back, which must hold this snapshot.
fn verified(path: &Path, snapshot: &Snapshot) -> Result<(), Error> {
    let back = archive::read(fs::open(path)?, &mut |_, _, _| Ok(()))?;
    if back == *snapshot { Ok(()) } else { Err(damaged("the disk gave back other bytes").into()) }
}

/// The beginning of a name that no other is behind: a clock that was set back, or was wrong for a while, does not decide which
/// is the latest.
fn behind_all(place: &Place, own: String) -> Result<String, Error> {
    let time = |name: &String| {
        let time = format!("{}Z", parts(name).0);
        (time.len() == own.len() && time.starts_with(|first: char| first.is_ascii_digit())).then_some(time)
    };
    let latest = names(place)?.iter().rev().find_map(time);
    Ok(latest.filter(|latest| *latest > own).unwrap_or(own))
}

/// A name behind all that begin so: it is the latest of them, also where an earlier one was removed.
fn free_name(place: &Place, stem: &str) -> Result<(String, PathBuf), Error> {
    let number = |name: &String| match name.strip_prefix(stem)? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse::<u64>().ok(),
    };
    let name = match names(place)?.iter().filter_map(number).max() {
        None => stem.to_owned(),
        Some(last) => format!("{stem}-{}", last.saturating_add(1)),
    };
    let path = file(place, &name);
    Ok((name, path))
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
    let paths = fs::if_there(found)?.unwrap_or_default();
    let name = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(EXTENSION).unwrap_or(&name).to_owned()
    };
    let mut names: Vec<_> = paths.iter().map(name).collect();
    names.sort_by_key(|name| {
        let (time, count) = parts(name);
        (time.to_owned(), count)
    });
    Ok(names)
}

/// The time that a name is, and its number among those of one second.
fn parts(name: &str) -> (&str, u64) {
    let (time, count) = name.split_once("Z-").unwrap_or((name.trim_end_matches('Z'), "1"));
    (time, count.parse().unwrap_or_default())
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
        let path = file(place, &name);
        // It may be removed meanwhile: nobody waits for who only looks.
        let Some(file) = fs::if_there(fs::open(&path))? else { return Ok(None) };
        let size = fs::context(file.metadata(), "read", &path)?.len();
        let manifest = archive::manifest(file).map_err(|refused| refused.message);
        Ok(Some(Kept { name, size, manifest }))
    };
    names(place)?.into_iter().filter_map(|name| kept(name).transpose()).collect()
}

/// Reads the snapshot of that name, or the latest, every digest checked. Volumes are only checked.
///
/// # Errors
/// There is none, or it is damaged.
pub fn read(place: &Place, name: Option<&str>) -> Result<(String, Snapshot), Error> {
    let (name, path) = find(place, name)?;
    let snapshot = archive::read(fs::open(&path)?, &mut |_, _, _| Ok(()))?;
    Ok((name, snapshot))
}

/// A snapshot whose every digest was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// Its name.
    pub name: String,
    /// How many files it holds.
    pub files: usize,
    /// How many volumes.
    pub volumes: usize,
    /// Digest of what is in it.
    pub digest: Sha256Digest,
}

/// Reads the snapshot of that name, or the latest, to its end.
///
/// # Errors
/// There is none, or it is damaged.
pub fn verify(place: &Place, name: Option<&str>) -> Result<Whole, Error> {
    let (name, Snapshot { manifest, parts }) = read(place, name)?;
    Ok(Whole { name, files: parts.len(), volumes: manifest.volumes.len(), digest: digest(&manifest) })
}

/// As [`read`], without a look at the volumes: for whoever waits, and what leaves without them.
///
/// # Errors
/// There is none, or its bonds are damaged.
pub fn read_bonds(place: &Place, name: Option<&str>) -> Result<(String, Snapshot), Error> {
    let (name, path) = find(place, name)?;
    Ok((name, archive::bonds(fs::open(&path)?)?))
}

/// Name and file of the snapshot of that name, or of the latest.
fn find(place: &Place, name: Option<&str>) -> Result<(String, PathBuf), Error> {
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
    let path = file(place, &name);
    if !fs::exists(&path)? {
        return Err(none(format!("there is no snapshot `{name}`")).into());
    }
    Ok((name, path))
}

/// What its name begins with.
fn stem(snapshot: &Snapshot) -> String {
    snapshot.manifest.created.to_string().replace(':', "")
}

/// Removes all snapshots before the latest `keep` that are whole, unless `dry_run`; names those that go. What cannot be read
/// among the latest stays: it may be of a newer body, or the disk's mood.
///
/// # Errors
/// The disk refuses.
pub fn prune(
    place: &Place,
    host: &Host<'_>,
    who: &Who,
    keep: usize,
    dry_run: bool,
) -> Result<Vec<String>, Error> {
    // Reading takes its time, and others wait for the lock. What comes meanwhile is not on the list.
    let mut names = names(place)?;
    let mut whole = 0;
    while let Some(name) = names.pop_if(|_| whole < keep) {
        match read(place, Some(&name)) {
            Ok(_) => whole += 1,
            Err(Error::Refused(refused)) => (host.tell)(&format!("{name} does not count: {refused}")),
            Err(other) => return Err(other),
        }
    }
    if !dry_run {
        let _lock = locked(place, host)?;
        // Who was cut off meanwhile removes nothing.
        if who.peer().is_some() {
            may(who, Door::Snapshots, &load_sound(place)?.codex, clock::now())?;
        }
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
