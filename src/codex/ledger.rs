//! The revocation ledger: one line for each key that was revoked or replaced and never comes back.
//!
//! Lines are only ever added. Reading is lenient: a line that begins with a key counts, whatever follows it, because a
//! half-written line must not bring the others back to life.

use super::key::PublicKey;
use super::name::Name;
use super::time::Timestamp;

/// The ledger's file in a Codex.
pub const LEDGER: &str = "revoked";

/// How the ledger of the law is called beside that of the bonds, where both are read.
pub const LAW_LEDGER: &str = "law/revoked";

/// One key that never comes back. Displays as its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: PublicKey,
    /// Whose it was.
    pub name: Name,
    /// Which of its keys it was, counted from 1.
    pub generation: u32,
    /// When it was revoked or replaced.
    pub at: Timestamp,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, name, generation, at } = self;
        write!(f, "{key} {name} {generation} {at}")
    }
}

/// Every key of a ledger with the byte range of its line.
pub fn keys(text: &str) -> impl Iterator<Item = (PublicKey, (usize, usize))> {
    let mut start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let begin = start;
        start += line.len();
        let key = line.split_whitespace().next()?.parse().ok()?;
        Some((key, (begin, begin + line.trim_end().len())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";

    #[test]
    fn lines_that_begin_with_a_key_count_and_others_are_passed_over() {
        let entry = Entry {
            key: KEY.parse().unwrap(),
            name: "phone".parse().unwrap(),
            generation: 2,
            at: Timestamp::from_epoch(0),
        };
        let text = format!("# keys\n\n{entry}\n{KEY}\n{KEY} half\nDD5y");
        assert_eq!(entry.to_string(), format!("{KEY} phone 2 1970-01-01T00:00:00Z"));
        let spans: Vec<_> = keys(&text).map(|(_, span)| &text[span.0..span.1]).collect();
        assert_eq!(spans, [entry.to_string(), KEY.to_owned(), format!("{KEY} half")]);
    }
}
