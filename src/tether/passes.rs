//! Passes: the grants of the Veil's pinned routes as files. A pass is an empty file, named by an address, in a folder
//! named by the service; the Veil looks for it at each request.
//!
//! So the Veil needs to be told nothing: its configuration is sealed, and it has no administration. What is not there
//! is not served; what is there outlives the agent. The Veil has this very folder, so that it must never be replaced.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::codex::name::Name;
use crate::sys::fs::{self, Entry, Error};

/// Where the agent keeps them, and the Veil's container finds them.
pub const PATH: &str = "/run/sepulcher/agent/veil";

/// The passes in a folder.
pub struct Passes {
    folder: PathBuf,
    /// What was there when we last left it, below the folder; `None` when that is not known.
    left: Option<BTreeSet<PathBuf>>,
}

/// What lies in the folder.
#[derive(Default)]
struct Found {
    /// Paths of files where passes lie.
    passes: BTreeSet<PathBuf>,
    /// Paths of what is no pass.
    strays: Vec<PathBuf>,
}

impl Passes {
    /// Of whoever was there before.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), left: None }
    }

    /// Takes away what is not `granted`. True when somebody else has been there.
    pub fn take(&mut self, granted: &BTreeSet<(Name, IpAddr)>) -> Result<bool, Error> {
        let Found { mut passes, strays } = self.look()?;
        let left = self.left.take();
        let changed = left.is_some_and(|left| left != passes || !strays.is_empty());
        let granted = paths(granted);
        for stray in strays {
            self.remove(&stray)?;
        }
        for pass in passes.difference(&granted) {
            fs::remove_file(&self.folder.join(pass))?;
        }
        passes.retain(|pass| granted.contains(pass));
        self.left = Some(passes);
        Ok(changed)
    }

    /// Lays down what is `granted` and not there; the rest was taken before.
    pub fn give(&mut self, granted: &BTreeSet<(Name, IpAddr)>) -> Result<(), Error> {
        self.ensure(Path::new(""))?;
        let left = self.left.get_or_insert_default();
        let missing: Vec<_> = paths(granted).into_iter().filter(|pass| !left.contains(pass)).collect();
        for pass in missing {
            self.ensure(fs::folder_of(&pass))?;
            fs::write(&self.folder.join(&pass), 0o644, b"")?;
            self.left.get_or_insert_default().insert(pass);
        }
        Ok(())
    }

    fn look(&self) -> Result<Found, Error> {
        let mut found = Found::default();
        for owner in names(&self.folder)? {
            let owner = PathBuf::from(owner);
            if fs::entry(&self.folder.join(&owner))? != Entry::Folder {
                found.strays.push(owner);
                continue;
            }
            for name in names(&self.folder.join(&owner))? {
                let path = owner.join(name);
                match fs::entry(&self.folder.join(&path))? {
                    Entry::File => {
                        found.passes.insert(path);
                    }
                    _ => found.strays.push(path),
                }
            }
        }
        Ok(found)
    }

    fn remove(&self, stray: &Path) -> Result<(), Error> {
        let path = self.folder.join(stray);
        match fs::entry(&path)? {
            Entry::Folder => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        }
    }

    /// Makes a folder below ours, or ours, that whoever is the Veil may look into.
    fn ensure(&self, below: &Path) -> Result<(), Error> {
        let path = self.folder.join(below);
        if !fs::exists(&path)? {
            fs::create_dir_all(&path)?;
            fs::set_mode(&path, 0o755)?;
        }
        Ok(())
    }
}

/// Names in a folder; none when it is not there.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let listed = fs::if_there(fs::list(folder))?.unwrap_or_default();
    Ok(listed.iter().filter_map(|path| path.file_name()).map(std::ffi::OsStr::to_owned).collect())
}

/// Where the passes lie below the folder: `intercom/10.88.16.2`, `intercom/fd88::2`.
fn paths(granted: &BTreeSet<(Name, IpAddr)>) -> BTreeSet<PathBuf> {
    granted.iter().map(|(owner, address)| Path::new(owner.as_str()).join(address.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(passes: &[(&str, &str)]) -> BTreeSet<(Name, IpAddr)> {
        passes.iter().map(|(owner, address)| (owner.parse().unwrap(), address.parse().unwrap())).collect()
    }

    fn lying(folder: &Path) -> Vec<String> {
        let shown = |path: &PathBuf| path.strip_prefix(folder).unwrap().display().to_string();
        let owners = fs::list(folder).unwrap();
        owners.iter().flat_map(|owner| fs::list(owner).unwrap()).map(|path| shown(&path)).collect()
    }

    #[test]
    fn passes_are_taken_and_given_one_by_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("veil");
        let mut passes = Passes::new(&folder);
        let two = granted(&[("intercom", "10.88.16.2"), ("oculus", "fd88:0:0:16::2")]);
        assert!(!passes.take(&two).unwrap());
        assert!(!folder.exists(), "what is to be given waits until it is");
        passes.give(&two).unwrap();
        assert_eq!(lying(&folder), ["intercom/10.88.16.2", "oculus/fd88:0:0:16::2"]);
        let inode = fs::inode(&folder).unwrap();
        let other = granted(&[("intercom", "10.88.16.2"), ("intercom", "10.88.16.3")]);
        assert!(!passes.take(&other).unwrap());
        assert_eq!(lying(&folder), ["intercom/10.88.16.2"]);
        passes.give(&other).unwrap();
        assert_eq!(lying(&folder), ["intercom/10.88.16.2", "intercom/10.88.16.3"]);
        assert!(!passes.take(&other).unwrap(), "nobody else was there");
        assert_eq!(fs::inode(&folder).unwrap(), inode, "the Veil has this folder");
    }

    #[test]
    fn what_somebody_else_did_is_found_and_put_right() {
        use crate::sys::fs::{create_dir_all, remove_dir_all, write};
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("veil");
        let phone = granted(&[("intercom", "10.88.16.2")]);
        let mut passes = Passes::new(&folder);
        let spoil: [fn(&Path); 5] = [
            |folder| write(&folder.join("intercom/10.88.16.3"), 0o644, b"").unwrap(),
            |folder| fs::remove_file(&folder.join("intercom/10.88.16.2")).unwrap(),
            |folder| {
                let link = folder.join("intercom/10.88.16.9");
                rustix::fs::symlink("10.88.16.2", link).unwrap();
            },
            |folder| create_dir_all(&folder.join("intercom/10.88.16.4/x")).unwrap(),
            |folder| remove_dir_all(folder).unwrap(),
        ];
        passes.take(&phone).unwrap();
        passes.give(&phone).unwrap();
        for spoil in spoil {
            spoil(&folder);
            assert!(passes.take(&phone).unwrap());
            passes.give(&phone).unwrap();
            assert_eq!(lying(&folder), ["intercom/10.88.16.2"]);
            assert!(!passes.take(&phone).unwrap());
        }
    }

    #[test]
    fn an_agent_takes_away_what_the_one_before_it_gave() {
        let root = tempfile::tempdir().unwrap();
        let mut before = Passes::new(root.path());
        before.give(&granted(&[("intercom", "10.88.16.2"), ("gone", "10.88.16.2")])).unwrap();
        let mut passes = Passes::new(root.path());
        assert!(!passes.take(&granted(&[("intercom", "10.88.16.2")])).unwrap(), "that is no drift");
        assert_eq!(lying(root.path()), ["intercom/10.88.16.2"]);
    }
}
