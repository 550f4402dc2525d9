//! Verbs that change a bond and show no configuration: revoke, grant, ungrant, extend.

use super::expiry::Expiry;
use super::{Changing, Failure};
use crate::codex::name::Name;
use crate::peer::{self, Request};

/// Cut a peer off for good
///
/// It leaves the interface and the grants at once. Its file stays as a tombstone, its key never comes back, and its
/// address rests for as long as `fence` in `[tether]` of lychd.toml says.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// Name of the peer
    name: Name,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    changing: Changing,
}

/// Grants to add or to take away.
#[derive(Debug, clap::Args)]
pub struct Granting {
    /// Name of the peer
    name: Name,
    /// Services by name, `*` for all of them; `bonds` to manage bonds, `metrics` for the agent's figures, `rebirth` for
    /// updates, `snapshots` for snapshots; `peer:NAME` to open connections to another peer
    #[arg(required = true, value_name = "WHAT")]
    grants: Vec<String>,
    #[command(flatten)]
    changing: Changing,
}

/// Set when a peer expires
#[derive(Debug, clap::Args)]
pub struct Extend {
    /// Name of the peer
    name: Name,
    /// When it is cut off: a length of time (30d), a moment (2026-12-31T18:00:00Z), or never
    #[arg(long, value_name = "WHEN")]
    expires: Expiry,
    #[command(flatten)]
    changing: Changing,
}

/// Runs `sepulcher peer revoke`.
pub fn revoke(args: &Revoke) -> Result<(), Failure> {
    let Revoke { name, reason, changing } = args;
    changing.carry_out(Request::Revoke(peer::Revoke { name: name.clone(), reason: reason.clone() }))
}

/// Runs `sepulcher peer grant`.
pub fn grant(args: &Granting) -> Result<(), Failure> {
    args.changing.carry_out(Request::Grant(args.granting()))
}

/// Runs `sepulcher peer ungrant`.
pub fn ungrant(args: &Granting) -> Result<(), Failure> {
    args.changing.carry_out(Request::Ungrant(args.granting()))
}

/// Runs `sepulcher peer extend`.
pub fn extend(args: &Extend) -> Result<(), Failure> {
    let Extend { name, expires, changing } = args;
    changing.carry_out(Request::Extend(peer::Extend { name: name.clone(), expires: expires.0 }))
}

impl Granting {
    fn granting(&self) -> peer::Granting {
        peer::Granting { name: self.name.clone(), grants: self.grants.clone() }
    }
}
