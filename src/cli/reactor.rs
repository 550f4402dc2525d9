//! `sepulcher reactor`: carries out what peers may have done to the machine's bodies and snapshots, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use super::control::wire::Told;
use super::{Failure, rebirth, snapshot};
use crate::rebirth::inbox::{self, Ended};
use crate::rebirth::intent::{Intent, Outcome, Wish};
use crate::rebirth::machine::Machine;
use crate::sys::fs;

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
    // The one before was killed in between: nothing is done before the restart that it owed.
    if fs::exists(&due(&machine))? {
        return restart(&machine);
    }
    let taken = inbox::take(&machine, &mut |intent| {
        let (result, restart) = carry_out(&machine, intent);
        Ended { result: result.map_err(|failure| reason(&failure)), restart }
    });
    // What became of it is part of the status.
    rebirth::publish(&machine);
    match taken {
        Ok(false) => Ok(()),
        // Only now: what was done is on record.
        Ok(true) => restart(&machine),
        Err(error) => {
            // What waits still starts this program again at once.
            std::thread::sleep(GRACE);
            Err(error.into())
        }
    }
}

/// Tells that a restart is due, until there was one.
fn due(machine: &Machine) -> PathBuf {
    machine.root().join("run/sepulcher/restart")
}

fn restart(machine: &Machine) -> Result<(), Failure> {
    if let Err(error) = fs::write(&due(machine), 0o600, b"") {
        eprint!("note: {}", Failure::from(error));
    }
    std::thread::sleep(GRACE);
    Ok(machine.reboot()?)
}

/// What came of an intent, and whether the machine has to restart for it.
fn carry_out(machine: &Machine, intent: &Intent) -> (Result<Option<Outcome>, Failure>, bool) {
    let Intent { peer, wish, .. } = intent;
    let root = machine.root();
    let done = match wish {
        Wish::Stage { source, allow_downgrade } => {
            let staged = rebirth::stage_now(machine, source, *allow_downgrade);
            staged.map(|staged| Some(Outcome::Staged { takes: staged.takes }))
        }
        Wish::Activate { digest } => {
            let activated = rebirth::activate_now(machine, *digest).map(|_| None);
            let restart = activated.is_ok();
            return (activated, restart);
        }
        Wish::Rollback { leave } => match rebirth::rollback_now(machine, Some(leave)) {
            Ok((_, restart)) => return (Ok(None), restart),
            Err(failure) => Err(failure),
        },
        Wish::CreateSnapshot(create) => snapshot::asked::create(machine, peer, create).map(Some),
        Wish::VerifySnapshot(named) => snapshot::asked::verify(root, named).map(Some),
        Wish::RestoreSnapshot(restore) => {
            let (restored, restart) = snapshot::asked::restore(machine, peer, restore);
            return (restored.map(Some), restart);
        }
        Wish::PruneSnapshots(prune) => snapshot::asked::prune(root, peer, *prune).map(Some),
    };
    (done, false)
}

/// Why something failed, the sentence first: what is long is cut.
fn reason(failure: &Failure) -> String {
    let Told { kind: _, message, hint, report } = failure.into();
    let hint = hint.map(|hint| format!("hint: {hint}"));
    [Some(message), hint, report].into_iter().flatten().collect::<Vec<_>>().join("\n")
}
