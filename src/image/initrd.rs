//! The initrd: what of the root's own packages it takes to find the root, check it and switch to it.
//!
//! A [`Definition`] names files, libraries and kernel modules; the closure over links, shared libraries and module
//! dependencies follows from the root's content. Source of the archive's format: the kernel's
//! `driver-api/early-userspace/buffer-format.rst`.

mod elf;
mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::sync::Arc;

use cpio::newc::{Builder, ModeFileType};
use glob::{MatchOptions, Pattern};
use serde::Deserialize;

use super::layer::{Content, Kind, Layer, Node};

pub use modules::kernel_release;

/// Folders that the dynamic loader is told about or knows.
const LIBRARIES: [&str; 4] =
    ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd", "usr/lib64", "usr/lib"];
/// Level of zstd. On 31 MiB: 3 gives 12.9 MiB in 0.2 s, 12 gives 11.9 MiB in 1.6 s, 19 gives 11.1 MiB in 13 s.
const COMPRESSION: i32 = 12;
/// Links that may be followed from one to the next, as in the kernel.
const MAX_LINKS: usize = 40;

/// What an initrd is made of: `images/<name>/initrd.toml`. Paths are relative to the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Definition {
    /// Files and folders of the root, as globs (`*` stays within a folder, `**` does not); each must match.
    pub files: Vec<String>,
    /// Matches of `files` that are left out after all.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Shared libraries that programs open by themselves, by file name.
    #[serde(default)]
    pub libraries: Vec<String>,
    /// Kernel modules by name; one that is built in is there already.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Empty folders, e.g. mount points.
    #[serde(default)]
    pub folders: Vec<String>,
    /// Links: path → target.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Small files: path → content.
    #[serde(default)]
    pub texts: BTreeMap<String, String>,
}

/// Why there is no initrd.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definition is not what [`Definition`] describes.
    #[error("the initrd definition is wrong")]
    Definition(#[source] Box<toml::de::Error>),
    /// A glob is malformed.
    #[error("{pattern:?} is not a pattern of paths")]
    Pattern {
        /// As written.
        pattern: String,
        /// The parser's words.
        source: glob::PatternError,
    },
    /// Nothing in the root matches.
    #[error("the initrd wants {0}, which the root does not have")]
    Missing(String),
    /// A shared library is nowhere.
    #[error("{needed} of the initrd needs the library {library}, which the root does not have")]
    Library {
        /// Who needs it.
        needed: String,
        /// Its name.
        library: String,
    },
    /// A kernel module is unknown to `modules.dep` and not built in.
    #[error("the initrd wants the kernel module {0}, which the kernel does not have")]
    Module(String),
    /// Not exactly one kernel.
    #[error("the root has {0} folders with a modules.dep in usr/lib/modules, one is needed")]
    Kernels(usize),
    /// Links lead to links without end.
    #[error("too many links on the way to {0}")]
    Links(String),
    /// An ELF file is damaged.
    #[error("{path} is not a sound ELF file")]
    Elf {
        /// The file.
        path: String,
        /// The parser's words.
        source: object::Error,
    },
    /// Content cannot be read.
    #[error("cannot read the content of {path}")]
    Read {
        /// Path in the root.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The archive cannot be written or compressed.
    #[error("cannot write the initrd")]
    Write(#[source] io::Error),
}

impl Definition {
    /// Reads a definition.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Definition(Box::new(error)))
    }
}

/// Makes the compressed archive from the content of `root`; every time in it is `time`, in seconds since 1970.
pub fn build(root: &Layer, definition: &Definition, time: u32) -> Result<Vec<u8>, Error> {
    let chosen = select(root, definition)?;
    let mut zstd = zstd::Encoder::new(Vec::new(), COMPRESSION).map_err(Error::Write)?;
    zstd.include_checksum(true).map_err(Error::Write)?;
    archive(&chosen, time, &mut zstd)?;
    zstd.finish().map_err(Error::Write)
}

/// What goes into the archive, parents included.
pub fn select(root: &Layer, definition: &Definition) -> Result<Layer, Error> {
    let Definition { files, exclude, libraries, modules, folders, links, texts } = definition;
    let mut selection = Selection { root, chosen: Layer::default(), open: Vec::new(), elf: BTreeSet::new() };
    let excluded = exclude.iter().map(|text| pattern(text)).collect::<Result<Vec<_>, _>>()?;
    for file in files {
        selection.matches(file, &excluded)?;
    }
    for library in libraries {
        selection.library("the definition", library)?;
    }
    for path in modules::select(root, modules)? {
        selection.want(&path)?;
    }
    selection.close()?;
    let mut chosen = selection.chosen;
    let folder = || Node { mode: 0o755, uid: 0, gid: 0, kind: Kind::Dir };
    chosen.0.extend(folders.iter().map(|path| (path.clone(), folder())));
    for (path, target) in links {
        chosen.0.insert(path.clone(), Node { mode: 0o777, kind: Kind::Link(target.clone()), ..folder() });
    }
    for (path, text) in texts {
        let kind = Kind::File(Content::Bytes(text.as_bytes().into()));
        chosen.0.insert(path.clone(), Node { mode: 0o644, kind, ..folder() });
    }
    let parents: BTreeSet<String> =
        chosen.0.keys().flat_map(|path| parents(path)).map(str::to_owned).collect();
    for parent in parents {
        chosen.0.entry(parent).or_insert_with(folder);
    }
    Ok(chosen)
}

struct Selection<'a> {
    root: &'a Layer,
    chosen: Layer,
    /// Files whose needs are not met yet.
    open: Vec<String>,
    /// Libraries that were looked for.
    elf: BTreeSet<String>,
}

impl Selection<'_> {
    /// Wants what matches a glob; a folder with all that is in it when the glob ends in `/**`.
    fn matches(&mut self, text: &str, excluded: &[Pattern]) -> Result<(), Error> {
        let glob = pattern(text)?;
        let fixed = text.split(['*', '?', '[']).next().unwrap_or_default();
        let near = self.root.0.range(fixed.to_owned()..).take_while(|(path, _)| path.starts_with(fixed));
        let hits: Vec<String> = near
            .filter(|(path, _)| fits(&glob, path) && !excluded.iter().any(|exclude| fits(exclude, path)))
            .map(|(path, _)| path.clone())
            .collect();
        if hits.is_empty() {
            return Err(Error::Missing(text.to_owned()));
        }
        hits.iter().try_for_each(|path| self.want(path))
    }

    /// Takes a path with the links on the way to it and what they lead to.
    fn want(&mut self, path: &str) -> Result<(), Error> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let link =
                parents(&path).chain([path.as_str()]).find_map(|prefix| match self.root.0.get(prefix) {
                    Some(Node { kind: Kind::Link(target), .. }) => Some((prefix.to_owned(), target.clone())),
                    _ => None,
                });
            let Some((link, target)) = link else { return self.take(path) };
            let rest = path[link.len()..].to_owned();
            if let Some(node) = self.root.0.get(&link) {
                self.chosen.0.insert(link.clone(), node.clone());
            }
            path = follow(&link, &target) + &rest;
            if path.starts_with("dev/") || path.starts_with("run/") || path.starts_with("proc/") {
                return Ok(());
            }
        }
        Err(Error::Links(path))
    }

    fn take(&mut self, path: String) -> Result<(), Error> {
        let Some(node) = self.root.0.get(&path) else {
            // A folder may be there by what is below it alone.
            let below = format!("{path}/");
            let implied =
                self.root.0.range(below.clone()..).next().is_some_and(|(at, _)| at.starts_with(&below));
            return if implied { Ok(()) } else { Err(Error::Missing(path)) };
        };
        if self.chosen.0.insert(path.clone(), node.clone()).is_none() && matches!(node.kind, Kind::File(_)) {
            self.open.push(path);
        }
        Ok(())
    }

    fn library(&mut self, needed: &str, name: &str) -> Result<(), Error> {
        if !self.elf.insert(name.to_owned()) {
            return Ok(());
        }
        let found = LIBRARIES.iter().map(|folder| format!("{folder}/{name}"));
        let found = found.filter(|path| self.root.0.contains_key(path)).collect::<Vec<_>>();
        match found.first() {
            Some(path) => self.want(path),
            None => Err(Error::Library { needed: needed.to_owned(), library: name.to_owned() }),
        }
    }

    /// Meets the needs of all ELF files, those of their libraries included.
    fn close(&mut self) -> Result<(), Error> {
        while let Some(path) = self.open.pop() {
            let Some(Node { kind: Kind::File(content), .. }) = self.root.0.get(&path) else { continue };
            let bytes = read(&path, content)?;
            let needs = elf::needs(&bytes).map_err(|source| Error::Elf { path: path.clone(), source })?;
            if let Some(interpreter) = needs.interpreter {
                self.want(interpreter.trim_start_matches('/'))?;
            }
            for library in needs.libraries {
                self.library(&path, &library)?;
            }
        }
        Ok(())
    }
}

/// Where a link at `link` with `target` leads, seen from the root.
fn follow(link: &str, target: &str) -> String {
    let folder =
        if target.starts_with('/') { "" } else { link.rsplit_once('/').map_or("", |(folder, _)| folder) };
    let mut path: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.join("/")
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

fn pattern(text: &str) -> Result<Pattern, Error> {
    Pattern::new(text).map_err(|source| Error::Pattern { pattern: text.to_owned(), source })
}

fn fits(pattern: &Pattern, path: &str) -> bool {
    pattern.matches_with(path, MatchOptions { require_literal_separator: true, ..MatchOptions::new() })
}

fn read(path: &str, content: &Content) -> Result<Arc<[u8]>, Error> {
    use std::os::unix::fs::FileExt as _;
    let error = |source| Error::Read { path: path.to_owned(), source };
    match content {
        Content::Bytes(bytes) => Ok(bytes.clone()),
        Content::Span { file, offset, len } => {
            let open = crate::sys::fs::open(file).map_err(|problem| error(problem.source))?;
            let len = usize::try_from(*len).map_err(|_| error(io::ErrorKind::FileTooLarge.into()))?;
            let mut bytes = vec![0; len];
            open.read_exact_at(&mut bytes, *offset).map_err(error)?;
            Ok(bytes.into())
        }
    }
}

/// Writes the archive; inode numbers count from one in the order of the paths.
fn archive(chosen: &Layer, time: u32, mut out: &mut impl io::Write) -> Result<(), Error> {
    for (ino, (path, node)) in (1..).zip(&chosen.0) {
        let (kind, bytes) = match &node.kind {
            Kind::Dir => (ModeFileType::Directory, Arc::from(*b"")),
            Kind::File(content) => (ModeFileType::Regular, read(path, content)?),
            Kind::Link(target) => (ModeFileType::Symlink, Arc::from(target.as_bytes())),
        };
        let size =
            u32::try_from(bytes.len()).map_err(|_| Error::Write(io::ErrorKind::FileTooLarge.into()))?;
        let entry = Builder::new(path)
            .ino(ino)
            .mode(node.mode & 0o7777)
            .set_mode_file_type(kind)
            .uid(node.uid)
            .gid(node.gid)
            .nlink(1)
            .mtime(time);
        let mut writer = entry.write(&mut out, size);
        writer.write_all(&bytes).map_err(Error::Write)?;
        writer.finish().map_err(Error::Write)?;
    }
    cpio::newc::trailer(&mut out).map_err(Error::Write)?;
    Ok(())
}

#[cfg(test)]
mod tests;
