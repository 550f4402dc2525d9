//! `sepulcher image roots`.

use std::path::PathBuf;

use super::build::{check_roots, failure, program_bytes, sealed_tree};
use crate::cli::store::StoreArgs;
use crate::cli::{Failure, Kind, progress};
use crate::image::build::{Error, is_static, sealed};
use crate::image::{roots, unpack};
use crate::sys::fs;

/// Write the root trees of a Codex's containers as folders, for a host that is not the appliance
///
/// One folder each, as the image holds them in /usr/lib/sepulcher/roots. All files belong to the current user.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that holds lychd.toml
    dir: PathBuf,
    /// Folder to make
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Statically linked program to put in as the agent [default: this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { dir, out, program, store } = args;
    if fs::exists(out)? {
        let sentence = format!("cannot write {}: it exists", out.display());
        return Err(
            Failure::new(Kind::Input, sentence).hint("name a new folder, or remove what is there yourself")
        );
    }
    let (_, codex, _) = sealed_tree(dir)?;
    let program = program_bytes(program.as_deref())?;
    if !is_static(&program) {
        return Err(failure(Error::NotStatic));
    }
    let definitions = store.definitions();
    check_roots(&codex, &definitions)?;
    let shown = progress::Shown::default();
    let cache = store.store(&shown)?;
    fs::create_dir_all(&cache.cache)?;
    let work = fs::Scratch::new(fs::folder_of(out), ".roots-")?;
    for name in sealed(&codex).iter().filter(|name| *name != "system") {
        let image = store.image(&cache, name)?;
        let root = roots::complete(&cache, &definitions, &image, &program).map_err(failure)?;
        let folder = work.path().join(name);
        fs::create_dir_all(&folder)?;
        unpack::write(&root, &folder)?;
    }
    fs::set_mode(work.path(), 0o755)?;
    Ok(work.keep(out)?)
}
