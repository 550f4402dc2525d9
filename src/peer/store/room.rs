//! Room in the files that only grow. Whoever may change bonds must not be able to make them longer than they are read:
//! then no command and no boot could read the bonds. What only takes away always has room.

use super::{Error, Place};
use crate::codex::ledger::LEDGER;
use crate::peer::audit::{self, Verb};
use crate::peer::{Change, Refused};
use crate::sys::codex::{FILE_LIMIT, LEDGER_LIMIT};
use crate::sys::fs;

/// No line of the ledger is longer, in bytes: a key, a name, a number and a time.
const LINE: u64 = 112;
/// No record of the log is longer, in bytes.
const RECORD: u64 = 640;
/// What changes leave of the log for revocations, in bytes.
const LEFT: u64 = audit::LIMIT / 4;

/// How long the files are now, in bytes.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    ledger: u64,
    log: u64,
}

/// Refuses changes for which there is no room; `bonded` peers may yet be revoked.
pub fn judge(place: &Place, bonded: usize, changes: &[(Verb, &Change)]) -> Result<(), Error> {
    if !changes.iter().any(|(verb, _)| grows(*verb)) {
        return Ok(());
    }
    let lengths = Lengths { ledger: length(place, LEDGER)?, log: length(place, audit::FILE)? };
    Ok(fit(lengths, bonded, changes)?)
}

/// Refuses a restore of so many records, lines of the ledger, and peers that may yet be revoked behind it; `log` is how long
/// the log is that comes with it, in bytes.
pub(crate) fn judge_restore(
    place: &Place,
    log: Option<usize>,
    records: usize,
    (lines, living): (usize, usize),
) -> Result<(), Error> {
    if records > 0 {
        fit_log(log.map_or_else(|| length(place, audit::FILE), |log| Ok(count(log)))?, records)?;
    }
    Ok(fit_ledger(length(place, LEDGER)?, count(lines) + 2 * count(living))?)
}

/// How long a file is; one that is not there has no length.
fn length(place: &Place, name: &str) -> Result<u64, fs::Error> {
    Ok(fs::if_there(fs::size(&place.bonds.join(name)))?.unwrap_or_default())
}

/// Whether what is done can be done again without end.
fn grows(verb: Verb) -> bool {
    matches!(verb, Verb::Bond | Verb::Rotate | Verb::Grant | Verb::Extend)
}

fn fit(now: Lengths, bonded: usize, changes: &[(Verb, &Change)]) -> Result<(), Refused> {
    // Each of them has a key and perhaps the one before it, and leaves both behind.
    let living = 2 * count(bonded + changes.len());
    let dead: usize = changes.iter().map(|(_, change)| change.ledger.len()).sum();
    fit_ledger(now.ledger, count(dead) + living)?;
    fit_log(now.log, changes.len())?;
    let long =
        changes.iter().find(|(verb, change)| grows(*verb) && count(change.text.len()) > FILE_LIMIT / 2);
    match long {
        Some((_, change)) => Err(Refused::new(
            format!("{} would be too long to be read: it had too many keys", change.file),
            format!("`sepulcher peer revoke {}`, and bond it anew under another name", change.name),
        )),
        None => Ok(()),
    }
}

fn fit_ledger(length: u64, lines: u64) -> Result<(), Refused> {
    if length.saturating_add(lines.saturating_mul(LINE)) <= LEDGER_LIMIT {
        return Ok(());
    }
    Err(full("the ledger of dead keys"))
}

fn fit_log(length: u64, records: usize) -> Result<(), Refused> {
    if length.saturating_add(count(records).saturating_mul(RECORD)) <= audit::LIMIT - LEFT {
        return Ok(());
    }
    let mut refused = full("the log of changes");
    refused.hint = Some(
        "note what `sepulcher audit verify` prints, and move audit.jsonl away; revoking works all the same"
            .to_owned(),
    );
    Err(refused)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn full(what: &str) -> Refused {
    let hint = "`sepulcher audit show` tells who changed so much; revoking works all the same";
    Refused::new(format!("{what} is full"), hint)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codex::ledger::Entry;
    use crate::codex::time::Timestamp;
    use crate::codex::{Codex, Sources};

    const KEY: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";

    /// A change of `phone` that kills one key.
    fn change(text: String) -> Change {
        let phone = format!("public-key = \"{KEY}\"\naddress = \"10.88.16.2\"\ngrants = []\n");
        let law = "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned();
        let sources: Sources = [("lychd.toml", law), ("peers/phone.toml", phone)].into_iter().collect();
        let (name, peer) = Codex::parse(&sources).unwrap().peers.pop_first().unwrap();
        let dead = Entry {
            key: peer.public_key,
            name: name.clone(),
            generation: u32::MAX,
            at: Timestamp::from_epoch(u64::MAX),
        };
        Change {
            file: format!("peers/{name}.toml"),
            name,
            text,
            preshared: None,
            stale: Vec::new(),
            ledger: vec![dead],
            lines: Vec::new(),
            peer: Arc::clone(&peer),
        }
    }

    #[test]
    fn nothing_is_added_for_which_no_revocation_would_have_room() {
        let change = change(String::new());
        let told =
            |now: Lengths, bonded| fit(now, bonded, &[(Verb::Bond, &change)]).map_err(|why| why.message);
        let empty = Lengths { ledger: 0, log: 0 };
        assert_eq!(told(empty, 10_000), Ok(()));
        let ledger = "the ledger of dead keys is full".to_owned();
        let room = LEDGER_LIMIT - 3 * LINE;
        assert_eq!(told(Lengths { ledger: room, ..empty }, 0), Ok(()));
        assert_eq!(told(Lengths { ledger: room + 1, ..empty }, 0), Err(ledger.clone()));
        assert_eq!(told(Lengths { ledger: room, ..empty }, 1), Err(ledger.clone()));
        assert_eq!(told(empty, 300_000), Err(ledger));
        let log = audit::LIMIT - LEFT - RECORD;
        assert_eq!(told(Lengths { log, ..empty }, 0), Ok(()));
        assert_eq!(told(Lengths { log: log + 1, ..empty }, 0), Err("the log of changes is full".to_owned()));
    }

    #[test]
    fn a_file_that_could_not_be_read_is_not_written() {
        let long = change("x".repeat(usize::try_from(FILE_LIMIT / 2).unwrap() + 1));
        let empty = Lengths { ledger: 0, log: 0 };
        let refused = fit(empty, 1, &[(Verb::Rotate, &long)]).unwrap_err();
        assert!(refused.message.contains("too long") && refused.hint.unwrap().contains("revoke phone"));
        assert!([Verb::Revoke, Verb::Ungrant, Verb::End].into_iter().all(|verb| !grows(verb)));
    }

    #[test]
    fn lines_and_records_are_no_longer_than_is_counted_on() {
        let mut change = change(String::new());
        change.name = "n".repeat(32).parse().unwrap();
        let mut entry = change.ledger[0].clone();
        entry.name = change.name.clone();
        assert!(entry.to_string().len() as u64 + 2 <= LINE, "{entry}");
        let who = audit::Who::Peer(change.name.clone());
        let record = audit::Entry::of(Verb::Migrate, &who, &change, Timestamp::from_epoch(u64::MAX));
        let end = audit::End { last: None, torn: true };
        assert!(end.lines(&[record]).len() as u64 + 40 <= RECORD);
    }
}
