//! File system content on its way into an image: what packages, roots and renderings are merged as.
//!
//! Big files stay where they are (a span of a cached tar) until the tar of the image is written.

#![expect(clippy::disallowed_methods, reason = "reads the spans that it writes into a tar")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
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

/// Folders at the top that are links into `usr` since /usr was merged.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Where `path` lies since /usr was merged: `lib/x` → `usr/lib/x`. A link that is itself named `lib` stays.
pub fn usr_merged(path: &str, is_link: bool) -> String {
    let top = path.split('/').next().unwrap_or_default();
    let moves = MERGED.contains(&top) && !(is_link && path == top);
    if moves { format!("usr/{path}") } else { path.to_owned() }
}

/// Two packages that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Both hold a path, and not both as a folder.
    #[error("package {package} holds {path}, which another package holds too")]
    Path {
        /// The later package.
        package: String,
        /// The path.
        path: String,
    },
    /// Something lies below what is not a folder.
    #[error("{path} lies below {parent}, which is not a folder")]
    Parent {
        /// The path.
        path: String,
        /// What it lies below.
        parent: String,
    },
}

impl Layer {
    /// Adds the links `bin` → `usr/bin` and so on for the folders that exist in `usr`, as roots without
    /// `base-files` need them.
    pub fn add_usr_links(&mut self) {
        for name in MERGED {
            let below = format!("usr/{name}/");
            let used = self.0.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below));
            if used && !self.0.contains_key(name) {
                let kind = Kind::Link(format!("usr/{name}"));
                self.0.insert(name.to_owned(), Node { mode: 0o777, uid: 0, gid: 0, kind });
            }
        }
    }

    /// Lays a package beside those that are there: folders merge (the one that is not plain 0755 root wins),
    /// anything else twice is a conflict.
    pub fn add_package(&mut self, package: &str, layer: Layer) -> Result<(), Conflict> {
        for (path, node) in layer.0 {
            let first = match self.0.get(&path) {
                None => None,
                Some(first) if matches!((&first.kind, &node.kind), (Kind::Dir, Kind::Dir)) => Some(first),
                Some(_) => return Err(Conflict::Path { package: package.to_owned(), path }),
            };
            if first.is_none_or(|first| (first.mode, first.uid, first.gid) == (0o755, 0, 0)) {
                self.0.insert(path, node);
            }
        }
        Ok(())
    }

    /// Whether everything lies below folders only.
    pub fn check_parents(&self) -> Result<(), Conflict> {
        for path in self.0.keys() {
            for (at, _) in path.match_indices('/') {
                let parent = &path[..at];
                if self.0.get(parent).is_some_and(|node| !matches!(node.kind, Kind::Dir)) {
                    return Err(Conflict::Parent { path: path.clone(), parent: parent.to_owned() });
                }
            }
        }
        Ok(())
    }

    /// Writes everything as one tar: sorted, every folder named (the root as `./`), times set to `mtime`
    /// (seconds since 1970), ustar with pax records where a name is too long. Same layer, same bytes.
    pub fn write_tar(&self, out: &mut impl io::Write, mtime: u64) -> io::Result<()> {
        let mut writer = TarWriter { out: tar::Builder::new(out), mtime, open: None };
        let folder = Node { mode: 0o755, uid: 0, gid: 0, kind: Kind::Dir };
        writer.node("./", &folder)?;
        let mut last: &str = "";
        for (path, node) in &self.0 {
            for (at, _) in path.match_indices('/') {
                let parent = &path[..at];
                let written =
                    last.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                if !written && !self.0.contains_key(parent) {
                    writer.node(parent, &folder)?;
                }
            }
            writer.node(path, node)?;
            last = path;
        }
        writer.out.finish()
    }
}

struct TarWriter<'a, W: io::Write> {
    out: tar::Builder<&'a mut W>,
    mtime: u64,
    open: Option<(Arc<PathBuf>, File)>,
}

impl<W: io::Write> TarWriter<'_, W> {
    fn node(&mut self, path: &str, node: &Node) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        header.set_mtime(self.mtime);
        header.set_size(0);
        let mut long: Vec<(&str, &[u8])> = Vec::new();
        if header.set_path(path).is_err() {
            long.push(("path", path.as_bytes()));
            header.set_path("long")?;
        }
        header.set_entry_type(match &node.kind {
            Kind::Dir => tar::EntryType::Directory,
            Kind::File(_) => tar::EntryType::Regular,
            Kind::Link(_) => tar::EntryType::Symlink,
        });
        if let Kind::Link(target) = &node.kind
            && header.set_link_name_literal(target).is_err()
        {
            long.push(("linkpath", target.as_bytes()));
        }
        if !long.is_empty() {
            self.out.append_pax_extensions(long)?;
        }
        match &node.kind {
            Kind::File(content) => self.file(header, content),
            Kind::Dir | Kind::Link(_) => {
                header.set_cksum();
                self.out.append(&header, io::empty())
            }
        }
    }

    fn file(&mut self, mut header: tar::Header, content: &Content) -> io::Result<()> {
        header.set_size(content.len());
        header.set_cksum();
        match content {
            Content::Bytes(bytes) => self.out.append(&header, &bytes[..]),
            Content::Span { file, offset, len } => {
                if self.open.as_ref().is_none_or(|(open, _)| open != file) {
                    self.open = Some((Arc::clone(file), File::open(file.as_path())?));
                }
                let Some((_, open)) = &mut self.open else { return Ok(()) };
                open.seek(SeekFrom::Start(*offset))?;
                self.out.append(&header, Exactly { inner: open.take(*len), left: *len })
            }
        }
    }
}

/// A reader whose early end is an error: a file of the cache was cut while it was used.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: io::Read> io::Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Span { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, all in memory.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Content::Bytes(bytes) => Ok(bytes.to_vec()),
            Content::Span { file, offset, len } => {
                let mut open = File::open(file.as_path())?;
                open.seek(SeekFrom::Start(*offset))?;
                let mut bytes = Vec::new();
                Exactly { inner: open.take(*len), left: *len }.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, bytes: &[u8]) -> Node {
        Node { mode, uid: 1, gid: 70_000, kind: Kind::File(Content::Bytes(bytes.into())) }
    }

    fn folder(mode: u32) -> Node {
        Node { mode, uid: 0, gid: 0, kind: Kind::Dir }
    }

    fn link(target: &str) -> Node {
        Node { mode: 0o777, uid: 0, gid: 0, kind: Kind::Link(target.to_owned()) }
    }

    fn layer(nodes: impl IntoIterator<Item = (&'static str, Node)>) -> Layer {
        Layer(nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect())
    }

    fn tar_of(layer: &Layer) -> Vec<u8> {
        let mut bytes = Vec::new();
        layer.write_tar(&mut bytes, 1_700_000_000).unwrap();
        bytes
    }

    #[test]
    fn a_tar_is_sorted_names_every_folder_once_and_keeps_owners_modes_and_content() {
        let spans = tempfile::tempdir().unwrap();
        let path = Arc::new(spans.path().join("data"));
        crate::sys::fs::write(&path, 0o644, b"..span..").unwrap();
        let span = Kind::File(Content::Span { file: path, offset: 2, len: 4 });
        let layer = layer([
            ("a/b/c", file(0o4755, b"one")),
            ("a/b/d", Node { mode: 0o600, uid: 0, gid: 0, kind: span }),
            ("a-b", link("a/b")),
            ("a.d/e/f", file(0o644, b"")),
            ("z", folder(0o1777)),
        ]);
        let bytes = tar_of(&layer);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let told: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let header = entry.header().clone();
                let mut text = String::new();
                io::Read::read_to_string(&mut entry, &mut text).unwrap();
                assert_eq!(header.mtime().unwrap(), 1_700_000_000);
                let (mode, gid) = (header.mode().unwrap(), header.gid().unwrap());
                format!("{} {mode:o} {gid} {text}", entry.path().unwrap().display())
            })
            .collect();
        let expected = [
            "./ 755 0 ",
            "a-b 777 0 ",
            "a.d 755 0 ",
            "a.d/e 755 0 ",
            "a.d/e/f 644 70000 ",
            "a 755 0 ",
            "a/b 755 0 ",
            "a/b/c 4755 70000 one",
            "a/b/d 600 0 span",
            "z 1777 0 ",
        ];
        assert_eq!(told, expected);
        assert_eq!(tar_of(&layer), bytes, "same layer, same bytes");
    }

    #[test]
    fn long_names_and_targets_come_through() {
        let long = format!("{}/{}", "name".repeat(60), "x".repeat(200));
        let layer = Layer([(long.clone(), link(&long))].into());
        let bytes = tar_of(&layer);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let last = archive.entries().unwrap().last().unwrap().unwrap();
        assert_eq!(last.path_bytes(), long.as_bytes());
        assert_eq!(last.link_name_bytes().unwrap(), long.as_bytes());
    }

    #[test]
    fn a_span_of_a_file_that_was_cut_is_an_error() {
        let spans = tempfile::tempdir().unwrap();
        let path = Arc::new(spans.path().join("data"));
        crate::sys::fs::write(&path, 0o644, b"short").unwrap();
        let content = Content::Span { file: path, offset: 2, len: 9 };
        assert!(content.read().is_err());
        let layer = layer([("x", Node { mode: 0o644, uid: 0, gid: 0, kind: Kind::File(content) })]);
        assert!(layer.write_tar(&mut Vec::new(), 0).is_err());
    }

    #[test]
    fn packages_share_folders_and_nothing_else() {
        let mut merged =
            layer([("tmp", folder(0o755)), ("usr", folder(0o755)), ("usr/x", file(0o644, b"1"))]);
        merged
            .add_package("base-files", layer([("tmp", folder(0o1777)), ("usr/y", file(0o644, b"2"))]))
            .unwrap();
        merged.add_package("other", layer([("tmp", folder(0o755))])).unwrap();
        assert_eq!(merged.0["tmp"].mode, 0o1777, "the folder that is not plain wins, in either order");
        let conflict = merged.add_package("third", layer([("usr/x", file(0o644, b"1"))])).unwrap_err();
        assert!(conflict.to_string().contains("third") && conflict.to_string().contains("usr/x"));
        merged.check_parents().unwrap();
        merged.add_package("fourth", layer([("usr/x/y", file(0o644, b"3"))])).unwrap();
        assert!(merged.check_parents().is_err());
    }

    #[test]
    fn links_into_usr_are_added_where_they_lead_somewhere() {
        let mut root = layer([("usr/bin/x", file(0o755, b"")), ("usr/lib64/y", file(0o755, b""))]);
        root.add_usr_links();
        let links: Vec<_> = root.0.keys().filter(|path| !path.contains('/')).map(String::as_str).collect();
        assert_eq!(links, ["bin", "lib64"]);
    }
}
