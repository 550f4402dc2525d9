//! `sepulcher images`: what a loss of power may have taken of container images.

use std::path::PathBuf;

use super::Failure;
use crate::sys::images;

/// Arguments of `sepulcher images`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Verb {
    /// Remove those that may not be whole, before Podman starts
    Check,
    /// Wait until they are on the disk, and remember them
    Settle,
}

pub fn run(Args { verb, root }: &Args) -> Result<(), Failure> {
    match verb {
        Verb::Check => {
            if images::check(root)? {
                println!("container images had not reached the disk: they are made or fetched anew");
            }
            Ok(())
        }
        Verb::Settle => Ok(images::settle(root)?),
    }
}
