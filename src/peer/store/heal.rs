//! Does what a command that was killed left to do. Runs under the lock, so that nobody else is at it.

use std::collections::BTreeSet;
use std::path::Path;

use super::commit::{bury, commit, record};
use super::migrate::all_kept;
use super::{Error, Place};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Sources};
use crate::peer::audit::{self, End, Entry, Record, Verb, Who};
use crate::peer::{Situation, due, missing_entries};
use crate::sys::{fs, journal};
use crate::tree::Sha256Digest;

/// Completes ledger and log, ends overlaps that are over, and removes temporary files and preshared keys that nobody
/// needs. Peers in `changing` are about to be written: their overlaps end with that.
pub fn heal(
    place: &Place,
    who: &Who,
    situation: &Situation<'_>,
    changing: &BTreeSet<&Name>,
) -> Result<(), Error> {
    let Situation { codex, sources, now, .. } = *situation;
    bury(&place.bonds, &missing_entries(codex, now))?;
    let found = found(place, who, codex, sources, now)?;
    if !found.is_empty() {
        record(&place.bonds, &found)?;
    }
    // They were seen when the bonds were read, under this lock: listing thousands once more would cost as much as deciding.
    for left in sources.hidden().iter().filter(|name| is_temporary(name)) {
        fs::remove_file(&place.bonds.join("peers").join(left))?;
    }
    let needed = needed(codex);
    let waiting = waiting(&place.bonds)?;
    let is_stale = |name: &str| {
        let owner = preshared(name);
        owner.is_some_and(|owner| !needed.contains(&format!("peers/{name}")) && !waiting.contains(&owner))
    };
    remove(&place.secrets.join("peers"), |name| is_temporary(name) || is_stale(name))?;
    for change in due(situation)?.iter().filter(|change| !changing.contains(&change.name)) {
        commit(place, &Entry::of(Verb::End, who, change, now), change)?;
    }
    Ok(())
}

/// What to record when the files that the last records are about are not as they say.
fn found(
    place: &Place,
    who: &Who,
    codex: &Codex,
    sources: &Sources,
    now: Timestamp,
) -> Result<Vec<Entry>, Error> {
    let path = place.bonds.join(audit::FILE);
    let (tail, whole) = journal::tail(&path, audit::TAIL)?;
    let Some((last, _)) = End::of(&tail, whole)?.last else { return Ok(Vec::new()) };
    let unsure = match last.verb {
        // Such a change has as many records as peers.
        verb if verb.is_of_many() => audit::unsure(&journal::tail(&path, audit::LIMIT)?.0),
        _ => vec![last],
    };
    let entry = |last: Record| {
        let text = sources.text(&format!("peers/{}.toml", last.peer));
        let file_sha256 = text.map(|text| Sha256Digest::of(text.as_bytes()));
        let generation = codex.peers.get(&last.peer).map_or(0, |peer| peer.generation);
        let found = || Entry {
            time: now,
            who: who.clone(),
            verb: Verb::Found,
            peer: last.peer,
            generation,
            file_sha256,
        };
        (file_sha256 != last.file_sha256).then(found)
    };
    Ok(unsure.into_iter().filter_map(entry).collect())
}

/// Preshared keys that handshakes need.
fn needed(codex: &Codex) -> BTreeSet<String> {
    codex.peers.iter().flat_map(|(name, peer)| peer.preshared_files(name)).collect()
}

/// Peers whose bonds were kept in another schema: which of their preshared keys they need, only a body of that schema
/// knows.
fn waiting(bonds: &Path) -> Result<BTreeSet<Name>, Error> {
    let mut names = BTreeSet::new();
    for folder in all_kept(bonds)? {
        let files = fs::list(&folder)?;
        names.extend(files.iter().filter_map(|file| file.file_stem()?.to_str()?.parse::<Name>().ok()));
    }
    Ok(names)
}

/// Removes the files of a folder that `is_litter` says it of; without the folder there are none.
pub(crate) fn remove(folder: &Path, is_litter: impl Fn(&str) -> bool) -> Result<(), Error> {
    let litter = fs::if_there(fs::list_named(folder, is_litter))?.unwrap_or_default();
    Ok(litter.iter().try_for_each(|path| fs::remove_file(path))?)
}

/// Whether a file's name is one that [`fs::temporary`] gives: `.phone.toml.42.tmp`.
pub(crate) fn is_temporary(name: &str) -> bool {
    let id = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"))
        .and_then(|name| name.rsplit_once('.'));
    id.is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The peer of a file whose name is one that [`preshared_file`] gives: `phone.2.psk`.
fn preshared(name: &str) -> Option<Name> {
    let (name, generation) = name.strip_suffix(".psk")?.rsplit_once('.')?;
    generation.parse::<u32>().is_ok().then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_litter() {
        assert!(is_temporary(".phone.toml.42.tmp") && preshared("phone.2.psk").is_some());
        for name in
            [".phone.toml.swp", "phone.toml.42.tmp", ".phone.toml..tmp", ".x.tmp", ".phone.toml.4x.tmp"]
        {
            assert!(!is_temporary(name), "{name}");
        }
        for name in ["phone.psk", "phone.2.psk~", "Phone.2.psk", "phone.x.psk", "tether.key"] {
            assert!(preshared(name).is_none(), "{name}");
        }
    }
}
