//! What the agent tells the host: `tether.json` in the agent's runtime folder, which both see.

use std::time::Duration;

use super::bonds::Broken;
use crate::tree::Sha256Digest;

/// Where the agent writes it, and health reads it.
pub const PATH: &str = "/run/sepulcher/agent/tether.json";

/// The state after the agent's last look, written whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Version of this shape: 1.
    pub schema: u32,
    /// Whether ruleset and interface are as the Codex asks.
    pub ready: bool,
    /// What keeps it from being ready.
    pub error: Option<String>,
    /// When it was written, in milliseconds since the kernel started (`CLOCK_BOOTTIME`).
    pub written_ms: u64,
    /// Interface name.
    pub interface: String,
    /// The host's public key.
    pub public_key: String,
    /// UDP port.
    pub listen_port: u16,
    /// SHA-256 of the ruleset text that is loaded; empty when none is.
    pub ruleset: String,
    /// The peers.
    pub peers: Peers,
    /// Bonds that are not in force as they stand.
    pub broken: Vec<Broken>,
    /// Declared ports that nobody answers on, and why, e.g. `nobody listens on phylactery tcp 5432`.
    pub silent: Vec<String>,
    /// How often something had changed behind the agent's back and was put right, since it started.
    pub drift: u64,
}

/// Peers, counted and told in a digest: keys and allowed IPs as they were read back from the interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// Files in the Codex that are in force, revoked ones included.
    pub declared: usize,
    /// Those of them that are bonded.
    pub active: usize,
    /// Those that the interface holds.
    pub held: usize,
    /// [`crate::sync::peers_digest`] of those that the interface holds.
    pub digest: String,
}

impl Status {
    /// How old it is at `now` (time since the kernel started).
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_millis(self.written_ms))
    }

    /// The line for `systemctl status`.
    pub fn line(&self) -> String {
        match &self.error {
            Some(error) => format!("not in step: {}", error.lines().next().unwrap_or_default()),
            None => format!(
                "{} of {} peers bonded on {} port {}, {} broken, {} drifts repaired",
                self.peers.held,
                self.peers.declared,
                self.interface,
                self.listen_port,
                self.broken.len(),
                self.drift
            ),
        }
    }

    /// Whether the interface holds exactly the peers of this digest.
    pub fn holds(&self, digest: Sha256Digest) -> bool {
        self.peers.digest == digest.to_string()
    }
}
