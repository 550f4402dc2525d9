//! What a peer may wish of a machine's snapshots.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::codex::name::Name;

/// One is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Create {
    /// Why, for people.
    #[serde(default)]
    pub note: Option<String>,
    /// Whether it holds the host's private key.
    #[serde(default)]
    pub with_identity: bool,
    /// Whether it is without the volumes of services.
    #[serde(default)]
    pub bonds_only: bool,
}

/// One is to be put back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Restore {
    /// Its name; without one, the latest.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Peers that come back though they are revoked or their time is over.
    #[serde(default)]
    pub revive: BTreeSet<Name>,
    /// Whether the host's private key is put back too.
    #[serde(default)]
    pub with_identity: bool,
    /// Whether volumes are put back too.
    #[serde(default)]
    pub with_volumes: bool,
}
