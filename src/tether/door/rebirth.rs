//! What a peer may ask about the machine's bodies, by HTTP: `GET /rebirth`, `POST /rebirth/stage`, `POST
//! /rebirth/activate`, `POST /rebirth/rollback`. Each becomes a question to the host.

use serde::{Deserialize, Serialize};

use super::http::Request;
use crate::rebirth::intent::{Nonce, Question, Wish};
use crate::rebirth::version::Version;
use crate::tree::Sha256Digest;

/// Where the status is asked for, and below which wishes are.
pub const STATUS: &str = "/rebirth";
/// Where to have a body staged.
pub const STAGE: &str = "/rebirth/stage";
/// Where to have one activated.
pub const ACTIVATE: &str = "/rebirth/activate";
/// Where to have the body before called back.
pub const ROLLBACK: &str = "/rebirth/rollback";

/// What is sent to have a body staged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stage {
    /// Tells this wish from every other.
    pub nonce: Nonce,
    /// Its address.
    pub source: String,
    /// Whether it may be older than what runs.
    #[serde(default)]
    pub allow_downgrade: bool,
}

/// What is sent to have one activated.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activate {
    /// Tells this wish from every other.
    pub nonce: Nonce,
    /// Its digest.
    pub digest: Sha256Digest,
}

/// What is sent to have the body before called back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Tells this wish from every other.
    pub nonce: Nonce,
    /// The version of the body to leave.
    pub leave: Version,
}

/// The question that a request comes to.
pub fn question(request: &Request) -> Result<Question, serde_json::Error> {
    let (nonce, wish) = match request.target.as_str() {
        STAGE => {
            let Stage { nonce, source, allow_downgrade } = serde_json::from_slice(&request.body)?;
            (nonce, Wish::Stage { source, allow_downgrade })
        }
        ACTIVATE => {
            let Activate { nonce, digest } = serde_json::from_slice(&request.body)?;
            (nonce, Wish::Activate { digest })
        }
        ROLLBACK => {
            let Rollback { nonce, leave } = serde_json::from_slice(&request.body)?;
            (nonce, Wish::Rollback { leave })
        }
        _ => return Ok(Question::Status {}),
    };
    Ok(Question::Wish { nonce, wish })
}
