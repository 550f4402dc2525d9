//! Rendered trees on disk: read whole, replaced whole.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::fs::{Error, context, create_dir_all, exists, remove_dir_all, rename, sync_system};
use crate::tree::{Entry, Tree};

/// Reads the tree at `root`. Folders count only when they are empty; anything but files, folders and links
/// is an error of kind [`io::ErrorKind::Unsupported`].
pub fn read(root: &Path) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    read_into(root, "", &mut tree)?;
    Ok(tree)
}

/// Reads those of `paths` that are there below `root`.
pub fn read_only<'a>(root: &Path, paths: impl IntoIterator<Item = &'a str>) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    for relative in paths {
        let path = root.join(relative);
        if exists(&path)? {
            let added = tree.add(relative, entry(&path)?).map_err(|_| io::ErrorKind::AlreadyExists.into());
            context(added, "read", &path)?;
        }
    }
    Ok(tree)
}

fn read_into(folder: &Path, prefix: &str, tree: &mut Tree) -> Result<(), Error> {
    for path in super::fs::list(folder)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = context(name.ok_or_else(|| io::ErrorKind::InvalidFilename.into()), "read", &path)?;
        let relative = format!("{prefix}{name}");
        let entry = entry(&path)?;
        if matches!(entry, Entry::Dir { .. }) && !super::fs::list(&path)?.is_empty() {
            read_into(&path, &format!("{relative}/"), tree)?;
            continue;
        }
        let added = tree.add(relative, entry).map_err(|_| io::ErrorKind::AlreadyExists.into());
        context(added, "read", &path)?;
    }
    Ok(())
}

fn entry(path: &Path) -> Result<Entry, Error> {
    let metadata = context(fs::symlink_metadata(path), "look at", path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_symlink() {
        let target = context(fs::read_link(path), "read link", path)?;
        Ok(Entry::Link { target: target.to_string_lossy().into_owned() })
    } else if metadata.is_file() {
        Ok(Entry::File { mode, bytes: super::fs::read(path)? })
    } else if metadata.is_dir() {
        Ok(Entry::Dir { mode })
    } else {
        context(Err(io::ErrorKind::Unsupported.into()), "read special file", path)
    }
}

/// Makes the folder `target` be exactly `tree`, replacing whatever is there: the caller knows that it may go.
///
/// The tree is written beside its place, made durable, and swapped in at once. A failure leaves `target` as
/// it was and nothing beside it.
pub fn replace(target: &Path, tree: &Tree) -> Result<(), Error> {
    let shadow = beside(target, "new")?;
    if let Some(parent) = target.parent().filter(|parent| *parent != Path::new("")) {
        create_dir_all(parent)?;
    }
    remove_dir_all(&shadow)?;
    tidy(target)?;
    let replaced = write(&shadow, tree).and_then(|()| swap(&shadow, target));
    // After an exchange the old tree lies here, after a failure the unfinished one.
    let removed = remove_dir_all(&shadow);
    replaced.and(removed)
}

fn write(root: &Path, tree: &Tree) -> Result<(), Error> {
    make_dir(root, 0o755)?;
    for (path, entry) in tree.iter() {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            make_dirs(root, parent)?;
        }
        match entry {
            Entry::File { mode, bytes } => {
                context(fs::write(&path, bytes), "write", &path)?;
                context(fs::set_permissions(&path, Permissions::from_mode(*mode)), "set mode of", &path)?;
            }
            Entry::Link { target } => context(symlink(target, &path), "link", &path)?,
            Entry::Dir { mode } => make_dir(&path, *mode)?,
        }
    }
    sync_system(root)
}

/// Makes the missing folders between `root` and `folder`, with a mode that no umask narrows.
fn make_dirs(root: &Path, folder: &Path) -> Result<(), Error> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_dirs(root, parent)?;
    }
    make_dir(folder, 0o755)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    context(fs::create_dir(path), "create folder", path)?;
    context(fs::set_permissions(path, Permissions::from_mode(mode)), "set mode of", path)
}

/// Exchanges the folder `shadow` with `target`, durably, or puts it there; where the file system can, at once.
pub fn swap(shadow: &Path, target: &Path) -> Result<(), Error> {
    if !exists(target)? {
        return rename(shadow, target);
    }
    match renameat_with(CWD, shadow, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => super::fs::sync_parent(target),
        // This file system cannot exchange: there is a moment without `target`.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let old = beside(target, "old")?;
            remove_dir_all(&old)?;
            rename(target, &old)?;
            if let Err(error) = rename(shadow, target) {
                rename(&old, target)?;
                return Err(error);
            }
            remove_dir_all(&old)
        }
        Err(error) => context(Err(error.into()), "swap in", target),
    }
}

/// Exchanges two folders at once, durably. A file system that cannot is an error, and nothing has changed.
pub fn exchange(one: &Path, other: &Path) -> Result<(), Error> {
    let exchanged = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
    context(exchanged.map_err(io::Error::from), "exchange", other)?;
    super::fs::sync_parent(other)
}

/// Removes the unfinished trees of processes that were killed.
fn tidy(target: &Path) -> Result<(), Error> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    for sibling in super::fs::list(super::fs::folder_of(target))? {
        let sibling_name = sibling.file_name().unwrap_or_default().to_string_lossy();
        let rest = sibling_name.strip_prefix(&format!(".{name}.")).and_then(|rest| rest.strip_suffix(".new"));
        let Some(Ok(owner)) = rest.map(str::parse::<u32>) else { continue };
        if !exists(&Path::new("/proc").join(owner.to_string()))? {
            remove_dir_all(&sibling)?;
        }
    }
    Ok(())
}

/// A hidden sibling of `target` that no other process uses.
fn beside(target: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let name = target.file_name().ok_or_else(|| io::ErrorKind::InvalidFilename.into());
    let mut hidden = OsString::from(".");
    hidden.push(context(name, "replace", target)?);
    hidden.push(format!(".{}.{suffix}", std::process::id()));
    Ok(target.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Tree {
        let mut tree = Tree::default();
        tree.file("usr/share/a", text).unwrap();
        tree.add("secret", Entry::File { mode: 0o600, bytes: vec![0xff] }).unwrap();
        tree.add("var/empty", Entry::Dir { mode: 0o700 }).unwrap();
        tree.link("usr/link", "share/a").unwrap();
        tree
    }

    #[test]
    fn a_tree_reads_back_as_it_was_written_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/tree");
        let mut old = sample("old");
        old.file("stale/file", "x").unwrap();
        replace(&target, &old).unwrap();
        replace(&target, &sample("new")).unwrap();
        assert_eq!(read(&target).unwrap(), sample("new"));
        assert_eq!(super::super::fs::list(&folder.path().join("deep")).unwrap(), [target]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_tree_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("tree");
        replace(&target, &sample("old")).unwrap();
        let mut broken = sample("new");
        broken.file("secret/below-a-file", "x").unwrap();
        assert!(replace(&target, &broken).is_err());
        assert_eq!(read(&target).unwrap(), sample("old"));
        assert_eq!(super::super::fs::list(folder.path()).unwrap(), [target]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let [target, dead, living] =
            ["tree", ".tree.4294967295.new", ".tree.1.new"].map(|name| folder.path().join(name));
        for path in [&dead, &living] {
            replace(path, &sample("unfinished")).unwrap();
        }
        replace(&target, &sample("new")).unwrap();
        assert_eq!(super::super::fs::list(folder.path()).unwrap(), [living, target]);
    }

    #[test]
    fn a_special_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().ends_with("socket"));
    }
}
