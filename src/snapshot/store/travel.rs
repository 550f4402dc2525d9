//! Snapshots that leave this place, and that come to it.

use std::io::{Read, Write};
use std::path::Path;

use super::{Host, Kept, Leaves, file, folder, free_name, keep_as, list, locked, read, stem};
use crate::peer::store::{Error, Place, is_temporary, remove};
use crate::snapshot::{Snapshot, archive, damaged};
use crate::sys::fs;

/// Writes the snapshot `name`, but for parts and volumes that `snapshot` does not name, to `to`.
///
/// # Errors
/// It is damaged, or `to` fails; `path` is it for people.
pub fn write_out(
    place: &Place,
    name: &str,
    snapshot: &Snapshot,
    to: &mut impl Write,
    path: &Path,
) -> Result<(), Error> {
    if snapshot.manifest.volumes.is_empty() {
        let written = archive::pack(snapshot).and_then(|bytes| to.write_all(&bytes));
        return Ok(fs::context(written, "write", path)?);
    }
    archive::pass_on(fs::open(&file(place, name))?, snapshot, to, path)
}

/// Keeps a snapshot that came from elsewhere, and returns what is kept of it; where that is there already, its name is
/// that one's. Volumes are kept when `volumes` says so; `size` is what the whole may take, in bytes.
///
/// # Errors
/// It is damaged, or the disk refuses.
pub fn import(
    place: &Place,
    host: &Host<'_>,
    source: &mut dyn Read,
    volumes: Option<u64>,
    dry_run: bool,
) -> Result<(String, Snapshot), Error> {
    let _lock = if dry_run { None } else { Some(locked(place, host)?) };
    let Some(size) = volumes.filter(|_| !dry_run) else {
        let mut snapshot = archive::read(source, &mut |_, _, _| Ok(()))?;
        if volumes.is_none() {
            for volume in &snapshot.manifest.volumes {
                (host.tell)(&format!("volume {} is left out; `--with-volumes` takes it over", volume.name));
            }
            snapshot = snapshot.with_volumes(Vec::new());
        }
        let name = match (same(place, &snapshot)?, dry_run) {
            (Some(name), _) => name,
            (None, true) => stem(&snapshot),
            (None, false) => keep_as(place, &snapshot, Leaves::Ample, &stem(&snapshot))?,
        };
        return Ok((name, snapshot));
    };
    let folder = folder(place);
    super::volumes::room(&folder, size.saturating_add(super::volumes::RESERVE))?;
    remove(&folder, is_temporary)?;
    let (temporary, mut file) = fs::open_temporary(&folder.join("import"), 0o600)?;
    let taken = copy(source, &mut file, &temporary).and_then(|()| {
        fs::forget(&file, &temporary)?;
        let snapshot = archive::read(fs::open(&temporary)?, &mut |_, _, _| Ok(()))?;
        if let Some(name) = same(place, &snapshot)? {
            return Ok((name, snapshot));
        }
        let (name, path) = free_name(place, &stem(&snapshot))?;
        fs::rename(&temporary, &path)?;
        Ok((name, snapshot))
    });
    fs::remove_file(&temporary)?;
    taken
}

fn copy(source: &mut dyn Read, file: &mut std::fs::File, path: &Path) -> Result<(), Error> {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match std::io::copy(source, file).and_then(|_| file.sync_all()) {
        Err(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => {
            Err(damaged(&format!("it cannot be decrypted: {error}")).into())
        }
        copied => Ok(fs::context(copied, "write", path)?),
    }
}

/// The name of a snapshot that is the same, and whole: a copy is fetched to take the place of what has rotted.
fn same(place: &Place, snapshot: &Snapshot) -> Result<Option<String>, Error> {
    let same = |kept: &Kept| kept.manifest.as_ref().is_ok_and(|manifest| *manifest == snapshot.manifest);
    let whole = |kept: &Kept| read(place, Some(&kept.name)).is_ok();
    Ok(list(place)?.into_iter().find(|kept| same(kept) && whole(kept)).map(|kept| kept.name))
}
