//! Goes back to the body before at the console, for who is not reached through any tunnel: a wish as a peer's, because
//! nothing that listens to a keyboard writes boot entries.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::proof::Proof;
use super::{Console, Failure};
use crate::cli::wishes::{self, Wait};
use crate::codex::plain;
use crate::peer::store::Who;
use crate::rebirth::inbox;
use crate::rebirth::intent::{Record, Wish};
use crate::rebirth::status::{self, Status};
use crate::rebirth::version::Version;

/// How long it may take: whoever stages a body is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

impl<R: Read, W: Write> Console<'_, R, W> {
    /// The whole dialog: what it takes is what a bond takes.
    pub(super) fn roll_back(&mut self) -> io::Result<()> {
        let (status, proof) = match self.status().and_then(|status| Ok((status, self.proof()?))) {
            Ok(both) => both,
            Err(failure) => return self.refuse(&failure),
        };
        let last = status.rebirth.as_ref().map_or_else(String::new, |last| format!("; last: {last}"));
        self.say(&plain(&format!("\nBody {} runs{last}\n", status.running)))?;
        if !self.prove(&proof)? {
            return Ok(());
        }
        self.say("\nCtrl-D leaves all as it is.\n")?;
        let is_that = |typed: &str| match typed.parse::<Version>() {
            Ok(version) if version == status.running => Ok(version),
            _ => Err(format!("body {} runs: type that", status.running)),
        };
        let Some(leave) = self.ask("version of the body to leave", "", is_that)? else {
            return self.say("\nnothing has changed\n");
        };
        match self.wish_for(&Wish::Rollback { leave }, &proof) {
            Ok(()) if status.rebirth.is_some_and(|last| last.version != status.running) => {
                self.say("\nNo other body is tried: this one stays.\n")
            }
            Ok(()) => self.say("\nThe machine restarts as the body before.\n"),
            Err(failure) => self.refuse(&failure),
        }
    }

    /// The last status that was kept.
    fn status(&self) -> Result<Status, Failure> {
        status::read(self.root)?.ok_or_else(|| {
            let message = "this machine has not looked at its bodies yet, or has none";
            Failure::new(super::Kind::Unavailable, message)
        })
    }

    /// Has the reactor do it, if it still takes no more than what was proven.
    fn wish_for(&self, wish: &Wish, proof: &Proof) -> Result<(), Failure> {
        proof.still_suffices(&self.proof()?)?;
        let file = inbox::put(self.root, &Who::Console, &wishes::nonce(), wish)?;
        let hint = "it is carried out as soon as nobody else changes bodies";
        let wait = Wait { file: &file, patience: PATIENCE, hint };
        wait.until_done(|| Ok(inbox::records(self.root)?), |records: &Vec<Record>| records).map(drop)
    }
}
