//! The folder that intents wait in, and the list of what became of them.
//!
//! A nonce is on the list before anything is done, and the file is gone: a machine that stops in between does nothing
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;
use super::intent::{self, Intent, LIMIT, Nonce, Outcome, RECORDS, Record, SHARE, State, WAITING, Wish};
use super::machine::Machine;
use super::record::SCHEMA;
use crate::codex::name::Name;
use crate::codex::{Codex, Door, is_tombstone};
use crate::peer::Refused;
use crate::peer::store::{Place, Who, is_temporary, may};
use crate::sys::{clock, codex as files, fs, journal};

fn folder(root: &Path) -> PathBuf {
    root.join("var/lib/sepulcher/intents")
}

fn list_file(root: &Path) -> PathBuf {
    root.join("var/lib/sepulcher/rebirth/intents.jsonl")
}

/// What became of the latest intents, the oldest first.
///
/// # Errors
/// The list cannot be read.
pub fn records(root: &Path) -> Result<Vec<Record>, Error> {
    // Of a longer list the end counts; the line that it begins in the middle of is none.
    let (bytes, _) = journal::tail(&list_file(root), RECORDS as u64 * 2 * LIMIT)?;
    Ok(intent::records(&String::from_utf8_lossy(&bytes)))
}

/// What became of what that peer asked for lately, the oldest first.
///
/// # Errors
/// The list cannot be read.
pub fn asked(root: &Path, peer: &Name) -> Result<Vec<Record>, Error> {
    let mut records = records(root)?;
    records.retain(|record| record.peer.as_ref() == Some(peer));
    Ok(intent::latest(records))
}

/// The Codex by which wishes are judged. Somebody's broken bond keeps nobody else from asking; one that was revoked is not
/// left out for it, so that it brings nobody back.
///
/// # Errors
/// Why there is none.
pub fn codex(root: &Path) -> Result<Codex, String> {
    let mut sources = files::load(&Place::appliance(root).folders());
    let tombstones: BTreeSet<String> =
        sources.iter().filter(|(_, text)| is_tombstone(text)).map(|(file, _)| file.to_owned()).collect();
    Codex::parse_sound(&mut sources, Codex::parse_living, |file| !tombstones.contains(file), &mut |_| {})
        .map_err(|mistakes| {
            format!("the Codex in force holds {} mistake(s): `sepulcher health` tells them", mistakes.len())
        })
}

/// Removes what writers of intents that were killed left, and ends what was begun: see [`end_begun`]. Nobody writes or
/// carries out one yet.
///
/// # Errors
/// Folder or list cannot be read or written.
pub fn tidy(root: &Path) -> Result<(), Error> {
    end_begun(root)?;
    let folder = folder(root);
    if !fs::exists(&folder)? {
        return Ok(());
    }
    for path in fs::list_named(&folder, is_temporary)? {
        remove(&path)?;
    }
    Ok(())
}

/// Notes that nobody goes on with what was being carried out when the machine stopped, or the reactor was killed: whoever
/// asked for it still waits.
///
/// # Errors
/// The list cannot be read or written.
pub fn end_begun(root: &Path) -> Result<(), Error> {
    let mut records = records(root)?;
    let last: BTreeMap<&str, &Record> = records.iter().map(|record| (record.file.as_str(), record)).collect();
    let begun: Vec<Record> =
        last.into_values().filter(|record| record.state == State::Taken).cloned().collect();
    for record in begun {
        let reason = "it was cut off, and may be done: see how things stand before you ask again";
        let reason = Some(reason.to_owned());
        note(root, &mut records, Record { at: clock::now(), state: State::Failed, reason, ..record })?;
    }
    Ok(())
}

/// The intents that wait. What is being written has a hidden name.
fn waiting(root: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(fs::list_named(&folder(root), |name| !name.starts_with('.'))?)
}

/// A file, and the intent in it or why there is none.
type Read = (PathBuf, Result<Intent, String>);

fn all(root: &Path) -> Result<impl Iterator<Item = Read>, Error> {
    Ok(waiting(root)?.into_iter().map(|path| {
        let intent = read(&path).and_then(|bytes| Intent::parse(&bytes));
        (path, intent)
    }))
}

/// The one that has waited longest.
fn first(root: &Path) -> Result<Option<Read>, Error> {
    // Names are random. What is none goes first, then who sits at the console: a peer's wish may take an hour.
    let rank = |intent: &Intent| (intent.who.peer().is_some(), intent.at);
    Ok(all(root)?.min_by_key(|(_, intent)| intent.as_ref().ok().map(rank)))
}

/// Whether one more of somebody may wait. Who proved at the console that they may is not kept out.
fn has_place(root: &Path, who: &Who) -> Result<bool, Error> {
    if who.peer().is_none() {
        return Ok(true);
    }
    let all: Vec<Read> = all(root)?.collect();
    let own = all.iter().filter(|(_, intent)| intent.as_ref().is_ok_and(|intent| intent.who == *who)).count();
    Ok(own < SHARE && all.len() < WAITING)
}

/// Adds to the list, durably.
fn note(root: &Path, records: &mut Vec<Record>, record: Record) -> Result<(), Error> {
    records.push(record.bounded());
    records.drain(..records.len().saturating_sub(RECORDS));
    let lines: Result<Vec<_>, _> = records.iter().map(serde_json::to_string).collect();
    let text = lines.map_err(Error::Untold)?.join("\n") + "\n";
    Ok(fs::write_atomic(&list_file(root), 0o600, text.as_bytes())?)
}

/// Keeps a wish of somebody who may, for the reactor to find; the name of its file, which the list tells of.
///
/// # Errors
/// They may not, too many wait, or the nonce was used.
pub fn put(root: &Path, who: &Who, nonce: &Nonce, wish: &Wish) -> Result<String, Error> {
    let intent = Intent {
        schema: SCHEMA,
        nonce: nonce.clone(),
        who: who.clone(),
        at: clock::now(),
        wish: wish.clone(),
    };
    let hint = match wish.door() {
        Door::Snapshots => "`sepulcher --host HOST snapshot list` tells what became of what was asked before",
        _ => "`sepulcher --host HOST rebirth status` tells what became of what was asked before",
    };
    let file = intent.file();
    granted(&intent, &file, &records(root)?, root).map_err(|why| Refused::new(why, hint))?;
    let folder = folder(root);
    fs::create_dir_all(&folder)?;
    if !has_place(root, who)? {
        return Err(Refused::new("too many requests wait already", hint).into());
    }
    let bytes = serde_json::to_vec(&intent).map_err(Error::Untold)?;
    if bytes.len() as u64 > LIMIT {
        return Err(
            Refused::new(format!("the request is longer than {LIMIT} bytes"), "say it shorter").into()
        );
    }
    fs::create_atomic(&folder.join(&file), 0o600, &bytes)?;
    Ok(file)
}

/// Why carrying an intent out failed.
#[derive(Debug, Clone)]
pub struct Why {
    /// In words.
    pub reason: String,
    /// What a command ends with that fails so.
    pub exit_code: u8,
}

/// How carrying an intent out ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What came of it, or why nothing did.
    pub result: Result<Option<Outcome>, Why>,
    /// Whether the machine has to restart now.
    pub restart: bool,
}

/// Carries an intent out.
pub type Act<'a> = &'a mut dyn FnMut(&Intent) -> Ended;

/// Takes the intents that wait, until one may be carried out, which is handed to `act`; whether the machine has to restart
/// behind it. Everything before it is refused; all of it is on record, and none of it is left.
///
/// # Errors
/// A file cannot be read or written.
pub fn take(machine: &Machine, act: Act<'_>) -> Result<bool, Error> {
    let root = machine.root();
    // There is one reactor at a time.
    end_begun(root)?;
    let mut records = records(root)?;
    loop {
        let Some((path, read)) = first(root)? else { return Ok(false) };
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let peer = read.as_ref().ok().and_then(|intent| intent.who.peer().cloned());
        let record = |state, reason| Record {
            at: clock::now(),
            file: file.clone(),
            peer: peer.clone(),
            state,
            reason,
            exit_code: None,
            outcome: None,
        };
        match read.and_then(|intent| granted(&intent, &file, &records, root).map(|()| intent)) {
            Ok(intent) => {
                note(root, &mut records, record(State::Taken, None))?;
                remove(&path)?;
                let Ended { result, restart } = act(&intent);
                let ended = match result {
                    Ok(outcome) => Record { outcome, ..record(State::Done, None) },
                    Err(Why { reason, exit_code }) => {
                        Record { exit_code: Some(exit_code), ..record(State::Failed, Some(reason)) }
                    }
                };
                let noted = note(root, &mut records, ended);
                if restart {
                    noted.unwrap_or_else(|error| eprintln!("note: it is not on record: {error}"));
                    return Ok(true);
                }
                return noted.map(|()| false);
            }
            Err(reason) => {
                eprintln!("refused the intent {}: {reason}", crate::codex::plain(&file));
                note(root, &mut records, record(State::Refused, Some(reason)))?;
                remove(&path)?;
            }
        }
    }
}

fn granted(intent: &Intent, file: &str, records: &[Record], root: &Path) -> Result<(), String> {
    let now = clock::now();
    // Who is not asked for a grant is heard whatever the Codex is like.
    let may = |door| may(&intent.who, door, &codex(root)?, now).map_err(|refused| refused.message);
    intent.judge(file, &intent::used(records), may, now)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    match fs::entry(path) {
        Ok(fs::Entry::File) => fs::read_bounded(path, LIMIT).map_err(|error| error.to_string()),
        Ok(_) => Err("it is no file".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::entry(path)? {
        fs::Entry::Folder => fs::remove_dir_all(path)?,
        _ => fs::remove_file(path)?,
    }
    Ok(fs::sync_parent(path)?)
}

#[cfg(test)]
mod tests;
