//! The terminal behind standard output.

use std::io::{self, IsTerminal as _};

/// What a terminal has when it does not say: a serial line, for one.
const COLUMNS: usize = 80;
/// Lines of such a one.
const LINES: usize = 24;

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub lines: usize,
}

/// The size of the terminal that standard output goes to; `None` when that is none.
pub fn size() -> Option<Size> {
    let out = io::stdout();
    out.is_terminal().then(|| {
        // One that cannot be asked, or says 0, is as small as they come.
        let told = rustix::termios::tcgetwinsize(&out).ok();
        let known = |told: Option<u16>, least| told.filter(|count| *count > 0).map_or(least, usize::from);
        Size {
            columns: known(told.map(|size| size.ws_col), COLUMNS),
            lines: known(told.map(|size| size.ws_row), LINES),
        }
    })
}

/// Whether people want and get colours on standard output (<https://no-color.org>).
pub fn colours() -> bool {
    let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !asked_not && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
