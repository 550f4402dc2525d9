//! Rebirth: one body takes the place of another, and the bonds live on.
//!
//! A body is an image's sealed part: root, hash tree and kernel image. It travels from its publisher to the machine in a
//! [`bundle`]. A machine has two slots: [`store`] writes the new body to the one that does not run, and has it tried three
//! times; [`attempt`] notes how that goes. What is decided by is pure. [`preview`] says beforehand what a new law changes.

pub mod attempt;
pub mod bundle;
pub mod entry;
mod fetch;
pub mod inbox;
pub mod intent;
pub mod kept;
pub mod machine;
pub mod preview;
pub mod publisher;
pub mod record;
pub mod rollback;
pub mod schema;
pub mod status;
pub mod store;
pub mod stranded;
pub mod version;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use crate::peer;
use crate::sys::journal::NotLocked;
use crate::sys::{cmd, fs, http};

/// Why a machine does not do what it is told. What runs, and who is bonded, is untouched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not fit this machine, this moment or these bonds.
    #[error(transparent)]
    Refused(#[from] peer::Refused),
    /// The bundle is not one that may be believed.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The bonds cannot be read, or no snapshot be made.
    #[error(transparent)]
    Bonds(#[from] peer::store::Error),
    /// Somebody else is at it.
    #[error(transparent)]
    Locked(#[from] NotLocked),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A bundle cannot be fetched.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// It breaks off, or is none.
    #[error("cannot read the update bundle {shown}")]
    Archive {
        /// Where it is.
        shown: String,
        /// Why.
        source: io::Error,
    },
    /// A program of the machine failed.
    #[error(transparent)]
    Command(#[from] cmd::Error),
    /// The partitions cannot be told apart.
    #[error("lsblk answers something else than its partitions")]
    Listing(#[source] serde_json::Error),
    /// The slot was not written.
    #[error("systemd-sysupdate did not write the slot: {0}")]
    Sysupdate(String),
    /// What is known cannot be written down.
    #[error("cannot write the status as JSON")]
    Untold(#[source] serde_json::Error),
    /// A record of ours is damaged.
    #[error("{} is damaged", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl From<crate::sys::record::Error> for Error {
    fn from(error: crate::sys::record::Error) -> Self {
        match error {
            crate::sys::record::Error::File(error) => Self::File(error),
            crate::sys::record::Error::Unusable { path, source } => Self::Record { path, source },
        }
    }
}
