//! From the Codex as typed to the valid one, or every mistake at once.
//!
//! Checks look at the draft and add to one list; only a draft without mistakes becomes a [`Codex`].
//! A part that was already reported as wrong is `None` in the draft, and what depends on it is not checked.

mod build;
mod networks;
mod peers;
mod ports;
mod routes;
mod services;

use super::Codex;
use super::diagnostic::{Diagnostic, Sources};
use super::schema::{self, OtherSchema};

/// See [`Codex::parse`].
pub fn parse(sources: &Sources) -> Result<Codex, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let draft = match schema::read(sources, &mut mistakes) {
        Ok(draft) => draft,
        Err(OtherSchema(mistake)) => return Err(vec![*mistake]),
    };
    services::check(&draft, &mut mistakes);
    ports::check(&draft, &mut mistakes);
    routes::check(&draft, &mut mistakes);
    networks::check(&draft, &mut mistakes);
    peers::check(&draft, &mut mistakes);
    if mistakes.is_empty() {
        return build::codex(draft).ok_or_else(|| vec![schema::unread_part()]);
    }
    mistakes.sort_by(|a, b| a.order().cmp(&b.order()));
    mistakes.dedup();
    Err(mistakes)
}
