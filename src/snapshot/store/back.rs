//! Volumes that are put back.
//!
//! Each is written beside its place, with every digest checked, while its service still runs. Then the services are
//! stopped, each volume is exchanged with what is new, which is one system call, and when all that belongs to the restore is
//! done the services are started and what was there before goes. All of it is written down first: when this process is
//! killed or the power is lost in between, the next command that changes snapshots, or the next boot before any service
//! starts, has the old ones back, unless all was done. What a service has run on since is never taken from it.
//!
//! Done is it when the new folder of peers is in force: one system call, behind that of every volume. So bonds and volumes
//! are the old ones or the new ones, and never some of both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal::VOLUMES;
use super::volumes::{RESERVE, Source, ended, remove_copies, room, sources, unavailable};
use super::{Host, folder, identity, paused};
use crate::codex::Codex;
use crate::peer::Refused;
use crate::peer::store::{Error, Place, is_temporary, remove};
use crate::snapshot::volume::Volume;
use crate::snapshot::{Snapshot, archive};
use crate::sys::interrupt::Held;
use crate::sys::journal::Lock;
use crate::sys::volume::Writer;
use crate::sys::{fs, tree};

/// The folder that a volume is written to, beside its own.
const SHADOW: &str = ".sepulcher.new";
/// What an entry may take beside its content, in bytes.
const BLOCK: u64 = 4096;
/// What is written down.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Whether the old volumes can go.
    done: bool,
    /// Number of the folder of peers that goes with the new volumes: with it in force, the restore is done. 0 until it is
    /// whole.
    #[serde(default)]
    peers: u64,
    /// Units that are stopped meanwhile, and those of them that are started behind it.
    units: Vec<String>,
    start: Vec<String>,
    /// Their containers.
    containers: Vec<String>,
    volumes: Vec<Moved>,
}

/// A volume on its way.
#[derive(Debug, Serialize, Deserialize)]
struct Moved {
    /// Its own folder.
    folder: PathBuf,
    /// Number of the new folder, by which the two are told apart; 0 until it is whole.
    inode: u64,
}

impl Record {
    /// Whether all the new folders are in place.
    fn is_exchanged(&self) -> Result<bool, Error> {
        for moved in &self.volumes {
            if !moved.is_exchanged()? {
                return Ok(false);
            }
        }
        Ok(!self.volumes.is_empty())
    }

    /// Whether the peers that go with the new volumes are in force.
    fn is_committed(&self, place: &Place) -> Result<bool, fs::Error> {
        Ok(self.peers != 0 && identity::in_force(place, self.peers)?)
    }

    /// Notes what the peers tell as long as nobody has put others in their place, whose number may be the same.
    fn decide(&mut self, place: &Place) -> Result<(), Error> {
        if self.peers == 0 {
            return Ok(());
        }
        self.done |= self.is_committed(place)?;
        self.peers = 0;
        // A full disk does not keep us from ending it now; if that fails, the next one decides again.
        let _ = VOLUMES.write(place, self);
        Ok(())
    }
}

impl Moved {
    fn shadow(&self) -> PathBuf {
        self.folder.with_file_name(SHADOW)
    }

    /// Whether the new folder is in place.
    fn is_exchanged(&self) -> Result<bool, fs::Error> {
        Ok(self.inode != 0 && fs::exists(&self.folder)? && fs::inode(&self.folder)? == self.inode)
    }
}

/// Volumes that lie beside their places, ready to be exchanged.
pub(super) struct Back<'a> {
    place: &'a Place,
    host: &'a Host<'a>,
    record: Record,
    /// The volumes as they are now.
    pub sources: Vec<Source>,
}

impl<'a> Back<'a> {
    /// Reads a snapshot's file and writes its volumes beside their places.
    pub fn prepare(
        place: &'a Place,
        host: &'a Host<'a>,
        codex: &Codex,
        file: &Path,
        held: &Held,
    ) -> Result<(Self, Snapshot), Error> {
        let manifest = archive::manifest(fs::open(file)?)?;
        let wanted = wanted(&manifest.volumes, sources(place, codex, host)?, codex, host)?;
        let mut units: Vec<_> = wanted.iter().map(|source| unit(codex, source)).collect();
        units.dedup();
        let containers = wanted.iter().map(|source| source.container.clone()).collect();
        let volumes: Vec<_> =
            wanted.iter().map(|source| Moved { folder: source.folder.clone(), inode: 0 }).collect();
        let record = Record { units, containers, volumes, ..Record::default() };
        let size = |volume: &Volume| {
            wanted
                .iter()
                .any(|source| source.name == volume.name)
                .then(|| volume.size.saturating_add(volume.entries.saturating_mul(BLOCK)))
        };
        let sizes: u64 = manifest.volumes.iter().filter_map(size).fold(RESERVE, u64::saturating_add);
        for moved in &record.volumes {
            room(fs::folder_of(&moved.folder), sizes)?;
        }
        VOLUMES.write(place, &record)?;
        let mut back = Self { place, host, record, sources: wanted };
        match back.fill(file, held) {
            Ok(snapshot) => Ok((back, snapshot)),
            Err(error) => Err(back.undone(error)),
        }
    }

    fn fill(&mut self, file: &Path, held: &Held) -> Result<Snapshot, Error> {
        let mut writers: Vec<_> =
            self.record.volumes.iter().map(|moved| Writer::new(&moved.shadow())).collect();
        let snapshot = archive::read(fs::open(file)?, &mut |volume, item, content| {
            if held.came() {
                return Err(ended());
            }
            match self.sources.iter().position(|source| source.name == volume.name) {
                Some(index) => Ok(writers[index].add(item, content)?),
                None => Ok(()),
            }
        })?;
        for (moved, writer) in self.record.volumes.iter_mut().zip(writers) {
            writer.end()?;
            moved.inode = fs::inode(&moved.shadow())?;
        }
        VOLUMES.write(self.place, &self.record)?;
        Ok(snapshot)
    }

    /// Stops the services whose volumes they are, also those that only try to start.
    pub fn stop(&mut self) -> Result<(), Error> {
        let Self { host, record, .. } = self;
        let active = host.services.active(&record.units);
        record.start =
            active.map_err(|error| unavailable("the state of the services cannot be told", &error))?;
        VOLUMES.write(self.place, &self.record)?;
        stop(self.host, &self.record)
    }

    /// Puts the new volumes in place. No service may run.
    pub fn exchange(&self) -> Result<(), Error> {
        if runs(self.host, &self.record)? {
            let message = "a service was started while it was to be stopped";
            return Err(Refused::new(message, "see who starts it, and try again").into());
        }
        for moved in &self.record.volumes {
            tree::exchange(&moved.shadow(), &moved.folder)?;
        }
        Ok(())
    }

    /// Notes with which folder of peers, by its number, the restore is done.
    pub fn commits_with(&mut self, peers: u64) -> Result<(), Error> {
        self.record.peers = peers;
        VOLUMES.write(self.place, &self.record)
    }

    /// Whether the restore is known to be done.
    pub fn is_committed(&self) -> bool {
        self.record.is_committed(self.place).unwrap_or(false)
    }

    /// Has the old volumes back after an error, which is the one to tell; what fails here is left to the next command.
    pub fn undone(self, error: Error) -> Error {
        if let Err(second) = undo(self.place, self.host, false, &self.record) {
            (self.host.tell)(&format!("not all is as it was: {second}"));
        }
        error
    }

    /// Starts the services and lets the old volumes go.
    pub fn finish(mut self) -> Result<(), Error> {
        self.record.done = true;
        // The restore is done, as the peers tell: what fails here does not hold up the rest.
        let written = VOLUMES.write(self.place, &self.record);
        let started = start(self.host, &self.record);
        let finished = finish(self.place, &self.record);
        started.and(written).and(finished).map_err(|error| match error {
            Error::File(error) => Error::Unfinished(error),
            other => other,
        })
    }
}

/// The unit of a source's service.
fn unit(codex: &Codex, source: &Source) -> String {
    format!("{}-{}.service", codex.appliance.name, source.service)
}

/// Volumes of this machine that a snapshot contains.
fn wanted(
    contained: &[Volume],
    own: Vec<Source>,
    codex: &Codex,
    host: &Host<'_>,
) -> Result<Vec<Source>, Error> {
    if contained.is_empty() {
        let hint =
            "leave `--with-volumes` out, or choose one that holds some: `sepulcher snapshot show NAME`";
        return Err(Refused::new("the snapshot holds no volumes", hint).into());
    }
    for volume in contained.iter().filter(|volume| own.iter().all(|source| source.name != volume.name)) {
        if codex.has_volume(&volume.name) {
            let message = format!("volume {} is not there yet", volume.name);
            let hint = format!(
                "start its service once: `systemctl start {}-{}`",
                codex.appliance.name, volume.service
            );
            return Err(Refused::new(message, hint).into());
        }
        (host.tell)(&format!("volume {} is not this machine's, and is not put back", volume.name));
    }
    Ok(own.into_iter().filter(|source| contained.iter().any(|volume| volume.name == source.name)).collect())
}

fn stop(host: &Host<'_>, record: &Record) -> Result<(), Error> {
    let stopped = host.services.stop(&record.units);
    stopped.map_err(|error| unavailable("the services cannot be stopped", &error))
}

fn start(host: &Host<'_>, record: &Record) -> Result<(), Error> {
    host.services.start(&record.start).map_err(|error| {
        let hint = format!(
            "`journalctl -u {}` tells why; what was before is kept: `sepulcher snapshot list`",
            record.start.join(" -u ")
        );
        Refused::new(format!("the services cannot be started: {error}"), hint).into()
    })
}

/// Whether a service runs that has one of these volumes.
fn runs(host: &Host<'_>, record: &Record) -> Result<bool, Error> {
    let states = paused::states(host)?;
    let busy = |container: &String| states.get(container).is_some_and(|state| !paused::is_idle(state));
    Ok(record.containers.iter().any(busy))
}

/// Has the old volumes back. While the machine boots nothing runs, and systemd starts what is to run.
fn undo(place: &Place, host: &Host<'_>, boots: bool, record: &Record) -> Result<(), Error> {
    let mut exchanged = Vec::new();
    for moved in &record.volumes {
        if moved.is_exchanged()? {
            exchanged.push(moved);
        }
    }
    if !boots && !exchanged.is_empty() {
        stop(host, record)?;
    }
    for moved in exchanged {
        tree::exchange(&moved.shadow(), &moved.folder)?;
    }
    let started = if boots { Ok(()) } else { start(host, record) };
    // The volumes are as they were: what does not start is no matter of theirs.
    finish(place, record).and(started)
}

/// Removes what is not in place, and then the record.
fn finish(place: &Place, record: &Record) -> Result<(), Error> {
    for moved in &record.volumes {
        fs::remove_dir_all(&moved.shadow())?;
    }
    VOLUMES.remove(place)
}

/// Ends what a killed command left half done, when the machine boots: unless somebody is at it, or services run by now.
///
/// # Errors
/// The disk refuses.
pub fn recover_at_boot(place: &Place, host: &Host<'_>) -> Result<Option<String>, Error> {
    let folder = folder(place);
    if !fs::exists(&folder)? {
        return Ok(None);
    }
    match Lock::acquire(&folder.join(".lock"), Duration::ZERO) {
        Ok(_lock) => {
            let settled = identity::settle(place);
            let recovered = recover(place, host, true).and_then(|line| settled.map(|()| line));
            // Half of a snapshot with volumes may be most of the disk.
            let tidied = remove(&folder, is_temporary);
            recovered.and_then(|line| tidied.map(|()| line))
        }
        Err(_) => Ok(None),
    }
}

/// Ends what a killed command left half done.
///
/// # Errors
/// The disk refuses, or a service.
pub(super) fn recover(place: &Place, host: &Host<'_>, boots: bool) -> Result<Option<String>, Error> {
    let recovered = recover_volumes(place, host, boots);
    remove_copies(place).and(recovered)
}

fn recover_volumes(place: &Place, host: &Host<'_>, boots: bool) -> Result<Option<String>, Error> {
    let Some(mut record) = VOLUMES.read::<Record>(place)? else { return Ok(None) };
    record.decide(place)?;
    // Podman may not be able to tell while the machine boots: then nothing runs.
    let runs = runs(host, &record).or_else(|error| if boots { Ok(false) } else { Err(error) })?;
    if boots && runs {
        return Ok(None);
    }
    if record.done || (runs && record.is_exchanged()?) {
        let started = if boots { Ok(()) } else { start(host, &record) };
        finish(place, &record).and(started)?;
        let told = if record.done {
            "volumes were put back; what was there before is gone now"
        } else {
            "services run on volumes that were put back, and keep them; the bonds are as they were: restore again"
        };
        return Ok(Some(told.to_owned()));
    }
    undo(place, host, boots, &record)?;
    Ok(Some("volumes were not put back to the end; they are as they were".to_owned()))
}
