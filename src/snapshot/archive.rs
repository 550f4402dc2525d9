//! A snapshot as bytes: tar in zstd, the manifest first, then the parts, then the volumes. The same snapshot is always the
//! same bytes.
//!
//! Bonds are read and written in memory. Volumes may be larger than that: they are streamed, and what they are is known
//! only behind them. So a file with volumes begins with room for all that comes before them; what is left of it is a
//! frame that zstd skips.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use zeroize::Zeroizing;

use super::volume::{Item, Kind, Tally, Volume, is_inside};
use super::{Manifest, Parts, Snapshot, damaged, is_part};
use crate::codex::name::Name;
use crate::peer::Refused;
use crate::peer::store::Error;
use crate::sys::fs::context;
use crate::tree::Sha256Digest;

/// The manifest's name in the archive.
const MANIFEST: &str = "manifest.json";
/// The folder of volumes in the archive.
const VOLUMES: &str = "volumes";
/// Bonds are a few kilobytes; this is what somebody's bomb may cost, in bytes of all that is kept in memory.
const LIMIT: u64 = 256 << 20;
/// What may stand between two contents: headers, long names, zeros.
const HEADERS: u64 = 1 << 20;
/// Higher levels save nothing that matters on a few kilobytes of keys, and services wait for volumes.
const LEVEL: i32 = 3;
/// What ends a tar archive: two blocks of zeros.
const END: usize = 1024;
/// A frame that zstd skips begins with these bytes and its length.
const SKIPPED: [u8; 4] = 0x184d_2a50_u32.to_le_bytes();

/// Takes the entries of volumes; content that it leaves unread is checked all the same.
pub type Sink<'a> = &'a mut dyn FnMut(&Volume, &Item, &mut dyn Read) -> Result<(), Error>;

/// Writes a snapshot without volumes.
///
/// # Errors
/// Of the memory that is written to: none in practice.
pub fn pack(snapshot: &Snapshot) -> io::Result<Zeroizing<Vec<u8>>> {
    compressed(&plain(snapshot)?)
}

/// Writes what comes before the volumes.
///
/// # Errors
/// As [`pack`].
pub fn head(snapshot: &Snapshot) -> io::Result<Zeroizing<Vec<u8>>> {
    let plain = plain(snapshot)?;
    compressed(&plain[..plain.len() - END])
}

/// How many bytes [`head`] takes at most, whatever the volumes' sizes and digests will be.
///
/// # Errors
/// As [`pack`].
pub fn room(snapshot: &Snapshot, volumes: &[(Name, Name)]) -> io::Result<u64> {
    let unknown = Sha256Digest([0xff; 32]);
    let longest = |(name, service): &(Name, Name)| Volume {
        name: name.clone(),
        service: service.clone(),
        size: u64::MAX,
        entries: u64::MAX,
        skipped: u64::MAX,
        sha256: unknown,
    };
    let volumes = volumes.iter().map(longest).collect();
    let longest = plain(&snapshot.clone().with_volumes(volumes))?.len();
    // Frame, checksum, and the frame that is skipped come to a few dozen bytes.
    Ok(zstd::zstd_safe::compress_bound(longest) as u64 + 4096)
}

/// Fills up what `head` leaves of `room`.
///
/// # Errors
/// It leaves less than nothing.
pub fn filled(mut head: Zeroizing<Vec<u8>>, room: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let too_long = || io::Error::other("what comes before the volumes is longer than was thought");
    let left = usize::try_from(room).ok().and_then(|room| room.checked_sub(head.len() + 8));
    let left = left.ok_or_else(too_long)?;
    head.extend(SKIPPED);
    head.extend(u32::try_from(left).map_err(|_| too_long())?.to_le_bytes());
    let end = head.len() + left;
    head.resize(end, 0);
    Ok(head)
}

/// The archive before it is compressed, without volumes.
fn plain(snapshot: &Snapshot) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut tar = tar::Builder::new(Vec::new());
    let time = snapshot.manifest.created.epoch();
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_mtime(time);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes)
    };
    add(MANIFEST, serde_json::to_string_pretty(&snapshot.manifest)?.as_bytes())?;
    for part in &snapshot.manifest.parts {
        add(&part.path, snapshot.parts.get(&part.path).map_or(&[], |bytes| bytes.as_slice()))?;
    }
    Ok(Zeroizing::new(tar.into_inner()?))
}

fn encoder<W: Write>(to: W) -> io::Result<zstd::Encoder<'static, W>> {
    let mut zstd = zstd::Encoder::new(to, LEVEL)?;
    zstd.include_checksum(true)?;
    Ok(zstd)
}

fn compressed(bytes: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut zstd = encoder(Vec::new())?;
    zstd.write_all(bytes)?;
    Ok(Zeroizing::new(zstd.finish()?))
}

/// Writes the volumes, which stand behind a [`head`].
pub struct Tail<W: Write>(tar::Builder<zstd::Encoder<'static, W>>);

impl<W: Write> Tail<W> {
    /// Begins behind what `to` holds.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(to: W) -> io::Result<Self> {
        Ok(Self(tar::Builder::new(encoder(to)?)))
    }

    /// Adds an entry of the volume `name` and counts it.
    ///
    /// # Errors
    /// The content is shorter than the entry says, or one of the two files fails.
    pub fn add(
        &mut self,
        name: &Name,
        item: &Item,
        content: &mut dyn Read,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(item.mode);
        header.set_uid(item.uid.into());
        header.set_gid(item.gid.into());
        header.set_size(0);
        tally.item(item);
        let mut path = Path::new(VOLUMES).join(name.as_str());
        if item.path != Path::new("") {
            path.push(&item.path);
        }
        match &item.kind {
            Kind::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                self.0.append_data(&mut header, path, io::empty())
            }
            Kind::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                // Short ones would be put in order, and are another text then: `a//b` is not `a/b`.
                if header.set_link_name_literal(target.as_os_str().as_bytes()).is_ok() {
                    self.0.append_data(&mut header, path, io::empty())
                } else {
                    self.0.append_link(&mut header, path, target)
                }
            }
            Kind::File { size, modified } => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(*size);
                header.set_mtime(*modified);
                let mut counted = Counted { inner: content.take(*size), tally, failed: None };
                self.0.append_data(&mut header, path, &mut counted)?;
                if counted.inner.limit() == 0 { Ok(()) } else { Err(shorter()) }
            }
        }
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The file fails.
    pub fn end(self) -> io::Result<W> {
        self.0.into_inner()?.finish()
    }
}

/// Writes `snapshot` to `to`, which is that of `source` but for its parts and the volumes that it does not name.
///
/// # Errors
/// Something is damaged; or `to` fails, `name` is it for people.
pub fn pass_on<W: Write>(
    source: impl Read,
    snapshot: &Snapshot,
    to: &mut W,
    name: &Path,
) -> Result<(), Error> {
    let at = |result: io::Result<()>| context(result, "write", name);
    at(head(snapshot).and_then(|bytes| to.write_all(&bytes)))?;
    let mut tail = context(Tail::new(to), "write", name)?;
    read(source, &mut |volume, item, content| {
        if !snapshot.manifest.volumes.contains(volume) {
            return Ok(());
        }
        // What comes of it is checked against the manifest anyway.
        Ok(at(tail.add(&volume.name, item, content, &mut Tally::default()))?)
    })?;
    Ok(at(tail.end().map(drop))?)
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read")
}

/// Counts what somebody reads, and keeps its first error.
struct Counted<'a, R> {
    inner: R,
    tally: &'a mut Tally,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.tally.content(&buffer[..count]);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(told)
            }
        }
    }
}

/// Reads the manifest alone: nothing is said about the rest.
///
/// # Errors
/// There is none.
pub fn manifest(source: impl Read) -> Result<Manifest, Refused> {
    let mut archive = opened(source)?.0;
    let mut entries = archive.entries().map_err(unreadable)?;
    first(&mut entries)
}

/// Reads a snapshot that is in memory, and checks every digest: see [`read`].
///
/// # Errors
/// Something is damaged, missing or there in addition.
pub fn unpack(bytes: &[u8]) -> Result<Snapshot, Refused> {
    read(bytes, &mut |_, _, _| Ok(())).map_err(|error| match error {
        Error::Refused(refused) => refused,
        other => damaged(&other.to_string()),
    })
}

/// Reads a snapshot and checks every digest: the archive must hold the manifest, then its parts, then its volumes, in its
/// order, and nothing else. Whether a volume was as the manifest says is known behind it.
///
/// # Errors
/// Something is damaged, missing or there in addition; or the sink's own.
pub fn read(source: impl Read, sink: Sink<'_>) -> Result<Snapshot, Error> {
    let (mut archive, budget) = opened(source)?;
    let mut entries = archive.entries().map_err(unreadable)?;
    let manifest = first(&mut entries)?;
    let parts = parts(&manifest, &mut entries)?;
    for volume in &manifest.volumes {
        volume_of(volume, &mut entries, &budget, sink)?;
    }
    ends(&mut entries, &budget)?;
    ends_file(archive, &budget)?;
    Ok(agreed(manifest, parts)?)
}

/// Reads manifest and parts, and checks their digests. Volumes, which may take minutes, are neither read nor checked; where
/// there is none, all of the file is.
///
/// # Errors
/// Something of it is damaged or missing.
pub fn bonds(source: impl Read) -> Result<Snapshot, Refused> {
    let (mut archive, budget) = opened(source)?;
    let mut entries = archive.entries().map_err(unreadable)?;
    let manifest = first(&mut entries)?;
    let parts = parts(&manifest, &mut entries)?;
    if manifest.volumes.is_empty() {
        ends(&mut entries, &budget)?;
        ends_file(archive, &budget)?;
    }
    agreed(manifest, parts)
}

/// That no entry follows.
fn ends<R: Read>(entries: &mut tar::Entries<'_, R>, budget: &Cell<u64>) -> Result<(), Refused> {
    budget.set(HEADERS);
    let Some(entry) = entries.next() else { return Ok(()) };
    let entry = entry.map_err(unreadable)?;
    let path = entry.path().map_err(unreadable)?;
    Err(damaged(&format!("{} is not in the manifest", path.display())))
}

/// That what is left are zeros, and behind them the checksum.
fn ends_file<R: Read>(archive: tar::Archive<R>, budget: &Cell<u64>) -> Result<(), Refused> {
    let mut rest = Vec::new();
    budget.set(HEADERS);
    archive.into_inner().read_to_end(&mut rest).map_err(unreadable)?;
    if budget.get() == 0 || rest.iter().any(|byte| *byte != 0) {
        return Err(damaged("something follows the archive"));
    }
    Ok(())
}

/// Manifest and parts, which say the same about the host's key.
fn agreed(manifest: Manifest, parts: Parts) -> Result<Snapshot, Refused> {
    if manifest.identity == parts.contains_key(super::IDENTITY) {
        Ok(Snapshot { manifest, parts })
    } else {
        Err(damaged("manifest and parts differ about the host's key"))
    }
}

fn parts<R: Read>(manifest: &Manifest, entries: &mut tar::Entries<'_, R>) -> Result<Parts, Refused> {
    let mut parts = Parts::new();
    for part in &manifest.parts {
        if !is_part(&part.path) {
            return Err(damaged(&format!("`{}` belongs in no snapshot", part.path)));
        }
        let (path, content) = next(entries)?.ok_or_else(|| damaged(&format!("{} is missing", part.path)))?;
        if path != part.path || content.len() as u64 != part.size || Sha256Digest::of(&content) != part.sha256
        {
            return Err(damaged(&format!("{} is not as the manifest says", part.path)));
        }
        if parts.insert(path, content).is_some() {
            return Err(damaged(&format!("{} is there twice", part.path)));
        }
    }
    Ok(parts)
}

fn volume_of<R: Read>(
    volume: &Volume,
    entries: &mut tar::Entries<'_, R>,
    budget: &Cell<u64>,
    sink: Sink<'_>,
) -> Result<(), Error> {
    let other = || damaged(&format!("volume {} is not as the manifest says", volume.name));
    let mut tally = Tally::default();
    let mut left = volume.size;
    for _ in 0..volume.entries {
        budget.set(HEADERS);
        let mut entry = entries.next().ok_or_else(other)?.map_err(unreadable)?;
        let item = item(&entry, &volume.name)?.ok_or_else(other)?;
        if let Kind::File { size, .. } = item.kind {
            left = left.checked_sub(size).ok_or_else(other)?;
            budget.set(size.saturating_add(HEADERS));
        }
        tally.item(&item);
        let mut content = Counted { inner: &mut entry, tally: &mut tally, failed: None };
        let taken = sink(volume, &item, &mut content).and_then(|()| {
            io::copy(&mut content, &mut io::sink()).map(drop).map_err(|e| unreadable(e).into())
        });
        // A sink that could not read has a damaged archive to tell of, and no error of its own.
        if let Some(error) = content.failed {
            return Err(unreadable(error).into());
        }
        taken?;
    }
    if tally.is(volume) { Ok(()) } else { Err(other().into()) }
}

/// The entry of a volume; `None` where it is no such thing.
fn item<R: Read>(entry: &tar::Entry<'_, R>, volume: &Name) -> Result<Option<Item>, Refused> {
    let header = entry.header();
    let path = entry.path().map_err(unreadable)?;
    let Ok(path) = path.strip_prefix(Path::new(VOLUMES).join(volume.as_str())) else { return Ok(None) };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Folder,
        tar::EntryType::Regular => {
            Kind::File { size: entry.size(), modified: header.mtime().map_err(unreadable)? }
        }
        tar::EntryType::Symlink => match entry.link_name().map_err(unreadable)? {
            Some(target) => Kind::Link(target.into_owned()),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let number = |number: io::Result<u64>| Ok(u32::try_from(number.map_err(unreadable)?).ok());
    let (uid, gid) = (number(header.uid())?, number(header.gid())?);
    let (Some(uid), Some(gid), true) = (uid, gid, is_inside(path)) else { return Ok(None) };
    let mode = header.mode().map_err(unreadable)? & 0o7777;
    Ok(Some(Item { path: PathBuf::from(path), kind, mode, uid, gid }))
}

/// Lets as many bytes through as are expected: who reads a length out of an archive may believe it.
struct Budget<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.inner).take(self.left.get()).read(buffer)?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

type Reader<R> = Budget<zstd::Decoder<'static, io::BufReader<R>>>;

/// An archive, and how many bytes of it may be read.
type Opened<R> = (tar::Archive<Reader<R>>, Rc<Cell<u64>>);

fn opened<R: Read>(source: R) -> Result<Opened<R>, Refused> {
    let inner = zstd::Decoder::new(source).map_err(unreadable)?;
    let left = Rc::new(Cell::new(LIMIT));
    Ok((tar::Archive::new(Budget { inner, left: Rc::clone(&left) }), left))
}

fn first<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Manifest, Refused> {
    match next(entries)? {
        Some((path, bytes)) if path == MANIFEST => Manifest::read(&bytes),
        _ => Err(damaged("it does not begin with its manifest")),
    }
}

/// A path and what is there.
type File = (String, Zeroizing<Vec<u8>>);

/// The next file with its path.
fn next<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Option<File>, Refused> {
    let Some(entry) = entries.next() else { return Ok(None) };
    let mut entry = entry.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        return Err(damaged("it holds something else than files"));
    }
    let path = entry.path().map_err(unreadable)?.to_string_lossy().into_owned();
    let mut content = Zeroizing::new(Vec::new());
    entry.read_to_end(&mut content).map_err(unreadable)?;
    Ok(Some((path, content)))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unreadable(error: io::Error) -> Refused {
    damaged(&error.to_string())
}
