//! What is written beside an image: its manifest, and checksums in the format of sha256sum(1).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Placed};
use super::sbom::Bom;
use super::window::Window;
use crate::sys::fs;
use crate::tree::Sha256Digest;

/// Name of the checksums beside an image, and in an update.
pub const SUMS: &str = "SHA256SUMS";
/// Version of the manifest's own format.
pub const SCHEMA: u32 = 1;
/// More than any manifest of ours needs.
const LIMIT: u64 = 64 << 20;

/// `<name>.manifest.json`: what an image is and what went into it. Sizes and offsets are bytes, digests SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Appliance.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// File name of the image.
    pub image: String,
    /// Size of the image.
    pub size: u64,
    /// Digest of the image.
    pub sha256: String,
    /// Verity root hash of the root partition.
    pub root_hash: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Partitions in the order on the disk.
    pub partitions: Vec<Partition>,
    /// Digest of the sealed program.
    pub program: String,
    /// Digests of the locks that decided the packages, by image; also that of the builder's own tools.
    pub locks: BTreeMap<String, String>,
    /// Packages and the program.
    pub sbom: Bom,
}

/// A partition in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Partition {
    /// What it is for: `esp`, `root`, `verity`.
    pub role: String,
    /// Label.
    pub label: String,
    /// Its own GUID.
    pub uuid: String,
    /// First byte.
    pub offset: u64,
    /// Length.
    pub size: u64,
    /// Digest of all its bytes.
    pub sha256: String,
}

/// Why a manifest cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// Not a manifest.
    #[error("{} is not a manifest of an image", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        source: serde_json::Error,
    },
    /// A manifest from the future.
    #[error("{} has schema {schema}, this program reads schema {SCHEMA}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        schema: u32,
    },
}

impl Manifest {
    /// The manifest as it is written.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a manifest; `None` when there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>, Error> {
        let Some(bytes) = fs::if_there(fs::read_bounded(path, LIMIT))? else { return Ok(None) };
        let malformed = |source| Error::Malformed { path: path.to_owned(), source };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(malformed)?;
        let schema = value.get("schema").and_then(serde_json::Value::as_u64);
        match schema.and_then(|schema| u32::try_from(schema).ok()) {
            Some(schema) if schema > SCHEMA => Err(Error::Schema { path: path.to_owned(), schema }),
            _ => Ok(Some(serde_json::from_value(value).map_err(malformed)?)),
        }
    }
}

/// Where the manifest of an image is: `dir/lychd.raw` → `dir/lychd.manifest.json`.
pub fn beside(image: &Path) -> PathBuf {
    image.with_extension("manifest.json")
}

/// Partitions with their digests, for a manifest or to compare with one.
pub fn partitions(image: &std::fs::File, placed: &[Placed]) -> io::Result<Vec<Partition>> {
    let partition = |one: &Placed| {
        let window = Window::new(image, one.offset, one.size);
        Ok(Partition {
            role: one.role.map_or("other", disk::Role::name).to_owned(),
            label: one.label.clone(),
            uuid: one.uuid.to_string(),
            offset: one.offset,
            size: one.size,
            sha256: disk::digest(&window)?.to_string(),
        })
    };
    placed.iter().map(partition).collect()
}

/// Content of `SHA256SUMS` for these files, as `sha256sum --check` reads it.
pub fn checksums(files: &[(&str, Sha256Digest)]) -> String {
    files.iter().flat_map(|(name, digest)| [digest.to_string(), format!("  {name}\n")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::sbom;

    pub(crate) fn manifest() -> Manifest {
        let program = sbom::Program { version: "0.1.0".into(), sha256: Sha256Digest::of(b"") };
        Manifest {
            schema: SCHEMA,
            name: "lychd".into(),
            version: "1".into(),
            image: "lychd.raw".into(),
            size: 1,
            sha256: Sha256Digest::of(b"").to_string(),
            root_hash: Sha256Digest::of(b"").to_string(),
            cmdline: String::new(),
            partitions: Vec::new(),
            program: Sha256Digest::of(b"").to_string(),
            locks: BTreeMap::from([("system".into(), Sha256Digest::of(b"").to_string())]),
            sbom: sbom::build("lychd", "1", &[], &program),
        }
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = beside(&folder.path().join("lychd.raw"));
        assert!(path.ends_with("lychd.manifest.json"));
        assert!(Manifest::load(&path).unwrap().is_none());
        fs::write_atomic(&path, 0o644, manifest().to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(Manifest::load(&path).unwrap(), Some(manifest()));
    }

    #[test]
    fn noise_and_a_newer_schema_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        let load = |text: &str| {
            fs::write_atomic(&path, 0o644, text.as_bytes()).unwrap();
            Manifest::load(&path).unwrap_err().to_string()
        };
        assert!(load("{\"schema\": 2, \"new\": 1}").contains("has schema 2"));
        for text in ["", "[]", "{}", "{\"schema\": 1}", "\u{0}"] {
            assert!(load(text).ends_with("is not a manifest of an image"), "{text:?}");
        }
    }

    #[test]
    fn checksums_are_in_the_format_of_sha256sum() {
        let digest = Sha256Digest::of(b"");
        assert_eq!(checksums(&[("a.raw", digest)]), format!("{digest}  a.raw\n"));
    }
}
