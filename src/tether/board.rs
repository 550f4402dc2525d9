//! What the agent's loop tells those who answer at its door.

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::status::Peers;
use crate::codex::{Backend, Codex};

/// Shared by the loop, which writes, and the connections, which read.
#[derive(Debug)]
pub struct Board {
    /// Interface name.
    pub interface: String,
    /// The `nft` program.
    pub nft: OsString,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    known: Option<Arc<Known>>,
    looks: Looks,
}

/// What the last successful look found.
#[derive(Debug)]
pub struct Known {
    /// What is held of the Codex.
    pub codex: Codex,
    /// WireGuard implementation.
    pub backend: Backend,
    /// The peers, counted.
    pub peers: Peers,
    /// Number of bonds that are not in force as they stand.
    pub broken: usize,
    /// How often something was put right.
    pub drift: u64,
}

/// Looks that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looks {
    /// How many.
    pub count: u64,
    /// How long comparing and repairing took in all of them.
    pub time: Duration,
}

impl Board {
    /// Nothing is known yet.
    pub fn new(interface: &str, nft: &OsStr) -> Self {
        Self { interface: interface.to_owned(), nft: nft.to_owned(), inner: Mutex::default() }
    }

    /// Makes `known` what is known.
    pub fn tell(&self, known: Known) {
        self.lock().known = Some(Arc::new(known));
    }

    /// Counts a look.
    pub fn count(&self, time: Duration) {
        let looks = &mut self.lock().looks;
        looks.count += 1;
        looks.time += time;
    }

    /// What is known, if there has been a look.
    pub fn known(&self) -> Option<Arc<Known>> {
        self.lock().known.clone()
    }

    /// The looks so far.
    pub fn looks(&self) -> Looks {
        self.lock().looks
    }

    /// Every value in it is whole at any time: that a thread died with it does not matter.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
