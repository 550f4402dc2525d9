//! Downloads by digest: parallel, resumable, checked while they stream, safe beside other processes.
//!
//! A file under its final name is whole and right. A started one is `NAME.part`, locked by whoever writes it;
//! the next one goes on where it ends.

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::{fs, http};
use crate::tree::Sha256Digest;

/// Requests at a time.
const PARALLEL: usize = 8;
/// Requests of one file, per address, that fail in a row before it is given up.
const ATTEMPTS: u32 = 4;

/// A file to have.
#[derive(Debug, Clone)]
pub struct Item {
    /// What to call it in messages, e.g. `libc6 2.41-12`.
    pub label: String,
    /// Digest of its content.
    pub sha256: Sha256Digest,
    /// Length in bytes.
    pub size: u64,
    /// Where it may be found, tried in order.
    pub addresses: Vec<String>,
    /// Where it goes.
    pub target: PathBuf,
}

/// Is told how downloads go on, from several threads.
pub trait Progress: Sync {
    /// `count` files of `bytes` in all begin to be fetched or unpacked; `what` says which.
    fn start(&self, what: &str, count: usize, bytes: u64);
    /// So many more bytes are done; negative when some must be done again.
    fn advance(&self, bytes: i64);
    /// All is done.
    fn finish(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn start(&self, _: &str, _: usize, _: u64) {}
    fn advance(&self, _: i64) {}
    fn finish(&self) {}
}

/// A file that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No mirror has it (any more).
    #[error("{label} is not on the mirror: {} does not exist", addresses.join(", "))]
    Gone {
        /// Which file.
        label: String,
        /// Where it was looked for.
        addresses: Vec<String>,
    },
    /// What came is something else.
    #[error("{label} has the wrong content: sha256 {found} instead of {expected}")]
    Digest {
        /// Which file.
        label: String,
        /// Digest that it must have.
        expected: Sha256Digest,
        /// Digest that it has.
        found: Sha256Digest,
    },
    /// No mirror is known.
    #[error("no mirror is known to fetch {0} from")]
    NoMirror(String),
    /// The network failed, again and again.
    #[error("cannot fetch {label}")]
    Http {
        /// Which file.
        label: String,
        /// The last failure.
        source: http::Error,
    },
    /// The cache cannot be written.
    #[error(transparent)]
    File(#[from] fs::Error),
}

/// Fetches what is not there yet.
///
/// # Errors
/// The first one stops the rest; what is whole by then stays.
pub fn all(client: &http::Client, items: Vec<Item>, progress: &dyn Progress) -> Result<(), Error> {
    let missing: Vec<Item> = items.into_iter().filter(|item| !item.target.exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    progress.start("fetching", missing.len(), missing.iter().map(|item| item.size).sum());
    let threads = PARALLEL.min(missing.len());
    let queue = Mutex::new(missing.into_iter());
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let stop = AtomicBool::new(false);
    let work = || {
        while let (false, Some(item)) = (stop.load(Ordering::Relaxed), next()) {
            one(client, &item, progress, &stop).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    let done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<(), Error>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        // All are joined before the first failure is returned.
        workers.into_iter().map(join).collect::<Vec<_>>().into_iter().collect::<Result<(), Error>>()
    });
    progress.finish();
    done
}

fn one(client: &http::Client, item: &Item, progress: &dyn Progress, stop: &AtomicBool) -> Result<(), Error> {
    if let Some(parent) = item.target.parent() {
        fs::create_dir_all(parent)?;
    }
    let Some(mut part) = Part::open(&item.target)? else { return Ok(()) };
    if item.addresses.is_empty() {
        return Err(Error::NoMirror(item.label.clone()));
    }
    let resumed = part.len()? > 0;
    progress.advance(signed(part.len()?));
    let mut found = part.complete(client, item, progress, stop)?;
    if found != item.sha256 && resumed {
        // The old part may be to blame: once more from the start.
        part.truncate(progress)?;
        found = part.complete(client, item, progress, stop)?;
    }
    if found != item.sha256 {
        fs::remove_file(&part.path)?;
        return Err(Error::Digest { label: item.label.clone(), expected: item.sha256, found });
    }
    fs::context(part.file.sync_all(), "write", &part.path)?;
    Ok(fs::rename(&part.path, &item.target)?)
}

/// A started file, locked against other processes while this value lives.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// `None` when another process has finished the file meanwhile.
    fn open(target: &Path) -> Result<Option<Self>, fs::Error> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        loop {
            let mut options = OpenOptions::new();
            let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
            let file = fs::context(opened, "write", &path)?;
            let locked = rustix::fs::flock(&file, FlockOperation::LockExclusive);
            fs::context(locked.map_err(io::Error::from), "lock", &path)?;
            // Whoever held the lock may have renamed or removed what was opened here.
            let opened = fs::context(file.metadata(), "read", &path)?.ino();
            let there = std::fs::metadata(&path).map(|there| there.ino());
            if matches!(there, Ok(inode) if inode == opened) {
                if target.exists() {
                    fs::remove_file(&path)?;
                    return Ok(None);
                }
                return Ok(Some(Self { path, file }));
            }
            if target.exists() {
                return Ok(None);
            }
        }
    }

    fn len(&self) -> Result<u64, fs::Error> {
        Ok(fs::context(self.file.metadata(), "read", &self.path)?.len())
    }

    fn truncate(&mut self, progress: &dyn Progress) -> Result<(), fs::Error> {
        progress.advance(-signed(self.len()?));
        fs::context(self.file.set_len(0), "write", &self.path)
    }

    /// Fetches what is missing and returns the digest of the whole.
    fn complete(
        &mut self,
        client: &http::Client,
        item: &Item,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<Sha256Digest, Error> {
        if self.len()? > item.size {
            self.truncate(progress)?;
        }
        // A mirror that did not answer may have the file: only when all say no is it gone.
        let mut unknown = None;
        for address in &item.addresses {
            match self.download(client, address, item, progress, stop) {
                Err(Error::Http { source: http::Error::Missing(_), .. }) => {}
                Err(error @ Error::Http { .. }) => unknown = Some(error),
                done => return done,
            }
        }
        let gone = || Error::Gone { label: item.label.clone(), addresses: item.addresses.clone() };
        Err(unknown.unwrap_or_else(gone))
    }

    fn download(
        &mut self,
        client: &http::Client,
        address: &str,
        item: &Item,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<Sha256Digest, Error> {
        let mut failures = 0;
        loop {
            let before = self.len()?;
            let mut hasher = Sha256::new();
            self.hash(&mut hasher)?;
            if before == item.size {
                return Ok(Sha256Digest(hasher.finalize().into()));
            }
            let error = match client.get(address, before) {
                Err(http::Error::Range(_)) if before > 0 => {
                    self.truncate(progress)?;
                    continue;
                }
                Err(error) => error,
                Ok(answer) => {
                    if answer.start == 0 && before > 0 {
                        self.truncate(progress)?;
                        hasher = Sha256::new();
                    }
                    match self.copy(answer, &mut hasher, item, address, progress)? {
                        Ok(()) => return Ok(Sha256Digest(hasher.finalize().into())),
                        Err(error) => error,
                    }
                }
            };
            failures = if self.len()? > before { 1 } else { failures + 1 };
            if failures >= ATTEMPTS || !error.is_transient() || stop.load(Ordering::Relaxed) {
                return Err(Error::Http { label: item.label.clone(), source: error });
            }
            std::thread::sleep(client.pause(failures));
        }
    }

    fn hash(&mut self, hasher: &mut Sha256) -> Result<(), fs::Error> {
        let mut read = || {
            self.file.seek(SeekFrom::Start(0))?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match self.file.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => hasher.update(&buffer[..count]),
                }
            }
        };
        fs::context(read(), "read", &self.path)
    }

    /// Appends the body; the inner error is the network's, the outer one the disk's or the content's.
    fn copy(
        &mut self,
        mut answer: http::Answer,
        hasher: &mut Sha256,
        item: &Item,
        address: &str,
        progress: &dyn Progress,
    ) -> Result<Result<(), http::Error>, Error> {
        let transport = |source| Err(http::Error::Transport { address: address.to_owned(), source });
        let mut at = fs::context(self.file.seek(SeekFrom::End(0)), "write", &self.path)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match answer.body.read(&mut buffer) {
                Ok(0) if at == item.size => return Ok(Ok(())),
                Ok(0) => return Ok(transport(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) => return Ok(transport(error)),
            };
            hasher.update(&buffer[..count]);
            at += count as u64;
            if at > item.size {
                // Longer than the lock says: never the right bytes, and no reason to fill the disk.
                fs::remove_file(&self.path)?;
                let found = Sha256Digest(hasher.clone().finalize().into());
                return Err(Error::Digest { label: item.label.clone(), expected: item.sha256, found });
            }
            fs::context(self.file.write_all(&buffer[..count]), "write", &self.path)?;
            progress.advance(signed(count as u64));
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
