//! `sepulcher render`: everything that follows from a Codex, as a tree of files.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Failure, Kind, codex};
use crate::render::{RenderError, manifest, render};
use crate::sys;
use crate::tree::{Tree, diff};

/// Render a Codex to the files that the appliance is made of
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that holds lychd.toml
    dir: PathBuf,
    /// Folder that becomes the rendered tree; an earlier rendering in it is replaced
    #[arg(long, value_name = "TREE")]
    out: PathBuf,
    /// Write nothing: print how TREE differs from what would be rendered, and exit 1 when it does
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let codex = codex::open(&[&args.dir])?;
    let tree = render(&codex)?;
    let existing = existing(&args.out)?;
    if args.check {
        return check(&args.out, &existing, &tree);
    }
    if !existing.is_empty() {
        manifest::replaceable(&existing).map_err(|foreign| {
            let message = format!("cannot replace {}: {foreign}", args.out.display());
            Failure::new(Kind::Input, message).hint("name a new folder, or remove what is there yourself")
        })?;
    }
    if existing != tree {
        sys::tree::replace(&args.out, &tree)?;
    }
    Ok(())
}

/// What is at `path` now; nothing when it does not exist.
fn existing(path: &Path) -> Result<Tree, Failure> {
    if sys::fs::exists(path)? { Ok(sys::tree::read(path)?) } else { Ok(Tree::default()) }
}

fn check(out: &Path, existing: &Tree, tree: &Tree) -> Result<(), Failure> {
    let difference = diff(existing, tree);
    if difference.is_empty() {
        return Ok(());
    }
    let written = std::io::stdout().lock().write_all(difference.as_bytes());
    sys::fs::context(written, "write", Path::new("standard output"))?;
    Err(Failure::new(Kind::Input, format!("{} is not what the Codex renders", out.display()))
        .hint("`sepulcher render` without --check writes it"))
}

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        let kind = match error {
            RenderError::UnitTwice { .. } | RenderError::Command { .. } | RenderError::Template { .. } => {
                Kind::Input
            }
            RenderError::Claimed(_) | RenderError::Manifest(_) => Kind::Internal,
        };
        Self::from_error(kind, &error)
    }
}
