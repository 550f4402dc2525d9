//! One look of the agent: read, compare, repair, read back, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::answers::Answers;
use super::board::{Board, Known};
use super::bonds::{Broken, Texts};
use super::door::Door;
use super::fit::{Fit, ReadKeys, fit};
use super::memory::Memory;
use super::passes::Passes;
use super::rules::Rules;
use super::ruleset::{Outcome, Ruleset};
use super::status::{Peers, Status};
use super::withheld::withheld;
use super::{Error, Options, explain, interface, notify, source};
use crate::codex::key::PublicKey;
use crate::codex::name::DnsName;
use crate::codex::time::Timestamp;
use crate::codex::{Backend, Codex, DOOR_PORT};
use crate::reach;
use crate::sync::{self, Asked, Desired, Observed, Plan};
use crate::sys;
use crate::sys::wake::Waker;
use crate::sys::wireguard::SecretKey;

/// What the agent remembers from one look to the next.
pub(super) struct Agent {
    options: Options,
    secret: SecretKey,
    public_key: PublicKey,
    ruleset: Ruleset,
    passes: Passes,
    resolver: sys::resolve::Resolver,
    /// Texts that were in force at the last look.
    texts: Texts,
    /// The Codex that they make, whatever the time.
    declared: Option<Codex>,
    /// Time of the last look.
    now: Timestamp,
    broken: Vec<Broken>,
    /// Endpoints that were asked for.
    asked: BTreeMap<PublicKey, Asked>,
    /// Preshared keys as they were last read.
    shared: ReadKeys,
    memory: Memory,
    drift: u64,
    answers: Answers,
    /// Declared ports that nobody answers on, and why.
    silent: Vec<String>,
    /// What the last successful look found.
    last: Option<Last>,
    board: Arc<Board>,
    door: Door,
}

struct Last {
    backend: Backend,
    desired: Desired,
    peers: Peers,
}

impl Agent {
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let bytes = zeroize::Zeroizing::new(sys::fs::read_bounded(&options.key, 4096)?);
        let secret =
            SecretKey::parse(&bytes).map_err(|source| Error::Key { path: options.key.clone(), source })?;
        let board = Arc::new(Board::new(&options.interface, &options.nft));
        let door = Door::open(Arc::clone(&board), &options.door, &options.control)?;
        let memory = Memory::open(&options.status);
        Ok(Self {
            public_key: secret.public(),
            ruleset: Ruleset::new(&options.nft),
            passes: Passes::new(&options.veil),
            options,
            secret,
            resolver: sys::resolve::Resolver::default(),
            texts: memory.bonds().clone(),
            declared: None,
            now: Timestamp::from_epoch(0),
            broken: Vec::new(),
            asked: BTreeMap::new(),
            shared: ReadKeys::new(),
            memory,
            drift: 0,
            answers: Answers::default(),
            silent: Vec::new(),
            last: None,
            board,
            door,
        })
    }

    /// Whether no look has succeeded yet.
    pub(super) fn is_new(&self) -> bool {
        self.last.is_none()
    }

    /// Whether some service does not answer yet.
    pub(super) fn awaits_services(&self) -> bool {
        !self.silent.is_empty()
    }

    /// Whether some peer has two keys.
    pub(super) fn is_overlapping(&self) -> bool {
        self.last.as_ref().is_some_and(|last| !last.desired.overlaps.is_empty())
    }

    /// When a bond's time comes next after the last look, in seconds since the epoch.
    pub(super) fn next_change(&self) -> Option<u64> {
        self.declared.as_ref()?.next_change(self.now).map(Timestamp::epoch)
    }

    /// Reads the Codex, compares, repairs, and reads back. A Codex that cannot be read leaves the last one in
    /// force: time goes on for its bonds, and what somebody changes is put right.
    pub(super) fn look(&mut self, waker: &Waker, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
        self.now = sys::clock::now();
        let mut broken = Vec::new();
        let read = self.read(&mut broken);
        let Some(declared) = &self.declared else { return read };
        let held = fit(declared, self.now, Some(self.public_key), &self.options.secrets, &mut self.shared);
        broken.extend(held.unfit.iter().cloned());
        if read.is_ok() {
            self.report(broken, say);
        }
        let kept = self.keep(&held, waker, say).and_then(|()| {
            self.silent = self.answers.missing(&held.codex, || waker.nudger())?;
            Ok(())
        });
        read.and(kept)
    }

    /// Keeps what is in force for an agent that starts anew.
    pub(super) fn keep_in_mind(&mut self, say: &mut dyn FnMut(&str)) {
        self.memory.keep(&self.texts, say);
    }

    /// Reads the Codex in force: bonds as they stand, or as they last were good.
    fn read(&mut self, broken: &mut Vec<Broken>) -> Result<(), Error> {
        let (texts, unreadable) = source::load(&self.options.law, &self.options.bonds)?;
        let settled = source::settle(&texts, &unreadable, &self.texts)?;
        *broken = settled.broken;
        self.texts = settled.texts;
        self.declared = Some(settled.codex);
        Ok(())
    }

    /// Tells what is broken since the last look.
    fn report(&mut self, broken: Vec<Broken>, say: &mut dyn FnMut(&str)) {
        for new in broken.iter().filter(|one| !self.broken.contains(one)) {
            let state = match new {
                Broken { last_good: true, .. } => "its last good state stays in force",
                Broken { in_force: true, .. } => "it is in force without what this body does not have",
                _ => "it is not bonded",
            };
            say(&format!("{} is broken; {state}\n{}", new.file, new.reason.trim_end()));
        }
        self.broken = broken;
    }

    /// Makes ruleset and interface what can be held of the bonds.
    fn keep(&mut self, held: &Fit, waker: &Waker, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let codex = &held.codex;
        let start = Instant::now();
        let backend = self.options.backend.unwrap_or(codex.tether.backend);
        let (desired, observed) = self.compare(held, backend)?;
        self.look_up(desired.stale_names(&observed), waker, say);
        let plan = sync::plan(&desired, &observed);
        let withheld = withheld(codex, &sync::contested(&desired, &observed));
        let first = withheld.as_ref().unwrap_or(codex);
        let passes = reach::veil_grants(codex);
        let taken = match &withheld {
            Some(withheld) => self.passes.take(&reach::veil_grants(withheld)),
            None => self.passes.take(&passes),
        };
        // A pass that cannot be taken away is no reason to leave an element where it is.
        let loaded = self.load_ruleset(first);
        let mut reloaded = match taken.map_err(Error::from).and_then(|found| Ok((found, loaded?))) {
            Ok((found, outcome)) => found || outcome == Outcome::Repaired,
            // Also an agent that has just started finds peers of the one before it.
            Err(error) => {
                let cut = interface::carry_out(&self.options.interface, backend, &plan.cuts(), &self.secret);
                return Err(not_cut(error, cut));
            }
        };
        let observed = self.carry_out(backend, &desired, &plan, say)?;
        if withheld.is_some() {
            reloaded |= self.load_ruleset(codex)? == Outcome::Repaired;
        }
        self.passes.give(&passes)?;
        let unasked = self.last.as_ref().is_some_and(|last| last.desired == desired);
        if reloaded || (unasked && plan.repairs(&desired)) {
            self.drift += 1;
            say("something was changed behind the agent's back and has been put right");
        }
        self.remember(codex, backend, desired, &observed, start);
        self.open_door(codex, say);
        Ok(())
    }

    /// What is wanted, and what the interface holds; at the first time also whether it is ours.
    fn compare(&mut self, held: &Fit, backend: Backend) -> Result<(Desired, Observed), Error> {
        let Fit { codex, preshared, unfit: _ } = held;
        let mut desired = Desired::of(codex, self.public_key, self.resolver.known(), preshared);
        let name = &self.options.interface;
        let mut observed = interface::observe(name, backend)?;
        if self.is_new() {
            interface::claim(name, &observed, self.public_key)?;
        }
        desired.hold_living(&observed, &self.asked);
        observed.note_dialled(&desired, &self.asked);
        Ok((desired, observed))
    }

    /// Has host names looked up beside us. That it cannot be done now holds nobody up.
    fn look_up(&mut self, names: BTreeSet<DnsName>, waker: &Waker, say: &mut dyn FnMut(&str)) {
        if let Err(error) = self.resolver.look_up(names, self.options.recheck, || waker.nudger()) {
            say(&format!("cannot look up host names of peers: {error}"));
        }
    }

    fn carry_out(
        &self,
        backend: Backend,
        desired: &Desired,
        plan: &Plan,
        say: &mut dyn FnMut(&str),
    ) -> Result<Observed, Error> {
        if !plan.is_empty() {
            say(&excerpt(plan));
        }
        interface::apply(&self.options.interface, backend, desired, plan, &self.secret)
    }

    /// Moves the addresses of peers that have two keys to the key in use, and nothing else. True when there is
    /// more to do, which needs a look.
    pub(super) fn glance(&mut self, say: &mut dyn FnMut(&str)) -> Result<bool, Error> {
        let Some(last) = &self.last else { return Ok(true) };
        let mut observed = interface::observe(&self.options.interface, last.backend)?;
        observed.note_dialled(&last.desired, &self.asked);
        let plan = sync::plan(&last.desired, &observed);
        if plan.is_empty() || plan.repairs(&last.desired) {
            return Ok(!plan.is_empty());
        }
        self.carry_out(last.backend, &last.desired, &plan, say).map(|_| false)
    }

    fn load_ruleset(&mut self, codex: &Codex) -> Result<Outcome, Error> {
        self.ruleset.ensure(match &self.options.ruleset {
            Some(path) => Rules::fixed(String::from_utf8_lossy(&sys::fs::read(path)?).into_owned()),
            None => Rules::of(codex)?,
        })
    }

    fn remember(
        &mut self,
        codex: &Codex,
        backend: Backend,
        desired: Desired,
        observed: &Observed,
        start: Instant,
    ) {
        self.asked = desired.asked(&self.asked);
        let peers = Peers {
            declared: self.declared.as_ref().map_or(0, |declared| declared.peers.len()),
            active: codex.active().count(),
            held: observed.peers.len(),
            digest: observed.peers_digest(&desired.overlaps).to_string(),
        };
        self.board.tell(Known {
            codex: codex.clone(),
            backend,
            peers: peers.clone(),
            broken: self.broken.len(),
            drift: self.drift,
        });
        self.board.count(start.elapsed());
        self.last = Some(Last { backend, desired, peers });
    }

    /// Answers on the tether's addresses. That it cannot yet is no reason not to serve the tether.
    fn open_door(&mut self, codex: &Codex, say: &mut dyn FnMut(&str)) {
        let tether = &codex.tether;
        let addresses = [Some(IpAddr::V4(tether.address)), tether.network6.map(|(_, own)| IpAddr::V6(own))];
        let addresses = addresses.into_iter().flatten();
        let addresses = addresses.map(|address| SocketAddr::new(address, DOOR_PORT.get())).collect();
        for (address, error) in self.door.answer_on(&addresses) {
            say(&format!("cannot answer on {address}: {error}"));
        }
    }

    /// Tells the host, the service manager and the journal how the look went.
    pub(super) fn tell(
        &self,
        result: &Result<(), Error>,
        first: bool,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let error = result.as_ref().err().map(|error| explain(error));
        let last = self.last.as_ref();
        let status = Status {
            schema: 1,
            ready: error.is_none(),
            error,
            written_ms: u64::try_from(sys::clock::since_boot().as_millis()).unwrap_or(u64::MAX),
            interface: self.options.interface.clone(),
            public_key: self.public_key.to_string(),
            listen_port: last.map_or(0, |last| last.desired.listen_port.get()),
            ruleset: self.ruleset.digest().map(|digest| digest.to_string()).unwrap_or_default(),
            peers: last.map(|last| last.peers.clone()).unwrap_or_default(),
            broken: self.broken.clone(),
            silent: self.silent.clone(),
            drift: self.drift,
        };
        if let Some(error) = &status.error {
            say(error);
        }
        let line = status.line();
        let word = if first && status.ready { sys::notify::ready(&line) } else { sys::notify::status(&line) };
        notify(word, say);
        if first && status.ready {
            say(&format!("ready: {line}"));
        }
        write_status(&self.options.status, &status)
    }
}

/// The ruleset's error, and how it went to cut off whoever is bonded no more.
fn not_cut(ruleset: Error, cut: Result<(), Error>) -> Error {
    match cut {
        Ok(()) => ruleset,
        Err(cut) => Error::NotCut { ruleset: Box::new(ruleset), cut: Box::new(cut) },
    }
}

fn write_status(path: &Path, status: &Status) -> Result<(), Error> {
    let mut text = serde_json::to_string(status).map_err(|source| sys::fs::Error {
        action: "write",
        path: path.to_owned(),
        source: source.into(),
    })?;
    text.push('\n');
    Ok(sys::fs::write_atomic(path, 0o644, text.as_bytes())?)
}

/// A plan for the journal: its first lines, and how many more there are.
fn excerpt(plan: &Plan) -> String {
    const LINES: usize = 20;
    let mut lines: Vec<_> = plan.steps.iter().take(LINES).map(ToString::to_string).collect();
    if plan.steps.len() > LINES {
        lines.push(format!("and {} more", plan.steps.len() - LINES));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_ruleset_is_told_also_when_nobody_can_be_cut_off() {
        let cut = || Err(sys::link::Error::Vanished("wg0".into()).into());
        let error = not_cut(Error::NoTable, cut());
        assert_eq!(
            explain(&error),
            "the ruleset was loaded, but table inet sepulcher is not there; and who is bonded no more cannot be cut off: \
             wg0 vanished while it was being configured"
        );
        assert_eq!(not_cut(Error::NoTable, Ok(())).to_string(), Error::NoTable.to_string());
        let missing = sys::link::Error::NoModule("wg0".into());
        assert!(not_cut(Error::NoTable, Err(missing.into())).remedy().unwrap().contains("wireguard"));
    }
}
