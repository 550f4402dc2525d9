//! The golden cases, found by listing their folder.

use std::path::{Path, PathBuf};

use sepulcher::codex::{Codex, render_all};
use sepulcher::render::render;
use sepulcher::sys;
use sepulcher::tree::{Entry, Tree};

/// One folder of `tests/golden`.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub codex: Codex,
    pub tree: Tree,
}

/// Every case, rendered.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let cases: Vec<_> = sys::fs::list(&folder).unwrap().into_iter().map(open).collect();
    assert!(cases.len() >= 6, "golden cases are missing: {} found", cases.len());
    cases
}

fn open(folder: PathBuf) -> Case {
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let codex = load(&folder.join("codex"));
    let tree = render(&codex).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    Case { name, folder, codex, tree }
}

/// The Codex in a folder.
pub fn load(folder: &Path) -> Codex {
    let sources = sys::codex::load(&[folder]);
    Codex::parse(&sources).unwrap_or_else(|mistakes| panic!("{}", render_all(&mistakes, &sources, false)))
}

/// Writes `tree` into a temporary folder.
pub fn on_disk(tree: &Tree) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    sys::tree::replace(&root, tree).unwrap();
    (folder, root)
}

/// A rendered text file.
pub fn text<'a>(tree: &'a Tree, path: &str) -> &'a str {
    match tree.get(path) {
        Some(Entry::File { bytes, .. }) => std::str::from_utf8(bytes).unwrap(),
        other => panic!("{path} is {other:?}"),
    }
}

/// Rendered files whose path starts with `prefix`: name behind it → text.
pub fn texts<'a>(tree: &'a Tree, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let files = tree.iter().filter(|(_, entry)| matches!(entry, Entry::File { .. }));
    files.filter_map(move |(path, _)| Some((path.strip_prefix(prefix)?, text(tree, path))))
}

pub const QUADLETS: &str = "usr/share/containers/systemd/";
