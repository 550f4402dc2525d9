//! Wishes over the tether and at the console: a machine keeps each as a file, and tells what became of it.

use std::time::{Duration, Instant};

use super::{Failure, Kind};
use crate::rebirth::intent::{Nonce, Record, State};
use crate::sys::random;

/// Time between two questions how far it is.
const PAUSE: Duration = Duration::from_secs(2);

/// What tells a wish from every other.
pub fn nonce() -> Nonce {
    random::bytes().into()
}

/// How somebody waits for a wish to be carried out.
#[derive(Debug, Clone, Copy)]
pub struct Wait<'a> {
    /// The file that the machine keeps it in.
    pub file: &'a str,
    /// How long it may take.
    pub patience: Duration,
    /// What to do when it takes longer.
    pub hint: &'a str,
}

impl Wait<'_> {
    /// Asks how things stand until the wish is done; what was told last, and what became of the wish. A machine that is
    /// silent meanwhile is asked again.
    ///
    /// # Errors
    /// It was refused or failed, the device may not ask any more, or it takes too long.
    pub fn until_done<T>(
        self,
        look: impl Fn() -> Result<T, Failure>,
        asked: impl Fn(&T) -> &[Record],
    ) -> Result<(T, Record), Failure> {
        let end = Instant::now() + self.patience;
        loop {
            std::thread::sleep(PAUSE);
            match look() {
                Ok(told) => {
                    let last = asked(&told).iter().rev().find(|record| record.file == self.file).cloned();
                    match last {
                        Some(record) if record.state == State::Done => return Ok((told, record)),
                        Some(Record { state: State::Failed | State::Refused, reason, .. }) => {
                            let reason = reason.unwrap_or_default();
                            let reason = reason.trim().trim_start_matches("error: ").to_owned();
                            return Err(Failure::new(Kind::Input, crate::codex::plain(&reason)));
                        }
                        Some(_) | None => {}
                    }
                }
                Err(failure) if failure.kind == Kind::Input => return Err(failure),
                Err(_) => {}
            }
            if Instant::now() > end {
                return Err(Failure::new(Kind::Unavailable, "the machine does not tell that it is done")
                    .hint(self.hint));
            }
        }
    }
}
