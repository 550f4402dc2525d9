//! Opens the Codex that a command works on.

use std::io::IsTerminal as _;
use std::path::Path;

use super::{Failure, Kind};
use crate::codex::{Codex, Diagnostic, Sources, render_all};
use crate::peer::store::Place;
use crate::sys;

/// Loads and parses a Codex from one folder, or from several: see [`sys::codex::load`].
///
/// # Errors
/// A [`Failure`] of kind [`Kind::Input`] whose report lays out every mistake.
pub fn open(folders: &[&Path]) -> Result<Codex, Failure> {
    parsed(folders).map(|(codex, _)| codex)
}

fn parsed(folders: &[&Path]) -> Result<(Codex, Sources), Failure> {
    let sources = sys::codex::load(folders);
    let codex = Codex::parse(&sources).map_err(|mistakes| refused(&mistakes, &sources))?;
    Ok((codex, sources))
}

/// The folders of a Codex; where none is named, those of the appliance that runs this.
///
/// # Errors
/// None is named, and this machine is no appliance.
pub fn place(folder: Option<&Path>) -> Result<Place, Failure> {
    let root = Path::new("/");
    match folder {
        Some(folder) => Ok(Place::folder(folder)),
        None if Place::is_appliance(root)? => Ok(Place::appliance(root)),
        None => Err(Failure::new(Kind::Input, "no Codex is named, and this machine is no appliance")
            .hint("name the folder that holds lychd.toml: `--codex DIR`")),
    }
}

/// The same, read: what it says, and where.
pub fn read(folder: Option<&Path>) -> Result<(Codex, Sources), Failure> {
    parsed(&place(folder)?.folders())
}

/// The failure of a command whose Codex holds mistakes.
pub fn refused(mistakes: &[Diagnostic], sources: &Sources) -> Failure {
    broken(mistakes.len(), render_all(mistakes, sources, color()))
}

/// Lays warnings out on standard error, if there are any.
pub fn warn(warnings: &[Diagnostic], sources: &Sources) {
    if !warnings.is_empty() {
        eprintln!("{}", render_all(warnings, sources, color()));
    }
}

/// The failure of a command whose Codex holds so many mistakes, which `report` lays out.
pub fn broken(count: usize, report: String) -> Failure {
    let count = if count == 1 { "1 mistake".to_owned() } else { format!("{count} mistakes") };
    Failure::new(Kind::Input, format!("the Codex holds {count}")).report(report)
}

/// Whether standard error shows colours.
fn color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
