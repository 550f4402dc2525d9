//! The pod's ruleset in the kernel: loaded whole, changed by elements, and loaded anew when somebody else
//! changed it.
//!
//! The kernel counts the changes of its rulesets. As long as that number is the one that our own last change led to,
//! nobody else has been there, and a table of thousands of elements need not be listed to know it.

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
    /// The kernel's number right after.
    generation: u32,
    /// The table as it is listed at that number, once somebody has asked: tells a change of it from a change of another
    /// table.
    listed: Option<Sha256Digest>,
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
        let before = self.nft.generation()?;
        let Some(loaded) = &mut self.loaded else {
            self.load(rules, None, before)?;
            return Ok(Outcome::Loaded);
        };
        if !loaded.is_untouched(&self.nft, before)? {
            self.load(rules, None, before)?;
            return Ok(Outcome::Repaired);
        }
        if loaded.rules.text == rules.text {
            loaded.look_closer(&self.nft)?;
            return Ok(Outcome::Same);
        }
        let change = rules.change_from(&loaded.rules);
        self.load(rules, change, before)?;
        Ok(Outcome::Loaded)
    }

    /// Loads a change, or else the whole text, where the kernel's number was `before`.
    fn load(&mut self, rules: Rules, change: Option<String>, before: u32) -> Result<(), Error> {
        // A change that the kernel refuses tells that the table is not what we think: make it anew.
        if change.is_none_or(|change| self.nft.load(&change).is_err()) {
            self.nft.load(&rules.text)?;
            if !self.nft.has_table()? {
                return Err(Error::NoTable);
            }
        }
        // One transaction is one step. Where somebody else took one meanwhile, the next look finds another number.
        self.loaded = Some(Loaded { rules, generation: before.wrapping_add(1), listed: None });
        Ok(())
    }
}

impl Loaded {
    /// Whether the table is as it was loaded, where the kernel's number is `generation`.
    fn is_untouched(&mut self, nft: &Nft, generation: u32) -> Result<bool, Error> {
        if generation == self.generation {
            return Ok(true);
        }
        let Some(listed) = self.listed else { return Ok(false) };
        let same = nft.table()?.map(fingerprint) == Some(listed);
        if same {
            self.generation = generation;
        }
        Ok(same)
    }

    /// Remembers how the table is listed, when nothing else is to be done.
    fn look_closer(&mut self, nft: &Nft) -> Result<(), Error> {
        if self.listed.is_none() {
            let listed = nft.table()?.map(fingerprint);
            self.listed = listed.filter(|_| nft.generation().is_ok_and(|now| now == self.generation));
        }
        Ok(())
    }
}
