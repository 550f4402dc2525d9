//! Whether an image holds what a Codex renders.

use std::path::Path;

use super::build::sealed_tree;
use crate::cli::store::StoreArgs;
use crate::cli::{Failure, Kind, progress};
use crate::image::build::TOOLS;
use crate::image::disk::Placed;
use crate::image::toolbox::Toolbox;
use crate::sys::{fs, tree};
use crate::tree::diff;

/// The difference between what the root at `root` in the file `image` holds and what the Codex in `dir` renders;
/// empty when there is none.
pub fn difference(image: &Path, root: &Placed, dir: &Path, store: &StoreArgs) -> Result<String, Failure> {
    let (_, _, wanted) = sealed_tree(dir)?;
    let shown = progress::Shown::default();
    let cache = store.store(&shown)?;
    let unavailable = |error: &dyn std::error::Error| Failure::from_error(Kind::Unavailable, error);
    let tools = Toolbox::open(&cache, &store.image(&cache, TOOLS)?).map_err(|error| unavailable(&error))?;
    let folder = fs::context(tempfile::tempdir(), "make a folder in", &std::env::temp_dir())?;
    let files = folder.path().join("root");
    tools
        .command("fsck.erofs")
        .map_err(|error| unavailable(&error))?
        .arg(format!("--extract={}", files.display()))
        .arg(format!("--offset={}", root.offset))
        .args(["--no-preserve-owner", "--preserve-perms"])
        .arg(image)
        .read()
        .map_err(|error| Failure::from_error(Kind::Input, &error))?;
    let held = tree::read_only(&files, wanted.iter().map(|(path, _)| path))?;
    Ok(diff(&held, &wanted))
}
