//! What one command writes down for the next: a small file of JSON, whole or not there.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fs;

/// Why a record is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// It is not what was written.
    #[error("{} is unusable: {source}", path.display())]
    Unusable {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn unusable(path: &Path) -> impl FnOnce(serde_json::Error) -> Error {
    |source| Error::Unusable { path: path.to_owned(), source }
}

/// The record in a file of at most `limit` bytes, if there is one.
///
/// # Errors
/// It cannot be read, or is not what was written.
pub fn read<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<Option<T>, Error> {
    let Some(bytes) = fs::if_there(fs::read_bounded(path, limit))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(unusable(path))
}

/// Writes a record durably, for its owner alone.
///
/// # Errors
/// The disk refuses.
pub fn write(path: &Path, record: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record).map_err(unusable(path))?;
    Ok(fs::write_atomic(path, 0o600, &bytes)?)
}
