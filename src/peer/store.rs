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
pub(crate) mod room;

use std::borrow::Cow;
use std::time::Duration;

pub use commit::{add_to_ledger, record};
pub(crate) use heal::{heal, is_temporary, remove};
pub use place::Place;
pub use reply::Reply;

use super::{Broken, Change, PeerView, Refused, Request, Situation, change, client};
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Diagnostic, Door, Parse, Sources, render_all};
use crate::peer::audit;
pub use crate::peer::audit::Who;
use crate::sys::journal::Lock;
pub use crate::sys::journal::NotLocked;
use crate::sys::{clock, codex as files, fs, wireguard};

/// So much of a file that is no text is looked at, in bytes.
const LONGEST: u64 = 16 << 20;

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

/// Law, bonds and ledger, as far as they hold no mistakes.
#[derive(Debug)]
pub struct Bonds {
    /// What is sound.
    pub codex: Codex,
    /// The texts that it was read from.
    pub sources: Sources,
    /// Bonds that hold mistakes, and are in neither.
    pub broken: Vec<Broken>,
    /// Bonds that are in force, but name somebody who is gone, or a service that this body's law does not have: until that is
    /// mended, they are only taken away from.
    pub flawed: Vec<Broken>,
}

impl Bonds {
    /// Whether there is no mistake at all.
    fn is_whole(&self) -> bool {
        self.broken.is_empty() && self.flawed.is_empty()
    }

    /// Refuses to go on with a bond that holds a mistake.
    fn may_change(&self, request: &Request) -> Result<(), Refused> {
        let name = match request {
            Request::Rotate(rotate) => &rotate.name,
            Request::Grant(granting) => &granting.name,
            Request::Extend(extend) => &extend.name,
            Request::Bond(_)
            | Request::Revoke(_)
            | Request::Ungrant(_)
            | Request::List(_)
            | Request::Batch(_) => {
                return Ok(());
            }
        };
        match self.flawed.iter().find(|flawed| flawed.name().as_ref() == Some(name)) {
            Some(flawed) => Err(flawed.refused(&format!("`{name}` cannot be changed"))),
            None => Ok(()),
        }
    }
}

/// The user who runs this program.
pub fn caller() -> Who {
    Who::Uid(rustix::process::getuid().as_raw())
}

/// Judges the bonds as they are when nobody else changes them any more.
pub type Allowed<'a> = &'a dyn Fn(&Bonds, Timestamp) -> Result<(), Refused>;

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
    let bonds = load_sound(place)?;
    may(order.who, Door::Bonds, &bonds.codex, now)?;
    allowed(&bonds, now)?;
    let decided = decide(place, order.requests, &bonds, now)?;
    let plan: Vec<String> = decided.iter().flat_map(|(_, reply)| reply.plan.clone()).collect();
    tell(&plan);
    if lock.is_some() {
        let changes: Vec<_> = decided
            .iter()
            .filter_map(|(change, _)| change.as_ref().map(|(verb, change)| (*verb, change)))
            .collect();
        room::judge(place, bonds.codex.active().count(), &changes)?;
        let changing = changes.iter().map(|(_, change)| &change.name).collect();
        let Bonds { codex, sources, broken, flawed: _ } = &bonds;
        let situation = Situation { codex, sources, broken, host_key: None, now };
        // What is left out for now must not be taken for gone.
        if bonds.is_whole() {
            heal(place, order.who, &situation, &changing)?;
        }
        for (verb, change) in changes {
            commit::commit(place, &audit::Entry::of(verb, order.who, change, now), change)?;
        }
    }
    Ok(decided.into_iter().map(|(_, reply)| reply).collect())
}

/// Reads law, bonds and ledger.
///
/// # Errors
/// [`Error::Broken`] when they hold mistakes.
pub fn load(place: &Place) -> Result<(Sources, Codex), Error> {
    loaded(place, Codex::parse)
}

/// The same where what the bonds name may be gone: see [`Codex::parse_living`].
///
/// # Errors
/// [`Error::Broken`] when they hold other mistakes.
pub fn load_living(place: &Place) -> Result<(Sources, Codex), Error> {
    loaded(place, Codex::parse_living)
}

fn loaded(place: &Place, parse: Parse) -> Result<(Sources, Codex), Error> {
    let sources = files::load(&place.folders());
    match parse(&sources) {
        Ok(codex) => Ok((sources, codex)),
        Err(mistakes) => Err(broken(&mistakes, &sources)),
    }
}

fn broken(mistakes: &[Diagnostic], sources: &Sources) -> Error {
    Error::Broken(mistakes.len(), render_all(mistakes, sources, false))
}

/// Reads law, bonds and ledger, and leaves out bonds that hold mistakes: nobody is out of reach because somebody else's
/// file is broken.
///
/// # Errors
/// [`Error::Broken`] when others hold mistakes.
pub fn load_sound(place: &Place) -> Result<Bonds, Error> {
    let mut sources = files::load(&place.folders());
    let mistakes = match Codex::parse(&sources) {
        Ok(codex) => return Ok(Bonds { codex, sources, broken: Vec::new(), flawed: Vec::new() }),
        Err(mistakes) => mistakes,
    };
    let refused = broken(&mistakes, &sources);
    let (all, mut gone) = (sources.clone(), Vec::new());
    match Codex::parse_sound(&mut sources, Codex::parse_living, |_| true, &mut |mistake| gone.push(mistake)) {
        Ok(codex) => {
            let text =
                |file: &str| all.text(file).map_or_else(|| piece(place, file), |text| Some(text.to_owned()));
            let broken = Broken::all(gone, &all, text);
            let sound = |mistake: &Diagnostic| broken.iter().all(|broken| broken.file != mistake.file);
            let flawed = Broken::all(mistakes.into_iter().filter(sound).collect(), &all, text);
            Ok(Bonds { codex, sources, broken, flawed })
        }
        Err(_) => Err(refused),
    }
}

/// What a file holds that is no text; `None` where it is no file, or cannot be read.
fn piece(place: &Place, file: &str) -> Option<String> {
    let path = place.bonds.join(file);
    // Whatever stands in the way is told as the mistake already.
    let bytes =
        matches!(fs::entry(&path), Ok(fs::Entry::File)).then(|| fs::read_bounded(&path, LONGEST))?.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Refuses a peer that does not hold the grant for a door (any more).
pub fn may(who: &Who, door: Door, codex: &Codex, now: Timestamp) -> Result<(), Refused> {
    let Who::Peer(name) = who else { return Ok(()) };
    if codex.peers.get(name).is_some_and(|peer| peer.may(door, now)) {
        return Ok(());
    }
    let door = door.word();
    let message = format!("`{name}` does not hold the grant `{door}`");
    Err(Refused::new(message, format!("grant it: `sepulcher peer grant {name} {door}`")))
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
fn decide(place: &Place, requests: &[Request], bonds: &Bonds, now: Timestamp) -> Result<Vec<Decided>, Error> {
    let host_key = place.host_key()?;
    let (mut codex, mut sources) = (Cow::Borrowed(&bonds.codex), Cow::Borrowed(&bonds.sources));
    let mut broken = Cow::Borrowed(&bonds.broken);
    let mut decided = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        if let Request::List(_) = request {
            decided.push((None, Reply::list(PeerView::all(&codex, now), broken.to_vec())));
            continue;
        }
        bonds.may_change(request)?;
        let situation = Situation { codex: &codex, sources: &sources, broken: &broken, host_key, now };
        let (change, reply) = prepare(request, &situation)?;
        if index + 1 < requests.len() {
            sources.to_mut().insert(change.file.clone(), change.text.clone());
            change.apply(codex.to_mut());
            if !broken.is_empty() {
                broken.to_mut().retain(|broken| broken.file != change.file);
            }
        }
        decided.push((audit::Verb::of(request).map(|verb| (verb, change)), reply));
    }
    Ok(decided)
}
