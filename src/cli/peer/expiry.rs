//! When a bond ends, as it is written on the command line.

use std::str::FromStr;

use crate::peer::Ending;

/// `never`, so long from now, or a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(pub Option<Ending>);

/// The text says no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a length of time like 30d or 12h, a moment like 2026-12-31T18:00:00Z, or never")]
pub struct NotAnExpiry;

impl FromStr for Expiry {
    type Err = NotAnExpiry;

    fn from_str(text: &str) -> Result<Self, NotAnExpiry> {
        if text == "never" {
            return Ok(Self(None));
        }
        text.parse().map(|ending| Self(Some(ending))).map_err(|_| NotAnExpiry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::time::{Length, Timestamp};

    #[test]
    fn an_expiry_is_a_length_a_moment_or_never() {
        assert_eq!("never".parse(), Ok(Expiry(None)));
        assert_eq!("90s".parse(), Ok(Expiry(Some(Ending::In(Length::from_seconds(90))))));
        assert_eq!("1970-01-01T00:00:07Z".parse(), Ok(Expiry(Some(Ending::At(Timestamp::from_epoch(7))))));
        for text in ["", "30", "soon", "2026-12-31", "-1d"] {
            assert_eq!(text.parse::<Expiry>(), Err(NotAnExpiry), "{text:?}");
        }
    }
}
