//! A volume of a service in a snapshot: its entries, and the digest over all of them.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codex::Codex;
use crate::codex::name::Name;
pub use crate::sys::volume::{Item, Kind};
use crate::tree::Sha256Digest;

/// A volume in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name in the Codex.
    pub name: Name,
    /// The service that it belongs to.
    pub service: Name,
    /// Length of its files' content together, in bytes.
    pub size: u64,
    /// How many entries it has, its own folder included.
    pub entries: u64,
    /// How many sockets, pipes and devices were passed over: they are nothing without who holds them.
    pub skipped: u64,
    /// Digest over its entries: see [`Tally`].
    pub sha256: Sha256Digest,
}

/// Whether a path leads from a volume's folder to something in it.
pub fn is_inside(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
}

/// Counts entries and their content, in their order: lengths stand before all that could be longer or shorter, so that
/// two volumes with one digest have the same entries.
#[derive(Default)]
pub struct Tally {
    digest: Sha256,
    size: u64,
    entries: u64,
}

impl Tally {
    /// Counts an entry; the content of a file comes behind it.
    pub fn item(&mut self, item: &Item) {
        let Item { path, kind, mode, uid, gid } = item;
        self.entries += 1;
        self.text(path);
        for number in [mode, uid, gid] {
            self.digest.update(number.to_le_bytes());
        }
        match kind {
            Kind::Folder => self.digest.update(b"d"),
            Kind::File { size, modified } => {
                self.digest.update(b"f");
                self.digest.update(size.to_le_bytes());
                self.digest.update(modified.to_le_bytes());
            }
            Kind::Link(target) => {
                self.digest.update(b"l");
                self.text(target);
            }
        }
    }

    fn text(&mut self, path: &Path) {
        let bytes = path.as_os_str().as_bytes();
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
    }

    /// Counts a piece of a file.
    pub fn content(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.digest.update(bytes);
    }

    /// What a manifest says about the volume.
    pub fn volume(self, name: &Name, service: &Name, skipped: u64) -> Volume {
        Volume {
            name: name.clone(),
            service: service.clone(),
            size: self.size,
            entries: self.entries,
            skipped,
            sha256: Sha256Digest(self.digest.finalize().into()),
        }
    }

    /// Whether that is what was counted.
    pub fn is(self, volume: &Volume) -> bool {
        self.volume(&volume.name, &volume.service, volume.skipped) == *volume
    }
}

/// What services of a Codex have on a machine, for the manifest to name as long as it is not contained: volumes, and
/// secrets, which never are.
pub fn all(codex: &Codex) -> Vec<String> {
    let volumes = codex.services.values().flat_map(|service| &service.volumes);
    let volumes = volumes.map(|volume| format!("volume {}", volume.name));
    let all: BTreeSet<_> =
        volumes.chain(codex.secrets().map(|(_, secret)| format!("secret {secret}"))).collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, kind: Kind) -> Item {
        Item { path: path.into(), kind, mode: 0o644, uid: 999, gid: 999 }
    }

    fn counted(entries: &[(Item, &[u8])]) -> Volume {
        let mut tally = Tally::default();
        for (item, content) in entries {
            tally.item(item);
            tally.content(content);
        }
        tally.volume(&"data".parse().unwrap(), &"base".parse().unwrap(), 0)
    }

    #[test]
    fn whatever_differs_between_two_volumes_shows_in_the_digest() {
        let file = |size| Kind::File { size, modified: 7 };
        let link = |target: &str| Kind::Link(target.into());
        let one = counted(&[(item("a", file(2)), b"xy"), (item("b", file(1)), b"z")]);
        assert_eq!((one.entries, one.size), (2, 3));
        for other in [
            counted(&[(item("a", file(1)), b"x"), (item("b", file(2)), b"yz")]),
            counted(&[(item("a", file(2)), b"xy"), (item("b", file(1)), b"y")]),
            counted(&[(item("a", file(2)), b"xy"), (item("bz", file(0)), b"")]),
            counted(&[(item("a", file(2)), b"xy"), (item("b", link("z")), b"")]),
            counted(&[(item("a", file(2)), b"xy"), (item("b", Kind::Folder), b"")]),
            counted(&[(Item { uid: 0, ..item("a", file(2)) }, b"xy"), (item("b", file(1)), b"z")]),
            counted(&[(Item { mode: 0o600, ..item("a", file(2)) }, b"xy"), (item("b", file(1)), b"z")]),
        ] {
            assert_ne!(one.sha256, other.sha256, "{other:?}");
        }
        assert_eq!(one, counted(&[(item("a", file(2)), b"xy"), (item("b", file(1)), b"z")]));
    }

    #[test]
    fn only_paths_below_the_folder_are_inside() {
        for good in ["", "a", "a/b c", "a/..b"] {
            assert!(is_inside(Path::new(good)), "{good}");
        }
        for bad in ["/a", "..", "a/../b", "./a", "a/.."] {
            assert!(!is_inside(Path::new(bad)), "{bad}");
        }
    }
}
