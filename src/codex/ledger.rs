//! The revocation ledger: one line for each key that was revoked or replaced and never comes back.
//!
//! Lines are only ever added. A key comes back in one way: a restored snapshot revives it, and a line `revived KEY TIME`
//! behind its own says so. Reading is lenient: a line that begins with a key counts, whatever follows it, because a
//! half-written line must not bring the others back to life.

use std::collections::BTreeMap;

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

/// The word that a line begins with which brings a key back.
pub const REVIVED: &str = "revived";

/// The key that a line brings back. Unlike a revocation, half of such a line counts for nothing.
fn revived(line: &str) -> Option<PublicKey> {
    let mut words = line.strip_suffix('\n')?.split_whitespace();
    let key = words.next().filter(|word| *word == REVIVED).and_then(|_| words.next())?.parse().ok()?;
    let time = words.next()?.parse::<Timestamp>();
    (time.is_ok() && words.next().is_none()).then_some(key)
}

/// Every key of a ledger with the byte range of its line.
pub fn keys(text: &str) -> impl Iterator<Item = (PublicKey, (usize, usize))> {
    let mut revivals = BTreeMap::new();
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        revivals.extend(revived(line).map(|key| (key, end)));
    }
    let mut start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let begin = start;
        start += line.len();
        let key = line.split_whitespace().next()?.parse().ok()?;
        let lives = revivals.get(&key).is_some_and(|end| begin < *end);
        (!lives).then_some((key, (begin, begin + line.trim_end().len())))
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

    #[test]
    fn a_whole_line_revives_a_key_until_it_is_revoked_again() {
        let revived = format!("{KEY} phone 1\nrevived {KEY} 2026-11-22T20:05:00Z\n");
        assert_eq!(keys(&revived).count(), 0);
        let again = revived.clone() + KEY;
        assert_eq!(keys(&again).count(), 1);
        for cut in 1..revived.len() - format!("{KEY} phone 1\n").len() {
            assert_eq!(keys(&revived[..revived.len() - cut]).count(), 1, "{cut}");
        }
    }
}
