//! Puts a snapshot back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::back::Back;
use super::exchange::{exchange, shadowed};
use super::identity::{settle, stage};
use super::take::{KEY_LIMIT, image, take};
use super::{Host, Leaves, bonds_locked, find, held, keep, keep_with, locked, read, volumes};
use crate::codex::key::{PublicKey, SharedKey};
use crate::codex::migrate::FORMS;
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Door, Sources};
use crate::peer::audit::{self, Who};
use crate::peer::store::{Error, Place, add_to_ledger, heal, load_living, may, room};
use crate::peer::{Refused, Situation};
use crate::rebirth::version::Version;
use crate::snapshot::merge::{Bonds, Merge, merge};
use crate::snapshot::volume::Volume;
use crate::snapshot::{BODY, IDENTITY, Snapshot, law, law_digest, parsed};
use crate::sys::interrupt::Held;
use crate::sys::wireguard::SecretKey;
use crate::sys::{clock, fs};

/// The folder that the peers are written to before they are exchanged; first boot tidies it away, too.
const SHADOW: &str = ".peers.new";

/// What is to be put back, and how.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The snapshot's name; without one, the latest.
    pub name: Option<&'a str>,
    /// Peers that come back though they are revoked or their time is over.
    pub revive: &'a BTreeSet<Name>,
    /// Whether the host's private key is put back too.
    pub identity: bool,
    /// Whether volumes are put back too.
    pub volumes: bool,
    /// Decide and tell, and change nothing.
    pub dry_run: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// The snapshot's name.
    pub name: String,
    /// What changes, a line each, for people.
    pub plan: Vec<String>,
    /// The snapshot of what was there before; `None` where nothing changed, or nothing was there.
    pub before: Option<String>,
}

/// Puts a snapshot back: see [`merge`] for what of it. Volumes are exchanged before the bonds, and are so for good only
/// with them: when this process is killed, both are new or both are as they were.
///
/// # Errors
/// See [`Error`]: nothing has changed, unless it says so.
pub fn restore(place: &Place, host: &Host<'_>, who: &Who, wish: Wish<'_>) -> Result<Restored, Error> {
    let _snapshots = if wish.dry_run { None } else { Some(locked(place, host)?) };
    if !wish.volumes || wish.dry_run {
        let (name, snapshot) = read(place, wish.name)?;
        return put_back(place, who, wish, (name, &snapshot), None);
    }
    // The value goes last: then a signal that came meanwhile ends this process.
    let held = held()?;
    let (name, file) = find(place, wish.name)?;
    let (mut back, snapshot) = Back::prepare(place, host, &load_living(place)?.1, &file, &held)?;
    let restored = put_all_back(place, host, who, wish, (name, &snapshot), &mut back, &held);
    match restored {
        Err(error) if back.is_committed() => back.finish().and(Err(error)),
        Err(error) => Err(back.undone(error)),
        Ok(restored) => back.finish().map(|()| restored),
    }
}

/// Volumes that are ready, and what was there when their services were stopped.
struct Stopped<'a, 'b> {
    back: &'a mut Back<'b>,
    before: String,
    kept: Snapshot,
}

/// Stops the services, keeps what is there, and puts volumes and bonds back. Bonds are changed while volumes are read, so
/// that nobody has to wait to be cut off; who did so has this one begin anew.
fn put_all_back(
    place: &Place,
    host: &Host<'_>,
    who: &Who,
    wish: Wish<'_>,
    (name, snapshot): (String, &Snapshot),
    back: &mut Back<'_>,
    held: &Held,
) -> Result<Restored, Error> {
    // Whatever can be refused is, before a service is stopped.
    put_back(place, who, Wish { dry_run: true, ..wish }, (name.clone(), snapshot), None)?;
    volumes::fit(&super::folder(place), &back.sources)?;
    back.stop()?;
    let taken = {
        let _bonds = bonds_locked(place)?;
        let (sources, codex) = healed(place, who, clock::now())?;
        take_before(place, &name, (&sources, &codex), wish.identity)?
    };
    let (before, kept) = keep_with(place, host, &taken, &back.sources, held)?;
    put_back(place, who, wish, (name, snapshot), Some(Stopped { back, before, kept }))
}

fn put_back(
    place: &Place,
    who: &Who,
    wish: Wish<'_>,
    (name, snapshot): (String, &Snapshot),
    volumes: Option<Stopped<'_, '_>>,
) -> Result<Restored, Error> {
    let lock = if wish.dry_run { None } else { Some(bonds_locked(place)?) };
    let image = image(place, &snapshot.manifest.appliance)?;
    let log = place.bonds.join(audit::FILE);
    let now = clock::now();
    let (sources, codex) = if lock.is_some() { healed(place, who, now)? } else { load_living(place)? };
    // Who was cut off while the archive was read brings nobody back, itself least of all.
    may(who, Door::Snapshots, &codex, now)?;
    let bonds = Bonds { codex: &codex, sources: &sources };
    let merged = decide(snapshot, image.as_ref(), bonds, wish.revive, now)?;
    // The log of a lost machine goes on.
    let coming = if fs::exists(&log)? { None } else { snapshot.parts.get(audit::FILE) };
    let lines = merged.before.len() + merged.behind.len();
    let living = merged.codex.active().count();
    room::judge_restore(place, coming.map(|coming| coming.len()), merged.changed.len(), (lines, living))?;
    let preshared = preshared(snapshot, &merged.codex, |file| fs::exists(&place.secrets.join(file)))?;
    let identity = identity(place, snapshot, wish.identity)?;
    let mut plan = plan(&merged, &codex);
    // In force, and without what this body's law does not have.
    for mistake in Codex::parse(&merged.sources).err().unwrap_or_default() {
        plan.push(format!("note: {}: {}", mistake.file, mistake.message));
    }
    plan.extend(notes(snapshot, &sources, &codex, identity.is_some(), wish.volumes));
    let idle = merged.is_empty() && identity.is_none();
    if lock.is_none() || (idle && volumes.is_none()) {
        return Ok(Restored { name, plan, before: None });
    }
    let taken = take_before(place, &name, (&sources, &codex), identity.is_some())?;
    let (before, back) = match volumes {
        // Of a machine that has nothing yet the latest snapshot would be one of nothing.
        None if taken.parts.is_empty() => (None, None),
        None => (Some(keep(place, &taken, Leaves::Little)?), None),
        Some(Stopped { kept, .. }) if !kept.has_bonds_of(&taken) => {
            return Err(
                Refused::new("the bonds were changed while the volumes were read", "try again").into()
            );
        }
        Some(Stopped { back, before, .. }) => {
            back.exchange()?;
            (Some(before), Some(back))
        }
    };
    if let Some(coming) = coming {
        fs::write_atomic(&log, 0o600, coming)?;
    }
    let identity = identity.as_ref().map(|key| key.as_slice());
    carry_out(place, who, &merged, &preshared, identity, back, now)?;
    Ok(Restored { name, plan, before })
}

/// What a snapshot makes of bonds that this body, of that image, has now.
fn decide(
    snapshot: &Snapshot,
    image: Option<&Version>,
    now: Bonds<'_>,
    revive: &BTreeSet<Name>,
    time: Timestamp,
) -> Result<Merge, Refused> {
    snapshot.manifest.aligned(BODY, image)?;
    let (sources, codex) = soul(snapshot, now.sources)?;
    merge(now, Bonds { codex: &codex, sources: &sources }, revive, time)
}

/// What a snapshot will make of a machine that has no bonds yet, a line each, for people. `sources` hold its law, `image` is
/// the version of its sealed image, `host` its key.
///
/// # Errors
/// As [`restore`]'s: the machine would refuse it.
pub fn foretell(
    snapshot: &Snapshot,
    sources: &Sources,
    image: Option<&Version>,
    host: PublicKey,
) -> Result<Vec<String>, Error> {
    let (sources, codex) = parsed(
        law(sources),
        Codex::parse,
        "the law of this body holds mistakes",
        "`sepulcher check` tells them",
    )?;
    let now = Bonds { codex: &codex, sources: &sources };
    let merged = decide(snapshot, image, now, &BTreeSet::new(), clock::now())?;
    preshared(snapshot, &merged.codex, |_| Ok(false))?;
    if let Some((name, _)) = merged.codex.peers.iter().find(|(_, peer)| peer.public_key == host) {
        let hint = "choose another snapshot, or one without the host's private key";
        return Err(Refused::new(format!("{name} has the public key of the host itself"), hint).into());
    }
    let mut told = plan(&merged, &codex);
    told.extend(notes(snapshot, &sources, &codex, false, false));
    Ok(told)
}

/// What is there before a snapshot is put back; with the host's key when that goes.
fn take_before(
    place: &Place,
    name: &str,
    (sources, codex): (&Sources, &Codex),
    identity: bool,
) -> Result<Snapshot, Error> {
    let note = format!("before {name} was restored");
    let replaces_key = identity && fs::exists(&place.secrets.join("tether.key"))?;
    take(place, sources, codex, Some(&note), replaces_key)
}

/// The bonds, when all is done that a killed command left undone.
fn healed(place: &Place, who: &Who, now: Timestamp) -> Result<(Sources, Codex), Error> {
    fs::remove_dir_all(&place.bonds.join(SHADOW))?;
    let (sources, codex) = load_living(place)?;
    let situation = Situation { codex: &codex, sources: &sources, broken: &[], host_key: None, now };
    heal(place, who, &situation, &BTreeSet::new())?;
    load_living(place)
}

/// The snapshot's bonds, read below the law of now.
fn soul(snapshot: &Snapshot, now: &Sources) -> Result<(Sources, Codex), Refused> {
    let hint = "return to the body that it was made under, or choose another snapshot";
    parsed(
        snapshot.sources(now, FORMS)?,
        Codex::parse_living,
        "the snapshot's bonds do not fit the law of this body",
        hint,
    )
}

/// Preshared keys that the bonds need from then on and that are not here, by file.
fn preshared(
    snapshot: &Snapshot,
    codex: &Codex,
    is_here: impl Fn(&str) -> Result<bool, fs::Error>,
) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, Error> {
    let mut found = BTreeMap::new();
    for file in codex.peers.iter().flat_map(|(name, peer)| peer.preshared_files(name)) {
        if is_here(&file)? {
            continue;
        }
        let bytes =
            snapshot.parts.get(&format!("secrets/{file}")).filter(|bytes| SharedKey::parse(bytes).is_ok());
        let bytes = bytes.ok_or_else(|| {
            let hint = "choose a snapshot that holds it, or rotate that peer afterwards";
            Refused::new(format!("the preshared key {file} is neither here nor in the snapshot"), hint)
        })?;
        found.insert(file, bytes.clone());
    }
    Ok(found)
}

/// The host's private key, where it is to be put back and is another one now.
fn identity(place: &Place, snapshot: &Snapshot, wanted: bool) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    if !wanted {
        return Ok(None);
    }
    let bytes =
        snapshot.parts.get(IDENTITY).filter(|bytes| SecretKey::parse(bytes).is_ok()).ok_or_else(|| {
            let hint = "leave `--with-identity` out, or choose one that was made with it";
            Refused::new("the snapshot does not hold the host's private key", hint)
        })?;
    let own =
        fs::if_there(fs::read_bounded(&place.secrets.join("tether.key"), KEY_LIMIT))?.map(Zeroizing::new);
    Ok((own.as_ref() != Some(bytes)).then(|| bytes.clone()))
}

fn plan(merged: &Merge, codex: &Codex) -> Vec<String> {
    let mut plan = merged.lines.clone();
    for changed in merged.changed.iter().filter(|changed| changed.text.is_some()) {
        let name = &changed.name;
        let told = |line: &String| line.split(' ').nth(2) == Some(name.as_str());
        if merged.lines.iter().any(told) {
            continue;
        }
        plan.push(if codex.peers.contains_key(name) {
            format!("~ peer {name} as it was")
        } else {
            format!("+ peer {name}")
        });
    }
    let keys = merged.before.iter().chain(&merged.behind).filter(|line| !line.starts_with("revived "));
    match keys.count() {
        0 => {}
        count => plan.push(format!("+ {count} dead key(s) in the ledger")),
    }
    plan
}

/// What is worth to know, though it changes no bond.
fn notes(
    snapshot: &Snapshot,
    sources: &Sources,
    codex: &Codex,
    identity: bool,
    volumes: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    if identity {
        notes.push("~ the host's private key; the agent takes it when it starts".to_owned());
    }
    if snapshot.manifest.law != law_digest(sources) {
        notes.push("note: the snapshot was made under another law".to_owned());
    }
    for volume in snapshot.manifest.volumes.iter().filter(|volume| codex.has_volume(&volume.name)) {
        let Volume { name, service, size, .. } = volume;
        notes.push(if volumes {
            format!("~ volume {name}: {size} bytes; {service} is stopped meanwhile")
        } else {
            format!("note: volume {name} stays as it is now; `--with-volumes` puts it back")
        });
    }
    let left = &snapshot.manifest.not_contained;
    if !left.is_empty() {
        notes.push(format!("note: not contained, and as it is now: {}", left.join(", ")));
    }
    notes
}

/// Everything that can fail comes before the exchange. Where volumes or the host's key are put back with the bonds, it is
/// made also when no bond changes: it is what all of it is done with.
fn carry_out(
    place: &Place,
    who: &Who,
    merged: &Merge,
    preshared: &BTreeMap<String, Zeroizing<Vec<u8>>>,
    identity: Option<&[u8]>,
    back: Option<&mut Back<'_>>,
    now: Timestamp,
) -> Result<(), Error> {
    place.make_secrets()?;
    for (file, bytes) in preshared {
        fs::write_atomic(&place.secrets.join(file), 0o600, bytes)?;
    }
    let shadow = place.bonds.join(SHADOW);
    let changes = back.is_some() || identity.is_some() || !merged.changed.is_empty();
    let commits = |()| {
        let peers = fs::inode(&shadow)?;
        back.map_or(Ok(()), |back| back.commits_with(peers))?;
        identity.map_or(Ok(()), |key| stage(place, key, peers))
    };
    let exchanged = shadowed(&place.bonds.join("peers"), &shadow, merged)
        .map_err(Error::from)
        .and_then(commits)
        .and_then(|()| exchange(place, who, merged, changes.then_some(shadow.as_path()), now));
    let settled = identity.map_or(Ok(()), |_| settle(place));
    if exchanged.is_err() {
        // The error that brought us here is the one to tell; the next restore removes it.
        let _ = fs::remove_dir_all(&shadow);
    }
    exchanged?;
    let rest = || {
        add_to_ledger(&place.bonds, &merged.behind)?;
        fs::remove_dir_all(&shadow)
    };
    rest().map_err(Error::Unfinished)?;
    let situation =
        Situation { codex: &merged.codex, sources: &merged.sources, broken: &[], host_key: None, now };
    // The peers are exchanged: whatever these two meet, the change is done.
    settled.and(heal(place, who, &situation, &BTreeSet::new())).map_err(|error| match error {
        Error::File(error) => Error::Unfinished(error),
        other => other,
    })
}
