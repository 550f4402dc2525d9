//! `cargo xtask render`: `sepulcher render` with defaults for this repository.

use std::path::PathBuf;
use std::process::ExitCode;

/// Render a Codex, by default the example into out/tree
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that holds lychd.toml
    #[arg(default_value = "examples/lychd")]
    dir: PathBuf,
    /// Folder that becomes the rendered tree
    #[arg(long, default_value = "out/tree")]
    out: PathBuf,
    /// Write nothing, compare
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let Args { dir, out, check } = args;
    let words = ["sepulcher".into(), "render".into(), dir.into(), "--out".into(), out.into()];
    sepulcher::cli::run(words.into_iter().chain(check.then(|| "--check".into())))
}
