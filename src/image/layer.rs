//! File system content on its way into an image: what packages, roots and renderings are merged as.
//!
//! Big files stay where they are (a span of a cached tar) until the tar of the image is written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::tree::{Entry, Tree};

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file, e.g. a cached tar.
    Span {
        /// The file.
        file: Arc<PathBuf>,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A regular file.
    File(Content),
    /// A symbolic link with its target.
    Link(String),
}

/// One node with its owner and permission bits (setuid, setgid and sticky included).
#[derive(Debug, Clone)]
pub struct Node {
    /// Permission bits, e.g. `0o4755`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
}

/// Relative path (`usr/bin/true`) → node, in byte order. Parents need not be present: a missing one is a
/// folder of mode 0755 owned by root.
#[derive(Debug, Clone, Default)]
pub struct Layer(pub BTreeMap<String, Node>);

impl Layer {
    /// Lays `upper` over this layer: its nodes win, folders merge.
    pub fn merge(&mut self, upper: Layer) {
        self.0.extend(upper.0);
    }

    /// The same nodes below the folder `prefix` (no slash at either end).
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        Self(self.0.into_iter().map(|(path, node)| (format!("{prefix}/{path}"), node)).collect())
    }
}

impl From<Tree> for Layer {
    fn from(tree: Tree) -> Self {
        let node = |entry: &Entry| {
            let (mode, kind) = match entry {
                Entry::File { mode, bytes } => (*mode, Kind::File(Content::Bytes(bytes.as_slice().into()))),
                Entry::Link { target } => (0o777, Kind::Link(target.clone())),
                Entry::Dir { mode } => (*mode, Kind::Dir),
            };
            Node { mode, uid: 0, gid: 0, kind }
        };
        Self(tree.iter().map(|(path, entry)| (path.to_owned(), node(entry))).collect())
    }
}
