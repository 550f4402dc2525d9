//! Files that only grow, and the lock of those who change them.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::fs::{Error, context, sync_parent};

/// How long to sleep between two tries for a lock.
const RETRY: Duration = Duration::from_millis(20);

/// What only one process at a time may do, while the value lives. The kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the open file")] fs::File);

/// Why a lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// Somebody else kept it for the whole time.
    #[error("{} has been locked by {} for {} s", path.display(), holder(*pid), waited.as_secs())]
    Busy {
        /// The lock's file.
        path: std::path::PathBuf,
        /// Process that holds it, where the kernel tells.
        pid: Option<u32>,
        /// How long we waited.
        waited: Duration,
    },
    /// The file cannot be made or locked.
    #[error(transparent)]
    File(#[from] Error),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Lock {
    /// Locks the file `path`, which is made if need be, and waits for it no longer than `patience`.
    pub fn acquire(path: &Path, patience: Duration) -> Result<Self, NotLocked> {
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = context(opened, "open", path)?;
        let start = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < patience => {
                    std::thread::sleep(RETRY);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let inode = context(file.metadata(), "look at", path)?.ino();
                    // Only a courtesy: where the kernel's list cannot be read, the message has no number.
                    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
                    let pid = locked_by(&locks, inode);
                    return Err(NotLocked::Busy { path: path.to_owned(), pid, waited: patience });
                }
                locked => {
                    context(locked.map_err(io::Error::from), "lock", path)?;
                    return Ok(Self(file));
                }
            }
        }
    }
}

/// The process that holds the lock of an inode, out of the kernel's list: `1: FLOCK ADVISORY WRITE 42 fe:00:7 0 EOF`.
fn locked_by(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let (pid, place) = (words.nth(2)?, words.next()?);
        let found = place.rsplit(':').next()?.parse::<u64>().ok()?;
        if kind == "FLOCK" && found == inode { pid.parse().ok() } else { None }
    })
}

/// What was added to the end of a file, durably.
#[derive(Debug)]
pub struct Appended {
    file: fs::File,
    before: u64,
}

impl Appended {
    /// Takes it back.
    pub fn undo(self) -> io::Result<()> {
        self.file.set_len(self.before)?;
        self.file.sync_all()
    }
}

/// Adds bytes to the end of a file, which is made with permission bits `mode` if need be, and makes them durable.
///
/// On an error the file is as long as before.
pub fn append(path: &Path, mode: u32, bytes: &[u8]) -> Result<Appended, Error> {
    let opened = fs::OpenOptions::new().append(true).create(true).mode(mode).open(path);
    let file = context(opened, "open", path)?;
    let before = context(file.metadata(), "look at", path)?.len();
    let written = (&file).write_all(bytes).and_then(|()| file.sync_all());
    let named = context(written, "write", path).and_then(|()| {
        // A new file's name has to last too.
        if before == 0 { sync_parent(path) } else { Ok(()) }
    });
    let appended = Appended { file, before };
    match named {
        Ok(()) => Ok(appended),
        Err(error) => {
            context(appended.undo(), "shorten", path)?;
            Err(error)
        }
    }
}

/// The last bytes of a file, at most `limit`, and whether they are all of it; nothing where there is no file.
pub fn tail(path: &Path, limit: u64) -> Result<(Vec<u8>, bool), Error> {
    let read = || {
        let mut file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), true)),
            opened => opened?,
        };
        let start = file.metadata()?.len().saturating_sub(limit);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok((bytes, start == 0))
    };
    context(read(), "read", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::read;

    #[test]
    fn a_lock_is_for_one_and_tells_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let lock = Lock::acquire(&path, Duration::ZERO).unwrap();
        let said = Lock::acquire(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(said.contains(&format!("process {} ", std::process::id())), "{said}");
        drop(lock);
        // What another test starts holds all that it inherits until it is executed.
        Lock::acquire(&path, Duration::from_secs(30)).unwrap();
    }

    #[test]
    fn the_holder_is_found_by_the_inode() {
        let locks = "1: FLOCK  ADVISORY  WRITE 21 fe:00:7 0 EOF\n2: POSIX  ADVISORY  READ 22 fe:00:8 0 EOF\n\
                     2: -> FLOCK ADVISORY WRITE 24 fe:00:9 0 EOF\n3: FLOCK  ADVISORY  WRITE 23 fe:00:8 0 EOF\n";
        assert_eq!(locked_by(locks, 8), Some(23));
        assert_eq!(locked_by(locks, 9), None);
        assert_eq!(locked_by("", 8), None);
    }

    #[test]
    fn what_is_appended_stays_and_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, 0o600, b"one\n").unwrap();
        let two = append(&path, 0o600, b"two\n").unwrap();
        assert_eq!(read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(tail(&path, 4).unwrap(), (b"two\n".to_vec(), false));
        two.undo().unwrap();
        assert_eq!(tail(&path, 4).unwrap(), (b"one\n".to_vec(), true));
        assert_eq!(tail(&folder.path().join("none"), 4).unwrap(), (Vec::new(), true));
    }
}
