//! `cargo xtask render`: `sepulcher render` with defaults for this repository.

use std::ffi::OsString;
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
    /// Before rendering, print what changes on a machine that runs this body (see `sepulcher rebirth preview`)
    #[arg(long)]
    body: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let Args { dir, out, check, body } = args;
    if let Some(body) = body {
        let words = ["sepulcher", "rebirth", "preview"].map(OsString::from).into_iter();
        let told = sepulcher::cli::run(words.chain([dir.clone().into(), "--body".into(), body.into()]));
        if told != ExitCode::SUCCESS {
            return told;
        }
    }
    let words = ["sepulcher".into(), "render".into(), dir.into(), "--out".into(), out.into()];
    sepulcher::cli::run(words.into_iter().chain(check.then(|| "--check".into())))
}
