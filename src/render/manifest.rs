//! `manifest.json`: every rendered path with its mode and digest, and what it was rendered from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RenderError;
use crate::codex::Codex;
use crate::tree::{Entry, Sha256Digest, Tree};

/// Where the manifest lies in a rendered tree.
pub const PATH: &str = "usr/share/sepulcher/manifest.json";

/// The program that renders, as images and manifests name it.
pub const PROGRAM: &str = concat!("sepulcher ", env!("CARGO_PKG_VERSION"));

/// What a tree consists of, and what it was rendered from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub schema: u32,
    /// The program that rendered, e.g. `sepulcher 0.1.0`.
    pub program: String,
    /// Digest of the Codex: see [`codex_digest`].
    pub codex: String,
    /// Every path but the manifest's own.
    pub entries: BTreeMap<String, Item>,
}

/// One entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Item {
    /// A regular file.
    File {
        /// Permission bits in octal, e.g. `0644`.
        mode: String,
        /// SHA-256 of its content in hexadecimal.
        sha256: String,
    },
    /// A symbolic link.
    Link {
        /// What it points to.
        target: String,
    },
    /// A folder.
    Dir {
        /// Permission bits in octal.
        mode: String,
    },
}

/// The manifest of `tree`.
pub fn manifest(codex: &Codex, tree: &Tree) -> Manifest {
    Manifest {
        schema: 1,
        program: PROGRAM.to_owned(),
        codex: codex_digest(codex).to_string(),
        entries: tree.iter().map(|(path, entry)| (path.to_owned(), item(entry))).collect(),
    }
}

/// SHA-256 over the meaning of a Codex: comments, order and spelling of its files do not count, every value
/// does. It is stable within one version of the program, which the manifest names beside it.
pub fn codex_digest(codex: &Codex) -> Sha256Digest {
    Sha256Digest::of(format!("{codex:?}").as_bytes())
}

/// Whether `tree` is nothing but an earlier rendering, which a new one may replace: it carries a manifest,
/// and everything in it is named there. The content may have been changed.
///
/// # Errors
/// [`Foreign`] says what is not ours.
pub fn replaceable(tree: &Tree) -> Result<(), Foreign> {
    let Some(Entry::File { bytes, .. }) = tree.get(PATH) else { return Err(Foreign::NoManifest) };
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|_| Foreign::NoManifest)?;
    match tree.iter().find(|(path, _)| *path != PATH && !manifest.entries.contains_key(*path)) {
        Some((path, _)) => Err(Foreign::Path(path.to_owned())),
        None => Ok(()),
    }
}

/// Something that is not of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// The folder is not one that was rendered.
    #[error("it has no manifest of a rendering")]
    NoManifest,
    /// Somebody put something into it.
    #[error("{0} was not rendered")]
    Path(String),
}

pub(super) fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    let mut text = serde_json::to_string_pretty(&manifest(codex, tree)).map_err(RenderError::Manifest)?;
    text.push('\n');
    tree.file(PATH, text)?;
    Ok(())
}

fn item(entry: &Entry) -> Item {
    match entry {
        Entry::File { mode, bytes } => {
            Item::File { mode: octal(*mode), sha256: Sha256Digest::of(bytes).to_string() }
        }
        Entry::Link { target } => Item::Link { target: target.clone() },
        Entry::Dir { mode } => Item::Dir { mode: octal(*mode) },
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}
