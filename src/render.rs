//! Codex → tree: quadlets, WireGuard, nftables, Caddy, units of the host, manifest.
//!
//! Pure: no clock, disk, environment or randomness. The same Codex renders to the same bytes.

pub mod caddy;
pub mod manifest;
pub mod nftables;
mod quadlet;
mod template;
mod token;
mod unit;
pub mod units;
pub mod wireguard;

pub use crate::codex::BRIDGE;
use crate::codex::Codex;
use crate::codex::name::Name;
use crate::tree::{Claimed, Tree};
pub use template::Unrenderable;

/// Why a Codex cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Two renderers claimed one path.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// Two quadlets would make one unit.
    #[error("two quadlets make the unit {unit}.service: rename the service or the volume")]
    UnitTwice {
        /// The unit without its suffix.
        unit: String,
    },
    /// A command that no unit can hold.
    #[error("cannot render the command of service {service}")]
    Command {
        /// Whose command.
        service: Name,
        /// Which word, and why.
        source: Unrenderable,
    },
    /// A template was given what its syntax cannot hold.
    #[error("cannot render {template}")]
    Template {
        /// The template's name.
        template: &'static str,
        /// The engine's reason.
        source: minijinja::Error,
    },
    /// The manifest could not be written as JSON.
    #[error("cannot render the manifest")]
    Manifest(#[source] serde_json::Error),
}

/// Renders everything that the Codex decides; the manifest comes last and covers the rest.
pub fn render(codex: &Codex) -> Result<Tree, RenderError> {
    let mut tree = Tree::default();
    quadlet::render(codex, &mut tree)?;
    wireguard::render(codex, &mut tree)?;
    nftables::render(codex, &mut tree)?;
    caddy::render(codex, &mut tree)?;
    units::render(codex, &mut tree)?;
    manifest::render(codex, &mut tree)?;
    Ok(tree)
}
