//! Brings the bonds to the schema of the body that starts: whole or not at all.
//!
//! The new folder of peers is written, gets a name that says that it is whole, is put on record, and is exchanged with
//! the one in force, which is one system call. The old one then is kept as `peers.schema-<its schema>`. A power loss
//! between any two of these leaves old or new bonds in force, and the next boot does the rest.

use std::path::{Path, PathBuf};

use super::commit::record;
use super::{Error, PATIENCE, Place};
use crate::codex::migrate::{Forms, MARKER, Texts, marker};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::peer::audit::{Entry, Verb, Who};
use crate::peer::migrate::{Held, Next, next};
use crate::sys::codex::FILE_LIMIT;
use crate::sys::journal::Lock;
use crate::sys::{clock, codex as files, fs, tree};
use crate::tree::Sha256Digest;

/// Where the folder is written; first boot and restore tidy it away, too.
const SHADOW: &str = ".peers.new";
/// A whole folder of peers on its way: not in force yet, or no more.
const WHOLE: &str = ".peers.schema";
/// How the name of a folder begins that was left in another schema.
const KEPT: &str = "peers.schema-";

/// Where the bonds of that schema are kept.
pub fn kept(place: &Place, schema: u32) -> PathBuf {
    place.bonds.join(format!("{KEPT}{schema}"))
}

/// All folders of bonds that were left in another schema.
pub(super) fn all_kept(bonds: &Path) -> Result<Vec<PathBuf>, fs::Error> {
    Ok(fs::if_there(fs::list_named(bonds, |name| name.starts_with(KEPT)))?.unwrap_or_default())
}

/// Brings the bonds to the schema of `forms`, and tells what was done, a line each. Without bonds, or where they are of
/// that schema, nothing is done.
///
/// # Errors
/// See [`Error`]: the bonds in force are as they were, unless it says so.
pub fn bring(place: &Place, who: &Who, forms: Forms<'_>) -> Result<Vec<String>, Error> {
    let peers = place.bonds.join("peers");
    let left = place.bonds.join(WHOLE);
    let is_left = fs::exists(&left)?;
    if !fs::exists(&peers)? || (!is_left && files::schema(&peers)? == forms.own) {
        return Ok(Vec::new());
    }
    let _lock = Lock::acquire(&place.bonds.join(".lock"), PATIENCE)?;
    if is_left {
        set_aside(place)?;
    }
    if files::schema(&peers)? == forms.own {
        return Ok(Vec::new());
    }
    let (change, lines) = Change::decide(place, who, forms)?;
    for effect in EFFECTS {
        effect(place, &change)?;
    }
    Ok(lines)
}

/// What is to be done.
struct Change {
    own: u32,
    texts: Texts,
    now: Texts,
    entries: Vec<Entry>,
}

/// In this order; each is durable before the next.
type Effect = fn(&Place, &Change) -> Result<(), Error>;
const EFFECTS: [Effect; 5] = [write, name, put_on_record, exchange, |place, _| set_aside(place)];

impl Change {
    fn decide(place: &Place, who: &Who, forms: Forms<'_>) -> Result<(Self, Vec<String>), Error> {
        let peers = place.bonds.join("peers");
        let schema = files::schema(&peers)?;
        let now = texts(&peers)?.unwrap_or_default();
        let (other, base) = (texts(&kept(place, forms.own))?, texts(&kept(place, schema))?);
        let held = Held { schema, now: &now, kept: other.as_ref(), base: base.as_ref() };
        let law = files::load(&place.folders());
        let time = clock::now();
        let found = next(forms, held, &law, time)?;
        let lines = told(schema, forms.own, &found);
        let entries = entries(&now, &found, who, time);
        Ok((Self { own: forms.own, texts: found.texts, now, entries }, lines))
    }
}

fn told(schema: u32, own: u32, found: &Next) -> Vec<String> {
    let first = format!("schema migration: {schema} → {own}, {} bond(s)", found.texts.len());
    [first].into_iter().chain(found.lines.clone()).collect()
}

/// A record for each file that is not as it was.
fn entries(now: &Texts, next: &Next, who: &Who, time: Timestamp) -> Vec<Entry> {
    let gone = now.keys().filter(|file| !next.texts.contains_key(*file));
    let changed = next.texts.iter().filter(|(file, text)| now.get(*file) != Some(text)).map(|(file, _)| file);
    let entry = |file: &String| {
        let peer: Name = file.strip_prefix("peers/")?.strip_suffix(".toml")?.parse().ok()?;
        Some(Entry {
            time,
            who: who.clone(),
            verb: Verb::Migrate,
            generation: next.codex.peers.get(&peer).map_or(0, |peer| peer.generation),
            file_sha256: next.texts.get(file).map(|text| Sha256Digest::of(text.as_bytes())),
            peer,
        })
    };
    changed.chain(gone).filter_map(entry).collect()
}

fn is_bond(name: &str) -> bool {
    !name.starts_with('.') && Path::new(name).extension().is_some_and(|extension| extension == "toml")
}

/// The files of a folder of peers; `None` where there is no such folder.
fn texts(folder: &Path) -> Result<Option<Texts>, fs::Error> {
    let Some(found) = fs::if_there(fs::list_named(folder, is_bond))? else { return Ok(None) };
    let text = |path: PathBuf| {
        let bytes = fs::read_bounded(&path, FILE_LIMIT)?;
        let text = String::from_utf8(bytes).map_err(std::io::Error::other);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok((format!("peers/{name}"), fs::context(text, "read", &path)?))
    };
    found.into_iter().map(text).collect::<Result<_, _>>().map(Some)
}

/// Writes the folder as it is from then on. Files that stay are the same files.
fn write(place: &Place, change: &Change) -> Result<(), Error> {
    let shadow = place.bonds.join(SHADOW);
    fs::remove_dir_all(&shadow)?;
    fs::create_dir_all(&shadow)?;
    fs::set_mode(&shadow, 0o755)?;
    for (file, text) in &change.texts {
        let to = shadow.join(Path::new(file).file_name().unwrap_or_default());
        if change.now.get(file) == Some(text) {
            fs::link(&place.bonds.join(file), &to)?;
        } else {
            fs::write_atomic(&to, 0o644, text.as_bytes())?;
        }
    }
    fs::write_atomic(&shadow.join(MARKER), 0o644, marker(change.own).as_bytes())?;
    Ok(fs::sync_parent(&shadow.join("any"))?)
}

fn name(place: &Place, _: &Change) -> Result<(), Error> {
    Ok(fs::rename(&place.bonds.join(SHADOW), &place.bonds.join(WHOLE))?)
}

fn put_on_record(place: &Place, change: &Change) -> Result<(), Error> {
    if change.entries.is_empty() {
        return Ok(());
    }
    record(&place.bonds, &change.entries).map(|_| ())
}

fn exchange(place: &Place, _: &Change) -> Result<(), Error> {
    Ok(tree::exchange(&place.bonds.join(WHOLE), &place.bonds.join("peers"))?)
}

/// Keeps a whole folder that is not in force under the name of its schema, in the place of an older one. Before the
/// exchange it is one that was never in force: what it holds was made from all others, so that it serves as well.
fn set_aside(place: &Place) -> Result<(), Error> {
    let whole = place.bonds.join(WHOLE);
    let kept = kept(place, files::schema(&whole)?);
    fs::remove_dir_all(&kept)?;
    Ok(fs::rename(&whole, &kept)?)
}

#[cfg(test)]
mod tests;
