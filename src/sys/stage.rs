//! Big files in the making: written under no name (or a temporary one), then put in place whole.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use super::fs::{Error, context, folder_of, remove_file, rename, temporary, tidy_beside};

/// A file that appears at its path only when [`Staged::commit`] says so.
///
/// Where the file system can, it has no name until then, so that even a killed process leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    file: File,
    path: PathBuf,
    /// Its temporary name where the file system has no nameless files.
    temporary: Option<PathBuf>,
}

impl Staged {
    /// Starts a file that will be at `path`; the folder must exist. Removes what a killed process left beside it.
    pub fn create(path: &Path) -> Result<Self, Error> {
        tidy_beside(path)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let nameless = rustix::fs::open(folder_of(path), flags, Mode::from(0o600));
        let (file, temporary) = if let Ok(fd) = nameless {
            (fd.into(), None)
        } else {
            let temporary = temporary(path);
            let mut options = fs::OpenOptions::new();
            let opened = options.read(true).write(true).create(true).truncate(true).open(&temporary);
            (context(opened, "create", path)?, Some(temporary))
        };
        let staged = Self { file, path: path.to_owned(), temporary };
        // Says that it is not abandoned.
        let locked = rustix::fs::flock(&staged.file, FlockOperation::LockExclusive);
        context(locked.map_err(io::Error::from), "lock", path)?;
        Ok(staged)
    }

    /// The file, to write to and read back.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes the content durable, with permission bits `mode`, under a temporary name: what can fail is done.
    pub fn prepare(&mut self, mode: u32) -> Result<(), Error> {
        let flushed =
            self.file.set_permissions(fs::Permissions::from_mode(mode)).and_then(|()| self.file.sync_all());
        context(flushed, "write", &self.path)?;
        if self.temporary.is_none() {
            self.temporary = Some(self.name()?);
        }
        Ok(())
    }

    /// Makes content and name durable, with permission bits `mode`, replacing what was at the path.
    pub fn commit(mut self, mode: u32) -> Result<(), Error> {
        self.prepare(mode)?;
        if let Some(temporary) = &self.temporary {
            rename(temporary, &self.path)?;
        }
        self.temporary = None;
        Ok(())
    }

    /// Links the nameless file to a temporary name: a link cannot replace, a rename can.
    fn name(&self) -> Result<PathBuf, Error> {
        let temporary = temporary(&self.path);
        remove_file(&temporary)?;
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let linked = rustix::fs::linkat(CWD, own.as_str(), CWD, &temporary, AtFlags::SYMLINK_FOLLOW);
        context(linked.map_err(io::Error::from), "create", &self.path)?;
        Ok(temporary)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The error that brought us here is the one to tell.
            let _ = remove_file(temporary);
        }
    }
}

/// Copies a file's content, sharing blocks where the file system can.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    context(fs::copy(from, to), "copy", from).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::{list, read, write_atomic};
    use std::io::Write as _;

    #[test]
    fn a_staged_file_is_absent_until_it_is_committed_and_then_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        write_atomic(&path, 0o600, b"old").unwrap();
        let staged = Staged::create(&path).unwrap();
        staged.file().write_all(b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"old");
        staged.commit(0o644).unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(Staged::create(&folder.path().join("image")).unwrap());
        assert!(list(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_missing_folder_is_told_with_the_path() {
        let error = Staged::create(Path::new("/nonexistent/image")).unwrap_err();
        assert_eq!(error.to_string(), "cannot list /nonexistent");
    }
}
