//! The pod's ruleset: loaded whole, and loaded again when somebody else changed it.

use std::ffi::OsStr;

use super::Error;
use crate::sys::nft::{Nft, fingerprint};
use crate::tree::Sha256Digest;

/// What [`Ruleset::ensure`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is loaded and untouched.
    Same,
    /// Another one was asked for, and is loaded now.
    Loaded,
    /// It had been changed or removed by somebody else, and is loaded again.
    Repaired,
}

/// The ruleset of this network namespace.
pub struct Ruleset {
    nft: Nft,
    loaded: Option<Loaded>,
}

struct Loaded {
    /// Of the text that was loaded.
    text: Sha256Digest,
    /// Of the table as it was listed right after.
    table: Sha256Digest,
}

impl Ruleset {
    /// Nothing is taken to be loaded.
    pub fn new(nft: &OsStr) -> Self {
        Self { nft: Nft::new(nft), loaded: None }
    }

    /// Whether some ruleset of ours has been loaded.
    pub fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// Digest of the text that was loaded last.
    pub fn digest(&self) -> Option<Sha256Digest> {
        self.loaded.as_ref().map(|loaded| loaded.text)
    }

    /// Makes `text` the ruleset, in one transaction, unless it is so already.
    pub fn ensure(&mut self, text: &str) -> Result<Outcome, Error> {
        let digest = Sha256Digest::of(text.as_bytes());
        let table = self.nft.table()?.as_ref().map(fingerprint);
        let outcome = match &self.loaded {
            Some(loaded) if loaded.text != digest => Outcome::Loaded,
            Some(loaded) if Some(loaded.table) == table => return Ok(Outcome::Same),
            Some(_) => Outcome::Repaired,
            None => Outcome::Loaded,
        };
        self.nft.load(text)?;
        let table = self.nft.table()?.as_ref().map(fingerprint).ok_or(Error::NoTable)?;
        self.loaded = Some(Loaded { text: digest, table });
        Ok(outcome)
    }
}
