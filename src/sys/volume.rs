//! Volumes on disk: read and written entry by entry, each by its name in an open folder. Who owns the content may put a
//! link in the place of a folder at any time; no link is ever followed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, ioctl_ficlone,
    mkdirat, openat, readlinkat, statat, symlinkat, syncfs,
};
use rustix::io::Errno;

use super::fs::{Error, context};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// When it was changed last, in seconds since the epoch; earlier than that counts as 0.
        modified: u64,
    },
    /// A symbolic link, with its target as it is written.
    Link(PathBuf),
}

/// An entry of a volume, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path in the volume; empty for the volume's own folder, which comes first. A folder comes before what is in it.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permission bits; 0o777 for a link.
    pub mode: u32,
    /// Number of its user, as the host sees it.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
}

/// Gets the entries of a volume, each with its content.
pub type Each<'a, E> = &'a mut dyn FnMut(&Item, &mut dyn Read) -> Result<(), E>;

/// Gives every entry of the folder `root` to `each`: a folder before what is in it, names in byte order. Returns the paths
/// of what was passed over: sockets, pipes, devices.
///
/// # Errors
/// Something cannot be read, or `each` has one.
pub fn read<E: From<Error>>(root: &Path, each: Each<'_, E>) -> Result<Vec<PathBuf>, E> {
    walk(root, &mut |item, file| match file {
        Some(mut file) => each(item, &mut file),
        None => each(item, &mut io::empty()),
    })
}

/// Copies the folder `root` to `to`, where nothing is yet, as far as [`read`] gives it. The copies share the blocks of
/// their files until one of the two is written: this takes no longer than the names do. Returns what was passed over;
/// `None` where the file system shares no blocks, and then nothing is left.
///
/// # Errors
/// Something cannot be read or written.
pub fn share(root: &Path, to: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let mut writer = Writer::new(to);
    let shared = walk(root, &mut |item, file| {
        writer.fill(item, &mut |copy| match (file, &item.kind) {
            (Some(file), Kind::File { size, .. }) => {
                ioctl_ficlone(copy, file).map(|()| *size).map_err(Into::into)
            }
            _ => Ok(0),
        })
    });
    let cannot = |error: &Error| {
        let errno = error.source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS))
    };
    match shared {
        Ok(skipped) => Ok(Some(skipped)),
        Err(error) => {
            super::fs::remove_dir_all(to)?;
            if cannot(&error) { Ok(None) } else { Err(error) }
        }
    }
}

/// Gets the entries of a volume, each file open.
type EachOpen<'a, E> = &'a mut dyn FnMut(&Item, Option<&File>) -> Result<(), E>;

fn walk<E: From<Error>>(root: &Path, each: EachOpen<'_, E>) -> Result<Vec<PathBuf>, E> {
    let folder = context(open(&CWD, root.as_os_str().as_bytes(), FOLDER), "open", root)?;
    let mut skipped = Vec::new();
    walk_folder(root, Path::new(""), &folder, each, &mut skipped)?;
    Ok(skipped)
}

fn open(folder: &impl std::os::fd::AsFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(folder, name, flags, Mode::empty())?)
}

fn walk_folder<E: From<Error>>(
    root: &Path,
    path: &Path,
    folder: &OwnedFd,
    each: EachOpen<'_, E>,
    skipped: &mut Vec<PathBuf>,
) -> Result<(), E> {
    let stat = context(fstat(folder).map_err(Into::into), "look at", &root.join(path))?;
    each(&item(path.to_owned(), Kind::Folder, &stat), None)?;
    for name in context(names(folder), "list", &root.join(path))? {
        let path = path.join(&name);
        let full = root.join(&path);
        let name = name.as_bytes();
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into);
        let stat = context(stat, "look at", &full)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = context(open(folder, name, FOLDER), "open", &full)?;
                walk_folder(root, &path, &inner, each, skipped)?;
            }
            FileType::Symlink => {
                let target =
                    context(readlinkat(folder, name, Vec::new()).map_err(Into::into), "read", &full)?;
                let target = OsString::from_vec(target.into_bytes()).into();
                each(&item(path, Kind::Link(target), &stat), None)?;
            }
            FileType::RegularFile => {
                // A pipe that took the file's place would keep us waiting.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(context(open(folder, name, flags), "open", &full)?);
                let stat = context(fstat(&file).map_err(Into::into), "look at", &full)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    context(Err(io::Error::other("it changed while it was read")), "read", &full)?;
                }
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                let modified = u64::try_from(stat.st_mtime).unwrap_or_default();
                each(&item(path, Kind::File { size, modified }, &stat), Some(&file))?;
            }
            _ => skipped.push(path),
        }
    }
    Ok(())
}

fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

fn item(path: PathBuf, kind: Kind, stat: &Stat) -> Item {
    let mode = if matches!(kind, Kind::Link(_)) { 0o777 } else { stat.st_mode & 0o7777 };
    Item { path, kind, mode, uid: stat.st_uid, gid: stat.st_gid }
}

/// Length of all files in a folder together, in bytes. What goes meanwhile does not count.
///
/// # Errors
/// A folder cannot be read.
pub fn size(root: &Path) -> Result<u64, Error> {
    let folder = context(open(&CWD, root.as_os_str().as_bytes(), FOLDER), "open", root)?;
    context(size_of(&folder), "look at", root)
}

fn size_of(folder: &OwnedFd) -> io::Result<u64> {
    let mut size = 0_u64;
    for name in names(folder)? {
        let look = || {
            let stat = statat(folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => size_of(&open(folder, name.as_bytes(), FOLDER)?),
                FileType::RegularFile => Ok(u64::try_from(stat.st_size).unwrap_or_default()),
                _ => Ok(0),
            }
        };
        match look() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => size = size.saturating_add(found?),
        }
    }
    Ok(size)
}

/// A volume that is being written, in the order in which [`read`] gives it.
pub struct Writer {
    root: PathBuf,
    /// The folders that lead to what was written last.
    open: Vec<(PathBuf, OwnedFd)>,
}

impl Writer {
    /// One whose folder will be `root`, where nothing is yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: Vec::new() }
    }

    /// Writes an entry with owner and mode.
    ///
    /// # Errors
    /// The disk refuses, something is there already, or the entry's folder is not the one that was written last.
    pub fn add(&mut self, item: &Item, content: &mut dyn Read) -> Result<(), Error> {
        self.fill(item, &mut |file| io::copy(content, file))
    }

    /// The same with a file that `content` fills; it returns how many bytes it wrote.
    fn fill(
        &mut self,
        item: &Item,
        content: &mut dyn FnMut(&mut File) -> io::Result<u64>,
    ) -> Result<(), Error> {
        let full = if item.path == Path::new("") { self.root.clone() } else { self.root.join(&item.path) };
        context(self.write(item, content), "write", &full)
    }

    fn write(
        &mut self,
        item: &Item,
        content: &mut dyn FnMut(&mut File) -> io::Result<u64>,
    ) -> io::Result<()> {
        let Item { path, kind, mode, uid, gid } = item;
        let Some(name) = path.file_name() else {
            // The volume's own folder.
            if !self.open.is_empty() || *kind != Kind::Folder {
                return Err(misplaced());
            }
            mkdirat(CWD, &self.root, Mode::RWXU)?;
            let folder = openat(CWD, &self.root, FOLDER, Mode::empty())?;
            own(&folder, *mode, *uid, *gid)?;
            self.open.push((PathBuf::new(), folder));
            return Ok(());
        };
        while self.open.last().is_some_and(|(open, _)| Some(open.as_path()) != path.parent()) {
            self.open.pop();
        }
        let (_, folder) = self.open.last().ok_or_else(misplaced)?;
        match kind {
            Kind::Folder => {
                mkdirat(folder, name, Mode::RWXU)?;
                let inner = openat(folder, name, FOLDER, Mode::empty())?;
                own(&inner, *mode, *uid, *gid)?;
                self.open.push((path.clone(), inner));
            }
            Kind::File { size, modified } => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
                if content(&mut file)? != *size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                own(&file, *mode, *uid, *gid)?;
                file.set_modified(UNIX_EPOCH + Duration::from_secs((*modified).min(i64::MAX as u64)))?;
            }
            Kind::Link(target) => {
                symlinkat(target, folder, name)?;
                let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if (stat.st_uid, stat.st_gid) != (*uid, *gid) {
                    let owner = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                    chownat(folder, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
        }
        Ok(())
    }

    /// Makes all of it durable.
    ///
    /// # Errors
    /// The disk refuses, or nothing was written.
    pub fn end(self) -> Result<(), Error> {
        let synced = self.open.first().ok_or_else(misplaced).and_then(|(_, folder)| Ok(syncfs(folder)?));
        context(synced, "sync", &self.root)
    }
}

fn misplaced() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the snapshot holds an entry before its folder")
}

/// Gives owner and mode; the mode behind the owner, of whom it depends.
fn own(file: &impl std::os::fd::AsFd, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    let stat = fstat(file)?;
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        fchown(file.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn listed(root: &Path) -> (Vec<(Item, Vec<u8>)>, Vec<PathBuf>) {
        let mut found = Vec::new();
        let skipped = read::<Error>(root, &mut |item, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).unwrap();
            found.push((item.clone(), bytes));
            Ok(())
        });
        (found, skipped.unwrap())
    }

    #[test]
    fn what_is_read_is_written_and_reads_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        super::super::fs::create_dir_all(&from.join("a/b")).unwrap();
        super::super::fs::write(&from.join("a/b/file"), 0o640, b"rows").unwrap();
        super::super::fs::write(&from.join("a.txt"), 0o4755, b"").unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        super::super::fs::set_mode(&from.join("a"), 0o2750).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        let (entries, skipped) = listed(&from);
        let paths: Vec<_> = entries.iter().map(|(item, _)| item.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["", "a", "a/b", "a/b/file", "a.txt", "link"]);
        assert_eq!(skipped, [PathBuf::from("socket")]);
        let mut writer = Writer::new(&to);
        for (item, content) in &entries {
            writer.add(item, &mut content.as_slice()).unwrap();
        }
        writer.end().unwrap();
        assert_eq!(listed(&to).0, entries);
        let metadata = std::fs::metadata(to.join("a.txt")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755);
        assert_eq!(metadata.mtime(), std::fs::metadata(from.join("a.txt")).unwrap().mtime());
    }

    #[test]
    fn an_entry_cannot_leave_its_volume_through_a_link_or_out_of_order() {
        let scratch = tempfile::tempdir().unwrap();
        let (outside, to) = (scratch.path().join("outside"), scratch.path().join("to"));
        super::super::fs::create_dir_all(&outside).unwrap();
        let item = |path: &str, kind: Kind| Item { path: path.into(), kind, mode: 0o755, uid: 0, gid: 0 };
        let own = std::fs::metadata(&outside).unwrap();
        let item = |path: &str, kind: Kind| Item { uid: own.uid(), gid: own.gid(), ..item(path, kind) };
        let file = |path: &str| item(path, Kind::File { size: 1, modified: 0 });
        let mut writer = Writer::new(&to);
        assert!(writer.add(&file("early"), &mut &b"x"[..]).is_err());
        writer.add(&item("", Kind::Folder), &mut io::empty()).unwrap();
        writer.add(&item("link", Kind::Link(outside.clone())), &mut io::empty()).unwrap();
        assert!(writer.add(&file("link/file"), &mut &b"x"[..]).is_err());
        let mut writer = Writer::new(&scratch.path().join("other"));
        writer.add(&item("", Kind::Folder), &mut io::empty()).unwrap();
        assert!(writer.add(&file("none/file"), &mut &b"x"[..]).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}
