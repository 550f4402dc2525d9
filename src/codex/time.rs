//! Moments and lengths of time as the Codex writes them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: whole seconds since the epoch, UTC. Displays as RFC 3339, `2026-11-22T20:05:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Why a text is not a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written in UTC, like 2026-12-31T18:00:00Z")]
pub struct NotATime;

/// The last moment that has four digits in its year.
const LAST: u64 = 253_402_300_799;

impl Timestamp {
    /// From seconds since the epoch; later than the year 9999 is that year's last second.
    pub fn from_epoch(seconds: u64) -> Self {
        Self(seconds.min(LAST))
    }

    /// Seconds since the epoch.
    pub fn epoch(self) -> u64 {
        self.0
    }

    /// So much later.
    #[must_use]
    pub fn after(self, length: Length) -> Self {
        Self::from_epoch(self.0.saturating_add(length.0))
    }
}

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let time = humantime::parse_rfc3339(text).map_err(|_| NotATime)?;
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| NotATime)?;
        Ok(Self::from_epoch(since.as_secs()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time: SystemTime = UNIX_EPOCH + Duration::from_secs(self.0);
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

/// A length of time in whole seconds. Displays as people write it, `30days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Length(u64);

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a length of time is written like 30d, 12h, 10m or 90s")]
pub struct NotALength;

impl Length {
    /// From seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// In seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Length {
    type Err = NotALength;

    fn from_str(text: &str) -> Result<Self, NotALength> {
        humantime::parse_duration(text).map(|length| Self(length.as_secs())).map_err(|_| NotALength)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_secs(self.0)).fmt(f)
    }
}

crate::codex::serde_as_text!(Timestamp, Length);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back_as_it_is_written() {
        let text = "2026-11-22T20:05:00Z";
        assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        assert_eq!("1970-01-01T00:00:00Z".parse(), Ok(Timestamp::from_epoch(0)));
        for bad in
            ["", "2026-11-22", "2026-11-22T20:05:00", "2026-11-22T20:05:00+02:00", "2026-13-01T00:00:00Z"]
        {
            assert_eq!(bad.parse::<Timestamp>(), Err(NotATime), "{bad:?}");
        }
    }

    #[test]
    fn no_moment_is_too_late_to_be_written() {
        let late = Timestamp::from_epoch(u64::MAX);
        assert_eq!(late.to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(late.after(Length::from_seconds(u64::MAX)), late);
    }

    #[test]
    fn lengths_are_written_with_their_unit() {
        assert_eq!("30d".parse(), Ok(Length::from_seconds(30 * 86400)));
        assert!("30".parse::<Length>().is_err() && "".parse::<Length>().is_err());
    }
}
