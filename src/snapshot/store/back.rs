//! Volumes that are put back.
//!
//! Each is written beside its place, with every digest checked, while its service still runs. Then the services are
//! stopped, each volume is exchanged with what is new, which is one system call, and the services are started. What was
//! there before goes when everything else is done. All of it is written down first: when this process is killed or the
//! power is lost in between, the next command that changes snapshots, or the next boot before any service starts, has
//! the old ones back, unless all was done.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::volumes::{RESERVE, Source, ended, remove_copies, room, sources, unavailable};
use super::{Host, folder};
use crate::codex::Codex;
use crate::peer::Refused;
use crate::peer::store::{Error, Place};
use crate::snapshot::volume::Volume;
use crate::snapshot::{Snapshot, archive};
use crate::sys::interrupt::Held;
use crate::sys::volume::Writer;
use crate::sys::{fs, tree};

/// The folder that a volume is written to, beside its own.
const SHADOW: &str = ".sepulcher.new";
/// What an entry may take beside its content, in bytes.
const BLOCK: u64 = 4096;
/// A few volumes with a path each.
const LIMIT: u64 = 1 << 20;

/// What is written down.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Whether the old volumes can go.
    done: bool,
    /// Units that are stopped meanwhile.
    units: Vec<String>,
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

impl Moved {
    fn shadow(&self) -> PathBuf {
        self.folder.with_file_name(SHADOW)
    }

    /// Whether the new folder is in place.
    fn is_exchanged(&self) -> Result<bool, fs::Error> {
        Ok(self.inode != 0 && fs::inode(&self.folder)? == self.inode)
    }
}

/// Where it is written down what is on its way.
pub(super) fn journal(place: &Place) -> PathBuf {
    folder(place).join(".volumes")
}

fn write(place: &Place, record: &Record) -> Result<(), Error> {
    // Texts and numbers alone: nothing of it can fail to be written as JSON.
    let bytes = serde_json::to_vec(record).unwrap_or_default();
    Ok(fs::write_atomic(&journal(place), 0o600, &bytes)?)
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
        let wanted = wanted(&manifest.volumes, sources(place, codex, host)?, host)?;
        let states = host.services.states();
        let states =
            states.map_err(|error| unavailable("the state of the services cannot be told", &error))?;
        let runs = |source: &&Source| states.get(&source.container).is_some_and(|state| state == "running");
        let mut units: Vec<_> = wanted.iter().filter(runs).map(|source| unit(codex, source)).collect();
        units.dedup();
        let volumes: Vec<_> =
            wanted.iter().map(|source| Moved { folder: source.folder.clone(), inode: 0 }).collect();
        let record = Record { done: false, units, volumes };
        let size = |volume: &Volume| {
            wanted
                .iter()
                .any(|source| source.name == volume.name)
                .then(|| volume.size + volume.entries * BLOCK)
        };
        let sizes: u64 = manifest.volumes.iter().filter_map(size).fold(RESERVE, u64::saturating_add);
        for moved in &record.volumes {
            room(fs::folder_of(&moved.folder), sizes)?;
        }
        write(place, &record)?;
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
        write(self.place, &self.record)?;
        Ok(snapshot)
    }

    /// Stops the services whose volumes they are.
    pub fn stop(&self) -> Result<(), Error> {
        let stopped = self.host.services.stop(&self.record.units);
        stopped.map_err(|error| unavailable("the services cannot be stopped", &error))
    }

    /// Puts the new volumes in place and starts the services.
    pub fn exchange(&self) -> Result<(), Error> {
        for moved in &self.record.volumes {
            tree::exchange(&moved.shadow(), &moved.folder)?;
        }
        start(self.host, &self.record)
    }

    /// Has the old volumes back after an error, which is the one to tell; what fails here is left to the next command.
    pub fn undone(self, error: Error) -> Error {
        if let Err(second) = undo(self.place, Some(self.host), &self.record) {
            (self.host.tell)(&format!(
                "the volumes are not as they were: {second}; the next command tries again"
            ));
        }
        error
    }

    /// Lets the old volumes go.
    pub fn finish(mut self) -> Result<(), Error> {
        self.record.done = true;
        write(self.place, &self.record)?;
        finish(self.place, &self.record)
    }
}

/// The unit of a source's service.
fn unit(codex: &Codex, source: &Source) -> String {
    format!("{}-{}.service", codex.appliance.name, source.service)
}

/// Volumes of this machine that a snapshot contains.
fn wanted(contained: &[Volume], own: Vec<Source>, host: &Host<'_>) -> Result<Vec<Source>, Error> {
    if contained.is_empty() {
        let hint =
            "leave `--with-volumes` out, or choose one that holds some: `sepulcher snapshot show NAME`";
        return Err(Refused::new("the snapshot holds no volumes", hint).into());
    }
    for volume in contained.iter().filter(|volume| own.iter().all(|source| source.name != volume.name)) {
        (host.tell)(&format!("volume {} is not this machine's, and is not put back", volume.name));
    }
    Ok(own.into_iter().filter(|source| contained.iter().any(|volume| volume.name == source.name)).collect())
}

fn start(host: &Host<'_>, record: &Record) -> Result<(), Error> {
    let started = host.services.start(&record.units);
    started.map_err(|error| unavailable("the services cannot be started", &error))
}

/// Has the old volumes back; without a host nothing runs that could be stopped.
fn undo(place: &Place, host: Option<&Host<'_>>, record: &Record) -> Result<(), Error> {
    let mut exchanged = Vec::new();
    for moved in &record.volumes {
        if moved.is_exchanged()? {
            exchanged.push(moved);
        }
    }
    if let (Some(host), false) = (host, exchanged.is_empty()) {
        let stopped = host.services.stop(&record.units);
        stopped.map_err(|error| unavailable("the services cannot be stopped", &error))?;
    }
    for moved in exchanged {
        tree::exchange(&moved.shadow(), &moved.folder)?;
    }
    let started = host.map_or(Ok(()), |host| start(host, record));
    // The volumes are as they were: what does not start is no matter of theirs.
    finish(place, record).and(started)
}

/// Removes what is not in place, and then the record.
fn finish(place: &Place, record: &Record) -> Result<(), Error> {
    for moved in &record.volumes {
        fs::remove_dir_all(&moved.shadow())?;
    }
    fs::remove_file(&journal(place))?;
    Ok(fs::sync_parent(&journal(place))?)
}

/// Ends what a killed restore left half done. Without a host the machine boots, and no service runs yet.
///
/// # Errors
/// The disk refuses, or a service.
pub fn recover(place: &Place, host: Option<&Host<'_>>) -> Result<Option<String>, Error> {
    remove_copies(place)?;
    let path = journal(place);
    let bytes = match fs::read_bounded(&path, LIMIT) {
        Err(error) if error.is_not_found() => return Ok(None),
        bytes => bytes?,
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| {
        let hint = "look beside the volumes for `.sepulcher.new`, and remove that file";
        Refused::new(format!("{} is unusable: {error}", path.display()), hint)
    })?;
    if record.done {
        finish(place, &record)?;
        return Ok(Some("volumes were put back; what was there before is gone now".to_owned()));
    }
    undo(place, host, &record)?;
    Ok(Some("volumes were not put back to the end; they are as they were".to_owned()))
}
