//! The clocks. Only what is told to people uses the wall clock: it jumps when time is synchronised.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::codex::time::Timestamp;

/// Time since the kernel started, suspended time included: the same for host and containers.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The time of day, as far as the machine knows it.
pub fn now() -> Timestamp {
    Timestamp::from_epoch(epoch_seconds())
}

/// Seconds since the epoch; 0 when the clock stands before it.
pub fn epoch_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
