//! What a peer may ask about the machine's bodies, by HTTP: `GET /rebirth`, `POST /rebirth/stage`, `POST
//! /rebirth/activate`, `POST /rebirth/rollback`. Each becomes a question to the host.

use serde::Deserialize;

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

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stage {
    nonce: Nonce,
    source: String,
    #[serde(default)]
    allow_downgrade: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activate {
    nonce: Nonce,
    digest: Sha256Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    nonce: Nonce,
    leave: Version,
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
