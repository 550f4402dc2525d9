//! What rendering produces: a plain value from path to file, link or folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest, Sha256};

/// One rendered entry. Owner and group are always root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Permission bits, e.g. `0o644`.
        mode: u32,
        /// Content.
        bytes: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// What it points to.
        target: String,
    },
    /// A folder that must exist although nothing is rendered into it.
    Dir {
        /// Permission bits, e.g. `0o755`.
        mode: u32,
    },
}

/// Relative path (no leading slash, no `.` or `..`, `/` between components) → entry, in byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Entry>);

/// Two renderers claimed one path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two renderers claim the path {0}")]
pub struct Claimed(pub String);

impl Tree {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`Claimed`] when the path is already there.
    pub fn add(&mut self, path: impl Into<String>, entry: Entry) -> Result<(), Claimed> {
        let path = path.into();
        if self.0.contains_key(&path) {
            return Err(Claimed(path));
        }
        self.0.insert(path, entry);
        Ok(())
    }

    /// Adds a regular file of mode 0644.
    pub fn file(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Result<(), Claimed> {
        self.add(path, Entry::File { mode: 0o644, bytes: bytes.into() })
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: impl Into<String>, target: impl Into<String>) -> Result<(), Claimed> {
        self.add(path, Entry::Link { target: target.into() })
    }

    /// Adds every entry of `other`.
    pub fn extend(&mut self, other: Tree) -> Result<(), Claimed> {
        other.0.into_iter().try_for_each(|(path, entry)| self.add(path, entry))
    }

    /// The entry at `path`.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    /// Entries in byte order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was rendered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What differs between two trees as text, empty when nothing does: unified hunks, folders with a slash.
pub fn diff(old: &Tree, new: &Tree) -> String {
    let paths: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
    let mut text = String::new();
    for path in paths {
        text.push_str(&match (old.0.get(path), new.0.get(path)) {
            (Some(old), Some(new)) => changed(path, old, new),
            (Some(old), None) => format!("removed {}\n", described(path, old)),
            (None, Some(new)) => format!("added {}\n", described(path, new)),
            (None, None) => String::new(),
        });
    }
    text
}

fn changed(path: &str, old: &Entry, new: &Entry) -> String {
    match (old, new) {
        (Entry::File { mode: old_mode, bytes: old }, Entry::File { mode: new_mode, bytes: new }) => {
            mode_change(path, *old_mode, *new_mode) + &content_change(path, old, new)
        }
        (Entry::Dir { mode: old }, Entry::Dir { mode: new }) => mode_change(path, *old, *new),
        (old, new) if old == new => String::new(),
        (old, new) => format!("removed {}\nadded {}\n", described(path, old), described(path, new)),
    }
}

fn mode_change(path: &str, old: u32, new: u32) -> String {
    if old == new { String::new() } else { format!("mode of {path}: {old:04o} becomes {new:04o}\n") }
}

fn content_change(path: &str, old: &[u8], new: &[u8]) -> String {
    if old == new {
        return String::new();
    }
    match (std::str::from_utf8(old), std::str::from_utf8(new)) {
        (Ok(old), Ok(new)) => similar::TextDiff::from_lines(old, new)
            .unified_diff()
            .header(&format!("a/{path}"), &format!("b/{path}"))
            .to_string(),
        _ => format!("content of {path}: {} becomes {}\n", Sha256Digest::of(old), Sha256Digest::of(new)),
    }
}

fn described(path: &str, entry: &Entry) -> String {
    match entry {
        Entry::File { mode, bytes } => format!("{path} ({} bytes, mode {mode:04o})", bytes.len()),
        Entry::Link { target } => format!("{path} -> {target}"),
        Entry::Dir { mode } => format!("{path}/ (mode {mode:04o})"),
    }
}

/// A SHA-256 digest; displays as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// Digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Sha256Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(NotADigest);
        }
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(digest))
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 hexadecimal digits")]
pub struct NotADigest;

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, Entry)]) -> Tree {
        Tree(entries.iter().map(|(path, entry)| ((*path).to_owned(), entry.clone())).collect())
    }

    fn file(mode: u32, text: &str) -> Entry {
        Entry::File { mode, bytes: text.into() }
    }

    #[test]
    fn equal_trees_do_not_differ() {
        let tree = tree(&[("a", file(0o644, "x\n")), ("l", Entry::Link { target: "a".into() })]);
        assert_eq!(diff(&tree, &tree), "");
    }

    #[test]
    fn a_difference_names_what_was_added_removed_and_changed() {
        let old =
            tree(&[("a", file(0o644, "one\ntwo\n")), ("gone", file(0o600, "x")), ("l", file(0o644, ""))]);
        let new = tree(&[
            ("a", file(0o755, "one\nthree\n")),
            ("l", Entry::Link { target: "a".into() }),
            ("new", Entry::Dir { mode: 0o755 }),
        ]);
        assert_eq!(
            diff(&old, &new),
            "mode of a: 0644 becomes 0755\n--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n\
             removed gone (1 bytes, mode 0600)\nremoved l (0 bytes, mode 0644)\nadded l -> a\n\
             added new/ (mode 0755)\n"
        );
    }

    #[test]
    fn a_path_is_claimed_once() {
        let mut tree = Tree::default();
        tree.file("a", "x").unwrap();
        assert_eq!(tree.link("a", "b"), Err(Claimed("a".into())));
    }
}
