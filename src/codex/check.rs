//! From the Codex as typed to the valid one, or every mistake at once.
//!
//! Checks look at the draft and add to one list; only a draft without mistakes becomes a [`Codex`].
//! A part that was already reported as wrong is `None` in the draft, and what depends on it is not checked.

mod build;
mod dark;
mod host;
mod networks;
mod peers;
mod ports;
mod rebirth;
mod routes;
mod services;

use super::diagnostic::{Diagnostic, Place, Sources};
use super::schema::{self, OtherSchema};
use super::{Codex, Needs};

/// Mistakes told of one file. Whoever made more of them has one reason for most, and a file of a mebibyte can hold
/// half a million.
const TOLD_PER_FILE: usize = 100;

/// See [`Codex::parse`].
pub fn parse(sources: &Sources, needs: Needs) -> Result<Codex, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let draft = match schema::read(sources, &mut mistakes) {
        Ok(draft) => draft,
        Err(OtherSchema(mistake)) => return Err(vec![*mistake]),
    };
    services::check(&draft, &mut mistakes);
    ports::check(&draft, &mut mistakes);
    routes::check(&draft, &mut mistakes);
    dark::check(&draft, &mut mistakes);
    host::check(&draft, &mut mistakes);
    rebirth::check(&draft, &mut mistakes);
    networks::check(&draft, &mut mistakes);
    peers::check(&draft, needs, &mut mistakes);
    if mistakes.is_empty() {
        return build::codex(draft).ok_or_else(|| vec![schema::unread_part()]);
    }
    mistakes.sort_by(|a, b| a.order().cmp(&b.order()));
    mistakes.dedup();
    Err(told(mistakes))
}

/// The first mistakes of each file; where there are more, the last one says so.
fn told(sorted: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told: Vec<Diagnostic> = Vec::new();
    let mut in_file = 0;
    for mistake in sorted {
        let same = told.last().is_some_and(|last| last.file == mistake.file);
        in_file = if same { in_file + 1 } else { 0 };
        if in_file < TOLD_PER_FILE {
            told.push(mistake);
        } else if in_file == TOLD_PER_FILE {
            let span = mistake.span.map(|span| (span.start, span.end));
            let place = Place { file: mistake.file.into(), span };
            let more = Diagnostic::error("this file holds more mistakes, from here on", &place);
            told.push(more.hint("mend those before first: often many have one reason"));
        }
    }
    told
}
