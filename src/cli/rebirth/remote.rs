//! The same over the tether: a device with the grant `rebirth` asks, the machine carries it out, and tells.

use std::time::Duration;

use serde::Serialize;

use crate::cli::control::rebirth::Told;
use crate::cli::peer::Remote;
use crate::cli::wishes::{Wait, nonce};
use crate::cli::{Failure, Kind};
use crate::codex::Door;
use crate::rebirth::intent::Outcome;
use crate::rebirth::status::Status;
use crate::tether::door::rebirth::{ACTIVATE, Activate, ROLLBACK, Rollback, STAGE, STATUS, Stage};
use crate::tree::Sha256Digest;

/// The longest answer about bodies, in bytes.
const ANSWER: u64 = 4 << 20;
/// How long a machine may take to fetch and write a body.
const STAGED: Duration = Duration::from_secs(45 * 60);
/// How long it may take to activate one. Who misses the answer hears it after the restart, if there is one.
const ACTIVATED: Duration = Duration::from_secs(10 * 60);

/// How the bodies of the machine stand.
pub fn status(host: &str) -> Result<Status, Failure> {
    look(&Remote::new(host)?)
}

fn look(remote: &Remote) -> Result<Status, Failure> {
    match ask(remote, STATUS, None)? {
        Told::Status(status) => Ok(*status),
        Told::Accepted(_) => Err(remote.strange("it answers another question")),
    }
}

/// Has a body staged, and waits until it is: how the bodies stand then, and which it is.
pub fn stage(host: &str, source: &str, allow_downgrade: bool) -> Result<(Status, Option<Outcome>), Failure> {
    let body = Stage { nonce: nonce(), source: source.to_owned(), allow_downgrade };
    carried_out(host, STAGE, &body, STAGED)
}

/// Has the staged body activated, and waits until the machine is about to restart.
pub fn activate(host: &str, digest: Sha256Digest) -> Result<Status, Failure> {
    let body = Activate { nonce: nonce(), digest };
    carried_out(host, ACTIVATE, &body, ACTIVATED).map(|(status, _)| status)
}

/// Has the body before called back: the one that runs as we ask is the one to leave.
pub fn rollback(host: &str) -> Result<Status, Failure> {
    let leave = status(host)?.running;
    let body = Rollback { nonce: nonce(), leave };
    carried_out(host, ROLLBACK, &body, ACTIVATED).map(|(status, _)| status)
}

fn ask(remote: &Remote, target: &str, json: Option<&[u8]>) -> Result<Told, Failure> {
    remote.told(target, json, ANSWER, Door::Rebirth)
}

/// Asks for something, and waits until it is done.
fn carried_out(
    host: &str,
    target: &str,
    body: &impl Serialize,
    patience: Duration,
) -> Result<(Status, Option<Outcome>), Failure> {
    let remote = Remote::new(host)?;
    let body = serde_json::to_vec(body).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let Told::Accepted(file) = ask(&remote, target, Some(&body))? else {
        return Err(remote.strange("it answers another question"));
    };
    let hint = format!("`sepulcher --host {host} rebirth status` tells how far it is");
    let wait = Wait { file: &file, patience, hint: &hint };
    let (status, record) = wait.until_done(|| look(&remote), |status| &status.asked)?;
    Ok((status, record.outcome))
}
