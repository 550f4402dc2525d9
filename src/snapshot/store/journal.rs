//! What is written down first, so that whoever comes behind a killed command can end it.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::folder;
use crate::peer::Refused;
use crate::peer::store::{Error, Place};
use crate::sys::{fs, record};

/// A few services or volumes, with a command or a path each.
const LIMIT: u64 = 1 << 20;

/// One of the files beside the snapshots.
pub(super) struct Journal {
    name: &'static str,
    /// What to do when it is unusable.
    hint: &'static str,
}

/// Who is paused.
pub(super) const PAUSED: Journal =
    Journal { name: ".paused", hint: "see what is paused (`podman ps`), resume it, and remove that file" };
/// Which copies of volumes there may be.
pub(super) const COPIES: Journal = Journal {
    name: ".copies",
    hint: "remove that file, and the folders `.sepulcher.copy` beside the volumes",
};
/// Which volumes are put back.
pub(super) const VOLUMES: Journal =
    Journal { name: ".volumes", hint: "look beside the volumes for `.sepulcher.new`, and remove that file" };

/// With which peers the host's private key comes back.
pub(super) const IDENTITY: Journal =
    Journal { name: ".identity", hint: "remove that file, and restore with the host's key again" };

impl Journal {
    fn path(&self, place: &Place) -> PathBuf {
        folder(place).join(self.name)
    }

    fn told(&self, error: record::Error) -> Error {
        match error {
            record::Error::File(error) => error.into(),
            unusable @ record::Error::Unusable { .. } => Refused::new(unusable.to_string(), self.hint).into(),
        }
    }

    /// Whether something waits for its end.
    pub fn exists(&self, place: &Place) -> Result<bool, Error> {
        Ok(fs::exists(&self.path(place))?)
    }

    /// What is written there, if anything is.
    pub fn read<T: DeserializeOwned>(&self, place: &Place) -> Result<Option<T>, Error> {
        record::read(&self.path(place), LIMIT).map_err(|error| self.told(error))
    }

    /// Writes it down, durably.
    pub fn write(&self, place: &Place, what: &impl Serialize) -> Result<(), Error> {
        record::write(&self.path(place), what).map_err(|error| self.told(error))
    }

    /// There is nothing to end any more, durably.
    pub fn remove(&self, place: &Place) -> Result<(), Error> {
        let path = self.path(place);
        fs::remove_file(&path)?;
        Ok(fs::sync_parent(&path)?)
    }
}
