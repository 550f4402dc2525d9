//! The update beside an image: whose key signs it, and where it goes.

use std::path::{Path, PathBuf};

use crate::cli::keygen::open_key;
use crate::cli::{Failure, Kind};
use crate::codex::name::Name;
use crate::codex::{Codex, Sources};
use crate::image::build::Body;
use crate::rebirth::bundle::write::{self, Ready};
use crate::rebirth::publisher::SigningKey;
use crate::rebirth::version::Version;

/// A publisher at work.
pub struct Signer {
    key: SigningKey,
    folder: PathBuf,
    name: Name,
    version: Version,
    /// Law and bonds; the law alone is published.
    sources: Sources,
}

impl Signer {
    /// With the secret key in `file`, for an update beside the image `out`: whether all is right is better known before
    /// minutes of work than after.
    pub fn open(
        file: &Path,
        (codex, sources): (&Codex, &Sources),
        version: &Version,
        out: &Path,
    ) -> Result<Self, Failure> {
        let Some(publisher) = codex.rebirth.publisher else {
            let message = "the Codex names no publisher: no machine would take the update";
            let hint = "write the line that `sepulcher keygen` printed under `[rebirth]` in lychd.toml, or leave \
                        --sign out";
            return Err(Failure::new(Kind::Input, message).hint(hint));
        };
        let name = codex.appliance.name.clone();
        let folder = write::beside(out, &name, version);
        write::check_place(&folder, &name, version)?;
        let key = open_key(file)?;
        let (ours, theirs) = (key.public().id(), publisher.id());
        if key.public() != publisher {
            let message =
                format!("{} is the key {ours}, the Codex takes updates of {theirs}", file.display());
            let hint = "sign with the publisher's key, or name this one under `[rebirth]` in lychd.toml";
            return Err(Failure::new(Kind::Input, message).hint(hint));
        }
        Ok(Self { key, folder, name, version: version.clone(), sources: sources.clone() })
    }

    /// Writes and signs the update, to be put in place.
    pub fn sign(&self, body: &Body) -> Result<Ready, Failure> {
        Ok(write::write(&self.folder, (&self.name, &self.version), &self.sources, body, &self.key)?)
    }
}
