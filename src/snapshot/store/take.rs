//! What a snapshot holds, read from where it is in force; volumes come later.

use zeroize::Zeroizing;

use crate::codex::ledger::LEDGER;
use crate::codex::name::Name;
use crate::codex::{Codex, SCHEMA as CODEX_SCHEMA, Sources, is_bond};
use crate::peer::audit::{self, End};
use crate::peer::missing_entries;
use crate::peer::store::{Error, Place};
use crate::rebirth::version::Version;
use crate::snapshot::{BODY, IDENTITY, Manifest, Parts, SCHEMA, Snapshot, law_digest, volume};
use crate::sys::{clock, fs};

/// Reads everything that belongs to a snapshot.
pub(super) fn take(
    place: &Place,
    sources: &Sources,
    codex: &Codex,
    note: Option<&str>,
    identity: bool,
) -> Result<Snapshot, Error> {
    let now = clock::now();
    let mut parts: Parts = sources
        .iter()
        .filter(|(name, _)| is_bond(name))
        .map(|(name, text)| (name.to_owned(), Zeroizing::new(text.as_bytes().to_vec())))
        .collect();
    let missing = missing_entries(codex, now);
    if !missing.is_empty() {
        // What a killed command did not come to add.
        let ledger = parts.entry(LEDGER.to_owned()).or_default();
        for entry in &missing {
            ledger.extend_from_slice(format!("\n{entry}\n").as_bytes());
        }
    }
    let log =
        fs::if_there(fs::read_bounded(&place.bonds.join(audit::FILE), audit::LIMIT))?.unwrap_or_default();
    let last = End::of(&log, true)?.last;
    if !log.is_empty() {
        parts.insert(audit::FILE.to_owned(), Zeroizing::new(log));
    }
    for file in codex.peers.iter().flat_map(|(name, peer)| peer.preshared_files(name)) {
        let bytes = Zeroizing::new(fs::read_bounded(&place.secrets.join(&file), KEY_LIMIT)?);
        parts.insert(format!("secrets/{file}"), bytes);
    }
    if identity {
        let bytes = Zeroizing::new(fs::read_bounded(&place.secrets.join("tether.key"), KEY_LIMIT)?);
        parts.insert(IDENTITY.to_owned(), bytes);
    }
    let manifest = Manifest {
        schema: SCHEMA,
        body: BODY.to_owned(),
        image: image(place, &codex.appliance.name)?,
        codex_schema: CODEX_SCHEMA,
        appliance: codex.appliance.name.clone(),
        law: law_digest(sources),
        created: now,
        note: note.map(str::to_owned),
        generation: last.as_ref().map_or(0, |(record, _)| record.seq),
        audit_head: last.map(|(_, digest)| digest),
        host_key: place.host_key()?,
        identity,
        not_contained: volume::all(codex),
        parts: Vec::new(),
        volumes: Vec::new(),
    };
    Ok(Snapshot::new(parts, manifest))
}

/// Version of the sealed image that runs here, from its os-release(5), if it is one of that appliance.
///
/// # Errors
/// That file cannot be read.
pub fn image(place: &Place, appliance: &Name) -> Result<Option<Version>, Error> {
    // A workstation is no body. On an appliance the law lies at `usr/share/sepulcher/codex`.
    let Some(root) = place.law.ancestors().nth(4).filter(|_| place.bonds != place.law) else {
        return Ok(None);
    };
    let text = fs::if_there(fs::read_bounded(&root.join("usr/lib/os-release"), 1 << 16))?;
    let Some(text) = text else { return Ok(None) };
    let text = String::from_utf8_lossy(&text);
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let own = value("IMAGE_ID") == Some(appliance.as_str());
    Ok(value("IMAGE_VERSION").filter(|_| own).and_then(|version| version.parse().ok()))
}

/// A key file is 45 bytes long.
pub(super) const KEY_LIMIT: u64 = 4096;
