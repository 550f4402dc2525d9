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
                    if let Some(ended) = last.and_then(ended) {
                        return ended.map(|record| (told, record));
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

/// How a wish ended, once it has.
fn ended(record: Record) -> Option<Result<Record, Failure>> {
    match record.state {
        State::Taken => None,
        State::Done => Some(Ok(record)),
        State::Failed | State::Refused => {
            let reason = record.reason.unwrap_or_default();
            let reason = reason.trim().trim_start_matches("error: ");
            // A refused one has none, nor has one that was cut off.
            let kind = record.exit_code.and_then(Kind::of_exit_code).unwrap_or(Kind::Input);
            Some(Err(Failure::new(kind, crate::codex::plain(reason))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_failed_ends_the_command_as_it_would_have_ended_on_the_machine() {
        let end = |state: &str, code: Option<u8>| {
            let mut record = serde_json::json!({ "at": "2026-11-30T09:00:00Z", "file": "0123456789abcdef.json",
                "peer": "laptop", "state": state, "reason": "error: cannot read it\nhint: look there" });
            if let Some(code) = code {
                record["exit-code"] = code.into();
            }
            ended(serde_json::from_value(record).unwrap())
        };
        assert!(end("taken", None).is_none());
        assert!(end("done", None).unwrap().is_ok());
        for (state, code, kind) in [
            ("failed", Some(69), Kind::Unavailable),
            ("failed", Some(74), Kind::Io),
            // What bodies of before write, and those to come.
            ("failed", None, Kind::Input),
            ("failed", Some(75), Kind::Input),
            ("refused", None, Kind::Input),
        ] {
            let failure = end(state, code).unwrap().unwrap_err();
            assert_eq!(failure.kind, kind, "{state} {code:?}");
            assert!(failure.to_string().starts_with("error: cannot read it"), "{failure}");
        }
    }
}
