//! `sepulcher reactor`: carries out what peers may have done to the machine's bodies and snapshots, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use super::control::wire::Told;
use super::{Failure, rebirth, snapshot};
use crate::rebirth::inbox;
use crate::rebirth::intent::{Intent, Outcome, Wish};
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
    let taken = inbox::take(&machine, &mut |intent| {
        let (outcome, needs_restart) = carry_out(&machine, intent).map_err(|failure| reason(&failure))?;
        restart |= needs_restart;
        Ok(outcome)
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

/// What came of an intent, and whether the machine has to restart for it.
fn carry_out(machine: &Machine, intent: &Intent) -> Result<(Option<Outcome>, bool), Failure> {
    let Intent { peer, wish, .. } = intent;
    match wish {
        Wish::Stage { source, allow_downgrade } => {
            rebirth::stage_now(machine, source, *allow_downgrade).map(|_| (None, false))
        }
        Wish::Activate { digest } => rebirth::activate_now(machine, *digest).map(|_| (None, true)),
        Wish::Rollback { leave } => {
            rebirth::rollback_now(machine, Some(leave)).map(|(.., needs_restart)| (None, needs_restart))
        }
        Wish::CreateSnapshot(create) => {
            snapshot::asked::create(machine.root(), peer, create).map(|outcome| (Some(outcome), false))
        }
        Wish::VerifySnapshot(named) => {
            snapshot::asked::verify(machine.root(), named).map(|outcome| (Some(outcome), false))
        }
        Wish::RestoreSnapshot(restore) => snapshot::asked::restore(machine.root(), peer, restore)
            .map(|(outcome, needs_restart)| (Some(outcome), needs_restart)),
        Wish::PruneSnapshots(prune) => {
            snapshot::asked::prune(machine.root(), peer, *prune).map(|outcome| (Some(outcome), false))
        }
    }
}

/// Why something failed, the sentence first: what is long is cut.
fn reason(failure: &Failure) -> String {
    let Told { kind: _, message, hint, report } = failure.into();
    let hint = hint.map(|hint| format!("hint: {hint}"));
    [Some(message), hint, report].into_iter().flatten().collect::<Vec<_>>().join("\n")
}
