//! The agent's door: what peers and the host may ask it, by HTTP.
//!
//! It answers on the tether's addresses alone, and on a socket in the runtime folder that the host shares. A
//! peer is known by the address it comes from, which WireGuard has proven, and by nothing else; what it may ask
//! is what its grants say at that moment. Whoever may not ask something is told the same as about a path that
//! does not exist. A request for another host than this one is refused: a web page whose name somebody let point here
//! is not the peer's will. Changes of bonds are not made here, nor are snapshots read: both are passed on to the host's
//! control socket with the peer's name, because this container has neither.

mod http;
mod metrics;
pub mod rebirth;
mod seen;
pub mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::board::{Board, Known};
use super::{Error, interface};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{self, Codex, DOOR_PORT};
use crate::peer;
use crate::sys;
use crate::sys::nft::Nft;
use crate::sys::serve::{self, Caller, Connection, Handler, Listener, Places};
use http::{Answer, Fault, Request};
use seen::seen;

/// Where the host asks.
pub const PATH: &str = "/run/sepulcher/agent/door.sock";
/// Where peers and their handshakes are asked for.
pub const PEERS: &str = "/v1/peers";
/// Where bonds are changed.
pub const BONDS: &str = "/v1/bonds";
/// Where requests of peers are passed on to.
pub const CONTROL: &str = "/run/sepulcher/control/bonds.sock";

/// How many may ask at once.
const CALLERS: usize = 16;
/// How many of these may be one peer's.
const EACH: usize = 4;
/// How long a caller may take to ask, and to listen; for each [`PIECE`] of an answer it may take a second more.
const PATIENCE: Duration = Duration::from_secs(5);
/// In bytes: an export is read through an uplink that may be slow.
const PIECE: u64 = 256 << 10;
/// How long the host may take to change the bonds: it may wait for another change.
const CHANGE: Duration = Duration::from_secs(30);
/// The longest answer of the host, in bytes.
pub const ANSWER: u64 = 8 << 20;

/// Listens until it goes out of scope.
pub struct Door {
    places: Places,
    handler: Arc<Handler>,
    _host: Listener,
    peers: BTreeMap<SocketAddr, Listener>,
    /// Addresses that it could not listen on last time.
    failed: BTreeSet<SocketAddr>,
}

impl Door {
    /// Answers the host at `path`; requests of peers go to `control`.
    pub fn open(board: Arc<Board>, path: &Path, control: &Path) -> Result<Self, Error> {
        let control = control.to_owned();
        let handler: Arc<Handler> =
            Arc::new(move |connection, caller| answer(connection, caller, &board, &control));
        let places = Places::new(CALLERS, EACH);
        // Places of its own: whoever fills those of the peers does not keep the host out.
        let host = Listener::unix(path, &Places::new(CALLERS, CALLERS), Arc::clone(&handler))
            .map_err(|source| Error::Door { path: path.to_owned(), source })?;
        Ok(Self { places, handler, _host: host, peers: BTreeMap::new(), failed: BTreeSet::new() })
    }

    /// Answers peers on these addresses and on no other. Those that it cannot listen on are tried again next time,
    /// and returned with the reason when that is new.
    pub fn answer_on(&mut self, addresses: &BTreeSet<SocketAddr>) -> Vec<(SocketAddr, io::Error)> {
        self.peers.retain(|address, _| addresses.contains(address));
        let mut failed = Vec::new();
        for address in addresses {
            if self.peers.contains_key(address) {
                continue;
            }
            match Listener::tcp(*address, &self.places, Arc::clone(&self.handler)) {
                Ok(listener) => {
                    self.peers.insert(*address, listener);
                }
                Err(error) => failed.push((*address, error)),
            }
        }
        let before =
            std::mem::replace(&mut self.failed, failed.iter().map(|(address, _)| *address).collect());
        failed.retain(|(address, _)| !before.contains(address));
        failed
    }
}

/// Answers one request.
fn answer(mut connection: Connection, caller: Caller, board: &Board, control: &Path) {
    connection.give(PATIENCE);
    let answer = match http::read(&mut connection) {
        Ok(request) => respond(&request, caller, board, control),
        Err(Fault::Refused(status, reason)) => Answer::error(status, "input", reason, None),
        Err(Fault::Gone) => return,
    };
    connection.give(PATIENCE + Duration::from_secs(answer.body.len() as u64 / PIECE));
    if answer.write(&mut connection).is_ok() {
        connection.finish();
    }
}

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matter {
    Metrics,
    Peers,
    Bonds,
    Rebirth,
    Snapshots,
}

fn respond(request: &Request, caller: Caller, board: &Board, control: &Path) -> Answer {
    let Some(known) = board.known() else {
        return Answer::error(503, "unavailable", "the agent has not read the bonds yet", None);
    };
    if caller != Caller::Host && !is_here(request.host.as_deref(), &known.codex) {
        return elsewhere(&known.codex);
    }
    let matter = match (request.method.as_str(), request.target.as_str()) {
        ("GET", "/metrics") => Matter::Metrics,
        ("GET", PEERS) => Matter::Peers,
        ("POST", BONDS) => Matter::Bonds,
        ("GET", rebirth::STATUS) | ("POST", rebirth::STAGE | rebirth::ACTIVATE | rebirth::ROLLBACK) => {
            Matter::Rebirth
        }
        ("GET", snapshots::LIST) => Matter::Snapshots,
        ("POST", target) if snapshots::POSTS.contains(&target) => Matter::Snapshots,
        _ => return Answer::not_found(),
    };
    let now = sys::clock::now();
    let peer = match caller {
        Caller::Host => None,
        Caller::Address(address) => match permitted(&known.codex, address, matter, now) {
            Some(name) => Some(name),
            None => return Answer::not_found(),
        },
    };
    match (matter, peer) {
        (Matter::Metrics, _) => observed(board, &known, now, |seen| Answer {
            status: 200,
            media: metrics::MEDIA,
            body: metrics::page(&known, board.looks(), &seen).into_bytes(),
        }),
        (Matter::Peers, _) => observed(board, &known, now, |seen| Answer::json(200, &seen)),
        (Matter::Bonds, Some(peer)) => change_bonds(request, peer, control),
        (Matter::Rebirth, Some(peer)) => {
            pass_on_question("rebirth", rebirth::question(request), request, peer, control)
        }
        (Matter::Snapshots, Some(peer)) => {
            pass_on_question("snapshots", snapshots::question(request), request, peer, control)
        }
        // The host has the bonds, the bodies and the snapshots themselves.
        (Matter::Bonds | Matter::Rebirth | Matter::Snapshots, None) => Answer::not_found(),
    }
}

/// Whether a request's Host is an address of the tether or the appliance's name, with the door's port or without.
fn is_here(host: Option<&str>, codex: &Codex) -> bool {
    let Some(host) = host else { return false };
    let bare = host.strip_suffix(&format!(":{DOOR_PORT}")).unwrap_or(host);
    let address = match bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6),
        None => bare.parse().map(IpAddr::V4),
    };
    address.is_ok_and(|address| codex.tether.is_own(address))
        || bare.eq_ignore_ascii_case(codex.appliance.name.as_str())
}

fn elsewhere(codex: &Codex) -> Answer {
    let hint = format!("ask for {} or {}", codex.tether.address, codex.appliance.name);
    Answer::error(421, "input", "this is not the host of the request", Some(&hint))
}

/// The peer at `address`, if it may ask about `matter` at `now`.
fn permitted(codex: &Codex, address: IpAddr, matter: Matter, now: Timestamp) -> Option<&Name> {
    let door = match matter {
        Matter::Metrics => codex::Door::Metrics,
        Matter::Peers | Matter::Bonds => codex::Door::Bonds,
        Matter::Rebirth => codex::Door::Rebirth,
        Matter::Snapshots => codex::Door::Snapshots,
    };
    let (name, _) = codex.active().find(|(_, peer)| {
        let own = address == IpAddr::V4(peer.address) || peer.address6.is_some_and(|own| address == own);
        own && peer.may(door, now)
    })?;
    Some(name)
}

/// Looks at interface and ruleset.
fn observed(
    board: &Board,
    known: &Known,
    now: Timestamp,
    tell: impl FnOnce(peer::Observed) -> Answer,
) -> Answer {
    let look = || -> Result<peer::Observed, Error> {
        let nft = Nft::new(&board.nft);
        let mut denied = nft.counted("denied")?;
        denied.extend(nft.counted("denied6")?);
        let observed = interface::observe(&board.interface, known.backend)?;
        Ok(seen(&board.interface, &observed, &denied, now.epoch()))
    };
    match look() {
        Ok(seen) => tell(seen),
        Err(error) => Answer::error(503, "unavailable", &super::explain(&error), error.remedy()),
    }
}

/// Has the host change the bonds.
fn change_bonds(request: &Request, peer: &Name, control: &Path) -> Answer {
    if !request.deliberate {
        return Answer::error(415, "input", "send a request of `sepulcher peer` as application/json", None);
    }
    let asked: peer::Request = match serde_json::from_slice(&request.body) {
        Ok(asked) => asked,
        Err(error) => {
            return Answer::error(400, "input", &format!("this is not a request: {error}"), None);
        }
    };
    pass_on(&serde_json::json!({"schema": 1, "peer": peer, "request": asked}), control)
}

/// Has the host answer a question about its bodies or snapshots, or keep a wish.
fn pass_on_question<Q: serde::Serialize>(
    about: &str,
    question: Result<Q, serde_json::Error>,
    request: &Request,
    peer: &Name,
    control: &Path,
) -> Answer {
    if request.method == "POST" && !request.deliberate {
        return Answer::error(415, "input", "send a request of `sepulcher` as application/json", None);
    }
    match question {
        Ok(question) => pass_on(&serde_json::json!({"schema": 1, "peer": peer, about: question}), control),
        Err(error) => Answer::error(400, "input", &format!("this is not a request: {error}"), None),
    }
}

/// Passes a question on to the host, and the host's answer back.
fn pass_on(question: &serde_json::Value, control: &Path) -> Answer {
    let line = question.to_string();
    let answered = serve::ask(control, &line, ANSWER, CHANGE);
    let answered = answered.and_then(|text| Ok(serde_json::from_slice::<serde_json::Value>(&text)?));
    match answered {
        Ok(value) => Answer::json(status(&value), &value),
        Err(error) => {
            let message = format!("the host does not answer at {}: {error}", control.display());
            Answer::error(503, "unavailable", &message, Some("`systemctl status sepulcher-control.socket`"))
        }
    }
}

/// The status that says what the host's answer says.
fn status(answer: &serde_json::Value) -> u16 {
    let Some(error) = answer.get("error") else {
        return if answer["ok"].get("accepted").is_some() { 202 } else { 200 };
    };
    match error["kind"].as_str() {
        Some("input") => 400,
        Some("unavailable") => 503,
        _ => 500,
    }
}

#[cfg(test)]
mod tests;
