//! `sepulcher control`: the host's end of the tether's way to bonds, bodies and snapshots.
//!
//! The agent knows which peer asks, because WireGuard has proved it, and may not change bonds itself. So it hands the
//! request to this program, which systemd starts on a socket for each one, and which asks the bonds again whether that
//! peer may. What is done then is what the same command does on the machine.

pub mod rebirth;
pub mod snapshots;
pub mod wire;

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use wire::{Answer, Asked, Matter, Replies};

use super::{Failure, Kind};
use crate::codex::Door;
use crate::codex::name::Name;
use crate::peer::store::{self, Order, Place, Who};
use crate::peer::{Batch, Request};
use crate::rebirth::inbox;
use crate::rebirth::machine::Machine;
use crate::sys::clock;

/// Arguments of `sepulcher control`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Answers the one request on standard input. A request that is refused is an answer, not a failure of this program.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut line = Vec::new();
    let read = BufReader::new(io::stdin().lock().take(wire::QUESTION + 1)).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::from_error(Kind::Io, &error))?;
    let answer = answer(&args.root, &line);
    let written = answer.to_line().and_then(|line| io::stdout().lock().write_all(&line));
    written.map_err(|error| Failure::from_error(Kind::Io, &error))
}

/// What is answered to each kind of question.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Done {
    Bonds(Replies),
    Rebirth(rebirth::Told),
    Snapshots(snapshots::Told),
}

fn answer(root: &Path, line: &[u8]) -> Answer<Done> {
    let answered = |asked: Asked| match &asked.matter {
        Matter::Request(request) => carry_out(root, &asked, request).map(Done::Bonds),
        Matter::Rebirth(question) => rebirth::answer(root, &asked.peer, question).map(Done::Rebirth),
        Matter::Snapshots(question) => snapshots::answer(root, &asked.peer, question).map(Done::Snapshots),
    };
    match Asked::parse(line).and_then(answered) {
        Ok(done) => Answer::Ok(done),
        Err(failure) => Answer::Error((&failure).into()),
    }
}

/// Refuses a peer without the grant, whatever the agent says.
fn permitted(root: &Path, peer: &Name, door: Door) -> Result<(), Failure> {
    let codex = inbox::codex(root).map_err(|why| Failure::new(Kind::Unavailable, why))?;
    Ok(store::may(&Who::Peer(peer.clone()), door, &codex, clock::now())?)
}

/// Refuses what is for sealed images alone: elsewhere nobody carries wishes out.
fn sealed(root: &Path, hint: &str) -> Result<(), Failure> {
    if Machine::new(root).is_sealed() {
        return Ok(());
    }
    Err(Failure::new(Kind::Unavailable, "this machine runs no sealed image").hint(hint))
}

fn carry_out(root: &Path, asked: &Asked, request: &Request) -> Result<Replies, Failure> {
    let place = Place::appliance(root);
    // Whether the peer may is judged under the store's lock.
    let who = Who::Peer(asked.peer.clone());
    let (requests, dry_run) = match request {
        Request::Batch(Batch { requests, dry_run }) => (requests.as_slice(), *dry_run),
        request => return Ok(Replies::One(Box::new(store::execute(&place, &who, request, false)?))),
    };
    let order = Order { requests, who: &who, dry_run };
    Ok(Replies::Many(store::execute_all(&place, order, &mut |_| {})?))
}

#[cfg(test)]
mod tests;
