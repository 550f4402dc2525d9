//! The host's end of what a peer asks about the machine's bodies: the status as it was kept, and intents, which this
//! program writes and another one carries out.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::{Failure, Kind};
use crate::codex::Door;
use crate::codex::name::Name;
use crate::peer::store::Who;
use crate::rebirth::inbox;
use crate::rebirth::intent::{Outcome, Question, Record};
use crate::rebirth::status::{self, Status};

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// How the bodies stand.
    Status(Box<Status>),
    /// The wish waits; the status tells what becomes of the file of this name.
    Accepted(String),
}

fn about_bodies(mut record: Record) -> Record {
    record.outcome.take_if(|outcome| !matches!(outcome, Outcome::Staged { .. }));
    record
}

/// Answers one question.
pub fn answer(root: &Path, peer: &Name, question: &Question) -> Result<Told, Failure> {
    super::permitted(root, peer, Door::Rebirth)?;
    super::sealed(root, "it has one body, and is brought up to date as the rest of that machine is")?;
    match question {
        Question::Status {} => {
            // Before the status: what is told to be done is in that.
            let asked = inbox::asked(root, peer)?;
            let mut status = Box::new(status::read(root)?.ok_or_else(|| {
                Failure::new(Kind::Unavailable, "the machine has not looked at its bodies yet")
                    .hint("ask again in a minute")
            })?);
            // What others asked for, or came of a snapshot, may be what this peer may not know.
            status.asked = asked.into_iter().map(about_bodies).collect();
            Ok(Told::Status(status))
        }
        Question::Wish { nonce, wish } => {
            Ok(Told::Accepted(inbox::put(root, &Who::Peer(peer.clone()), nonce, wish)?))
        }
    }
}
