//! Opens the Codex that a command works on.

use std::io::IsTerminal as _;
use std::path::Path;

use super::{Failure, Kind};
use crate::codex::{Codex, Diagnostic, Sources, render_all};
use crate::sys;

/// Loads and parses a Codex from one folder, or from several: see [`sys::codex::load`].
///
/// # Errors
/// A [`Failure`] of kind [`Kind::Input`] whose report lays out every mistake.
pub fn open(folders: &[&Path]) -> Result<Codex, Failure> {
    let sources = sys::codex::load(folders);
    Codex::parse(&sources).map_err(|mistakes| refused(&mistakes, &sources))
}

/// The failure of a command whose Codex holds mistakes.
pub fn refused(mistakes: &[Diagnostic], sources: &Sources) -> Failure {
    broken(mistakes.len(), render_all(mistakes, sources, color()))
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
