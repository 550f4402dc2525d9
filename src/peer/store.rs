//! The bonds on disk: one change at a time, whole or not at all, each of them on record.
//!
//! A change is done when the peer's file has its new name. Before that come, each durable before the next: the preshared
//! key that the file needs, the file under a temporary name, the record. After it come the ledger of dead keys, which
//! the file holds too, and the removal of preshared keys that nobody needs any more. So a command may be killed at any
//! point: the next one finds the state before or after, and does what is left ([`heal`]).

mod commit;
mod heal;
pub mod migrate;
mod place;
mod reply;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

pub use commit::{add_to_ledger, record};
pub(crate) use heal::{heal, is_temporary, remove};
pub use place::Place;
pub use reply::Reply;

use super::{Change, PeerView, Refused, Request, Situation, change, client};
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Diagnostic, Door, Sources, render_all};
use crate::peer::audit;
pub use crate::peer::audit::Who;
use crate::sys::journal::Lock;
pub use crate::sys::journal::NotLocked;
use crate::sys::{clock, codex as files, fs, wireguard};

/// How long a change waits for another one to finish.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request was not carried out. Nothing has changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request does not fit the bonds.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The Codex itself holds mistakes: how many, and laid out.
    #[error("the Codex holds {0} mistake(s)")]
    Broken(usize, String),
    /// Somebody else is at it.
    #[error(transparent)]
    Locked(#[from] NotLocked),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// The appliance's key is none.
    #[error("{0}")]
    HostKey(String),
    /// The log of changes cannot be gone on with.
    #[error(transparent)]
    Log(#[from] audit::NoEnd),
    /// The change is done; what comes behind it is not, and the next command does it.
    #[error("the change is done, but not all that belongs to it")]
    Unfinished(#[source] fs::Error),
}

/// What is asked for, by whom, and how.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Requests that are granted together or not at all.
    pub requests: &'a [Request],
    /// Who asks.
    pub who: &'a Who,
    /// Decide and tell, and change nothing.
    pub dry_run: bool,
}

/// Judges the bonds as they are when nobody else changes them any more.
pub type Allowed<'a> = &'a dyn Fn(&Codex, Timestamp) -> Result<(), Refused>;

/// Carries out one request.
///
/// # Errors
/// See [`Error`].
pub fn execute(place: &Place, who: &Who, request: &Request, dry_run: bool) -> Result<Reply, Error> {
    let order = Order { requests: std::slice::from_ref(request), who, dry_run };
    one(execute_all(place, order, &mut |_| {})?)
}

/// Carries out one request if `allowed` says so under the lock: whatever was looked at before may have changed.
///
/// # Errors
/// See [`Error`].
pub fn execute_if(place: &Place, who: &Who, request: &Request, allowed: Allowed<'_>) -> Result<Reply, Error> {
    let order = Order { requests: std::slice::from_ref(request), who, dry_run: false };
    one(judged(place, order, allowed, &mut |_| {})?)
}

fn one(mut replies: Vec<Reply>) -> Result<Reply, Error> {
    // One request, one reply.
    replies.pop().ok_or_else(|| Refused::new("nothing is asked for", "ask for a change").into())
}

/// Carries out requests, a reply each; `tell` is given the whole plan before anything changes.
///
/// All are decided before the first is done. Being killed between two of them leaves the first ones done.
///
/// # Errors
/// See [`Error`].
pub fn execute_all(
    place: &Place,
    order: Order<'_>,
    tell: &mut dyn FnMut(&[String]),
) -> Result<Vec<Reply>, Error> {
    judged(place, order, &|_, _| Ok(()), tell)
}

fn judged(
    place: &Place,
    order: Order<'_>,
    allowed: Allowed<'_>,
    tell: &mut dyn FnMut(&[String]),
) -> Result<Vec<Reply>, Error> {
    let changes = order.requests.iter().any(|request| !matches!(request, Request::List(_)));
    let lock = if changes && !order.dry_run {
        place.writable()?;
        Some(Lock::acquire(&place.bonds.join(".lock"), PATIENCE)?)
    } else {
        None
    };
    let now = clock::now();
    let (sources, codex, whole) = load_for(place, order.requests)?;
    may_manage(order.who, &codex, now)?;
    allowed(&codex, now)?;
    let decided = decide(place, order.requests, &codex, &sources, now)?;
    let plan: Vec<String> = decided.iter().flat_map(|(_, reply)| reply.plan.clone()).collect();
    tell(&plan);
    if lock.is_some() {
        let changes: Vec<_> = decided.iter().filter_map(|(change, _)| change.as_ref()).collect();
        let changing = changes.iter().map(|(_, change)| &change.name).collect();
        let situation = Situation { codex: &codex, sources: &sources, host_key: None, now };
        // What is left out for now must not be taken for gone.
        if whole {
            heal(place, order.who, &situation, &changing)?;
        }
        for (verb, change) in changes {
            commit::commit(place, &audit::Entry::of(*verb, order.who, change, now), change)?;
        }
    }
    Ok(decided.into_iter().map(|(_, reply)| reply).collect())
}

/// Reads law, bonds and ledger.
///
/// # Errors
/// [`Error::Broken`] when they hold mistakes.
pub fn load(place: &Place) -> Result<(Sources, Codex), Error> {
    let sources = files::load(&place.folders());
    match Codex::parse(&sources) {
        Ok(codex) => Ok((sources, codex)),
        Err(mistakes) => Err(broken(&mistakes, &sources)),
    }
}

fn broken(mistakes: &[Diagnostic], sources: &Sources) -> Error {
    Error::Broken(mistakes.len(), render_all(mistakes, sources, false))
}

/// Reads them for these requests; the flag says whether nothing was left out.
///
/// Somebody's broken bond must not keep another one from being cut off: for that alone, broken ones are left out.
fn load_for(place: &Place, requests: &[Request]) -> Result<(Sources, Codex, bool), Error> {
    let mut sources = files::load(&place.folders());
    let mistakes = match Codex::parse(&sources) {
        Ok(codex) => return Ok((sources, codex, true)),
        Err(mistakes) => mistakes,
    };
    let broken = broken(&mistakes, &sources);
    let mut kept = BTreeSet::new();
    for request in requests {
        match request {
            Request::Revoke(revoke) => kept.insert(format!("peers/{}.toml", revoke.name)),
            Request::Ungrant(granting) => kept.insert(format!("peers/{}.toml", granting.name)),
            _ => return Err(broken),
        };
    }
    match Codex::parse_sound(&mut sources, |file| !kept.contains(file), &mut |_| {}) {
        Ok(codex) => Ok((sources, codex, false)),
        Err(_) => Err(broken),
    }
}

/// Refuses a peer that may not manage bonds (any more).
fn may_manage(who: &Who, codex: &Codex, now: Timestamp) -> Result<(), Refused> {
    let Who::Peer(name) = who else { return Ok(()) };
    if codex.peers.get(name).is_some_and(|peer| peer.may(Door::Bonds, now)) {
        return Ok(());
    }
    Err(Refused::new(format!("`{name}` may not manage bonds"), "grant it: `sepulcher peer grant NAME bonds`"))
}

/// Decides one change and what it is answered with, a configuration included where it was asked for. Nothing is written.
pub fn prepare(request: &Request, situation: &Situation<'_>) -> Result<(Change, Reply), Refused> {
    let change = change(request, situation, &mut wireguard::fresh_preshared_key)?;
    let client = client::client(request, &change, situation)?;
    let reply = Reply::change(&change, client, situation.now);
    Ok((change, reply))
}

type Decided = (Option<(audit::Verb, Change)>, Reply);

/// What each request changes, given those before it.
fn decide(
    place: &Place,
    requests: &[Request],
    codex: &Codex,
    sources: &Sources,
    now: Timestamp,
) -> Result<Vec<Decided>, Error> {
    let host_key = place.host_key()?;
    let (mut codex, mut sources) = (Cow::Borrowed(codex), Cow::Borrowed(sources));
    let mut decided = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        if let Request::List(_) = request {
            decided.push((None, Reply::list(PeerView::all(&codex, now))));
            continue;
        }
        let situation = Situation { codex: &codex, sources: &sources, host_key, now };
        let (change, reply) = prepare(request, &situation)?;
        if index + 1 < requests.len() {
            sources.to_mut().insert(change.file.clone(), change.text.clone());
            change.apply(codex.to_mut());
        }
        decided.push((audit::Verb::of(request).map(|verb| (verb, change)), reply));
    }
    Ok(decided)
}
