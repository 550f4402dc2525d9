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
    // One that cannot be asked, or says 0, is as small as they come.
    io::stdout().is_terminal().then(|| told_size().unwrap_or(Size { columns: COLUMNS, lines: LINES }))
}

/// The size that the terminal behind standard output tells; `None` when it tells none.
pub fn told_size() -> Option<Size> {
    let told = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    let size = Size { columns: told.ws_col.into(), lines: told.ws_row.into() };
    (size.columns > 0 && size.lines > 0).then_some(size)
}

/// Whether people want and get colours on standard output (<https://no-color.org>).
pub fn colours() -> bool {
    let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !asked_not && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
