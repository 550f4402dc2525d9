//! Whole trees, compared both ways with what was reviewed.

use sepulcher::sys;
use sepulcher::tree::{Entry, Tree, diff};

use crate::cases;

#[test]
fn every_case_renders_what_was_reviewed() {
    let mut differences = String::new();
    for case in cases::all() {
        let expected = sys::tree::read(&case.folder.join("expected")).unwrap_or_default();
        let difference = diff(&as_git_keeps(&expected), &as_git_keeps(&case.tree));
        if !difference.is_empty() {
            differences.extend(["== ", &case.name, "\n", &difference]);
        }
    }
    assert!(differences.is_empty(), "{differences}\n`cargo xtask bless` accepts what is rendered now");
}

/// Git keeps one permission bit; `manifest.json`, which is compared too, pins the others.
fn as_git_keeps(tree: &Tree) -> Tree {
    let mut kept = Tree::default();
    for (path, entry) in tree.iter() {
        let entry = match entry {
            Entry::File { mode, bytes } => {
                Entry::File { mode: 0o644 | (mode & 0o100) | (mode & 0o100) >> 3, bytes: bytes.clone() }
            }
            Entry::Dir { .. } => continue,
            Entry::Link { .. } => entry.clone(),
        };
        kept.add(path, entry).unwrap();
    }
    kept
}
