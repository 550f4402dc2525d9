//! `sepulcher rebirth preview`: what the next body changes, before it is built.

use std::path::{Path, PathBuf};

use crate::cli::output::print;
use crate::cli::{Failure, Kind, codex};
use crate::codex::{Codex, LAW, SCHEMA, Sources};
use crate::rebirth::bundle::Description;
use crate::rebirth::preview::{Error, Side, preview};
use crate::sys::{self, clock, fs};

/// Show what a Codex changes on a machine that runs another body
///
/// Files, ports that open or close, what peers lose, bonds that the new law does not allow, the format of the bonds.
/// Files are compared as this program renders both laws.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that holds the new lychd.toml
    dir: PathBuf,
    /// The body that runs: the folder of its update (`lychd_1.update`), the description in there, or the folder of its
    /// Codex
    #[arg(long, value_name = "PATH")]
    body: PathBuf,
    /// Folder with the `peers/` that are bonded [default: those beside the new lychd.toml]
    #[arg(long, value_name = "DIR")]
    bonds: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { dir, body, bonds } = args;
    let folders: Vec<&Path> = [dir.as_path()].into_iter().chain(bonds.as_deref()).collect();
    let new = read(&folders)?;
    let (old, schema) = running(body)?;
    let (old, new_side) = (Side { law: &old, schema }, Side { law: &new, schema: SCHEMA });
    let now = clock::now();
    let told = preview(old, new_side, &new, now).map_err(|error| match error {
        Error::Law(mistakes) => codex::refused(&mistakes, &new),
        Error::Render(error) => error.into(),
        Error::Client(error) => error.into(),
    })?;
    print(&told.to_string())
}

/// A Codex whose law is right; bonds may be such as it does not allow.
fn read(folders: &[&Path]) -> Result<Sources, Failure> {
    let sources = sys::codex::load(folders);
    let unread: Vec<_> = sources.unread().cloned().collect();
    if !unread.is_empty() {
        return Err(codex::refused(&unread, &sources));
    }
    let mut law = sources.clone();
    let bonds: Vec<String> =
        law.files().map(|(name, _)| name.to_owned()).filter(|name| name.starts_with("peers/")).collect();
    for name in &bonds {
        law.remove(name);
    }
    match Codex::parse(&law) {
        Ok(_) => Ok(sources),
        Err(mistakes) => Err(codex::refused(&mistakes, &sources)),
    }
}

/// The law of the body that runs, and its schema.
fn running(body: &Path) -> Result<(Sources, u32), Failure> {
    let is_folder = fs::entry(&fs::canonical(body)?)? == fs::Entry::Folder;
    if is_folder && fs::exists(&body.join(LAW))? {
        return Ok((read(&[body])?, SCHEMA));
    }
    let file = if is_folder { described(body)? } else { body.to_owned() };
    let description = Description::load(&file)?;
    let law = description.law();
    match Codex::parse(&law) {
        Ok(_) => Ok((law, description.codex_schema)),
        Err(mistakes) => Err(codex::refused(&mistakes, &law)),
    }
}

/// The description in the folder of an update.
fn described(folder: &Path) -> Result<PathBuf, Failure> {
    let files = fs::list_named(folder, |name| Path::new(name).extension().is_some_and(|end| end == "json"))?;
    if let [one] = files.as_slice() {
        return Ok(one.clone());
    }
    let message = format!("{} holds neither {LAW} nor the one description of an update", folder.display());
    Err(Failure::new(Kind::Input, message).hint("name the folder of an update, or that of a Codex"))
}
