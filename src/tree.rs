//! What rendering produces: a plain value from path to file, link or folder.

use std::collections::BTreeMap;
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
