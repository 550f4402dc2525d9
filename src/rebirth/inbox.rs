//! The folder that intents wait in, and the list of what became of them.
//!
//! A nonce is on the list before anything is done, and the file is gone: a machine that stops in between does nothing
//! twice.

use std::path::{Path, PathBuf};

use super::Error;
use super::intent::{self, Intent, LIMIT, Nonce, RECORDS, Record, State, WAITING, Wish};
use super::machine::Machine;
use super::record::SCHEMA;
use crate::codex::Codex;
use crate::codex::name::Name;
use crate::peer::Refused;
use crate::peer::store::{Place, load};
use crate::sys::{clock, fs};

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
    match fs::read_bounded(&list_file(root), RECORDS as u64 * 2 * LIMIT) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        bytes => Ok(intent::records(&String::from_utf8_lossy(&bytes?))),
    }
}

/// Adds to the list, durably.
fn note(root: &Path, records: &mut Vec<Record>, record: Record) -> Result<(), Error> {
    records.push(record);
    records.drain(..records.len().saturating_sub(RECORDS));
    let lines: Result<Vec<_>, _> = records.iter().map(serde_json::to_string).collect();
    let text = lines.map_err(Error::Untold)?.join("\n") + "\n";
    Ok(fs::write_atomic(&list_file(root), 0o600, text.as_bytes())?)
}

/// Keeps a wish of a peer that may, for the reactor to find.
///
/// # Errors
/// It may not, too many wait, or the nonce was used.
pub fn put(root: &Path, peer: &Name, nonce: &Nonce, wish: &Wish) -> Result<(), Error> {
    let intent = Intent {
        schema: SCHEMA,
        nonce: nonce.clone(),
        peer: peer.clone(),
        at: clock::now(),
        wish: wish.clone(),
    };
    let (_, codex) = load(&Place::appliance(root))?;
    let used = intent::used(&records(root)?);
    let hint = "`sepulcher --host HOST rebirth status` tells what became of what was asked before";
    intent.judge(&intent.file(), &used, &codex, intent.at).map_err(|why| Refused::new(why, hint))?;
    let folder = folder(root);
    fs::create_dir_all(&folder)?;
    if fs::list(&folder)?.len() >= WAITING {
        return Err(Refused::new("too many requests wait already", hint).into());
    }
    let bytes = serde_json::to_vec(&intent).map_err(Error::Untold)?;
    Ok(fs::create_atomic(&folder.join(intent.file()), 0o600, &bytes)?)
}

/// Takes every intent that waits: what may be carried out is handed to `act`, everything else is refused; all of it is
/// on record, and none of it is left.
///
/// # Errors
/// A file cannot be read or written.
pub fn take(machine: &Machine, act: &mut dyn FnMut(&Wish) -> Result<(), String>) -> Result<(), Error> {
    let root = machine.root();
    let mut records = records(root)?;
    loop {
        let waiting: Vec<_> = fs::list(&folder(root))?.into_iter().filter(|path| !is_hidden(path)).collect();
        let Some(path) = waiting.first() else { return Ok(()) };
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (_, codex) = load(&Place::appliance(root))?;
        let read = read(path).and_then(|bytes| Intent::parse(&bytes));
        let peer = read.as_ref().ok().map(|intent| intent.peer.clone());
        let record = |state, reason| Record {
            at: clock::now(),
            file: file.clone(),
            peer: peer.clone(),
            state,
            reason,
        };
        match read.and_then(|intent| granted(intent, &file, &records, &codex)) {
            Ok(intent) => {
                note(root, &mut records, record(State::Taken, None))?;
                remove(path)?;
                let ended = match act(&intent.wish) {
                    Ok(()) => record(State::Done, None),
                    Err(reason) => record(State::Failed, Some(reason)),
                };
                note(root, &mut records, ended)?;
            }
            Err(reason) => {
                eprintln!("refused the intent {}: {reason}", crate::codex::plain(&file));
                note(root, &mut records, record(State::Refused, Some(reason)))?;
                remove(path)?;
            }
        }
    }
}

fn granted(intent: Intent, file: &str, records: &[Record], codex: &Codex) -> Result<Intent, String> {
    intent.judge(file, &intent::used(records), codex, clock::now())?;
    Ok(intent)
}

/// What is being written has a hidden name.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
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
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::tree::Sha256Digest;

    /// A machine with a peer that may.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let place = Place::appliance(root.path());
        fs::create_dir_all(&place.law).unwrap();
        fs::create_dir_all(&place.bonds.join("peers")).unwrap();
        fs::create_dir_all(&root.path().join("var/lib/sepulcher/rebirth")).unwrap();
        fs::create_dir_all(&folder(root.path())).unwrap();
        fs::write(&place.law.join("lychd.toml"), 0o644, b"schema = 1\n[appliance]\nname = \"lychd\"\n")
            .unwrap();
        let key = crate::sys::wireguard::SecretKey::generate().public();
        let peer = format!("public-key = \"{key}\"\naddress = \"10.88.16.2\"\ngrants = [\"rebirth\"]\n");
        fs::write(&place.bonds.join("peers/laptop.toml"), 0o644, peer.as_bytes()).unwrap();
        root
    }

    fn wish() -> Wish {
        Wish::Activate { digest: Sha256Digest::of(b"") }
    }

    fn ask(root: &Path, nonce: &str) -> Result<(), Error> {
        put(root, &"laptop".parse().unwrap(), &nonce.parse().unwrap(), &wish())
    }

    /// Takes all that waits; what was carried out, and the states on record.
    fn taken(root: &Path, answer: &Result<(), String>) -> (Vec<Wish>, Vec<State>) {
        let mut carried_out = Vec::new();
        let mut act = |wish: &Wish| {
            carried_out.push(wish.clone());
            answer.clone()
        };
        take(&Machine::new(root), &mut act).unwrap();
        assert!(fs::list(&folder(root)).unwrap().iter().all(|path| is_hidden(path)));
        (carried_out, records(root).unwrap().into_iter().map(|record| record.state).collect())
    }

    #[test]
    fn an_intent_is_carried_out_once() {
        let root = machine();
        ask(root.path(), "0123456789abcdef").unwrap();
        let path = folder(root.path()).join("0123456789abcdef.json");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(taken(root.path(), &Ok(())), (vec![wish()], vec![State::Taken, State::Done]));
        // The same again, by whatever way it comes.
        assert!(ask(root.path(), "0123456789abcdef").is_err());
        fs::write(&path, 0o600, &bytes).unwrap();
        assert_eq!(taken(root.path(), &Ok(())).0, []);
        assert!(records(root.path()).unwrap()[2].reason.as_ref().unwrap().contains("used before"));
    }

    #[test]
    fn one_that_was_cut_off_is_not_begun_again() {
        let root = machine();
        ask(root.path(), "0123456789abcdef").unwrap();
        let path = folder(root.path()).join("0123456789abcdef.json");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(taken(root.path(), &Err("the power went".into())).1, [State::Taken, State::Failed]);
        // The power went before the file was gone: the list knows it.
        fs::write(&path, 0o600, &bytes).unwrap();
        assert_eq!(taken(root.path(), &Ok(())).0, []);
    }

    #[test]
    fn whatever_else_lies_there_is_refused_recorded_and_removed() {
        let root = machine();
        let folder = folder(root.path());
        fs::write(&folder.join("a.json"), 0o600, b"{").unwrap();
        fs::write(&folder.join("b.json"), 0o600, &[b' '; 5000]).unwrap();
        symlink("/etc/passwd", folder.join("c.json")).unwrap();
        fs::create_dir_all(&folder.join("d.json/deep")).unwrap();
        fs::write(&folder.join("e"), 0o600, b"").unwrap();
        fs::write(&folder.join(".f.1.tmp"), 0o600, b"").unwrap();
        assert_eq!(taken(root.path(), &Ok(())), (vec![], vec![State::Refused; 5]));
        assert_eq!(fs::list(&folder).unwrap(), [folder.join(".f.1.tmp")]);
    }

    #[test]
    fn only_so_many_wait_and_only_so_many_are_remembered() {
        let root = machine();
        for index in 0..WAITING {
            ask(root.path(), &format!("{index:016x}")).unwrap();
        }
        assert!(ask(root.path(), "ffffffffffffffff").unwrap_err().to_string().contains("too many"));
        let mut known = records(root.path()).unwrap();
        for index in 0..RECORDS + 10 {
            let file = format!("{index}.json");
            let record = Record { at: clock::now(), file, peer: None, state: State::Refused, reason: None };
            if index < RECORDS + 9 {
                known.push(record);
            } else {
                note(root.path(), &mut known, record).unwrap();
            }
        }
        let kept = records(root.path()).unwrap();
        assert_eq!((kept.len(), kept.last().unwrap().file.as_str()), (RECORDS, "1009.json"));
    }
}
