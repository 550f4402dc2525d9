//! `sepulcher reactor`: carries out what peers may have done to the machine's bodies, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use super::control::wire::Told;
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
            Wish::Stage { source, allow_downgrade } => {
                rebirth::stage_now(&machine, source, *allow_downgrade).map(|_| false)
            }
            Wish::Activate { digest } => rebirth::activate_now(&machine, *digest).map(|_| true),
            Wish::Rollback { leave } => {
                rebirth::rollback_now(&machine, Some(leave)).map(|(.., needs_restart)| needs_restart)
            }
        };
        done.map(|needs_restart| restart |= needs_restart).map_err(|failure| reason(&failure))
    });
    // What became of it is part of the status.
    let published = status::publish(&machine);
    if taken.is_err() {
        // What waits still starts this program again at once.
        std::thread::sleep(GRACE);
    }
    taken?;
    published?;
    // Only now: what was done is on record.
    if restart {
        std::thread::sleep(GRACE);
        machine.reboot()?;
    }
    Ok(())
}

/// Why something failed, the sentence first: what is long is cut.
fn reason(failure: &Failure) -> String {
    let Told { kind: _, message, hint, report } = failure.into();
    let hint = hint.map(|hint| format!("hint: {hint}"));
    [Some(message), hint, report].into_iter().flatten().collect::<Vec<_>>().join("\n")
}
