//! Where the agent's Codex comes from: two folders on disk, read and parsed.

use std::path::Path;

use super::Error;
use super::bonds::{Hopeless, Mistake, Texts};
use crate::codex::Codex;
use crate::render::nftables;

/// A file of the Codex is not longer than this, in bytes.
pub const LIMIT: u64 = 1 << 20;

/// Reads law and bonds: texts, and bonds that cannot be read.
pub fn load(_law: &Path, _bonds: &Path) -> Result<(Texts, Vec<Mistake>), Error> {
    Err(Hopeless("not yet".into()).into())
}

/// Texts → Codex, or every mistake in them.
pub fn parse(_texts: &Texts) -> Result<Codex, Vec<Mistake>> {
    Err(Vec::new())
}

/// The pod's ruleset.
pub fn ruleset(codex: &Codex) -> Result<String, Error> {
    Ok(nftables::pod(codex)?)
}

/// The Codex of both folders as it stands, with broken bonds left out.
pub fn in_force(law: &Path, bonds: &Path) -> Result<Codex, Error> {
    let (texts, unreadable) = load(law, bonds)?;
    Ok(super::bonds::settle(&texts, &unreadable, &Texts::new(), parse)?.codex)
}
