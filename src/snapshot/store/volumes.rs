//! Volumes of services, read into a snapshot.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::journal::{COPIES, PAUSED, VOLUMES};
use super::{Host, Leaves};
use crate::codex::name::Name;
use crate::codex::{Codex, Hooks};
use crate::peer::Refused;
use crate::peer::store::{Error, Place};
use crate::snapshot::volume::Tally;
use crate::snapshot::{Snapshot, archive};
use crate::sys::fs::context;
use crate::sys::interrupt::Held;
use crate::sys::{cmd, fs, volume};

/// What a snapshot must leave to the services that share its disk, in bytes.
pub(super) const RESERVE: u64 = 16 << 20;

/// A volume to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Its name in the Codex.
    pub name: Name,
    /// The service that it belongs to.
    pub service: Name,
    /// The service's container.
    pub container: String,
    /// What keeps the service still.
    pub hooks: Option<Hooks>,
    /// Its folder.
    pub folder: PathBuf,
    /// What is not in the folder, because it is a copy without that.
    pub passed_over: Vec<PathBuf>,
}

/// Volumes that this machine has and that snapshots contain.
pub(super) fn sources(place: &Place, codex: &Codex, host: &Host<'_>) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    // The Codex on a workstation tells of another machine.
    if place.bonds == place.law {
        return Ok(sources);
    }
    let wanted = codex.services.iter().flat_map(|(service, declared)| {
        let kept = declared.volumes.iter().filter(|volume| volume.snapshot);
        kept.map(move |volume| (service, declared, volume))
    });
    let wanted: Vec<_> = wanted.collect();
    for journal in [PAUSED, VOLUMES] {
        if journal.exists(place)? {
            let hint = "mend what is said above, or leave the volumes out";
            return Err(Refused::new("an earlier command with volumes cannot be ended", hint).into());
        }
    }
    if wanted.is_empty() {
        return Ok(sources);
    }
    let there =
        host.services.volumes().map_err(|error| unavailable("the volumes cannot be found", &error))?;
    for (service, declared, volume) in wanted {
        match there.get(&format!("{}-{}", codex.appliance.name, volume.name)) {
            Some(folder) => sources.push(Source {
                name: volume.name.clone(),
                service: service.clone(),
                container: codex.appliance.container(service.as_str()),
                hooks: declared.hooks.clone(),
                folder: folder.clone(),
                passed_over: Vec::new(),
            }),
            // Its service has not started yet.
            None => (host.tell)(&format!("volume {} is not there yet", volume.name)),
        }
    }
    Ok(sources)
}

/// The refusal of what Podman or systemd did not do.
pub(super) fn unavailable(what: &str, error: &cmd::Error) -> Error {
    let reason = match error {
        cmd::Error::Start { source, .. } => format!("{error}: {source}"),
        other => other.to_string(),
    };
    let hint = "mend that, or leave the volumes out: `sepulcher snapshot create --bonds-only`";
    Refused::new(format!("{what}: {reason}"), hint).into()
}

/// Refuses what may not fit into the free space of `folder`: a full disk stops the services, too.
pub(super) fn fit(folder: &Path, sources: &[Source]) -> Result<(), Error> {
    let mut wanted = RESERVE;
    for source in sources {
        wanted = wanted.saturating_add(volume::size(&source.folder)?);
    }
    room(folder, wanted)
}

/// Refuses what does not fit into the free space of `folder`.
pub(super) fn room(folder: &Path, wanted: u64) -> Result<(), Error> {
    let hint = "remove old snapshots (`sepulcher snapshot prune --keep 1`), leave caches out (`snapshot = false` of a `[[volume]]`), or keep the bonds alone: `--bonds-only`";
    fits(folder, "the volumes", wanted, hint)
}

/// Refuses bonds that are so long, in bytes, and leave no room in `folder`: where snapshots have filled the disk nobody
/// could be revoked any more, nor a snapshot be removed over the tether.
pub(super) fn room_for_bonds(folder: &Path, length: usize, leaves: Leaves) -> Result<(), Error> {
    let reserve = match leaves {
        Leaves::Ample => RESERVE,
        Leaves::Little => 1 << 20,
    };
    let wanted = u64::try_from(length).map_or(u64::MAX, |length| length.saturating_add(reserve));
    fits(folder, "the snapshot", wanted, "remove old ones: `sepulcher snapshot prune --keep 1`")
}

fn fits(folder: &Path, what: &str, wanted: u64, hint: &str) -> Result<(), Error> {
    let free = fs::free_space(folder)?;
    if wanted <= free {
        return Ok(());
    }
    let message = format!(
        "{what} may take {} MiB, and {} MiB are free in {}",
        wanted.div_ceil(1 << 20),
        free >> 20,
        folder.display()
    );
    Err(Refused::new(message, hint).into())
}

/// The folder that a volume is copied to, beside its own.
const COPY: &str = ".sepulcher.copy";

/// Copies of the volumes, which share the services' own blocks; `None` where one lies on a file system that shares none.
/// Podman's volumes are folders, and no subvolumes: so it is their files that share.
pub(super) fn copied(place: &Place, sources: &[Source], held: &Held) -> Result<Option<Vec<Source>>, Error> {
    let copy = |source: &Source| Source { folder: source.folder.with_file_name(COPY), ..source.clone() };
    let mut copies: Vec<_> = sources.iter().map(copy).collect();
    let folders: Vec<_> = copies.iter().map(|copy| &copy.folder).collect();
    COPIES.write(place, &folders)?;
    for (source, copy) in sources.iter().zip(&mut copies) {
        if held.came() {
            return Err(ended());
        }
        match volume::share(&source.folder, &copy.folder)? {
            Some(passed_over) => copy.passed_over = passed_over,
            None => return Ok(None),
        }
    }
    Ok(Some(copies))
}

/// Removes all copies that there are, a killed command's too.
pub(super) fn remove_copies(place: &Place) -> Result<(), Error> {
    let Some(folders) = COPIES.read::<Vec<PathBuf>>(place)? else { return Ok(()) };
    for folder in &folders {
        fs::remove_dir_all(folder)?;
    }
    COPIES.remove(place)
}

/// A signal came.
pub(super) fn ended() -> Error {
    Refused::new("a signal ended it", "begin anew").into()
}

/// What was passed over: a volume's name, and a path in it.
pub(super) type Skipped = Vec<(Name, PathBuf)>;

/// Writes a snapshot with these volumes to an empty file; `path` is its name for people.
pub(super) fn write(
    file: &mut File,
    path: &Path,
    snapshot: &Snapshot,
    sources: &[Source],
    held: &Held,
) -> Result<(Snapshot, Skipped), Error> {
    let names: Vec<_> = sources.iter().map(|source| (source.name.clone(), source.service.clone())).collect();
    let room = context(archive::room(snapshot, &names), "write", path)?;
    context(file.seek(SeekFrom::Start(room)), "write", path)?;
    let mut tail = context(archive::Tail::new(BufWriter::new(&mut *file)), "write", path)?;
    let (mut volumes, mut passed_over) = (Vec::new(), Vec::new());
    for Source { name, service, folder, passed_over: before, .. } in sources {
        let mut tally = Tally::default();
        let skipped = volume::read::<Error>(folder, &mut |item, content| {
            let mut content = Interruptible { inner: content, held };
            let added = tail.add(name, item, &mut content, &mut tally);
            Ok(context(added, "keep", &folder.join(&item.path))?)
        })?;
        let skipped: Vec<_> = before.iter().cloned().chain(skipped).collect();
        volumes.push(tally.volume(name, service, skipped.len() as u64));
        passed_over.extend(skipped.into_iter().map(|path| (name.clone(), path)));
    }
    context(tail.end().and_then(|mut buffer| buffer.flush()), "write", path)?;
    let snapshot = snapshot.clone().with_volumes(volumes);
    let before = archive::head(&snapshot).and_then(|bytes| archive::filled(bytes, room));
    let written = before.and_then(|bytes| file.rewind().and_then(|()| file.write_all(&bytes)));
    context(written, "write", path)?;
    Ok((snapshot, passed_over))
}

/// Reads until a signal comes that ends this process.
struct Interruptible<'a> {
    inner: &'a mut dyn Read,
    held: &'a Held,
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.held.came() {
            return Err(io::Error::other("a signal ended it"));
        }
        self.inner.read(buffer)
    }
}
