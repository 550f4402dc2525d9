//! `sepulcher image`: disk images built, inspected and verified.

mod build;

use clap::Subcommand;

use super::Failure;

/// What to do with an image.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build the sealed disk image of a Codex
    Build(build::Args),
}

/// Runs the command.
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Build(args) => build::run(args),
    }
}
