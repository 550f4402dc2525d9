//! The same over the tether: a device with the grant `rebirth` asks, the machine carries it out, and tells.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::control::rebirth::Told;
use crate::cli::peer::Remote;
use crate::cli::{Failure, Kind};
use crate::codex::Door;
use crate::rebirth::intent::State;
use crate::rebirth::status::Status;
use crate::sys::random;
use crate::tree::Sha256Digest;

/// The longest answer about bodies, in bytes.
const ANSWER: u64 = 4 << 20;
/// Time between two questions how far it is.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a machine may take to fetch and write a body.
const STAGED: Duration = Duration::from_secs(45 * 60);
/// How long it may take to activate one. Who misses the answer hears it after the restart, if there is one.
const ACTIVATED: Duration = Duration::from_secs(10 * 60);

/// How the bodies of the machine stand.
pub fn status(host: &str) -> Result<Status, Failure> {
    match ask(&Remote::new(host)?, "/rebirth", None)? {
        Told::Status(status) => Ok(*status),
        Told::Accepted(_) => Err(Failure::new(Kind::Unavailable, "the machine answered another question")),
    }
}

/// Has a body staged, and waits until it is.
pub fn stage(host: &str, source: &str, allow_downgrade: bool) -> Result<Status, Failure> {
    let body = json!({ "nonce": nonce(), "source": source, "allow-downgrade": allow_downgrade });
    carried_out(host, "/rebirth/stage", &body, STAGED)
}

/// Has the staged body activated, and waits until the machine is about to restart.
pub fn activate(host: &str, digest: Sha256Digest) -> Result<Status, Failure> {
    carried_out(host, "/rebirth/activate", &json!({ "nonce": nonce(), "digest": digest }), ACTIVATED)
}

/// Has the body before called back: the one that runs as we ask is the one to leave.
pub fn rollback(host: &str) -> Result<Status, Failure> {
    let leave = status(host)?.running;
    carried_out(host, "/rebirth/rollback", &json!({ "nonce": nonce(), "leave": leave }), ACTIVATED)
}

fn nonce() -> String {
    random::bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ask(remote: &Remote, target: &str, json: Option<&[u8]>) -> Result<Told, Failure> {
    remote.told(target, json, ANSWER, Door::Rebirth)
}

/// Asks for something, and then how far it is until it is done. A machine that is silent meanwhile is asked again.
fn carried_out(
    host: &str,
    target: &str,
    body: &serde_json::Value,
    patience: Duration,
) -> Result<Status, Failure> {
    let remote = Remote::new(host)?;
    let Told::Accepted(file) = ask(&remote, target, Some(body.to_string().as_bytes()))? else {
        return Err(Failure::new(Kind::Unavailable, "the machine answered another question"));
    };
    let end = Instant::now() + patience;
    loop {
        std::thread::sleep(PAUSE);
        match ask(&remote, "/rebirth", None) {
            Ok(Told::Status(status)) => {
                let last = status.asked.iter().rev().find(|record| record.file == file);
                match last.map(|record| (record.state, record.reason.clone())) {
                    Some((State::Done, _)) => return Ok(*status),
                    Some((State::Failed | State::Refused, reason)) => {
                        let reason = reason.unwrap_or_default();
                        let reason = reason.trim().trim_start_matches("error: ").to_owned();
                        return Err(Failure::new(Kind::Input, crate::codex::plain(&reason)));
                    }
                    Some((State::Taken, _)) | None => {}
                }
            }
            Err(failure) if failure.kind == Kind::Input => return Err(failure),
            _ => {}
        }
        if Instant::now() > end {
            return Err(Failure::new(Kind::Unavailable, "the machine does not tell that it is done")
                .hint(format!("`sepulcher --host {host} rebirth status` tells how far it is")));
        }
    }
}
