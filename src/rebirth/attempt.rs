//! What a machine does with its bodies by itself: it notes each attempt to be a new one, ends what a power loss cut off,
//! and tells what became of it.

use super::entry::{Entry, TRIES, Tries};
use super::intent::short;
use super::machine::{Machine, Running};
use super::record::{Activated, End, Verdict};
use super::{Error, inbox, kept, status};
use crate::sys::clock;

/// Notes that this boot has begun; what a person should hear about it, a line each.
///
/// # Errors
/// See [`Error`].
pub fn begin(machine: &Machine) -> Result<Vec<String>, Error> {
    let _lock = kept::locked(machine)?;
    let _record = kept::record_locked(machine)?;
    let running = machine.running()?;
    let mut lines = Vec::new();
    tidy(machine, &running, &mut lines);
    let mut tell = |line: &str| lines.push(line.to_owned());
    if kept::sound(kept::staged(machine), &mut tell)?.is_none() {
        kept::forget_staged(machine)?;
    }
    let Some(activated) = kept::sound(kept::activated(machine), &mut tell)? else {
        kept::forget_activated(machine)?;
        return Ok(lines);
    };
    let entries = machine.entries(&running.name)?;
    lines.extend(if running.version == activated.version {
        is_new(machine, &entries, activated)?
    } else {
        is_old(machine, &running, &entries, activated)?
    });
    Ok(lines)
}

/// Removes what a power loss left. What cannot be removed keeps nothing from going on.
fn tidy(machine: &Machine, running: &Running, lines: &mut Vec<String>) {
    let done = [kept::tidy(machine), inbox::tidy(machine.root()), machine.tidy(&running.name)];
    lines.extend(done.into_iter().filter_map(Result::err).map(|error| error.to_string()));
}

/// The new body runs.
fn is_new(machine: &Machine, entries: &[Entry], mut activated: Activated) -> Result<Vec<String>, Error> {
    let own = entries.iter().find(|entry| entry.version == activated.version);
    let unproven = own.is_some_and(|own| own.tries.is_some());
    let mut lines = Vec::new();
    match activated.outcome.as_ref().map(|outcome| outcome.end) {
        None => {}
        Some(End::RolledBack) => {
            lines.push(format!("{activated}: that was cut off, and nothing has changed"));
        }
        // It was healthy, and the boot loader was not told.
        Some(End::Healthy) if unproven => {}
        Some(End::Healthy | End::FellBack) => return Ok(lines),
    }
    activated.outcome = None;
    activated.begin(&machine.boot()?, clock::now());
    kept::write_activated(machine, &activated)?;
    lines.push(format!("{activated}: attempt {} of {TRIES}", activated.tries.len()));
    Ok(lines)
}

/// Another body runs than the one that the machine was told to become.
fn is_old(
    machine: &Machine,
    running: &Running,
    entries: &[Entry],
    mut activated: Activated,
) -> Result<Vec<String>, Error> {
    let own = entries.iter().find(|entry| entry.version == running.version);
    let new = entries.iter().find(|entry| entry.version == activated.version);
    let is_spent = new.is_some_and(Entry::is_spent);
    let end = activated.outcome.as_ref().map(|outcome| outcome.end);
    match (end, new) {
        (None, Some(_)) if !is_spent => {
            // An older body comes only when this one steps back, and the power may have been lost before it did.
            if let Some(own) = own.filter(|own| activated.version < running.version && !own.is_spent()) {
                machine.rename(own, &Entry { tries: Some(Tries::NONE), ..own.clone() })?;
            }
            return Ok(vec![format!("{activated} with the next boot")]);
        }
        // The power was lost before there was an entry.
        (None, None) => {
            kept::forget_activated(machine)?;
            return Ok(vec![format!("{activated}: that was cut off, and nothing has changed")]);
        }
        (None, Some(_)) => activated.ended(End::FellBack, clock::now()),
        // Somebody who calls this body back has it on record before.
        (Some(End::Healthy), _) if is_spent && running.version == activated.from => {
            activated.ended(End::FellBack, clock::now());
        }
        (Some(End::FellBack), _) => {}
        (Some(End::Healthy | End::RolledBack), _) => return Ok(Vec::new()),
    }
    // This body was proven before it stepped back, and need not be so again.
    if let Some(own) = own.filter(|own| own.tries.is_some() && running.version == activated.from) {
        machine.rename(own, &Entry { tries: None, ..own.clone() })?;
    }
    if end == Some(End::FellBack) {
        return Ok(Vec::new());
    }
    kept::write_activated(machine, &activated)?;
    let reasons = activated.reasons().into_iter().map(|reason| format!("  {reason}"));
    Ok([activated.to_string()].into_iter().chain(reasons).collect())
}

/// Notes how healthy this boot is, whatever else is being done with bodies.
///
/// # Errors
/// See [`Error`].
pub fn found(machine: &Machine, failed: Vec<String>) -> Result<(), Error> {
    let running = machine.running()?;
    let verdict = Verdict { at: clock::now(), failed: failed.into_iter().map(short).collect() };
    status::keep_health(machine, &verdict)?;
    let _record = kept::record_locked(machine)?;
    let activated = kept::activated(machine)?;
    if let Some(mut activated) = activated.filter(|activated| activated.version == running.version) {
        activated.found(&machine.boot()?, verdict);
        kept::write_activated(machine, &activated)?;
    }
    Ok(())
}

/// Whether a boot that is not healthy should end for another attempt: this body is unproven, and there is another one, and
/// something is left to try.
///
/// # Errors
/// See [`Error`]. Where the boot entries cannot be looked at, the boot loader's word is taken for it.
pub fn should_end(machine: &Machine) -> Result<bool, Error> {
    let running = machine.running()?;
    match machine.entries(&running.name) {
        Ok(entries) => Ok(has_another_attempt(&running, &entries)),
        Err(error) if machine.is_counted() => {
            eprintln!("note: {error}");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

fn has_another_attempt(running: &Running, entries: &[Entry]) -> bool {
    let is_own = |entry: &&Entry| entry.version == running.version;
    let own = entries.iter().find(is_own).and_then(|own| own.tries);
    let mut others = entries.iter().filter(|entry| !is_own(entry)).peekable();
    let alone = others.peek().is_none();
    own.is_some_and(|own| !alone && (own.left > 0 || others.any(|other| !other.failed())))
}
