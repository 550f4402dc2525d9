//! When a bond ends, as it is asked for.

use std::fmt;
use std::str::FromStr;

use crate::codex::serde_as_text;
use crate::codex::time::{Length, Timestamp};

/// At a moment, or so long after the bond is changed: by the clock of the machine that holds the bonds, not by that of
/// whoever asks. Displays as either of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// At that moment.
    At(Timestamp),
    /// After that time.
    In(Length),
}

/// The text says no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a length of time like 30d or 12h, or a moment like 2026-12-31T18:00:00Z")]
pub struct NotAnEnding;

impl Ending {
    /// The moment that it means to whoever's time is `now`.
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::In(length) => now.after(length),
        }
    }
}

impl FromStr for Ending {
    type Err = NotAnEnding;

    fn from_str(text: &str) -> Result<Self, NotAnEnding> {
        let moment = || text.parse().map(Self::At).map_err(|_| NotAnEnding);
        text.parse().map(Self::In).or_else(|_| moment())
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(moment) => moment.fmt(f),
            Self::In(length) => length.fmt(f),
        }
    }
}

serde_as_text!(Ending);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_reads_back_as_it_is_written_and_goes_by_the_clock_of_its_reader() {
        let now = Timestamp::from_epoch(1000);
        for (text, moment) in [("1month 2days", 1000 + 2_630_016 + 172_800), ("1970-01-01T00:00:07Z", 7)] {
            let ending: Ending = text.parse().unwrap();
            assert_eq!(ending.moment(now).epoch(), moment);
            assert_eq!(ending.to_string().parse(), Ok(ending));
        }
        for text in ["", "30", "soon", "2026-12-31", "-1d", "never"] {
            assert_eq!(text.parse::<Ending>(), Err(NotAnEnding), "{text:?}");
        }
    }
}
