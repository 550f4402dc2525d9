//! `--watch`: the same look again and again, in place on a terminal.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::output::{print, print_more};
use crate::cli::{Failure, Kind};
use crate::sys::terminal::{self, Size};
use crate::sys::wake::{Wake, Waker};

/// Another screen than the one with the person's work, without cursor and without wrapped lines.
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// The person's screen as it was.
const CLOSE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// To the upper left corner, and nothing behind the end of a line or of the text.
const HOME: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K\n";
const TEXT_END: &str = "\x1b[J";

/// How a look is repeated.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Watch {
    /// Look again every SECONDS (2 without a number) and whenever a bond changes, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    watch: Option<u64>,
}

impl Watch {
    /// Prints what `look` gives: once, or until Ctrl-C. Changes in `folders` end the wait for the next look.
    pub fn show(
        self,
        folders: Vec<PathBuf>,
        look: &mut dyn FnMut() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let Some(seconds) = self.watch else { return print(&look()?) };
        // The first failure is told before the screen is taken.
        let first = look()?;
        let mut waker = Waker::new(folders).map_err(|error| Failure::from_error(Kind::Io, &error))?;
        let _restored = Screen::open()?;
        let mut text: Result<String, Failure> = Ok(first);
        loop {
            // A later one may pass: an agent that restarts, a file half-way edited.
            if !draw(&text.unwrap_or_else(|failure| failure.to_string()))? {
                return Ok(());
            }
            match waker.wait(Duration::from_secs(seconds), None) {
                Ok(Wake::Stop) => return Ok(()),
                Ok(Wake::Changed | Wake::Tick) => text = look(),
                Err(error) => return Err(Failure::from_error(Kind::Io, &error)),
            }
        }
    }
}

/// Gives the person's screen back when it goes out of scope.
struct Screen(bool);

impl Screen {
    fn open() -> Result<Self, Failure> {
        let taken = terminal::size().is_some();
        if taken {
            print(OPEN)?;
        }
        Ok(Self(taken))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.0 {
            // A terminal that is gone needs no restoring.
            let _ = print(CLOSE);
        }
    }
}

/// Whether somebody still looks.
fn draw(text: &str) -> Result<bool, Failure> {
    print_more(&match terminal::size() {
        Some(size) => frame(text, size),
        None => text.to_owned(),
    })
}

/// A text over the one before; what is below the last line of the screen is counted.
fn frame(text: &str, size: Size) -> String {
    let count = text.lines().count();
    let fits = count <= size.lines;
    let shown = if fits { count } else { size.lines.saturating_sub(1) };
    let lines = text.lines().take(shown).map(|line| format!("{line}{LINE_END}"));
    let more = if fits { String::new() } else { format!("… {} more lines{LINE_END}", count - shown) };
    let mut frame = format!("{HOME}{}{more}", lines.collect::<String>());
    // A line end on the last line would push the first one out.
    frame.truncate(frame.len().saturating_sub(1));
    frame + TEXT_END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls() {
        let of = |lines: usize, count: usize| {
            let text: String = (0..count).map(|number| format!("{number}\n")).collect();
            frame(&text, Size { columns: 80, lines })
        };
        assert_eq!(of(3, 2), "\x1b[H0\x1b[K\n1\x1b[K\x1b[J");
        assert_eq!(of(3, 3), "\x1b[H0\x1b[K\n1\x1b[K\n2\x1b[K\x1b[J");
        assert_eq!(of(3, 9), "\x1b[H0\x1b[K\n1\x1b[K\n… 7 more lines\x1b[K\x1b[J");
    }
}
