//! What a machine does with its bodies by itself: it notes each attempt to be a new one, and tells what became of it.

use super::entry::{Entry, TRIES};
use super::machine::Machine;
use super::record::{End, Outcome, Verdict};
use super::store::{activated, activated_file, locked, write_record};
use super::{Error, status};
use crate::sys::{clock, fs};

/// Notes that this boot has begun; what a person should hear about it, a line each.
///
/// # Errors
/// See [`Error`].
pub fn begin(machine: &Machine) -> Result<Vec<String>, Error> {
    let _lock = locked(machine)?;
    let running = machine.running()?;
    let Some(mut activated) = activated(machine)? else { return Ok(Vec::new()) };
    if activated.outcome.is_some() {
        return Ok(Vec::new());
    }
    let path = activated_file(machine);
    if running.version == activated.version {
        activated.begin(&machine.boot()?, clock::now());
        write_record(&path, &activated)?;
        return Ok(vec![format!("{activated}: attempt {} of {TRIES}", activated.tries.len())]);
    }
    let entries = machine.entries(&running.name)?;
    match entries.iter().find(|entry| entry.version == activated.version) {
        Some(entry) if !entry.is_spent() => Ok(vec![format!("{activated} with the next boot")]),
        // The power was lost before there was an entry.
        None => {
            fs::erase(&path)?;
            Ok(vec![format!("{activated}: that was cut off, and nothing has changed")])
        }
        Some(_) => {
            activated.outcome = Some(Outcome { end: End::FellBack, at: clock::now() });
            write_record(&path, &activated)?;
            let reasons = activated.reasons().into_iter().map(|reason| format!("  {reason}"));
            Ok([activated.to_string()].into_iter().chain(reasons).collect())
        }
    }
}

/// Notes how healthy this boot is.
///
/// # Errors
/// See [`Error`].
pub fn found(machine: &Machine, failed: Vec<String>) -> Result<(), Error> {
    let _lock = locked(machine)?;
    let running = machine.running()?;
    let verdict = Verdict { at: clock::now(), failed };
    status::keep_health(machine, &verdict)?;
    if let Some(mut activated) = activated(machine)?.filter(|activated| activated.version == running.version)
    {
        activated.found(&machine.boot()?, verdict);
        write_record(&activated_file(machine), &activated)?;
    }
    Ok(())
}

/// Whether a boot that is not healthy should end for another attempt: there is another body, and this one is unproven.
///
/// # Errors
/// See [`Error`].
pub fn should_end(machine: &Machine) -> Result<bool, Error> {
    let running = machine.running()?;
    let entries = machine.entries(&running.name)?;
    let unproven = |entry: &Entry| entry.version == running.version && entry.tries.is_some();
    let other = entries.iter().any(|entry| entry.version != running.version);
    Ok(other && entries.iter().any(unproven))
}
