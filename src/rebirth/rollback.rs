//! The way back to the body before, by hand.

use super::entry::Entry;
use super::machine::{Machine, Running};
use super::record::{Activated, End};
use super::store::step_back;
use super::version::Version;
use super::{Error, kept};
use crate::peer::Refused;
use crate::sys::clock;

/// Chooses the other body again, or takes an activation back that was not tried yet. True when a restart is needed.
///
/// Who is far away names the body that it means to leave: another one may run by now.
///
/// # Errors
/// See [`Error`]: nothing has changed.
pub fn rollback(machine: &Machine, leave: Option<&Version>) -> Result<(Activated, bool), Error> {
    let _lock = kept::locked(machine)?;
    let _record = kept::record_locked(machine)?;
    let running = machine.running()?;
    let hint = "`sepulcher rebirth status` shows what there is";
    if let Some(leave) = leave.filter(|leave| **leave != running.version) {
        let message = format!("body {} runs, and not {leave}", running.version);
        return Err(Refused::new(message, hint).into());
    }
    let mut activated = kept::activated(machine)?
        .ok_or_else(|| Refused::new("this machine was never told to become another body", hint))?;
    if running.version == activated.version {
        return_to(machine, &running, &mut activated)?;
        return Ok((activated, true));
    }
    if activated.outcome.is_some() {
        let message = format!("there is nothing to go back from: {activated}");
        return Err(Refused::new(message, hint).into());
    }
    // A record without an entry is one that was cut off: the next boot finds it.
    take_back(machine, &running, &activated.version)?;
    activated.ended(End::RolledBack, clock::now());
    kept::write_activated(machine, &activated)?;
    Ok((activated, false))
}

/// Has the boot loader choose the body before. The record comes first: without it, this body would have fallen.
fn return_to(machine: &Machine, running: &Running, activated: &mut Activated) -> Result<(), Error> {
    let entries = machine.entries(&running.name)?;
    let old = entries.iter().find(|entry| entry.version == activated.from).ok_or_else(|| {
        let message = format!("body {} is no longer on this machine", activated.from);
        Refused::new(message, "`sepulcher rebirth status` shows what there is")
    })?;
    activated.ended(End::RolledBack, clock::now());
    kept::write_activated(machine, activated)?;
    if old.is_spent() {
        machine.rename(old, &Entry { tries: None, ..old.clone() })?;
    }
    step_back(machine, &entries, running)
}

/// Takes the entry of a body away that was not tried, once the one that runs has its plain name again.
pub(super) fn take_back(machine: &Machine, running: &Running, version: &Version) -> Result<(), Error> {
    let entries = machine.entries(&running.name)?;
    for own in entries.iter().filter(|entry| entry.version == running.version) {
        machine.rename(own, &Entry { tries: None, ..own.clone() })?;
    }
    for new in entries.iter().filter(|entry| entry.version == *version && *version != running.version) {
        machine.remove(new)?;
    }
    Ok(())
}
