//! The records on disk: who may change them when, and what becomes of one that is of no use.

use std::path::PathBuf;

use super::Error;
use super::machine::Machine;
use super::record::{Activated, Staged};
use crate::peer::store::PATIENCE;
use crate::sys::journal::Lock;
use crate::sys::{fs, record};

/// The longest record, in bytes: a law is in it.
const RECORD: u64 = 16 << 20;

/// Nobody else changes bodies while the value lives. Fetching and writing one takes its time.
pub(super) fn locked(machine: &Machine) -> Result<Lock, Error> {
    lock(machine, ".lock")
}

/// Nobody else changes the record of what was activated while the value lives, which is short: a verdict does not wait for
/// a body that is being fetched. Who needs both takes this one last.
pub(super) fn record_locked(machine: &Machine) -> Result<Lock, Error> {
    lock(machine, ".record.lock")
}

fn lock(machine: &Machine, name: &str) -> Result<Lock, Error> {
    let state = machine.state();
    fs::create_dir_all(&state)?;
    fs::set_mode(&state, 0o700)?;
    Ok(Lock::acquire(&state.join(name), PATIENCE)?)
}

/// Where a bundle is brought to before it is believed.
pub(super) fn incoming(machine: &Machine) -> PathBuf {
    machine.state().join("incoming")
}

/// Where the record of a staged body is written, before it has its name.
pub(super) fn staging(machine: &Machine) -> PathBuf {
    machine.state().join("staging")
}

/// The folder of the staged body's record and kernel image.
pub(super) fn staged_folder(machine: &Machine) -> PathBuf {
    machine.state().join("staged")
}

fn activated_file(machine: &Machine) -> PathBuf {
    machine.state().join("activated.json")
}

/// The body that is staged.
pub fn staged(machine: &Machine) -> Result<Option<Staged>, Error> {
    Ok(record::read(&staged_folder(machine).join("staged.json"), RECORD)?)
}

/// The last body that the machine was told to become.
pub fn activated(machine: &Machine) -> Result<Option<Activated>, Error> {
    Ok(record::read(&activated_file(machine), RECORD)?)
}

/// What a record says. One that is of no use says nothing, which `tell` hears: else it would be in the way for ever.
pub(super) fn sound<T>(
    read: Result<Option<T>, Error>,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<T>, Error> {
    match read {
        Err(error @ Error::Record { .. }) => {
            tell(&format!("{error}: it is taken for none"));
            Ok(None)
        }
        read => read,
    }
}

pub(super) fn write_activated(machine: &Machine, activated: &Activated) -> Result<(), Error> {
    Ok(record::write(&activated_file(machine), activated)?)
}

/// Removes the record of what was activated: it is whole until it is gone.
pub(super) fn forget_activated(machine: &Machine) -> Result<(), Error> {
    let path = activated_file(machine);
    fs::remove_file(&path)?;
    Ok(fs::sync_parent(&path)?)
}

/// Removes the staged body's record and kernel image.
pub(super) fn forget_staged(machine: &Machine) -> Result<(), Error> {
    let folder = staged_folder(machine);
    fs::remove_dir_all(&folder)?;
    Ok(fs::sync_parent(&folder)?)
}

/// Removes what a power loss left of a staging.
pub(super) fn tidy(machine: &Machine) -> Result<(), Error> {
    fs::remove_dir_all(&incoming(machine))?;
    Ok(fs::remove_dir_all(&staging(machine))?)
}
