//! What a peer may ask about the machine's snapshots, by HTTP: `GET /snapshots`, and `POST` to `/snapshots/show`,
//! `verify`, `export`, `create`, `restore`, `prune`. Each becomes a question to the host.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::http::Request;
use crate::rebirth::intent::{Nonce, Wish};
use crate::snapshot::seal::Recipient;
use crate::snapshot::wish::Named;

/// Where the list is asked for, and below which everything else is.
pub const LIST: &str = "/snapshots";
/// Where it is asked what one holds.
pub const SHOW: &str = "/snapshots/show";
/// Where to have one read whole.
pub const VERIFY: &str = "/snapshots/verify";
/// Where one is asked for, encrypted.
pub const EXPORT: &str = "/snapshots/export";
/// Where to have one made.
pub const CREATE: &str = "/snapshots/create";
/// Where to have one put back.
pub const RESTORE: &str = "/snapshots/restore";
/// Where to have all but the latest removed.
pub const PRUNE: &str = "/snapshots/prune";

/// Where something is posted to.
pub const POSTS: [&str; 6] = [SHOW, VERIFY, EXPORT, CREATE, RESTORE, PRUNE];

/// A question of a peer about the machine's snapshots, as it goes to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Which there are, and what became of what this peer wished for.
    List {},
    /// What one holds.
    Show(Named),
    /// Have one handed out, encrypted.
    Export(Export),
    /// Have something done.
    Wish {
        /// Tells this wish from every other.
        nonce: Nonce,
        /// What.
        wish: Wish,
    },
}

/// A wish as a device sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent<T> {
    /// Tells it from every other.
    pub nonce: Nonce,
    /// What is wished for.
    pub wish: T,
}

/// What is to be handed out, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Export {
    /// The snapshot's name; without one, the latest.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Who can open it, one at least.
    pub recipients: Vec<Recipient>,
    /// Whether the host's private key goes too.
    #[serde(default)]
    pub with_identity: bool,
}

/// The question that a request comes to.
pub fn question(request: &Request) -> Result<Question, serde_json::Error> {
    match request.target.as_str() {
        SHOW => serde_json::from_slice(&request.body).map(Question::Show),
        VERIFY => wish(&request.body, Wish::VerifySnapshot),
        EXPORT => serde_json::from_slice(&request.body).map(Question::Export),
        CREATE => wish(&request.body, Wish::CreateSnapshot),
        RESTORE => wish(&request.body, Wish::RestoreSnapshot),
        PRUNE => wish(&request.body, Wish::PruneSnapshots),
        _ => Ok(Question::List {}),
    }
}

fn wish<T: DeserializeOwned>(body: &[u8], kind: fn(T) -> Wish) -> Result<Question, serde_json::Error> {
    let Sent { nonce, wish } = serde_json::from_slice(body)?;
    Ok(Question::Wish { nonce, wish: kind(wish) })
}
