//! What a request is answered with, here and over the tether.

use serde::{Deserialize, Serialize};

use crate::codex::time::Timestamp;
use crate::peer::{Broken, Change, Client, PeerView};

/// The version of replies that this program writes.
const SCHEMA: u32 = 1;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// 1.
    pub schema: u32,
    /// What changes, a line each, for people.
    pub plan: Vec<String>,
    /// The peer that changed, as it is from now on.
    pub peer: Option<PeerView>,
    /// All peers, to a list.
    pub peers: Option<Vec<PeerView>>,
    /// Bonds that hold mistakes and are not among them, to a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Broken>,
    /// The peer's configuration, where it was asked for.
    pub client: Option<Client>,
}

impl Reply {
    pub(super) fn list(peers: Vec<PeerView>, broken: Vec<Broken>) -> Self {
        Self { schema: SCHEMA, plan: Vec::new(), peer: None, peers: Some(peers), broken, client: None }
    }

    pub(super) fn change(change: &Change, client: Option<Client>, now: Timestamp) -> Self {
        let peer = Some(PeerView::of(&change.name, &change.peer, now));
        Self { schema: SCHEMA, plan: change.lines.clone(), peer, peers: None, broken: Vec::new(), client }
    }
}
