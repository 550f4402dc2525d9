//! Arguments, output, exit codes. Standard output is data, standard error is talk.

mod audit;
mod awaken;
mod check;
pub mod codex;
mod completions;
mod console;
mod control;
mod explain;
mod failure;
mod health;
mod image;
mod images;
mod init;
mod keygen;
mod lock;
mod man;
mod map;
mod output;
mod passphrase;
pub mod peer;
mod probe;
pub mod progress;
mod provision;
pub mod qr;
mod reactor;
mod rebirth;
mod recovery;
mod render;
mod renew;
mod resolv;
mod snapshot;
mod stand_in;
mod state;
pub mod store;
mod tether;
mod toolbox;
mod wishes;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::{Failure, Kind};

#[derive(Debug, Parser)]
#[command(name = "sepulcher", version, about)]
struct Cli {
    /// Appliance to ask over the tether: `sepulcher --host HOST peer …`
    // Its verbs have an argument of the same name, which takes this value.
    #[arg(long, value_name = "HOST[:PORT]", global = true, hide = true)]
    host: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Check(check::Args),
    Render(render::Args),
    Explain(explain::Args),
    Map(map::Args),
    #[command(subcommand)]
    Image(image::Verb),
    /// Bond devices and sites, and cut them off
    #[command(subcommand)]
    Peer(peer::Verb),
    /// The log of all changes of the bonds
    #[command(subcommand)]
    Audit(audit::Verb),
    /// The bonds of one moment: keep them, put them back, take them elsewhere
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Have one body take the place of another
    #[command(subcommand)]
    Rebirth(rebirth::Verb),
    Keygen(keygen::Args),
    Lock(lock::LockArgs),
    Toolbox(toolbox::ToolboxArgs),
    Provision(provision::Args),
    Probe(probe::Args),
    /// Make the identity and the bonds of this machine where they are missing (first boot)
    Awaken(awaken::Args),
    /// Wait until this body is healthy, and say so or why not
    Health(health::Args),
    /// The menu on the machine's own screen and serial port
    Console(console::Args),
    /// Answer one request of the agent on standard input (a socket's unit starts it)
    #[command(hide = true)]
    Control(control::Args),
    /// Carry out what peers asked of the machine's bodies and snapshots (a path's unit starts it)
    #[command(hide = true)]
    Reactor(reactor::Args),
    /// Have the pod ask the name servers that the host asks (a unit starts it)
    #[command(hide = true)]
    Resolv(resolv::Args),
    /// Remove container images that a loss of power may have left by halves (units start it)
    #[command(hide = true)]
    Images(images::Args),
    /// Say why the state does not open (the emergency's unit starts it)
    #[command(hide = true)]
    State(state::Args),
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
    let is_asked_for = match &cli.verb {
        Verb::Peer(_) | Verb::Snapshot(_) => true,
        Verb::Rebirth(verb) => verb.is_asked_for(),
        _ => false,
    };
    let done = if cli.host.is_some() && !is_asked_for {
        let message = "`--host` belongs to `sepulcher peer`, `snapshot`, and `rebirth stage`, `activate`, `status` and \
                       `rollback`";
        Err(Failure::new(Kind::Input, message).hint("leave it out"))
    } else {
        carry_out(cli.verb)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            failure.kind.exit_code().into()
        }
    }
}

fn carry_out(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Init(args) => init::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Render(args) => render::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Map(args) => map::run(&args),
        Verb::Image(verb) => image::run(&verb),
        Verb::Images(args) => images::run(&args),
        Verb::Peer(verb) => peer::run(&verb),
        Verb::Audit(verb) => audit::run(&verb),
        Verb::Snapshot(verb) => snapshot::run(&verb),
        Verb::Rebirth(verb) => rebirth::run(&verb),
        Verb::Keygen(args) => keygen::run(&args),
        Verb::Lock(args) => lock::run(&args),
        Verb::Toolbox(args) => toolbox::run(&args),
        Verb::Provision(args) => provision::run(&args),
        Verb::Probe(args) => probe::run(&args),
        Verb::Awaken(args) => awaken::run(&args),
        Verb::Health(args) => health::run(&args),
        Verb::Console(args) => console::run(&args),
        Verb::Control(args) => control::run(&args),
        Verb::Reactor(args) => reactor::run(&args),
        Verb::Resolv(args) => resolv::run(&args),
        Verb::State(args) => state::run(&args),
        Verb::Tether(verb) => tether::run(verb),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::StandIn(args) => stand_in::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::Cli;

    #[test]
    fn the_arguments_of_all_verbs_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_host_stands_before_peer_or_behind_it() {
        let told = |args: &str| {
            let cli = Cli::try_parse_from(args.split(' ')).unwrap();
            format!("{:?}", cli.verb)
        };
        for args in ["sepulcher --host lychd peer list", "sepulcher peer list --host lychd"] {
            assert!(told(args).contains("host: Some(\"lychd\")"), "{args}: {}", told(args));
        }
        assert!(told("sepulcher peer list").contains("host: None"));
    }
}
