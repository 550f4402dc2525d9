//! Arguments, output, exit codes. Standard output is data, standard error is talk.

mod audit;
mod awaken;
mod check;
pub mod codex;
mod completions;
mod failure;
mod health;
mod image;
mod init;
mod lock;
mod man;
mod output;
pub mod peer;
pub mod progress;
pub mod qr;
mod render;
mod renew;
mod stand_in;
pub mod store;
mod tether;
mod toolbox;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::{Failure, Kind};

#[derive(Debug, Parser)]
#[command(name = "sepulcher", version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Check(check::Args),
    Render(render::Args),
    #[command(subcommand)]
    Image(image::Verb),
    /// Bond devices and sites, and cut them off
    #[command(subcommand)]
    Peer(peer::Verb),
    /// The log of all changes of the bonds
    #[command(subcommand)]
    Audit(audit::Verb),
    Lock(lock::LockArgs),
    Toolbox(toolbox::ToolboxArgs),
    /// Make the identity and the bonds of this machine where they are missing (first boot)
    Awaken(awaken::Args),
    /// Wait until this body is healthy, and say so or why not
    Health(health::Args),
    /// The agent that keeps the kernel in step with the bonds
    #[command(subcommand)]
    Tether(tether::Verb),
    Completions(completions::Args),
    Man(man::Args),
    /// Answer on ports in place of a real service (example and tests)
    #[command(hide = true)]
    StandIn(stand_in::Args),
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
        Verb::Init(args) => init::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Render(args) => render::run(&args),
        Verb::Image(verb) => image::run(&verb),
        Verb::Peer(verb) => peer::run(&verb),
        Verb::Audit(verb) => audit::run(&verb),
        Verb::Lock(args) => lock::run(&args),
        Verb::Toolbox(args) => toolbox::run(&args),
        Verb::Awaken(args) => awaken::run(&args),
        Verb::Health(args) => health::run(&args),
        Verb::Tether(verb) => tether::run(verb),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::StandIn(args) => stand_in::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            failure.kind.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_of_all_verbs_fit_together() {
        super::Cli::command().debug_assert();
    }
}
