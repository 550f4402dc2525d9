//! The folder that intents wait in, and the list of what became of them.
//!
//! A nonce is on the list before anything is done, and the file is gone: a machine that stops in between does nothing
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;
use super::intent::{self, Intent, LIMIT, Nonce, Outcome, RECORDS, Record, State, WAITING, Wish};
use super::machine::Machine;
use super::record::SCHEMA;
use crate::codex::name::Name;
use crate::codex::{Codex, Door, is_tombstone};
use crate::peer::Refused;
use crate::peer::store::{Place, is_temporary};
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
    Codex::parse_sound(&mut sources, |file| !tombstones.contains(file), &mut |_| {}).map_err(|mistakes| {
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

/// The one that has waited longest.
fn first(root: &Path) -> Result<Option<Read>, Error> {
    let all = waiting(root)?.into_iter().map(|path| {
        let intent = read(&path).and_then(|bytes| Intent::parse(&bytes));
        (path, intent)
    });
    // Names are random. What is none goes first.
    Ok(all.min_by_key(|(_, intent)| intent.as_ref().ok().map(|intent| intent.at)))
}

/// Adds to the list, durably.
fn note(root: &Path, records: &mut Vec<Record>, record: Record) -> Result<(), Error> {
    records.push(record.bounded());
    records.drain(..records.len().saturating_sub(RECORDS));
    let lines: Result<Vec<_>, _> = records.iter().map(serde_json::to_string).collect();
    let text = lines.map_err(Error::Untold)?.join("\n") + "\n";
    Ok(fs::write_atomic(&list_file(root), 0o600, text.as_bytes())?)
}

/// Keeps a wish of a peer that may, for the reactor to find; the name of its file, which the list tells of.
///
/// # Errors
/// It may not, too many wait, or the nonce was used.
pub fn put(root: &Path, peer: &Name, nonce: &Nonce, wish: &Wish) -> Result<String, Error> {
    let intent = Intent {
        schema: SCHEMA,
        nonce: nonce.clone(),
        peer: peer.clone(),
        at: clock::now(),
        wish: wish.clone(),
    };
    let hint = match wish.door() {
        Door::Snapshots => "`sepulcher --host HOST snapshot list` tells what became of what was asked before",
        _ => "`sepulcher --host HOST rebirth status` tells what became of what was asked before",
    };
    let codex = codex(root).map_err(|why| Refused::new(why, hint))?;
    let used = intent::used(&records(root)?);
    let file = intent.file();
    intent.judge(&file, &used, &codex, intent.at).map_err(|why| Refused::new(why, hint))?;
    let folder = folder(root);
    fs::create_dir_all(&folder)?;
    if waiting(root)?.len() >= WAITING {
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

/// How carrying an intent out ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What came of it, or why nothing did.
    pub result: Result<Option<Outcome>, String>,
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
        let peer = read.as_ref().ok().map(|intent| intent.peer.clone());
        let record = |state, reason| Record {
            at: clock::now(),
            file: file.clone(),
            peer: peer.clone(),
            state,
            reason,
            outcome: None,
        };
        match read.and_then(|intent| granted(intent, &file, &records, root)) {
            Ok(intent) => {
                note(root, &mut records, record(State::Taken, None))?;
                remove(&path)?;
                let Ended { result, restart } = act(&intent);
                let ended = match result {
                    Ok(outcome) => Record { outcome, ..record(State::Done, None) },
                    Err(reason) => record(State::Failed, Some(reason)),
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

fn granted(intent: Intent, file: &str, records: &[Record], root: &Path) -> Result<Intent, String> {
    intent.judge(file, &intent::used(records), &codex(root)?, clock::now())?;
    Ok(intent)
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
    use crate::codex::time::Timestamp;
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

    fn ask(root: &Path, nonce: &str) -> Result<String, Error> {
        put(root, &"laptop".parse().unwrap(), &nonce.parse().unwrap(), &wish())
    }

    /// Takes all that waits; what was carried out, and the states on record.
    fn taken(root: &Path, answer: &Result<(), String>) -> (Vec<Wish>, Vec<State>) {
        let mut carried_out = Vec::new();
        let mut act = |intent: &Intent| {
            carried_out.push(intent.wish.clone());
            Ended { result: answer.clone().map(|()| None), restart: false }
        };
        while !waiting(root).unwrap().is_empty() {
            assert!(!take(&Machine::new(root), &mut act).unwrap());
        }
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
    fn who_carries_it_out_knows_whose_it_is_and_what_came_of_it_is_on_record() {
        let root = machine();
        ask(root.path(), "0123456789abcdef").unwrap();
        let outcome = Some(Outcome::Created { name: "2026-11-29T160000Z".to_owned() });
        let mut act = |intent: &Intent| {
            assert_eq!(intent.peer.as_str(), "laptop");
            Ended { result: Ok(outcome.clone()), restart: false }
        };
        take(&Machine::new(root.path()), &mut act).unwrap();
        assert_eq!(records(root.path()).unwrap().pop().unwrap().outcome, outcome);
    }

    #[test]
    fn who_has_waited_longest_comes_first_and_nobody_before_a_restart_that_is_due() {
        let root = machine();
        let nonces = ["f", "8", "0"].map(|digit| digit.repeat(16));
        for (nonce, age) in nonces.iter().zip([60, 30, 0]) {
            ask(root.path(), nonce).unwrap();
            let path = folder(root.path()).join(format!("{nonce}.json"));
            let mut intent = Intent::parse(&fs::read(&path).unwrap()).unwrap();
            intent.at = Timestamp::from_epoch(intent.at.epoch() - age);
            fs::write(&path, 0o600, &serde_json::to_vec(&intent).unwrap()).unwrap();
        }
        let mut order = Vec::new();
        let mut act = |intent: &Intent| {
            order.push(intent.nonce.to_string());
            let result = Err("it is done, and its service does not start".to_owned());
            Ended { result, restart: order.len() == 2 }
        };
        let restarts = [(); 2].map(|()| take(&Machine::new(root.path()), &mut act).unwrap());
        assert_eq!(restarts, [false, true]);
        assert_eq!(order, nonces[..2]);
        assert_eq!(records(root.path()).unwrap().pop().unwrap().state, State::Failed);
        assert_eq!(waiting(root.path()).unwrap().len(), 1);
        assert_eq!(taken(root.path(), &Ok(())).0.len(), 1);
    }

    #[test]
    fn whoever_waits_for_what_the_machine_stopped_in_is_told_so_once() {
        let root = machine();
        ask(root.path(), "0123456789abcdef").unwrap();
        taken(root.path(), &Ok(()));
        ask(root.path(), "fedcba9876543210").unwrap();
        let died = std::panic::catch_unwind(|| {
            take(&Machine::new(root.path()), &mut |_| panic!("the power went")).unwrap();
        });
        assert!(died.is_err());
        let states =
            || records(root.path()).unwrap().into_iter().map(|record| record.state).collect::<Vec<_>>();
        assert_eq!(states(), [State::Taken, State::Done, State::Taken]);
        tidy(root.path()).unwrap();
        tidy(root.path()).unwrap();
        assert_eq!(states(), [State::Taken, State::Done, State::Taken, State::Failed]);
        let last = records(root.path()).unwrap().pop().unwrap();
        assert_eq!(last.file, "fedcba9876543210.json");
        assert!(last.reason.unwrap().contains("cut off"));
    }

    #[test]
    fn a_wish_that_would_be_refused_for_its_length_is_not_kept() {
        let root = machine();
        let source = format!("https://a/{}", "x".repeat(5000));
        let wish = Wish::Stage { source, allow_downgrade: false };
        let nonce = "0123456789abcdef".parse().unwrap();
        let refused = put(root.path(), &"laptop".parse().unwrap(), &nonce, &wish).unwrap_err();
        assert!(refused.to_string().contains("longer than 4096"), "{refused}");
        assert!(waiting(root.path()).unwrap().is_empty());
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
    fn a_broken_bond_keeps_nobody_else_from_being_heard_and_nothing_waiting() {
        let root = machine();
        let peers = Place::appliance(root.path()).bonds.join("peers");
        ask(root.path(), "0123456789abcdef").unwrap();
        fs::write(&peers.join("phone.toml"), 0o644, b"public-key = 1\n").unwrap();
        ask(root.path(), "fedcba9876543210").unwrap();
        assert_eq!(taken(root.path(), &Ok(())).0, [wish(), wish()]);
        // Without its own bond, and without any law, it is heard no more.
        for file in [peers.join("laptop.toml"), Place::appliance(root.path()).law.join("lychd.toml")] {
            ask(root.path(), "00000000000000aa").unwrap();
            let before = fs::read(&file).unwrap();
            fs::write(&file, 0o644, b"?").unwrap();
            assert_eq!(taken(root.path(), &Ok(())).0, []);
            let last = records(root.path()).unwrap().pop().unwrap();
            assert_eq!((last.state, last.file.as_str()), (State::Refused, "00000000000000aa.json"));
            fs::write(&file, 0o644, &before).unwrap();
        }
        // A tombstone with a slip in it could be what keeps somebody out.
        fs::write(&peers.join("phone.toml"), 0o644, b"state = \"revoked\"\npublic-key = 1\n").unwrap();
        assert!(codex(root.path()).unwrap_err().contains("mistake"));
    }

    #[test]
    fn a_long_reason_is_cut_and_of_a_long_list_the_end_is_kept() {
        let root = machine();
        let long = "  peer ü: Address = 10.88.16.2 → 10.88.16.3\n".repeat(10_000);
        for round in 0..3 {
            ask(root.path(), &format!("{round:016x}")).unwrap();
            taken(root.path(), &Err(long.clone()));
        }
        let kept = records(root.path()).unwrap();
        assert!(kept.iter().all(|record| record.reason.as_ref().is_none_or(|reason| reason.len() < 2100)));
        assert_eq!(kept.len(), 6);
        // What was written before there was a bound.
        let line = serde_json::to_string(&Record { reason: Some(long), ..kept[5].clone() }).unwrap() + "\n";
        fs::write(&list_file(root.path()), 0o600, line.repeat(40).as_bytes()).unwrap();
        let kept = records(root.path()).unwrap();
        assert!((10..40).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().all(|record| record.reason.as_ref().is_some_and(|reason| reason.len() < 2100)));
        ask(root.path(), "fedcba9876543210").unwrap();
        assert_eq!(taken(root.path(), &Ok(())).0, [wish()]);
    }

    #[test]
    fn what_killed_writers_left_takes_no_place_and_goes_at_the_next_boot() {
        let root = machine();
        for index in 0..WAITING {
            fs::write(&folder(root.path()).join(format!(".{index}.json.{index}.tmp")), 0o600, b"").unwrap();
        }
        ask(root.path(), "0123456789abcdef").unwrap();
        tidy(root.path()).unwrap();
        assert_eq!(fs::list(&folder(root.path())).unwrap(), waiting(root.path()).unwrap());
        assert_eq!(waiting(root.path()).unwrap().len(), 1);
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
            let record = Record {
                at: clock::now(),
                file,
                peer: None,
                state: State::Refused,
                reason: None,
                outcome: None,
            };
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
