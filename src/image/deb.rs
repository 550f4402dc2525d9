//! `.deb` files: an `ar` archive of a control tar and a data tar, each compressed.
//!
//! Nothing in a package is trusted but its digest: sizes are bounded, names stay inside the root, and what is
//! not understood is an error that names the package.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::disk;
use super::layer::{Content, Kind, Layer, Node, usr_merged};
use super::lock::Package;
use super::store::Store;
use crate::sys::fs;
use crate::tree::Sha256Digest;

/// No package holds more than this, decompressed, in bytes.
pub const DATA_LIMIT: u64 = 4 << 30;
/// No control archive holds more than this, decompressed, in bytes.
pub const CONTROL_LIMIT: u64 = 16 << 20;
/// No package holds more files, folders and links.
pub const ENTRY_LIMIT: usize = 500_000;
/// The decompressor may use this much memory, in bytes.
const MEMORY_LIMIT: u64 = 256 << 20;
/// How unfinished files in the cache are named.
const LITTER: &str = ".unpacking-";
/// No path is longer, in bytes.
const PATH_LIMIT: usize = 4096;

/// A package that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its content is wrong.
    #[error("package {package} is malformed")]
    Malformed {
        /// Name and version.
        package: String,
        /// How.
        source: Malformed,
    },
    /// The cached file is not what was once fetched; it has been removed.
    #[error("package {package} was damaged in the cache and has been removed from it")]
    Damaged {
        /// Name and version.
        package: String,
    },
    /// The cache cannot be read or written.
    #[error(transparent)]
    File(#[from] fs::Error),
}

/// What can be wrong in a package.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A part cannot be read: cut off, or not of its format.
    #[error("cannot read its {part}")]
    Read {
        /// Which part.
        part: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A part is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A part occurs again.
    #[error("it has more than one {0}")]
    Twice(&'static str),
    /// A compression that is not known.
    #[error("its part {0} is compressed in an unknown way")]
    Compression(String),
    /// More than any package holds.
    #[error("it holds more than {0}")]
    TooLarge(String),
    /// A path that could leave the root, or that is not UTF-8.
    #[error("it has the unusable path {0:?}")]
    Path(String),
    /// Something that no image holds, e.g. a device node.
    #[error("{path} is a {kind}, which cannot be in a package")]
    Node {
        /// Where.
        path: String,
        /// What.
        kind: &'static str,
    },
    /// A hard link to nothing.
    #[error("{path} is a hard link to {target}, which does not come before it")]
    HardLink {
        /// Where.
        path: String,
        /// What it names.
        target: String,
    },
    /// One path as two things.
    #[error("{0} occurs as two different things")]
    Duplicate(String),
}

/// Control fields of a `.deb` (`Package`, `Version`, `Architecture`, …), by name.
pub fn control(package: &str, deb: impl Read) -> Result<BTreeMap<String, String>, Error> {
    let fields = || {
        let text = control_file(&control_archive(deb)?)?;
        let mut fields = BTreeMap::new();
        let mut last: Option<String> = None;
        for line in text.lines() {
            if line.starts_with([' ', '\t']) {
                if let Some(value) = last.as_ref().and_then(|name| fields.get_mut(name)) {
                    *value = format!("{value}\n{}", line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.insert(name.to_owned(), value.trim().to_owned());
                last = Some(name.to_owned());
            }
        }
        Ok(fields)
    };
    fields().map_err(|source| Error::Malformed { package: package.to_owned(), source })
}

fn control_file(control: &[u8]) -> Result<String, Malformed> {
    let read = |source| Malformed::Read { part: "control archive", source };
    let mut archive = tar::Archive::new(control);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        if matches!(&*entry.path_bytes(), b"./control" | b"control") {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(read)?;
            return Ok(text);
        }
    }
    Err(Malformed::Missing("control file"))
}

/// Where the digest of a data tar is kept.
fn sum(data: &Path) -> PathBuf {
    data.with_extension("sha256")
}

/// Whether a package has been decompressed.
pub fn is_unpacked(store: &Store<'_>, package: &Package) -> bool {
    let data = store.data(package);
    data.exists() && sum(&data).exists()
}

/// Removes data tars that are no longer what was once decompressed: what rots in the cache must not be sealed.
pub fn discard_damaged(store: &Store<'_>, packages: &[Package]) -> Result<(), Error> {
    for package in packages.iter().filter(|package| is_unpacked(store, package)) {
        let data = store.data(package);
        let digest = fs::context(disk::digest(&fs::open(&data)?), "read", &data)?;
        if fs::read(&sum(&data))? != digest.to_string().as_bytes() {
            fs::remove_file(&data)?;
        }
    }
    Ok(())
}

/// Decompresses the packages that are not yet decompressed, in parallel.
pub fn unpack(store: &Store<'_>, packages: &[Package]) -> Result<(), Error> {
    let missing =
        || -> Vec<&Package> { packages.iter().filter(|package| !is_unpacked(store, package)).collect() };
    if missing().is_empty() {
        return Ok(());
    }
    let _locked = fs::lock_and_tidy(&store.cache.join("data"), LITTER)?;
    // Another process may have done it all meanwhile.
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    store.progress.start("unpacking", missing.len(), missing.iter().map(|package| package.size).sum());
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(missing.len());
    let queue = Mutex::new(missing.into_iter());
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let stop = AtomicBool::new(false);
    let work = || {
        while let (false, Some(package)) = (stop.load(Ordering::Relaxed), next()) {
            let done = decompress(package, &store.deb(package), &store.data(package));
            done.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            store.progress.advance(i64::try_from(package.size).unwrap_or(0));
        }
        Ok(())
    };
    let done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<(), Error>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    });
    store.progress.finish();
    done
}

/// Writes the data tar of the package at `deb` to `target`, whole or not at all, and only if the package is
/// still the one that was locked.
fn decompress(package: &Package, deb: &Path, target: &Path) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = tempfile::Builder::new().prefix(LITTER).tempfile_in(folder);
    let mut temporary = fs::context(temporary, "write in", folder)?;
    let out = BufWriter::with_capacity(1 << 16, temporary.as_file_mut());
    let mut out = Hashed { inner: out, hasher: Sha256::new() };
    let mut hashed = Hashed { inner: fs::open(deb)?, hasher: Sha256::new() };
    let done = split(BufReader::with_capacity(1 << 16, &mut hashed), DATA_LIMIT, &mut out);
    // The disk's fault, not the package's.
    if let Err(Malformed::Read { part: WRITING, source }) = done {
        return Err(Error::File(fs::Error { action: "write", path: target.to_owned(), source }));
    }
    fs::context(io::copy(&mut hashed, &mut io::sink()), "read", deb)?;
    if Sha256Digest(hashed.hasher.finalize().into()) != package.sha256 {
        fs::remove_file(deb)?;
        return Err(Error::Damaged { package: package.to_string() });
    }
    done.map_err(|source| Error::Malformed { package: package.to_string(), source })?;
    fs::context(out.flush(), "write", target)?;
    let digest = Sha256Digest(out.hasher.clone().finalize().into());
    drop(out);
    fs::write_atomic(&sum(target), 0o644, digest.to_string().as_bytes())?;
    // A power loss must not leave a whole name on half a file.
    fs::context(temporary.as_file().sync_data(), "write", target)?;
    let persisted = temporary.persist(target).map(drop).map_err(|error| error.error);
    Ok(fs::context(persisted, "write", target)?)
}

/// Digests what passes through.
struct Hashed<T> {
    inner: T,
    hasher: Sha256,
}

impl<T: io::Write> io::Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Marks a failure to write among those to read.
const WRITING: &str = "(writing)";

/// A member of a `.deb` that is of interest, with its compression as in its name (`.xz`) and its size in bytes.
enum Member<'a, 'r, R: Read> {
    Control(&'a mut ar::Entry<'r, R>, &'a str, u64),
    Data(&'a mut ar::Entry<'r, R>, &'a str, u64),
}

/// Hands the archives of a `.deb` to `take`, in their order, until that says that it has enough.
fn members<R: Read>(
    deb: R,
    mut take: impl FnMut(Member<'_, '_, R>) -> Result<ControlFlow<()>, Malformed>,
) -> Result<(), Malformed> {
    let read = |source| Malformed::Read { part: "outer archive", source };
    let mut archive = ar::Archive::new(deb);
    let mut has_version = false;
    while let Some(member) = archive.next_entry() {
        let mut member = member.map_err(read)?;
        let name = String::from_utf8_lossy(member.header().identifier()).trim_end_matches('/').to_owned();
        let size = member.header().size();
        let next = if name == "debian-binary" {
            has_version = true;
            ControlFlow::Continue(())
        } else if !has_version {
            return Err(Malformed::Missing("first member debian-binary"));
        } else if let Some(compression) = name.strip_prefix("control.tar") {
            take(Member::Control(&mut member, compression, size))?
        } else if let Some(compression) = name.strip_prefix("data.tar") {
            take(Member::Data(&mut member, compression, size))?
        } else {
            ControlFlow::Continue(())
        };
        if next.is_break() {
            break;
        }
    }
    Ok(())
}

/// The control tar of a `.deb`; what follows it is not read.
fn control_archive(deb: impl Read) -> Result<Vec<u8>, Malformed> {
    let mut control = None;
    members(deb, |member| {
        let Member::Control(member, compression, size) = member else { return Ok(ControlFlow::Continue(())) };
        control = Some(control_of(member, compression, size)?);
        Ok(ControlFlow::Break(()))
    })?;
    control.ok_or(Malformed::Missing("control archive"))
}

fn control_of(member: &mut impl Read, compression: &str, size: u64) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::new();
    expand(member, size, compression, "control archive", CONTROL_LIMIT, &mut bytes)?;
    Ok(bytes)
}

/// Decompresses a `.deb`: returns its control tar and writes its data tar, which has at most `limit` bytes.
fn split(deb: impl Read, limit: u64, data: &mut impl io::Write) -> Result<Vec<u8>, Malformed> {
    let mut control = None;
    let mut has_data = false;
    members(deb, |member| {
        match member {
            Member::Control(..) if control.is_some() => return Err(Malformed::Twice("control archive")),
            Member::Control(member, compression, size) => {
                control = Some(control_of(member, compression, size)?);
            }
            Member::Data(..) if has_data => return Err(Malformed::Twice("data archive")),
            Member::Data(member, compression, size) => {
                has_data = true;
                expand(member, size, compression, "data archive", limit, data)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !has_data {
        return Err(Malformed::Missing("data archive"));
    }
    control.ok_or(Malformed::Missing("control archive"))
}

/// Decompresses one member of `size` bytes, at most `limit` bytes of it.
fn expand(
    member: &mut impl Read,
    size: u64,
    compression: &str,
    part: &'static str,
    limit: u64,
    out: &mut impl io::Write,
) -> Result<(), Malformed> {
    let read = |source| Malformed::Read { part, source };
    let mut expanded: Box<dyn Read + '_> = match compression {
        "" => Box::new(member),
        ".xz" => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(MEMORY_LIMIT, liblzma::stream::CONCATENATED);
            let stream = stream.map_err(|error| read(error.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(member, stream))
        }
        ".zst" => Box::new(zstd::stream::read::Decoder::new(member).map_err(read)?),
        ".gz" => Box::new(flate2::read::GzDecoder::new(member)),
        other => return Err(Malformed::Compression(format!("{part} {other}"))),
    };
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match expanded.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        total += count as u64;
        if total > limit {
            return Err(Malformed::TooLarge(format!("{limit} bytes in its {part}")));
        }
        out.write_all(&buffer[..count]).map_err(|source| Malformed::Read { part: WRITING, source })?;
    }
    if compression.is_empty() && total != size {
        return Err(read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

/// The files of a package from its decompressed data tar at `data`: those that `wants` says yes to, with
/// `bin`, `sbin` and `lib*` moved into `usr`.
pub fn layer(data: &Path, package: &Package, wants: &dyn Fn(&str) -> bool) -> Result<Layer, Error> {
    let file = fs::open(data)?;
    let len = fs::context(file.metadata(), "read", data)?.len();
    let mut layer = entries(&Arc::new(data.to_owned()), file, len)
        .map_err(|source| Error::Malformed { package: package.to_string(), source })?;
    layer.0.retain(|path, _| wants(path));
    Ok(layer)
}

/// Reads a `.deb` from memory as [`unpack`] and [`layer`] do together, at most `limit` bytes of it; returns how
/// many files, folders and links it holds. Touches no file: for tests that feed it anything.
pub fn check(package: &str, deb: &[u8], limit: u64) -> Result<usize, Error> {
    let count = || {
        let mut data = Vec::new();
        split(deb, limit, &mut data)?;
        let len = data.len() as u64;
        Ok(entries(&Arc::new(PathBuf::new()), io::Cursor::new(data), len)?.0.len())
    };
    count().map_err(|source| Error::Malformed { package: package.to_owned(), source })
}

fn entries(data: &Arc<PathBuf>, file: impl Read + io::Seek, len: u64) -> Result<Layer, Malformed> {
    let read = |source| Malformed::Read { part: "data archive", source };
    let mut archive = tar::Archive::new(BufReader::with_capacity(1024, file));
    let mut layer = Layer::default();
    let mut count = 0;
    for entry in archive.entries_with_seek().map_err(read)? {
        let entry = entry.map_err(read)?;
        count += 1;
        if count > ENTRY_LIMIT {
            return Err(Malformed::TooLarge(format!("{ENTRY_LIMIT} entries")));
        }
        let Some(path) = inside(&entry.path_bytes())? else { continue };
        let header = entry.header();
        let number = |value: io::Result<u64>| {
            value.map_err(read).and_then(|id| u32::try_from(id).map_err(|_| Malformed::Path(path.clone())))
        };
        let (uid, gid) = (number(header.uid())?, number(header.gid())?);
        let mode = header.mode().map_err(read)? & 0o7777;
        let kind = kind(&entry, &path, data, len, &layer)?;
        let folder = matches!(kind, Kind::Dir);
        let path = usr_merged(&path, matches!(kind, Kind::Link(_)));
        let node = Node { mode, uid, gid, kind };
        if let Some(first) = layer.0.insert(path.clone(), node)
            && !(folder && matches!(first.kind, Kind::Dir))
        {
            return Err(Malformed::Duplicate(path));
        }
    }
    Ok(layer)
}

fn kind<R: Read>(
    entry: &tar::Entry<'_, R>,
    path: &str,
    data: &Arc<PathBuf>,
    len: u64,
    before: &Layer,
) -> Result<Kind, Malformed> {
    use tar::EntryType as Type;
    let target = || {
        let bytes = entry.link_name_bytes().unwrap_or_default();
        let text = String::from_utf8(bytes.into_owned()).ok();
        text.filter(|text| !text.is_empty() && text.len() <= PATH_LIMIT && !text.contains('\0'))
            .ok_or_else(|| Malformed::Path(path.to_owned()))
    };
    let refused = |kind| Err(Malformed::Node { path: path.to_owned(), kind });
    match entry.header().entry_type() {
        Type::Directory => Ok(Kind::Dir),
        Type::Symlink => Ok(Kind::Link(target()?)),
        Type::Regular | Type::Continuous => {
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(size).is_none_or(|end| end > len) {
                let source = io::ErrorKind::UnexpectedEof.into();
                return Err(Malformed::Read { part: "data archive", source });
            }
            Ok(Kind::File(Content::Span { file: Arc::clone(data), offset, len: size }))
        }
        Type::Link => {
            let target = target()?;
            let found =
                inside(target.as_bytes())?.and_then(|target| before.0.get(&usr_merged(&target, false)));
            match found {
                Some(Node { kind: Kind::File(content), .. }) => Ok(Kind::File(content.clone())),
                _ => Err(Malformed::HardLink { path: path.to_owned(), target }),
            }
        }
        Type::Char | Type::Block => refused("device node"),
        Type::Fifo => refused("named pipe"),
        Type::GNUSparse => refused("sparse file"),
        _ => refused("thing of an unknown kind"),
    }
}

/// The path in plain form (`./lib/x/` → `lib/x`); `None` for the root itself.
fn inside(bytes: &[u8]) -> Result<Option<String>, Malformed> {
    let wrong = || Malformed::Path(String::from_utf8_lossy(bytes).into_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
    if text.starts_with('/') || text.contains('\0') || text.len() > PATH_LIMIT {
        return Err(wrong());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(wrong());
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

#[cfg(test)]
mod tests;
