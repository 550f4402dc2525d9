//! The update beside an image: where it goes, and whose key signs it.

use std::path::{Path, PathBuf};

use crate::cli::keygen::open_key;
use crate::cli::{Failure, Kind};
use crate::codex::name::Name;
use crate::codex::{Codex, Sources};
use crate::image::build::Body;
use crate::rebirth::bundle::write::{self, Ready};
use crate::rebirth::publisher::SigningKey;
use crate::rebirth::version::Version;

/// An update to be written.
pub struct Publication {
    /// Without one somebody else signs it later.
    key: Option<SigningKey>,
    folder: PathBuf,
    name: Name,
    version: Version,
    /// Law and bonds; the law alone is published.
    sources: Sources,
}

impl Publication {
    /// For an update beside the image `out`, signed with the secret key in `key`: whether all is right is better known
    /// before minutes of work than after.
    pub fn open(
        key: Option<&Path>,
        (codex, sources): (&Codex, &Sources),
        version: &Version,
        out: &Path,
    ) -> Result<Self, Failure> {
        let name = codex.appliance.name.clone();
        let folder = write::beside(out, &name, version);
        write::check_place(&folder, &name, version)?;
        let key = key.map(|file| publishers(file, codex)).transpose()?;
        Ok(Self { key, folder, name, version: version.clone(), sources: sources.clone() })
    }

    /// Writes the update, to be put in place.
    pub fn write(&self, body: &Body) -> Result<Ready, Failure> {
        let Self { key, folder, name, version, sources } = self;
        Ok(write::write(folder, (name, version), sources, body, key.as_ref())?)
    }
}

/// The secret key in `file`, which must be that of the publisher that the law names.
fn publishers(file: &Path, codex: &Codex) -> Result<SigningKey, Failure> {
    let Some(publisher) = codex.rebirth.publisher else {
        let message = "the Codex names no publisher: no machine would take the update";
        let hint = "write the line that `sepulcher keygen` printed under `[rebirth]` in lychd.toml, or leave --sign out";
        return Err(Failure::new(Kind::Input, message).hint(hint));
    };
    let key = open_key(file)?;
    if key.public() == publisher {
        return Ok(key);
    }
    let (ours, theirs) = (key.public().id(), publisher.id());
    let message = format!("{} is the key {ours}, the Codex takes updates of {theirs}", file.display());
    Err(Failure::new(Kind::Input, message).hint(
        "sign with the publisher's key, or name this one under `[rebirth]` in lychd.toml; an update that hands over to \
         another publisher is written with `--update` and signed with `sepulcher rebirth sign`",
    ))
}
