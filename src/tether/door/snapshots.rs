//! What a peer may ask about the machine's snapshots, by HTTP: `GET /snapshots`, `POST /snapshots/export`. Each becomes a
//! question to the host.

use serde::{Deserialize, Serialize};

use super::http::Request;
use crate::snapshot::seal::Recipient;

/// Where the list is asked for, and below which everything else is.
pub const LIST: &str = "/snapshots";
/// Where one is asked for, encrypted.
pub const EXPORT: &str = "/snapshots/export";

/// A question of a peer about the machine's snapshots, as it goes to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Which there are.
    List {},
    /// Have one handed out, encrypted.
    Export(Export),
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
        EXPORT => serde_json::from_slice(&request.body).map(Question::Export),
        _ => Ok(Question::List {}),
    }
}
