//! The pod's ruleset in the kernel: loaded whole, changed by elements, and loaded anew when somebody else
//! changed it.

use std::ffi::OsStr;

use super::Error;
use super::rules::Rules;
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
    rules: Rules,
    /// Of the table as it was listed right after.
    table: Sha256Digest,
}

impl Ruleset {
    /// Nothing is taken to be loaded.
    pub fn new(nft: &OsStr) -> Self {
        Self { nft: Nft::new(nft), loaded: None }
    }

    /// Digest of the text that makes the table as it is.
    pub fn digest(&self) -> Option<Sha256Digest> {
        self.loaded.as_ref().map(|loaded| Sha256Digest::of(loaded.rules.text.as_bytes()))
    }

    /// Makes `rules` the ruleset, in one transaction, unless it is so already.
    pub fn ensure(&mut self, rules: Rules) -> Result<Outcome, Error> {
        let table = self.nft.table()?.map(fingerprint);
        let (outcome, change) = match &self.loaded {
            None => (Outcome::Loaded, None),
            Some(loaded) if Some(loaded.table) != table => (Outcome::Repaired, None),
            Some(loaded) if loaded.rules.text == rules.text => return Ok(Outcome::Same),
            Some(loaded) => (Outcome::Loaded, rules.change_from(&loaded.rules)),
        };
        // A change that the kernel refuses tells that the table is not what we think: make it anew.
        if change.is_none_or(|change| self.nft.load(&change).is_err()) {
            self.nft.load(&rules.text)?;
        }
        let table = self.nft.table()?.map(fingerprint).ok_or(Error::NoTable)?;
        self.loaded = Some(Loaded { rules, table });
        Ok(outcome)
    }
}
