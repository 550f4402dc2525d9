//! What is printed: data, tables, lengths of time.

use std::io::{self, Write as _};

use super::{Failure, Kind};
use crate::codex::plain;

/// Data goes to standard output; a reader that has seen enough is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    print_more(text).map(drop)
}

/// The same for one who has more to tell: whether the reader is still there.
pub fn print_more(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::from_error(Kind::Io, &error)),
    }
}

/// What programs read: JSON with a line end.
pub fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| Failure::from_error(Kind::Internal, &error))? + "\n")
}

/// Rows of cells as aligned columns. Control characters are shown as symbols: a cell can drive no terminal.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell_text(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn cell_text(text: &str) -> String {
    plain(text).replace('\n', "␊")
}

/// Seconds since something as people say them.
pub fn age(seconds: u64) -> String {
    format!("{} ago", length(seconds))
}

/// Seconds in the largest unit that fits.
pub fn length(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_one_unit() {
        let told: Vec<_> = [0, 59, 60, 3600, 200_000].into_iter().map(age).collect();
        assert_eq!(told, ["0 s ago", "59 s ago", "1 min ago", "1 h ago", "2 d ago"]);
    }

    #[test]
    fn columns_are_aligned_and_cells_stay_in_their_line() {
        let rows = [["NAME", "WHY", "SINCE"], ["a", "lost\n\x1b[2J", "now"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "NAME  WHY        SINCE\na     lost␊␛[2J  now\n");
    }
}
