//! The same over the tether: a device with the grant `snapshots` asks, and the machine answers.

use serde::Serialize;

use super::list::Listed;
use crate::cli::control::snapshots::{Exported, Told};
use crate::cli::control::wire::ANSWER;
use crate::cli::peer::Remote;
use crate::cli::{Failure, Kind};
use crate::codex::Door;
use crate::tether::door::snapshots::{EXPORT, Export, LIST};

/// The machine's snapshots, the oldest first.
pub fn list(remote: &Remote) -> Result<Vec<Listed>, Failure> {
    match ask(remote, LIST, None::<&()>)? {
        Told::List(all) => Ok(all),
        Told::Export(_) => Err(remote.strange("it answers another question")),
    }
}

/// One of them, encrypted.
pub fn export(remote: &Remote, wanted: &Export) -> Result<Exported, Failure> {
    match ask(remote, EXPORT, Some(wanted))? {
        Told::Export(exported) => Ok(exported),
        Told::List(_) => Err(remote.strange("it answers another question")),
    }
}

fn ask(remote: &Remote, target: &str, question: Option<&impl Serialize>) -> Result<Told, Failure> {
    let body = question.map(serde_json::to_vec).transpose();
    let body = body.map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    remote.told(target, body.as_deref(), ANSWER, Door::Snapshots)
}
