//! Arguments, output, exit codes. Standard output is data, standard error is talk.

mod failure;
mod image;
mod lock;
pub mod progress;
pub mod store;
mod toolbox;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::{Failure, Kind};

#[derive(Debug, Parser)]
#[command(name = "sepulcher", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(subcommand)]
    Image(image::Verb),
    Lock(lock::LockArgs),
    Toolbox(toolbox::ToolboxArgs),
}

/// Runs the program with its arguments (the first is the program's name).
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell when even that print fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let done: Result<(), Failure> = match cli.verb {
        Verb::Image(verb) => image::run(&verb),
        Verb::Lock(args) => lock::run(&args),
        Verb::Toolbox(args) => toolbox::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            failure.kind.exit_code()
        }
    }
}
