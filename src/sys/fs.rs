//! Files: reads that name the path, writes that are whole or absent.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A file operation that failed: what was tried, where, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct Error {
    /// Verb of the operation, e.g. `read`.
    pub action: &'static str,
    /// Path it was about.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl Error {
    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Adds action and path to an I/O result.
pub fn context<T>(result: io::Result<T>, action: &'static str, path: &Path) -> Result<T, Error> {
    result.map_err(|source| Error { action, path: path.to_owned(), source })
}

/// What was found; `None` where nothing lies at the path. Every other failure stays one.
pub fn if_there<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(None),
        found => found.map(Some),
    }
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    context(fs::read(path), "read", path)
}

/// Reads at most `limit` bytes; a longer file is an error of kind [`io::ErrorKind::FileTooLarge`].
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let bounded = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the file is larger than {limit} bytes"),
            ));
        }
        Ok(bytes)
    };
    context(bounded(), "read", path)
}

/// Opens a file to read from.
pub fn open(path: &Path) -> Result<fs::File, Error> {
    context(fs::File::open(path), "open", path)
}

/// Opens a file to change it, unless another process of ours does that now.
pub fn open_alone(path: &Path) -> Result<fs::File, Error> {
    let file = context(fs::OpenOptions::new().read(true).write(true).open(path), "open", path)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) => context(Err(error.into()), "lock", path),
    }
}

/// The path without links, `.` and `..`.
pub fn canonical(path: &Path) -> Result<PathBuf, Error> {
    context(fs::canonicalize(path), "look at", path)
}

/// Length of a file in bytes.
pub fn size(path: &Path) -> Result<u64, Error> {
    Ok(context(fs::metadata(path), "read", path)?.len())
}

/// Number of the file or folder at a path itself: it stays the same whatever its name is.
pub fn inode(path: &Path) -> Result<u64, Error> {
    Ok(std::os::unix::fs::MetadataExt::ino(&context(fs::symlink_metadata(path), "look at", path)?))
}

/// Bytes that this user may still write to the file system of a folder.
pub fn free_space(path: &Path) -> Result<u64, Error> {
    let found = context(rustix::fs::statvfs(path).map_err(io::Error::from), "look at", path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Creates a folder and those above it.
pub fn create_dir_all(path: &Path) -> Result<(), Error> {
    context(fs::create_dir_all(path), "create folder", path)
}

/// Paths in a folder, sorted.
pub fn list(path: &Path) -> Result<Vec<PathBuf>, Error> {
    list_named(path, |_| true)
}

/// Paths in a folder whose names are `wanted`, sorted.
pub fn list_named(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in context(fs::read_dir(path), "list", path)? {
        let entry = context(entry, "list", path)?;
        if wanted(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, with its target as it is written.
    Link(PathBuf),
    /// A device, a pipe or a socket.
    Other,
}

/// What lies at `path` itself: links are not followed.
pub fn entry(path: &Path) -> Result<Entry, Error> {
    let kind = context(fs::symlink_metadata(path), "look at", path)?.file_type();
    if kind.is_symlink() {
        return Ok(Entry::Link(context(fs::read_link(path), "read", path)?));
    }
    Ok(match (kind.is_dir(), kind.is_file()) {
        (true, _) => Entry::Folder,
        (_, true) => Entry::File,
        _ => Entry::Other,
    })
}

/// Removes a file; a missing one is already removed.
pub fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => context(result, "remove", path),
    }
}

/// Removes a file whose content must not stay behind: overwritten with zeroes in place, then removed, each durably.
/// What a disk keeps of sectors that it has replaced by itself is out of reach.
pub fn erase(path: &Path) -> Result<(), Error> {
    let erase = || {
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        let size = file.metadata()?.len();
        io::copy(&mut io::repeat(0).take(size), &mut file)?;
        file.sync_all()
    };
    context(erase(), "overwrite", path)?;
    remove_file(path)?;
    sync_parent(path)
}

/// Removes a folder with its content; a missing one is already removed.
pub fn remove_dir_all(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => context(result, "remove", path),
    }
}

/// A folder that this process alone works in while the value lives: others that want the same wait.
#[derive(Debug)]
pub struct Locked(#[expect(dead_code, reason = "the lock lasts as long as the open file")] fs::File);

/// Locks `folder`, makes it if need be, and removes what processes that were killed left in it: entries whose
/// names start with `litter`.
pub fn lock_and_tidy(folder: &Path, litter: &str) -> Result<Locked, Error> {
    create_dir_all(folder)?;
    let file = lock(folder)?;
    for path in list(folder)? {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(litter)) {
            if path.is_dir() { remove_dir_all(&path)? } else { remove_file(&path)? }
        }
    }
    Ok(Locked(file))
}

/// A folder for the work of one process; it goes with the value.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    /// Says that the folder is in use, even when this process is killed: then the system lets go of it.
    _locked: fs::File,
}

impl Scratch {
    /// Makes a folder in `parent`, whose name starts with `prefix`, and removes those of that prefix whose process
    /// was killed.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self, Error> {
        // Whoever has the parent locked makes and removes; a folder that it finds unlocked is nobody's.
        let parent_locked = lock(parent)?;
        for path in list(parent)? {
            let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
            if ours && path.is_dir() && is_abandoned(&path)? {
                remove_dir_all(&path)?;
            }
        }
        let folder = context(tempfile::Builder::new().prefix(prefix).tempdir_in(parent), "write in", parent)?;
        let own = lock(folder.path())?;
        drop(parent_locked);
        Ok(Self { folder, _locked: own })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its final name, under which it stays.
    pub fn keep(self, path: &Path) -> Result<(), Error> {
        rename(self.folder.path(), path)?;
        // Nothing is left at the old path to remove.
        let _ = self.folder.keep();
        Ok(())
    }
}

/// Opens what is at `path` and waits until nobody else has it locked.
fn lock(path: &Path) -> Result<fs::File, Error> {
    let file = open(path)?;
    let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive);
    context(locked.map_err(io::Error::from), "lock", path)?;
    Ok(file)
}

/// Whether nobody has it locked.
fn is_abandoned(path: &Path) -> Result<bool, Error> {
    let Some(file) = if_there(open(path))? else { return Ok(false) };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => context(Err(error.into()), "lock", path),
    }
}

/// Removes temporary files of `path` (see [`temporary`]) whose process was killed.
pub fn tidy_beside(path: &Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_ours = |other: &str| {
        let middle = other.strip_prefix(&format!(".{name}.")).and_then(|rest| rest.strip_suffix(".tmp"));
        middle.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
    };
    for other in list(folder_of(path))? {
        let ours = other.file_name().is_some_and(|name| is_ours(&name.to_string_lossy()));
        if ours && other.is_file() && is_abandoned(&other)? {
            remove_file(&other)?;
        }
    }
    Ok(())
}

/// A hidden name in the folder of `path` that this process alone uses.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// The folder that `path` is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Renames within one file system and makes the rename durable.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    context(fs::rename(from, to), "rename to", to)?;
    sync_parent(to)
}

/// Moves a file to another name on a FAT file system, durably. There a new name is written with neither the file's first
/// cluster nor its size: these come with the file, so that syncing the folder alone, or before, leaves an empty file
/// behind when the power is lost. What is synced here is all of the file system, files first.
pub fn rename_on_fat(from: &Path, to: &Path) -> Result<(), Error> {
    context(fs::rename(from, to), "rename to", to)?;
    sync_system(folder_of(to))
}

/// Writes a file so that a reader, or a power loss, sees the old content or the new, never a part:
/// temporary file with its final mode, fsync, rename, fsync of the folder.
pub fn write_atomic(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let temporary = write_temporary(path, mode, bytes)?;
    let renamed = rename(&temporary, path);
    if renamed.is_err() {
        remove_file(&temporary)?;
    }
    renamed
}

/// Whether something is there, a dangling link included.
pub fn exists(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => context(Err(error), "look at", path),
    }
}

/// Gives a file a second name.
pub fn link(from: &Path, to: &Path) -> Result<(), Error> {
    context(fs::hard_link(from, to), "create", to)
}

/// Sets the permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    context(fs::set_permissions(path, permissions), "set the mode of", path)
}

/// Like [`write_atomic`], but never replaces a file: one that is there is an error of kind
/// [`io::ErrorKind::AlreadyExists`].
pub fn create_atomic(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    place(&write_temporary(path, mode, bytes)?, path)
}

/// Gives a file that is whole and durable its name, under which nothing must be yet. On FAT, which knows no second names,
/// that is a rename; a file system over the network may know only these.
pub fn place(temporary: &Path, path: &Path) -> Result<(), Error> {
    let placed = match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(temporary, path),
        renamed => renamed.map_err(io::Error::from),
    };
    remove_file(temporary)?;
    context(placed, "create", path)?;
    // See `rename_on_fat`: where the file lies goes to its new name with the file.
    context(fs::File::open(path).and_then(|file| file.sync_all()), "sync", path)?;
    sync_parent(path)
}

/// Writes the whole content beside `path`, durably, and returns where: [`rename`] puts it in place.
pub fn write_temporary(path: &Path, mode: u32, bytes: &[u8]) -> Result<PathBuf, Error> {
    let temporary = temporary(path);
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        // `mode` above is narrowed by the umask.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    match context(write(), "write", path) {
        Ok(()) => Ok(temporary),
        Err(error) => {
            remove_file(&temporary)?;
            Err(error)
        }
    }
}

/// Has the system forget what it remembers of a file that is synced: whoever reads it next asks the disk.
pub fn forget(file: &fs::File, path: &Path) -> Result<(), Error> {
    let forgotten = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    context(forgotten.map_err(io::Error::from), "read back", path)
}

/// Opens an empty file beside `path`, for what is too long to be kept in memory: who has written and synced it gives it
/// its place with [`rename`].
pub fn open_temporary(path: &Path, mode: u32) -> Result<(PathBuf, fs::File), Error> {
    let temporary = temporary(path);
    let options =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(mode).open(&temporary);
    let file = context(options, "write", path)?;
    context(file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)), "write", path)?;
    Ok((temporary, file))
}

/// Writes a file where it lies: whoever has it open or mounted sees the new content, and never an empty file meanwhile.
pub fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)
    };
    context(write(), "write", path)
}

/// Writes a new file with its final mode; for folders that are themselves put in place when all is written.
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(bytes)
    };
    context(write(), "write", path)
}

/// Writes a file so that a reader sees the old content or the new, never a part. Not durable: for what the next boot
/// need not find.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let temporary = temporary(path);
    let replaced = write(&temporary, mode, bytes)
        .and_then(|()| context(fs::rename(&temporary, path), "rename to", path));
    if replaced.is_err() {
        remove_file(&temporary)?;
    }
    replaced
}

/// Makes a change of names in the folder of `path` durable.
pub fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = folder_of(path);
    context(fs::File::open(parent).and_then(|folder| folder.sync_all()), "sync", parent)
}

/// Waits until all that was written to the file system of `path` is on its disk.
pub fn sync_system(path: &Path) -> Result<(), Error> {
    context(fs::File::open(path).and_then(|folder| Ok(rustix::fs::syncfs(folder)?)), "sync", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_atomic_write_replaces_content_and_mode_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomic(&path, 0o644, b"old").unwrap();
        write_atomic(&path, 0o600, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn a_replaced_file_has_the_new_content_and_mode_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, 0o644, b"the old one").unwrap();
        replace(&path, 0o600, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        create_dir_all(&folder.path().join("folder/inside")).unwrap();
        assert!(replace(&folder.path().join("folder"), 0o600, b"new").is_err());
        assert_eq!(list(folder.path()).unwrap(), [path, folder.path().join("folder")]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        create_dir_all(&path.join("inside")).unwrap();
        let error = write_atomic(&path, 0o644, b"new").unwrap_err();
        assert!(error.to_string().ends_with("folder"), "{error}");
        assert_eq!(list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn an_atomic_creation_never_replaces_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create_atomic(&path, 0o600, b"first").unwrap();
        let error = create_atomic(&path, 0o600, b"second").unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).unwrap(), b"first");
        assert_eq!(list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn a_locked_folder_is_tidy_and_the_next_one_waits() {
        let folder = tempfile::tempdir().unwrap();
        create_dir_all(&folder.path().join(".new-1/inside")).unwrap();
        write(&folder.path().join(".new-2"), 0o644, b"").unwrap();
        write(&folder.path().join("kept"), 0o644, b"").unwrap();
        let locked = lock_and_tidy(folder.path(), ".new-").unwrap();
        assert_eq!(list(folder.path()).unwrap(), [folder.path().join("kept")]);
        let other = open(folder.path()).unwrap();
        let try_lock = || rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        assert!(try_lock().is_err());
        drop(locked);
        try_lock().unwrap();
    }

    #[test]
    fn scratch_folders_of_the_living_stay_and_those_of_the_killed_go() {
        let folder = tempfile::tempdir().unwrap();
        let living = Scratch::new(folder.path(), ".work-").unwrap();
        create_dir_all(&folder.path().join(".work-dead/inside")).unwrap();
        create_dir_all(&folder.path().join("kept")).unwrap();
        let other = Scratch::new(folder.path(), ".work-").unwrap();
        assert!(living.path().is_dir() && !folder.path().join(".work-dead").exists());
        other.keep(&folder.path().join("made")).unwrap();
        drop(living);
        assert_eq!(list(folder.path()).unwrap(), [folder.path().join("kept"), folder.path().join("made")]);
    }

    #[test]
    fn only_abandoned_temporary_files_of_that_name_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [".image.7.tmp", ".image.8.tmp", ".image.x.tmp", ".other.7.tmp", "image", ".image.tmp"] {
            write(&path(name), 0o644, b"").unwrap();
        }
        let used = lock(&path(".image.8.tmp")).unwrap();
        tidy_beside(&path("image")).unwrap();
        assert!(!path(".image.7.tmp").exists());
        assert_eq!(list(folder.path()).unwrap().len(), 5);
        drop(used);
    }

    #[test]
    fn a_bounded_read_refuses_a_longer_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomic(&path, 0o644, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err().source.kind(), io::ErrorKind::FileTooLarge);
    }
}
