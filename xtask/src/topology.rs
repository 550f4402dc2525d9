//! `cargo xtask topology`: ring 3, gateways and peers in containers.

use xshell::{Shell, cmd};

use crate::docker::Engine;
use crate::{Result, image, root};

/// Which claims.
#[derive(clap::Args)]
pub struct Args {
    /// Only the claims whose names hold this
    claim: Option<String>,
}

/// Runs the claims with an engine that is there for them; none may be skipped.
pub fn run(args: &Args) -> Result<()> {
    image::toolbox("tools-topology")?;
    let engine = Engine::ready()?;
    let shell = Shell::new()?;
    shell.change_dir(root());
    let claim = args.claim.as_slice();
    cmd!(shell, "cargo test --locked --test topology -- {claim...}")
        .env("DOCKER_HOST", &engine.host)
        .env("CI", "true")
        .run()?;
    Ok(())
}
