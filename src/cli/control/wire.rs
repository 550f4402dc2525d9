//! What goes over the tether and between agent and host: one line of JSON each way.
//!
//! ```text
//! {"schema":1,"peer":"laptop","request":{"verb":"revoke","name":"phone"}}
//! {"ok":{"schema":1,"plan":["- peer phone …"],…}}
//! {"error":{"kind":"input","message":"…","hint":"…","report":null}}
//! ```
//!
//! A device sends the `request` alone; the agent adds who it is. A batch is answered by a list of replies.

use std::io;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cli::{Failure, Kind};
use crate::codex::name::Name;
use crate::peer::store::Reply;
use crate::peer::{Batch, List, Request};
use crate::rebirth::intent::Question;
pub use crate::tether::door::ANSWER;
use crate::tether::door::snapshots;

/// The version that this program speaks.
const SCHEMA: u64 = 1;
/// The longest question, in bytes.
pub const QUESTION: u64 = 64 << 10;

/// A question, as the agent hands it on.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub peer: Name,
    /// What is asked for.
    pub matter: Matter,
}

/// A question as it is written: one of the last three is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: u64,
    peer: Name,
    request: Option<Request>,
    rebirth: Option<Question>,
    snapshots: Option<snapshots::Question>,
}

/// What a question is about.
#[derive(Debug)]
pub enum Matter {
    /// The bonds.
    Request(Request),
    /// The machine's bodies.
    Rebirth(Question),
    /// The machine's snapshots.
    Snapshots(snapshots::Question),
}

impl Asked {
    /// Reads a question.
    pub fn parse(line: &[u8]) -> Result<Self, Failure> {
        let refused = |why: &str| {
            Failure::new(Kind::Input, format!("the request was not understood: {why}"))
                .hint("program and appliance may be of different versions: `sepulcher --version` on both")
        };
        if line.len() as u64 > QUESTION {
            return Err(Failure::new(Kind::Input, format!("the request is longer than {QUESTION} bytes"))
                .hint("ask for less at once"));
        }
        let Written { schema, peer, request, rebirth, snapshots } =
            serde_json::from_slice(line).map_err(|error| refused(&error.to_string()))?;
        if schema != SCHEMA {
            return Err(refused(&format!("it has schema {schema}, this program speaks {SCHEMA}")));
        }
        let matter = match (request, rebirth, snapshots) {
            (Some(request), None, None) => Matter::Request(request),
            (None, Some(question), None) => Matter::Rebirth(question),
            (None, None, Some(question)) => Matter::Snapshots(question),
            _ => return Err(refused("it asks for nothing, or for several things")),
        };
        Ok(Self { peer, matter })
    }
}

/// What a device sends for requests.
pub fn body(requests: &[Request], dry_run: bool) -> Result<Vec<u8>, serde_json::Error> {
    match requests {
        [request @ Request::List(List {})] => serde_json::to_vec(request),
        [request] if !dry_run => serde_json::to_vec(request),
        _ => serde_json::to_vec(&Request::Batch(Batch { requests: requests.to_vec(), dry_run })),
    }
}

/// Replies as they are told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Replies {
    /// To one request.
    One(Box<Reply>),
    /// To a batch.
    Many(Vec<Reply>),
}

impl From<Replies> for Vec<Reply> {
    fn from(replies: Replies) -> Self {
        match replies {
            Replies::One(reply) => vec![*reply],
            Replies::Many(replies) => replies,
        }
    }
}

/// The answer to a question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer<T> {
    /// It is done.
    Ok(T),
    /// It is not.
    Error(Told),
}

/// A failure as it is told over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Whose turn it is.
    pub kind: Kind,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// Diagnostics, laid out.
    #[serde(default)]
    pub report: Option<String>,
}

impl<T: Serialize> Answer<T> {
    /// The answer as a line. One that would be too long becomes a refusal.
    pub fn to_line(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut line = Zeroizing::new(serde_json::to_vec(self)?);
        if line.len() as u64 >= ANSWER {
            let failure = Failure::new(Kind::Unavailable, "the answer is too long for the tether")
                .hint("ask on the appliance, or of fewer peers");
            line = Zeroizing::new(serde_json::to_vec(&Answer::<()>::Error((&failure).into()))?);
        }
        line.push(b'\n');
        Ok(line)
    }
}
