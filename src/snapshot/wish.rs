//! What may be wished of a machine's snapshots: by who is on it, or by a peer.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::store;
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

impl Create {
    /// As the store takes it; `dry_run` changes nothing.
    pub fn order(&self, dry_run: bool) -> store::Creation<'_> {
        let Self { note, with_identity, bonds_only } = self;
        store::Creation {
            note: note.as_deref(),
            identity: *with_identity,
            volumes: !bonds_only,
            leaves: store::Leaves::Ample,
            dry_run,
        }
    }
}

/// One is to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its name; without one, the latest.
    #[serde(default)]
    pub snapshot: Option<String>,
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

impl Restore {
    /// As the store takes it; `dry_run` changes nothing.
    pub fn order(&self, dry_run: bool) -> store::Wish<'_> {
        let Self { snapshot, revive, with_identity, with_volumes } = self;
        let name = snapshot.as_deref();
        store::Wish { name, revive, identity: *with_identity, volumes: *with_volumes, dry_run }
    }
}

/// All but the latest are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prune {
    /// How many stay.
    pub keep: NonZeroUsize,
}
