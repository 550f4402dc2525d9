//! `sepulcher reactor`: carries out what peers may have done to the machine's bodies, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, rebirth};
use crate::rebirth::inbox;
use crate::rebirth::intent::Wish;
use crate::rebirth::machine::Machine;
use crate::rebirth::status;

/// How long the machine stays once it is told to restart: who asked for it asks every two seconds what became of it.
const GRACE: Duration = Duration::from_secs(6);

/// Arguments of `sepulcher reactor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Takes every intent that waits. One that is refused or fails is on record, and no failure of this program.
pub fn run(args: &Args) -> Result<(), Failure> {
    let machine = Machine::new(&args.root);
    let mut restart = false;
    let taken = inbox::take(&machine, &mut |wish| {
        let done = match wish {
            Wish::Stage { source, allow_downgrade } => rebirth::stage_now(&machine, source, *allow_downgrade),
            Wish::Activate { digest } => rebirth::activate_now(&machine, *digest).inspect(|_| restart = true),
        };
        done.map(drop).map_err(|failure| failure.to_string())
    });
    // What became of it is part of the status.
    status::publish(&machine)?;
    taken?;
    // Only now: what was done is on record.
    if restart {
        std::thread::sleep(GRACE);
        machine.reboot()?;
    }
    Ok(())
}
