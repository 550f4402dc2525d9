//! A snapshot as bytes: tar in zstd, the manifest first. The same snapshot is always the same bytes.

use std::io::{self, Read};

use zeroize::Zeroizing;

use super::{Manifest, Parts, Snapshot, damaged, is_part};
use crate::peer::Refused;
use crate::tree::Sha256Digest;

/// The manifest's name in the archive.
const MANIFEST: &str = "manifest.json";
/// Bonds are a few kilobytes; this is what somebody's bomb may cost, in bytes of one part and of all.
const LIMIT: u64 = 256 << 20;
/// Higher levels save nothing that matters on a few kilobytes of keys.
const LEVEL: i32 = 3;

/// Writes a snapshot.
///
/// # Errors
/// Of the memory that is written to: none in practice.
pub fn pack(snapshot: &Snapshot) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut zstd = zstd::Encoder::new(Vec::new(), LEVEL)?;
    zstd.include_checksum(true)?;
    let mut tar = tar::Builder::new(zstd);
    let time = snapshot.manifest.created.epoch();
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_mtime(time);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes)
    };
    add(MANIFEST, serde_json::to_string_pretty(&snapshot.manifest)?.as_bytes())?;
    for part in &snapshot.manifest.parts {
        add(&part.path, snapshot.parts.get(&part.path).map_or(&[], |bytes| bytes.as_slice()))?;
    }
    Ok(Zeroizing::new(tar.into_inner()?.finish()?))
}

/// Reads the manifest alone: nothing is said about the rest.
///
/// # Errors
/// There is none.
pub fn manifest(bytes: &[u8]) -> Result<Manifest, Refused> {
    let mut archive = opened(bytes)?;
    let mut entries = archive.entries().map_err(unreadable)?;
    first(&mut entries)
}

/// Reads a snapshot and checks every digest: the archive must hold the manifest, then its parts, in its order, and
/// nothing else.
///
/// # Errors
/// Something is damaged, missing or there in addition.
pub fn unpack(bytes: &[u8]) -> Result<Snapshot, Refused> {
    let mut archive = opened(bytes)?;
    let mut entries = archive.entries().map_err(unreadable)?;
    let manifest = first(&mut entries)?;
    let mut parts = Parts::new();
    for part in &manifest.parts {
        if !is_part(&part.path) {
            return Err(damaged(&format!("`{}` belongs in no snapshot", part.path)));
        }
        let (path, content) =
            next(&mut entries)?.ok_or_else(|| damaged(&format!("{} is missing", part.path)))?;
        if path != part.path || content.len() as u64 != part.size || Sha256Digest::of(&content) != part.sha256
        {
            return Err(damaged(&format!("{} is not as the manifest says", part.path)));
        }
        if parts.insert(path, content).is_some() {
            return Err(damaged(&format!("{} is there twice", part.path)));
        }
    }
    if let Some((path, _)) = next(&mut entries)? {
        return Err(damaged(&format!("{path} is not in the manifest")));
    }
    // What is left are zeros, and behind them the checksum.
    let mut rest = Vec::new();
    archive.into_inner().read_to_end(&mut rest).map_err(unreadable)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(damaged("something follows the archive"));
    }
    let snapshot = Snapshot { manifest, parts };
    if snapshot.manifest.identity == snapshot.parts.contains_key(super::IDENTITY) {
        Ok(snapshot)
    } else {
        Err(damaged("manifest and parts differ about the host's key"))
    }
}

type Reader<'a> = io::Take<zstd::Decoder<'static, io::BufReader<&'a [u8]>>>;

fn opened(bytes: &[u8]) -> Result<tar::Archive<Reader<'_>>, Refused> {
    let zstd = zstd::Decoder::new(bytes).map_err(unreadable)?;
    Ok(tar::Archive::new(zstd.take(LIMIT)))
}

fn first<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Manifest, Refused> {
    match next(entries)? {
        Some((path, bytes)) if path == MANIFEST => Manifest::read(&bytes),
        _ => Err(damaged("it does not begin with its manifest")),
    }
}

/// A path and what is there.
type File = (String, Zeroizing<Vec<u8>>);

/// The next file with its path.
fn next<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<Option<File>, Refused> {
    let Some(entry) = entries.next() else { return Ok(None) };
    let mut entry = entry.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        return Err(damaged("it holds something else than files"));
    }
    let path = entry.path().map_err(unreadable)?.to_string_lossy().into_owned();
    let mut content = Zeroizing::new(Vec::new());
    entry.read_to_end(&mut content).map_err(unreadable)?;
    Ok(Some((path, content)))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unreadable(error: io::Error) -> Refused {
    damaged(&error.to_string())
}
