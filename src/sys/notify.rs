//! Words to the service manager; without one (`NOTIFY_SOCKET` unset) nobody listens and nothing fails.

use std::io;

use sd_notify::NotifyState;

/// The service is ready, and a line for `systemctl status`.
pub fn ready(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])
}

/// A line for `systemctl status`.
pub fn status(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Status(status)])
}

/// The service is on its way out.
pub fn stopping() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping])
}

/// The service has not hung up: to be told more often than its unit's `WatchdogSec`.
pub fn alive() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Watchdog])
}
