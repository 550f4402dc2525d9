//! The bonds and volumes of one moment, kept and put back: what a snapshot holds, and whether this body may take it.
//!
//! A snapshot is one file: a zstd-compressed tar archive whose first entry is the [`Manifest`]. Contained are the
//! peers' files, the ledger of dead keys, the log of changes, the preshared keys, the host's private key where that
//! was asked for, and the volumes of services; the manifest names those that are left out.

pub mod archive;
pub mod merge;
pub mod seal;
pub mod store;
pub mod volume;
pub mod wish;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::codex::key::PublicKey;
use crate::codex::ledger::{LAW_LEDGER, LEDGER};
use crate::codex::migrate::{Forms, NoWay};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Parse, Sources, is_bond, render_all};
use crate::peer::{Refused, audit};
use crate::rebirth::version::Version;
use crate::tree::Sha256Digest;
use volume::Volume;

/// The latest version of snapshots that this program reads. It writes 1 where no volume is contained, which older
/// bodies read too, and 2 where one is.
pub const SCHEMA: u32 = 2;
/// The version of this program.
pub const BODY: &str = env!("CARGO_PKG_VERSION");
/// The host's private key among the parts.
pub const IDENTITY: &str = "secrets/tether.key";

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its path: `peers/phone.toml`, `revoked`, `audit.jsonl`, `secrets/peers/phone.1.psk`, `secrets/tether.key`.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
}

/// What a snapshot is and holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// 1; 2 with volumes.
    pub schema: u32,
    /// Version of the program that made it, `0.1.0`.
    pub body: String,
    /// Version of the sealed image that it was made under, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Version>,
    /// Schema of the Codex that its bonds are written in.
    pub codex_schema: u32,
    /// The appliance's name.
    pub appliance: Name,
    /// Digest of the law that was in force: see [`law_digest`].
    pub law: Sha256Digest,
    /// When it was made.
    pub created: Timestamp,
    /// What somebody wrote to it.
    pub note: Option<String>,
    /// How many changes of the bonds were on record.
    pub generation: u64,
    /// Digest of the last of these records.
    pub audit_head: Option<Sha256Digest>,
    /// The host's public key, where it was known.
    pub host_key: Option<PublicKey>,
    /// Whether the host's private key is contained.
    pub identity: bool,
    /// What belongs to the machine's state and is not contained.
    pub not_contained: Vec<String>,
    /// What is contained, in the order of the archive.
    pub parts: Vec<Part>,
    /// Volumes that are contained, behind the parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
}

/// What every version of a manifest says.
#[derive(Debug, Deserialize)]
struct Head {
    schema: u32,
    body: String,
}

/// A snapshot in memory: manifest and content of its parts. The volumes' stays in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is and holds.
    pub manifest: Manifest,
    /// Content by path. Some of it is secret.
    pub parts: Parts,
}

/// Content by path.
pub type Parts = BTreeMap<String, Zeroizing<Vec<u8>>>;

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// It is none, or one of a newer body.
    pub fn read(bytes: &[u8]) -> Result<Self, Refused> {
        let damaged = |error: serde_json::Error| damaged(&format!("its manifest is unusable: {error}"));
        let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
        if head.schema > SCHEMA {
            return Err(newer(&head.body));
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// Whether this body may take the snapshot: never one that a newer body made. `image` is the version of the sealed image
    /// that runs here, if it is one of the snapshot's appliance.
    ///
    /// # Errors
    /// With the way forward.
    pub fn aligned(&self, body: &str, image: Option<&Version>) -> Result<(), Refused> {
        let (Some(soul), Some(own)) = (version(&self.body), version(body)) else {
            return Err(damaged(&format!("`{}` is no version of a body", self.body)));
        };
        if soul > own || self.codex_schema > crate::codex::SCHEMA {
            return Err(newer(&self.body));
        }
        match (&self.image, image) {
            (Some(soul), Some(own)) if soul > own => Err(self.newer_image(soul, own)),
            _ => Ok(()),
        }
    }

    fn newer_image(&self, soul: &Version, own: &Version) -> Refused {
        let name = &self.appliance;
        Refused::new(
            format!(
                "the snapshot is of body {soul} of {name}, and this one is {own}: a soul is never newer than its body"
            ),
            format!(
                "become body {soul} or later first (`sepulcher rebirth stage`, `activate`), then restore it there; or \
                 choose an older snapshot"
            ),
        )
    }

    /// The part of that path.
    pub fn part(&self, path: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.path == path)
    }
}

impl Snapshot {
    /// Puts a manifest on the parts.
    pub fn new(parts: Parts, manifest: Manifest) -> Self {
        let part = |(path, bytes): (&String, &Zeroizing<Vec<u8>>)| Part {
            path: path.clone(),
            size: bytes.len() as u64,
            sha256: Sha256Digest::of(bytes),
        };
        let identity = parts.contains_key(IDENTITY);
        let schema = if manifest.volumes.is_empty() { 1 } else { SCHEMA };
        let described = parts.iter().map(part).collect();
        Self { manifest: Manifest { schema, identity, parts: described, ..manifest }, parts }
    }

    /// The same with these volumes and no others: the rest is not contained.
    #[must_use]
    pub fn with_volumes(self, volumes: Vec<Volume>) -> Self {
        let Self { mut manifest, parts } = self;
        let named = |volume: &Volume| format!("volume {}", volume.name);
        manifest.not_contained.extend(manifest.volumes.iter().map(named));
        let contained: Vec<String> = volumes.iter().map(named).collect();
        manifest.not_contained.retain(|left| !contained.contains(left));
        manifest.not_contained.sort();
        Self::new(parts, Manifest { volumes, ..manifest })
    }

    /// The same without the host's private key.
    #[must_use]
    pub fn without_identity(mut self) -> Self {
        self.parts.remove(IDENTITY);
        Self::new(self.parts, self.manifest)
    }

    /// Whether both hold the same bonds, byte for byte.
    pub fn has_bonds_of(&self, other: &Self) -> bool {
        let bonds = |path: &&String| path.as_str() != IDENTITY;
        self.parts.keys().filter(bonds).eq(other.parts.keys().filter(bonds))
            && other.parts.iter().all(|(path, bytes)| path == IDENTITY || self.parts.get(path) == Some(bytes))
    }

    /// The text of a part; `None` where there is none, or no text.
    pub fn text(&self, path: &str) -> Option<&str> {
        str::from_utf8(self.parts.get(path)?).ok()
    }

    /// Its bonds below the law of `now`, in the schema of `forms`.
    ///
    /// # Errors
    /// There is no way from its schema to that one.
    pub fn sources(&self, now: &Sources, forms: Forms<'_>) -> Result<Sources, Refused> {
        let texts = self.parts.keys().filter(|path| is_bond(path) && *path != LEDGER);
        let texts = texts.filter_map(|path| Some((path.clone(), self.text(path)?.to_owned()))).collect();
        let no_way =
            |error: NoWay| Refused::new(error.to_string(), "restore it on a body of its own schema first");
        // What the law has revoked since was alive then; who puts it back keeps it dead.
        let mut sources: Sources = law(now).iter().filter(|(name, _)| *name != LAW_LEDGER).collect();
        if let Some(ledger) = self.text(LEDGER) {
            sources.insert(LEDGER, ledger);
        }
        for (path, text) in forms.forward(self.manifest.codex_schema, &texts).map_err(no_way)? {
            sources.insert(path, text);
        }
        Ok(sources)
    }
}

/// Whether a path is one that a snapshot may hold: all others could lead anywhere.
pub fn is_part(path: &str) -> bool {
    let name = |text: &str| text.parse::<Name>().is_ok();
    let preshared = |text: &str| {
        let parts = text.strip_suffix(".psk").and_then(|text| text.rsplit_once('.'));
        parts.is_some_and(|(stem, generation)| name(stem) && generation.parse::<u32>().is_ok())
    };
    match path {
        LEDGER | audit::FILE | IDENTITY => true,
        _ => match (path.strip_prefix("secrets/peers/"), path.strip_prefix("peers/")) {
            (Some(file), _) => preshared(file),
            (None, Some(file)) => file.strip_suffix(".toml").is_some_and(name),
            (None, None) => false,
        },
    }
}

/// The law alone.
pub fn law(sources: &Sources) -> Sources {
    sources.iter().filter(|(name, _)| !is_bond(name)).collect()
}

/// Reads texts as a Codex; `message` and `hint` are told above the mistakes that they hold.
pub(crate) fn parsed(
    sources: Sources,
    parse: Parse,
    message: &str,
    hint: &str,
) -> Result<(Sources, Codex), Refused> {
    match parse(&sources) {
        Ok(codex) => Ok((sources, codex)),
        Err(mistakes) => {
            let report = Some(render_all(&mistakes, &sources, false));
            Err(Refused { report, ..Refused::new(message, hint) })
        }
    }
}

/// The digest of a law: of its files' names and digests, a line each, in byte order of the names.
pub fn law_digest(sources: &Sources) -> Sha256Digest {
    let law = law(sources);
    let lines = law.iter().map(|(name, text)| format!("{}  {name}\n", Sha256Digest::of(text.as_bytes())));
    Sha256Digest::of(lines.collect::<String>().as_bytes())
}

/// `major.minor.patch` as numbers; what follows a `-` or `+` does not count.
fn version(text: &str) -> Option<[u64; 3]> {
    let numbers: Vec<u64> =
        text.split(['-', '+']).next()?.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

fn newer(body: &str) -> Refused {
    Refused::new(
        format!(
            "the snapshot is of body {body}, and this one is {BODY}: a soul is never newer than its body"
        ),
        format!("install {body} or later first, then restore it there; or choose an older snapshot"),
    )
}

/// The refusal of something that is not, or no longer, a snapshot.
fn damaged(reason: &str) -> Refused {
    Refused::new(
        format!("this is no whole snapshot: {reason}"),
        "take another one: `sepulcher snapshot list`, or fetch the copy anew",
    )
}

#[cfg(test)]
mod tests;
