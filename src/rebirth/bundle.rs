//! The folder that an update travels in: a body's parts, what they are, and the publisher's signature.
//!
//! ```text
//! lychd_2_<UUID>.root.raw    lychd_2_<UUID>.verity.raw    lychd_2.efi    lychd_2.json
//! SHA256SUMS                 digests of these four
//! SHA256SUMS.minisig         its signature; the trusted comment is `lychd 2`
//! ```
//! Effects: reads the folder; [`write`] makes one.

mod signature;
mod sums;
pub mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::version::Version;
use crate::codex::name::Name;
use crate::codex::{LAW, PublisherKey, Sources};
use crate::image::manifest::SUMS;
use crate::image::{disk, identity, inspect, uki};
use crate::peer::Refused;
use crate::sys::fs;
use crate::tree::Sha256Digest;
pub use sums::Sums;

/// Version of the description's own format.
pub const SCHEMA: u32 = 1;
/// Name of the signature in an update.
pub const SIGNATURE: &str = "SHA256SUMS.minisig";
/// The longest description, in bytes: a law is a few files of at most a mebibyte.
const DESCRIPTION_LIMIT: u64 = 32 << 20;
/// The longest kernel image, in bytes.
const KERNEL_LIMIT: u64 = 256 << 20;
/// The longest checksums and signature, in bytes.
const SMALL: u64 = 16 << 10;

/// `<name>_<version>.json`: what an update is. Displays of digests are in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Description {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Appliance.
    pub name: Name,
    /// Version of the body.
    pub version: Version,
    /// Verity root hash of the root.
    pub root_hash: Sha256Digest,
    /// Version of the program that is sealed in.
    pub program: String,
    /// Version of the Codex's format that this program reads and writes.
    pub codex_schema: u32,
    /// The root file system.
    pub root: Part,
    /// Its hash tree.
    pub verity: Part,
    /// The unified kernel image.
    pub kernel: Part,
    /// The law that is sealed in: `lychd.toml`, `services/*.toml`, never a bond.
    pub law: BTreeMap<String, String>,
}

/// One part of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its file in the update's folder.
    pub file: String,
    /// Length in bytes.
    pub size: u64,
}

/// An update whose signature, digests and description are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What it is.
    pub description: Description,
    /// SHA-256 of its `SHA256SUMS`: names all of it.
    pub digest: Sha256Digest,
    /// Where it is.
    pub folder: PathBuf,
    /// Its four files by name, with their sizes in bytes.
    pub files: BTreeMap<String, (u64, Sha256Digest)>,
}

/// Why an update is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what its publisher made.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Reading or writing failed.
    #[error(transparent)]
    File(#[from] fs::Error),
}

/// Names of the files of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The root file system.
    pub root: String,
    /// Its hash tree.
    pub verity: String,
    /// The kernel image.
    pub kernel: String,
    /// The description.
    pub description: String,
}

impl Names {
    /// They follow from what the update is: `systemd-sysupdate` takes the partitions' UUIDs from them.
    pub fn new(name: &Name, version: &Version, root_hash: Sha256Digest) -> Self {
        let stem = format!("{name}_{version}");
        let (root, verity) = identity::partitions(root_hash);
        Self {
            root: format!("{stem}_{root}.root.raw"),
            verity: format!("{stem}_{verity}.verity.raw"),
            kernel: format!("{stem}.efi"),
            description: format!("{stem}.json"),
        }
    }
}

impl Description {
    /// The description as it is written.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// What its signature says besides: `lychd 2`.
    pub fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// The law as files of a Codex.
    pub fn law(&self) -> Sources {
        self.law.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect()
    }

    /// Reads one whose signature does not matter.
    ///
    /// # Errors
    /// It is none, or of the future.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self::parse(&name, &fs::read_bounded(path, DESCRIPTION_LIMIT)?)?)
    }

    /// Reads one, and checks what it says of itself.
    fn parse(file: &str, bytes: &[u8]) -> Result<Self, Refused> {
        let malformed = |error: serde_json::Error| damaged(format!("{file} is no description: {error}"));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if schema > u64::from(SCHEMA) => {
                return Err(Refused::new(
                    format!("the update is of schema {schema}, this program knows {SCHEMA}"),
                    "take a version between that a program of now can read, and this one from there",
                ));
            }
            _ => {}
        }
        let description: Self = serde_json::from_value(value).map_err(malformed)?;
        if description.schema == 0 {
            return Err(damaged(format!("{file} is of schema 0; schemas are counted from 1")));
        }
        let is_law = |file: &String| {
            let service = file.strip_prefix("services/").and_then(|name| name.strip_suffix(".toml"));
            file == LAW || service.is_some_and(|name| name.parse::<Name>().is_ok())
        };
        match description.law.keys().find(|file| !is_law(file)) {
            Some(other) => Err(damaged(format!("{file} holds `{other}`, which is no file of a law"))),
            None if !description.law.contains_key(LAW) => Err(damaged(format!("{file} holds no {LAW}"))),
            None => Ok(description),
        }
    }

    /// Whether names and sizes are what it says they are.
    fn agrees(&self, files: &BTreeMap<String, (u64, Sha256Digest)>) -> Result<(), Refused> {
        let Names { root, verity, kernel, description: _ } =
            Names::new(&self.name, &self.version, self.root_hash);
        for (part, what, name) in
            [(&self.root, "root", root), (&self.verity, "verity", verity), (&self.kernel, "kernel", kernel)]
        {
            if part.file != name {
                let said = format!("the description says that the {what} is `{}`", part.file);
                return Err(damaged(format!("{said}; by name, version and root hash it is {name}")));
            }
            match files.get(&name) {
                Some((size, _)) if *size == part.size => {}
                Some((size, _)) => {
                    return Err(damaged(format!(
                        "{name} has {size} bytes, its description says {}",
                        part.size
                    )));
                }
                None => return Err(damaged(format!("{name} is not in {SUMS}"))),
            }
        }
        Ok(())
    }
}

/// Opens an update: signature, then digests and sizes, then the description; nothing is believed before it is proven.
///
/// # Errors
/// [`Error::Refused`] says what is not as the publisher made it.
pub fn open(folder: &Path, publisher: &PublisherKey) -> Result<Bundle, Error> {
    let held = held(folder)?;
    if !held.iter().any(|name| name == SIGNATURE) {
        return Err(lacks(folder, SIGNATURE, "sign it: `sepulcher rebirth sign`").into());
    }
    let sums = fs::read_bounded(&folder.join(SUMS), SMALL)?;
    let signature = fs::read_bounded(&folder.join(SIGNATURE), SMALL)?;
    let title = signature::verify(publisher, &sums, &signature)?;
    let bundle = contents(folder, &held, &sums)?;
    if title != bundle.description.title() {
        let update = bundle.description.title();
        return Err(damaged(format!("the signature is for `{title}`, the update is `{update}`")).into());
    }
    Ok(bundle)
}

/// Opens an update that nobody has signed yet, or whose signature does not matter: everything else is checked.
///
/// # Errors
/// [`Error::Refused`] says what does not fit together.
pub fn open_unsigned(folder: &Path) -> Result<Bundle, Error> {
    let held = held(folder)?;
    contents(folder, &held, &fs::read_bounded(&folder.join(SUMS), SMALL)?)
}

/// What the checksums `sums` name, all of it looked at.
fn contents(folder: &Path, held: &[String], sums: &[u8]) -> Result<Bundle, Error> {
    let digest = Sha256Digest::of(sums);
    let sums = Sums::parse(sums)?;
    complete(held, &sums)?;
    let mut files = BTreeMap::new();
    for (file, digest) in sums.iter() {
        files.insert(file.to_owned(), (verified(folder, file, digest)?, digest));
    }
    let description = described(folder, &sums)?;
    description.agrees(&files)?;
    boots(folder, &description)?;
    Ok(Bundle { description, digest, folder: folder.to_owned(), files })
}

/// Names of what is in the folder: files, and nothing else.
fn held(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for path in fs::list(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if fs::entry(&path)? != fs::Entry::File {
            return Err(damaged(format!("`{}` is not a file", crate::codex::plain(&name))).into());
        }
        names.push(name);
    }
    if !names.iter().any(|name| name == SUMS) {
        let hint = "name the folder of an update: `sepulcher image build --sign` writes it beside the image";
        return Err(lacks(folder, SUMS, hint).into());
    }
    Ok(names)
}

fn lacks(folder: &Path, file: &str, hint: &str) -> Refused {
    Refused::new(format!("{} holds no {file}", folder.display()), hint)
}

/// Whether exactly the files of the checksums are there.
fn complete(held: &[String], sums: &Sums) -> Result<(), Refused> {
    let named = |name: &str| [SUMS, SIGNATURE].contains(&name) || sums.get(name).is_some();
    if let Some(extra) = held.iter().find(|name| !named(name)) {
        return Err(damaged(format!("`{}` does not belong to it", crate::codex::plain(extra))));
    }
    match sums.iter().find(|(file, _)| !held.iter().any(|name| name == file)) {
        Some((missing, _)) => Err(damaged(format!("{missing} is missing"))),
        None => Ok(()),
    }
}

/// The size of a file whose digest is that of the checksums.
fn verified(folder: &Path, file: &str, expected: Sha256Digest) -> Result<u64, Error> {
    let path = folder.join(file);
    let opened = fs::open(&path)?;
    let digest = fs::context(disk::digest(&opened), "read", &path)?;
    if digest != expected {
        return Err(damaged(format!("{file} has another digest than {SUMS} says")).into());
    }
    Ok(fs::context(opened.metadata(), "read", &path)?.len())
}

/// The description, whose digest is once more that of the checksums.
fn described(folder: &Path, sums: &Sums) -> Result<Description, Error> {
    let mut named =
        sums.iter().filter(|(file, _)| Path::new(file).extension().is_some_and(|end| end == "json"));
    let (Some((file, digest)), None) = (named.next(), named.next()) else {
        return Err(damaged("it holds no description, or two").into());
    };
    let bytes = fs::read_bounded(&folder.join(file), DESCRIPTION_LIMIT)?;
    if Sha256Digest::of(&bytes) != digest {
        return Err(damaged(format!("{file} has another digest than {SUMS} says")).into());
    }
    let description = Description::parse(file, &bytes)?;
    let named = Names::new(&description.name, &description.version, description.root_hash).description;
    if named == file {
        Ok(description)
    } else {
        Err(damaged(format!("the description of {} is in {file}, not in {named}", description.title()))
            .into())
    }
}

/// Whether the kernel image starts this root, as this version.
fn boots(folder: &Path, description: &Description) -> Result<(), Error> {
    let Description { name, version, root_hash, kernel, .. } = description;
    let bytes = fs::read_bounded(&folder.join(&kernel.file), KERNEL_LIMIT)?;
    let sections = uki::sections(&bytes)
        .map_err(|error| damaged(format!("{} is no kernel image: {error}", kernel.file)))?;
    if uki::text(&sections, ".cmdline").and_then(inspect::root_hash) != Some(*root_hash) {
        return Err(damaged(format!("{} does not start the root {root_hash}", kernel.file)).into());
    }
    let release = uki::text(&sections, ".osrel").unwrap_or_default();
    for says in [format!("IMAGE_ID={name}"), format!("IMAGE_VERSION={version}")] {
        if !release.lines().any(|line| line == says) {
            return Err(damaged(format!("{} does not say {says}", kernel.file)).into());
        }
    }
    Ok(())
}

/// The refusal of what is not as it was published.
fn damaged(reason: impl std::fmt::Display) -> Refused {
    Refused::new(
        format!("this is no whole update: {reason}"),
        "fetch it anew; if that is no better, ask its publisher: nothing was changed here",
    )
}

#[cfg(test)]
mod tests;
