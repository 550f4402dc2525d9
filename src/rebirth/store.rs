//! What a machine does with its bodies when it is told to: stage, activate.
//!
//! A power loss at any moment leaves a machine that boots: an entry goes before the slot that it leads to is overwritten,
//! and comes when everything that it leads to was read back from the disk.

use std::path::Path;

use super::entry::{Entry, Tries};
use super::fetch::Origin;
use super::machine::{Machine, Running, Slot};
use super::record::{Activated, Part, SCHEMA, Staged};
use super::rollback::take_back;
use super::version::Version;
use super::{Error, bundle, kept, schema, stranded};
use crate::codex::{Codex, SCHEMA as SCHEMA_OF_BONDS, Sources};
use crate::image::disk::Role;
use crate::image::identity;
use crate::peer::Refused;
use crate::peer::store::migrate;
use crate::peer::store::{Place, load_living};
use crate::snapshot;
use crate::snapshot::store::{Creation, Host, Leaves};
use crate::sys::{clock, fs, record};
use crate::tree::Sha256Digest;

/// The longest kernel image, in bytes.
const KERNEL: u64 = 256 << 20;

/// What is to be staged, and how.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// A folder, a file or an address.
    pub source: &'a str,
    /// Whether the body may be older than the one that runs.
    pub downgrade: bool,
}

/// Writes a body to the slot that does not run, and verifies it. `tell` hears how far it is.
///
/// # Errors
/// See [`Error`]: what runs and what is bonded is untouched; what was staged before may be gone.
pub fn stage(machine: &Machine, wish: Wish<'_>, tell: &mut dyn FnMut(&str)) -> Result<Staged, Error> {
    let _lock = kept::locked(machine)?;
    let running = machine.running()?;
    // Before anything is fetched in vain.
    proven(machine, &running)?;
    machine.tidy(&running.name)?;
    let place = Place::appliance(machine.root());
    // A bond of a body with another law may name what this one does not have, and be what the next one holds.
    let (sources, codex) = load_living(&place)?;
    let publisher = codex.rebirth.publisher.as_ref().ok_or_else(|| {
        let hint = "build the next body with `[rebirth] publisher = \"…\"` in its lychd.toml, and write it to the disk";
        Refused::new("the law of this body names no publisher: it takes no update", hint)
    })?;
    let origin = Origin::of(wish.source, &codex)?;
    let incoming = kept::incoming(machine);
    kept::tidy(machine)?;
    tell(&format!("fetching {}", wish.source));
    let tether = || machine.tether(&codex.appliance);
    let staged = origin.bring(&incoming, tether).and_then(|()| {
        let bundle = bundle::open(&incoming, publisher)?;
        let mut staged = record_of(&bundle)?;
        tell(&format!("signed by the publisher: {} {}", bundle.description.name, staged.version));
        suits(machine, &running, bundle.description.name.as_str(), &staged, wish.downgrade)?;
        let new = holds(&place, &staged, (&sources, &codex), tell)?;
        staged.takes = match &new {
            Some(new) => stranded::takes(&codex, new, clock::now()),
            None => vec!["what the new law takes from peers, its own first boot decides".to_owned()],
        };
        staged.takes.extend(lacking(&place, new.as_ref())?);
        staged.takes.iter().for_each(|line| tell(line));
        make_way(machine, &running, tell)?;
        disown(machine, &running, &staged, tell)?;
        tell("writing to the slot that does not run");
        machine.write_slot(&staged.version)?;
        verify(machine, &staged)?;
        keep(machine, &incoming.join(&bundle.description.kernel.file), &staged)?;
        Ok(staged)
    });
    fs::remove_dir_all(&incoming)?;
    staged
}

/// Whether that body can go on with the bonds; the Codex of its law. What another schema's law says, this program cannot
/// judge: its own first boot does.
fn holds(
    place: &Place,
    staged: &Staged,
    (sources, codex): (&Sources, &Codex),
    tell: &mut dyn FnMut(&str),
) -> Result<Option<Codex>, Error> {
    let kept = fs::exists(&migrate::kept(place, staged.codex_schema))?;
    match schema::migration(SCHEMA_OF_BONDS, staged.codex_schema, kept)? {
        Some(line) => {
            tell(&line);
            Ok(None)
        }
        None => Ok(Some(stranded::check(&staged.law, sources, codex, clock::now())?)),
    }
}

/// Secrets that services of a law name and this machine does not have, a line each: nothing brings them any more.
fn lacking(place: &Place, law: Option<&Codex>) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for (name, secret) in law.into_iter().flat_map(Codex::secrets) {
        if !fs::exists(&place.secrets.join(secret.as_str()))? {
            lines.push(format!("{name} cannot start: this machine does not have its secret `{secret}`"));
        }
    }
    Ok(lines)
}

fn record_of(bundle: &bundle::Bundle) -> Result<Staged, Error> {
    let description = &bundle.description;
    let part = |part: &bundle::Part| {
        let (size, sha256) = bundle.files.get(&part.file).copied()?;
        Some(Part { size, sha256 })
    };
    let parts = || Some([part(&description.root)?, part(&description.verity)?, part(&description.kernel)?]);
    let [root, verity, kernel] =
        parts().ok_or_else(|| Refused::new("the bundle lacks a part", "fetch it anew"))?;
    Ok(Staged {
        schema: SCHEMA,
        version: description.version.clone(),
        digest: bundle.digest,
        root_hash: description.root_hash,
        codex_schema: description.codex_schema,
        at: clock::now(),
        root,
        verity,
        kernel,
        law: description.law.clone(),
        takes: Vec::new(),
    })
}

/// Whether this machine, in the state it is in, may take that body.
pub(super) fn suits(
    machine: &Machine,
    running: &Running,
    name: &str,
    staged: &Staged,
    downgrade: bool,
) -> Result<(), Error> {
    let version = &staged.version;
    if name != running.name {
        let message = format!("the body is {name}'s, and this machine is {}", running.name);
        return Err(Refused::new(message, "choose the bundle of this appliance").into());
    }
    if *version == running.version {
        return Err(runs_already(version).into());
    }
    if *version < running.version && !downgrade {
        let message = format!("body {version} is older than {}, which runs", running.version);
        return Err(Refused::new(message, "say `--allow-downgrade` if that is what you want").into());
    }
    let slots = machine.slots(running)?;
    let others: Vec<&Slot> = slots.iter().filter(|slot| !slot.running).collect();
    if slots.len() - others.len() != 1 || others.is_empty() {
        return Err(
            Refused::new("this disk does not have two slots", "write the image to the disk anew").into()
        );
    }
    if others.iter().all(|slot| slot.size < staged.root.size) {
        let message = format!("the root takes {} MiB, more than the slot has", staged.root.size >> 20);
        return Err(Refused::new(message, "build a smaller body, or write it to the disk anew").into());
    }
    // A slot that holds it without a record was written when the power was lost, or ran before: what it holds is verified.
    let before = kept::sound(kept::staged(machine), &mut |_| {})?;
    let before = before.filter(|before| before.version == *version);
    if let (Some(slot), Some(before)) =
        (others.iter().find(|slot| slot.version.as_ref() == Some(version)), before)
    {
        let is_same = before.digest == staged.digest;
        let message = if is_same {
            format!("body {version} is staged already")
        } else {
            format!("{} holds another body {version} already", slot.device)
        };
        let hint =
            "a version names one body: build another one with a higher `--version`, or activate this one";
        // One that has rotted since is written again.
        if !is_same || is_whole(machine, staged) {
            return Err(Refused::new(message, hint).into());
        }
    }
    has_room(machine, &running.name, &staged.kernel, |entry| entry.version != running.version)
}

fn runs_already(version: &Version) -> Refused {
    Refused::new(format!("body {version} runs already"), "build the next one with a higher `--version`")
}

/// Whether the boot partition takes a kernel image once these entries are gone.
fn has_room(
    machine: &Machine,
    name: &str,
    kernel: &Part,
    goes: impl Fn(&Entry) -> bool,
) -> Result<(), Error> {
    let entries = machine.entries(name)?;
    let sizes: Result<Vec<u64>, _> =
        entries.iter().filter(|entry| goes(entry)).map(|entry| machine.size(entry)).collect();
    let free = machine.free_for_entries()? + sizes?.iter().sum::<u64>();
    if free >= kernel.size + (1 << 20) {
        return Ok(());
    }
    let message = format!("the boot partition has {} MiB left", free >> 20);
    Err(Refused::new(message, "write the image to the disk anew: it brings a larger one").into())
}

/// Refuses what would take a chance from a body that has to prove healthy, or the one before from it.
///
/// # Errors
/// The body that runs has not proven healthy yet; or see [`Error`].
pub fn proven(machine: &Machine, running: &Running) -> Result<(), Error> {
    let entries = machine.entries(&running.name)?;
    let own = entries.iter().find(|entry| entry.version == running.version);
    let other = entries.iter().any(|entry| entry.version != running.version);
    let activated = kept::sound(kept::activated(machine), &mut |_| {})?;
    if let Some(next) = activated.filter(|next| next.outcome.is_none() && next.version < running.version) {
        let hint = "restart, or take it back: `sepulcher rebirth rollback`";
        return Err(Refused::new(format!("{next} with the next boot"), hint).into());
    }
    if other && own.is_none_or(|own| own.tries.is_some()) {
        let message = format!("body {} has not proven healthy yet", running.version);
        return Err(Refused::new(message, "wait until `sepulcher rebirth status` says so").into());
    }
    Ok(())
}

/// Forgets every other body, entries first: the slot is about to be another's.
pub(super) fn make_way(
    machine: &Machine,
    running: &Running,
    tell: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    for entry in machine.entries(&running.name)?.iter().filter(|entry| entry.version != running.version) {
        machine.remove(entry)?;
    }
    let _record = kept::record_locked(machine)?;
    if kept::sound(kept::activated(machine), tell)?.is_none_or(|activated| activated.outcome.is_none()) {
        kept::forget_activated(machine)?;
    }
    kept::forget_staged(machine)
}

/// Empties a slot that says that it holds this very version, and does not: systemd-sysupdate would leave it as it is.
pub(super) fn disown(
    machine: &Machine,
    running: &Running,
    staged: &Staged,
    tell: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let slots = machine.slots(running)?;
    let claims = slots.iter().any(|slot| !slot.running && slot.version.as_ref() == Some(&staged.version));
    if claims && verify(machine, staged).is_err() {
        tell("the slot does not hold what it says: it is emptied first");
        machine.empty_slot()?;
    }
    Ok(())
}

/// Whether slot and kernel image are what was staged.
fn is_whole(machine: &Machine, staged: &Staged) -> bool {
    verify(machine, staged).is_ok() && kept_kernel(machine, staged).is_ok()
}

fn verify(machine: &Machine, staged: &Staged) -> Result<(), Error> {
    let (root, verity) = identity::partitions(staged.root_hash);
    machine.holds(Role::Root, root, &staged.root)?;
    machine.holds(Role::Verity, verity, &staged.verity)
}

/// Keeps the kernel image with the record of what is staged.
fn keep(machine: &Machine, kernel: &Path, staged: &Staged) -> Result<(), Error> {
    let shadow = kept::staging(machine);
    fs::remove_dir_all(&shadow)?;
    fs::create_dir_all(&shadow)?;
    let bytes = kernel_image(kernel, &staged.kernel)?;
    fs::write_atomic(&shadow.join("kernel.efi"), 0o600, &bytes)?;
    record::write(&shadow.join("staged.json"), staged)?;
    Ok(fs::rename(&shadow, &kept::staged_folder(machine))?)
}

fn kept_kernel(machine: &Machine, staged: &Staged) -> Result<Vec<u8>, Error> {
    kernel_image(&kept::staged_folder(machine).join("kernel.efi"), &staged.kernel)
}

fn kernel_image(path: &Path, part: &Part) -> Result<Vec<u8>, Error> {
    let bytes = fs::read_bounded(path, KERNEL)?;
    if Sha256Digest::of(&bytes) == part.sha256 {
        return Ok(bytes);
    }
    Err(Refused::new("the kernel image is not the one that was staged", "stage the body anew").into())
}

/// Makes the staged body the next one to boot, with three attempts.
///
/// # Errors
/// See [`Error`]: unless the last step was reached, the body that runs stays the one to boot.
pub fn activate(machine: &Machine, digest: Sha256Digest) -> Result<Activated, Error> {
    let _lock = kept::locked(machine)?;
    let running = machine.running()?;
    let hint = "`sepulcher rebirth stage SOURCE` prints the digest that is wanted";
    let staged = kept::staged(machine)?.ok_or_else(|| Refused::new("no body is staged", hint))?;
    if staged.digest != digest {
        let message = format!("another body is staged: {} with digest {}", staged.version, staged.digest);
        return Err(Refused::new(message, "look again at what you mean to become").into());
    }
    // The record outlives the Rebirth. What runs would lose its proven entry for an unproven one.
    if staged.version == running.version {
        return Err(runs_already(&running.version).into());
    }
    proven(machine, &running)?;
    let place = Place::appliance(machine.root());
    let (sources, codex) = load_living(&place)?;
    holds(&place, &staged, (&sources, &codex), &mut |_| {})?;
    verify(machine, &staged)?;
    let kernel = kept_kernel(machine, &staged)?;
    machine.tidy(&running.name)?;
    has_room(machine, &running.name, &staged.kernel, |entry| entry.version == staged.version)?;
    let note = format!("before body {} took the place of {}", staged.version, running.version);
    // Bonds alone: whoever was revoked under the new body stays so, and what services wrote there is not taken from them
    // by a fall back. Freezing all of them and copying their volumes would only keep the machine from its new body.
    let creation = Creation { note: Some(&note), leaves: Leaves::Little, ..Creation::default() };
    let (snapshot, _) =
        snapshot::store::create(&place, &Host::new(&|line| eprintln!("note: {line}")), creation)?;
    let activated = Activated {
        schema: SCHEMA,
        version: staged.version.clone(),
        digest,
        from: running.version.clone(),
        at: clock::now(),
        snapshot,
        tries: Vec::new(),
        outcome: None,
    };
    let _record = kept::record_locked(machine)?;
    kept::write_activated(machine, &activated)?;
    if let Err(error) = choose(machine, &running, &staged, &kernel) {
        // What failed here must not happen with some later boot.
        let undone = [kept::forget_activated(machine), take_back(machine, &running, &staged.version)];
        undone.into_iter().filter_map(Result::err).for_each(|error| eprintln!("note: {error}"));
        return Err(error);
    }
    Ok(activated)
}

/// Puts the new entry in front of the one that runs.
fn choose(machine: &Machine, running: &Running, staged: &Staged, kernel: &[u8]) -> Result<(), Error> {
    let new = Entry { name: running.name.clone(), version: staged.version.clone(), tries: Some(Tries::ALL) };
    let entries = machine.entries(&running.name)?;
    for entry in entries.iter().filter(|entry| entry.version == new.version) {
        machine.remove(entry)?;
    }
    machine.add(&new, kernel)?;
    // The boot loader takes the highest version that has attempts left: for an older one, this one steps back.
    if new.version < running.version {
        step_back(machine, &entries, running)?;
    }
    Ok(())
}

/// Has the boot loader choose others before the body that runs.
pub(super) fn step_back(machine: &Machine, entries: &[Entry], running: &Running) -> Result<(), Error> {
    let own = entries.iter().find(|entry| entry.version == running.version);
    let own = own.ok_or_else(|| {
        Refused::new("the running body has no boot entry", "write the image to the disk anew")
    })?;
    machine.rename(own, &Entry { tries: Some(Tries::NONE), ..own.clone() })
}
