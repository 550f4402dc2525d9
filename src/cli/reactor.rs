//! `sepulcher reactor`: carries out what peers, and who sits at the console, may have done to the machine's bodies and
//! snapshots, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use super::console::machine::public_key;
use super::control::wire::Told;
use super::{Failure, rebirth, snapshot};
use crate::peer::store::Place;
use crate::rebirth::inbox::{self, Ended, Why};
use crate::rebirth::intent::{Intent, Outcome, Wish};
use crate::rebirth::machine::Machine;
use crate::rebirth::record::Staged;
use crate::sys::fs;

/// How long the machine stays once it is told to restart: who asked for it asks every two seconds what became of it.
const GRACE: Duration = Duration::from_secs(6);

/// Arguments of `sepulcher reactor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// End what one that was killed left half done
    #[arg(long, hide = true)]
    ended: bool,
}

/// Takes the intent that has waited longest. One that is refused or fails is on record, and no failure of this program;
/// whatever waits still has systemd start it again at once, with a time limit of its own.
pub fn run(args: &Args) -> Result<(), Failure> {
    let machine = Machine::new(&args.root);
    if args.ended {
        let noted = inbox::end_begun(&args.root).map_err(Failure::from);
        return snapshot::resume(&args.root).and(noted);
    }
    // The one before was killed in between: nothing is done before the restart that it owed.
    if owes_restart(&machine) {
        return restart(&machine);
    }
    let taken = inbox::take(&machine, &mut |intent| {
        let (result, restart) = carry_out(&machine, intent);
        if restart && let Err(error) = fs::write(&due(&machine), 0o600, b"") {
            eprint!("note: {}", Failure::from(error));
        }
        let restart = restart || owes_restart(&machine);
        Ended { result: result.map_err(|failure| why(&failure)), restart }
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

/// Whether the machine has to restart: somebody noted it, or its key is another one than it booted with, which is the
/// agent's until then.
pub(super) fn owes_restart(machine: &Machine) -> bool {
    let booted = public_key(machine.root());
    let own = Place::appliance(machine.root()).host_key().ok().flatten();
    let is_another = booted.zip(own).is_some_and(|(booted, own)| booted != own.to_string());
    is_another || fs::exists(&due(machine)).unwrap_or(false)
}

fn restart(machine: &Machine) -> Result<(), Failure> {
    std::thread::sleep(GRACE);
    Ok(machine.reboot()?)
}

/// What came of an intent, and whether the machine has to restart for it, but for another key.
fn carry_out(machine: &Machine, intent: &Intent) -> (Result<Option<Outcome>, Failure>, bool) {
    let Intent { who, wish, .. } = intent;
    let root = machine.root();
    let done = match wish {
        Wish::Stage { source, allow_downgrade } => {
            let staged = rebirth::stage_now(machine, source, *allow_downgrade);
            staged
                .map(|Staged { version, digest, takes, .. }| Some(Outcome::Staged { version, digest, takes }))
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
        Wish::CreateSnapshot(create) => snapshot::asked::create(machine, who, create).map(Some),
        Wish::VerifySnapshot(named) => snapshot::asked::verify(root, named).map(Some),
        Wish::RestoreSnapshot(restore) => snapshot::asked::restore(machine, who, restore).map(Some),
        Wish::PruneSnapshots(prune) => snapshot::asked::prune(root, who, *prune).map(Some),
    };
    (done, false)
}

/// Why something failed, the sentence first: what is long is cut.
fn why(failure: &Failure) -> Why {
    let Told { kind, message, hint, report } = failure.into();
    let hint = hint.map(|hint| format!("hint: {hint}"));
    let reason = [Some(message), hint, report].into_iter().flatten().collect::<Vec<_>>().join("\n");
    Why { reason, exit_code: kind.exit_code() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Kind;
    use crate::sys::wireguard::SecretKey;

    #[test]
    fn what_failed_is_on_record_with_the_exit_code_that_it_has_here() {
        let failure = Failure::new(Kind::Unavailable, "it does not answer").hint("wait");
        let Why { reason, exit_code } = why(&failure);
        assert_eq!((reason.as_str(), exit_code), ("it does not answer\nhint: wait", 69));
    }

    #[test]
    fn a_restart_is_due_for_another_key_than_the_machine_booted_with_and_for_what_was_noted() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::new(root.path());
        let [booted, other] = [SecretKey::generate(), SecretKey::generate()];
        let write = |path: &str, bytes: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, 0o600, bytes).unwrap();
        };
        let key = "var/lib/sepulcher/secrets/tether.key";
        assert!(!owes_restart(&machine), "nothing is known of its key");
        write("run/sepulcher/tether.pub", format!("{}\n", booted.public()).as_bytes());
        write(key, booted.to_file().as_bytes());
        assert!(!owes_restart(&machine));
        write(key, other.to_file().as_bytes());
        assert!(owes_restart(&machine));
        write(key, booted.to_file().as_bytes());
        write("run/sepulcher/restart", b"");
        assert!(owes_restart(&machine));
    }
}
