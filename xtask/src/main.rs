//! Development commands: `cargo xtask VERB`. Each verb is one file; what users need is in the library.

mod bench;
mod bless;
mod boot;
mod ci;
mod docker;
mod e2e;
mod fuzz;
mod guest;
mod image;
mod licences;
mod netns;
mod nix;
mod render;
mod reproduce;
mod topology;
mod tpm;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sepulcher::cli::{Failure, Kind};

/// What verbs return: errors are shown to a person, never matched.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of sepulcher")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Render(render::Args),
    Bless(bless::Args),
    /// Build the sealed image of a Codex (default: the example)
    Image(image::Args),
    /// Boot an image in QEMU with its console on this terminal
    Boot(boot::Args),
    /// Boot an image once and prove what peers and outsiders can reach
    E2e(e2e::Args),
    /// Run peers and gateways in containers (ring 3), with a container engine of its own unless DOCKER_HOST names one
    Topology(topology::Args),
    /// Build the image twice under different circumstances and compare the bytes
    Reproduce,
    /// Measure rendering, image building and booting
    Bench(bench::Args),
    /// Feed the Codex parser and the .deb reader whatever makes them do something new
    Fuzz(fuzz::Args),
    /// Build program and image with Nix, and compare the image with the one that cargo's driver makes
    Nix,
    /// Check licences and sources of all dependencies against deny.toml
    Licences,
    /// Run every check and test that this machine allows, saying what was skipped
    Ci,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Render(args) => return render::run(args),
        Verb::Bless(args) => return bless::run(&args),
        Verb::Image(args) => image::run(&args),
        Verb::Boot(args) => boot::run(&args),
        Verb::E2e(args) => e2e::run(&args),
        Verb::Topology(args) => topology::run(&args),
        Verb::Reproduce => reproduce::run(),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Nix => nix::run(),
        Verb::Licences => licences::run(),
        Verb::Ci => ci::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", Failure::from_error(Kind::Internal, error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The repository's top folder.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Copies a folder with everything in it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
