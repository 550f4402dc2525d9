//! A client configuration as a QR code on the terminal.

use super::{Failure, Kind};
use crate::qr::{Code, Ink, TooLong, TooWide, compact};
use crate::sys::terminal;

/// Columns that are counted on where nobody says how many there are.
const COLUMNS: usize = 80;

/// The code of a client configuration as lines for standard output, and what a person must know to read it.
///
/// # Errors
/// The code would not fit: it is told before anything is shown.
pub fn shown(configuration: &str) -> Result<String, Failure> {
    let columns = terminal::size().map_or(COLUMNS, |size| size.columns);
    let ink = if terminal::colours() { Ink::Colours } else { Ink::LightOnDark };
    let lines = code(configuration)?.terminal(ink, columns)?;
    Ok(match ink {
        Ink::Colours => lines,
        Ink::LightOnDark | Ink::DarkOnLight => {
            format!("{lines}(drawn without colours, for light text on a dark background)\n")
        }
    })
}

/// The code of a client configuration.
pub fn code(configuration: &str) -> Result<Code, Failure> {
    Ok(Code::of(&compact(configuration))?)
}

impl From<TooLong> for Failure {
    fn from(error: TooLong) -> Self {
        Self::from_error(Kind::Input, &error)
            .hint("write it to a file with --conf FILE and copy that to the device")
    }
}

impl From<TooWide> for Failure {
    fn from(error: TooWide) -> Self {
        let TooWide { needed, .. } = error;
        Self::from_error(Kind::Input, &error).hint(format!(
            "make the terminal {needed} columns wide, or write it with --png FILE, --svg FILE or --conf FILE"
        ))
    }
}
