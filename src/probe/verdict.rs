//! What the answers say, in sentences that name what leaks.

mod compare;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

pub use compare::{Comparison, Group};
pub use rows::Row;

use super::icmp::{self, Ask};
use super::payload::Shape;
use super::{Promise, Question, Seen, Standing, What};
use crate::codex::Protocol;

/// Chances below this are none: then ports are told apart.
const SIGNIFICANT: f64 = 0.01;
/// Ports that a sentence names.
const NAMED: usize = 8;

/// The whole judgement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of this shape: 1.
    pub schema: u32,
    /// Who was asked.
    pub address: IpAddr,
    /// The judgement in one word.
    pub verdict: Verdict,
    /// What can be found from outside, a sentence each.
    pub leaks: Vec<String>,
    /// What else is to be known, a sentence each.
    pub notes: Vec<String>,
    /// What was asked, and what answered.
    pub asked: Vec<Row>,
    /// The Tether's port beside closed ones.
    pub comparisons: Vec<Comparison>,
}

/// The judgement in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing was found.
    Silent,
    /// Something was.
    Leak,
    /// Nothing shows that the questions got to anybody.
    Unreachable,
}

/// Questions and what came back to them.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Who was asked.
    pub address: IpAddr,
    /// What it promises.
    pub promise: &'a Promise,
    /// What was asked.
    pub questions: &'a [Question],
    /// What came back.
    pub seen: &'a [Seen],
    /// Whether somebody on the same link said that the address is theirs.
    pub neighbour: bool,
}

impl Evidence<'_> {
    /// Whether somebody accepts connections at that TCP port.
    pub fn is_open(&self, wanted: u16) -> bool {
        let open = self.seen.iter().filter(|seen| seen.what == What::Open);
        let asked = open.filter_map(|seen| self.questions.get(seen.question));
        asked.into_iter().any(|question| *question == Question::Tcp { port: wanted })
    }

    /// In words, with the sender where that is not the host.
    fn words(&self, seen: &Seen) -> String {
        let words = match seen.what {
            What::Datagram(_) => "a datagram".to_owned(),
            What::Elsewhere(_) => "a datagram from another port".to_owned(),
            What::Open => "open".to_owned(),
            What::Reset => "reset".to_owned(),
            What::Error(kind, code) => icmp::error_words(kind, code, self.address.is_ipv6()),
            What::Answer => "an answer".to_owned(),
        };
        if seen.from == self.address { words } else { format!("{words} from {}", seen.from) }
    }

    /// Whether it says that the host was not reached, by somebody who is not the host.
    fn unreached(&self, seen: &Seen) -> bool {
        let six = self.address.is_ipv6();
        let unreached = matches!(seen.what, What::Error(kind, code) if icmp::is_unreached(kind, code, six));
        unreached && seen.from != self.address
    }

    /// Whether it says that a packet ran out of hops.
    fn expired(&self, seen: &Seen) -> bool {
        matches!(seen.what, What::Error(kind, _) if icmp::is_expiry(kind, self.address.is_ipv6()))
    }

    /// What tells something: not what routers on the way say as they should.
    fn telling(&self) -> impl Iterator<Item = (&Question, &Seen)> {
        let seen = self.seen.iter().filter(|seen| !self.unreached(seen));
        let seen = seen.filter(|seen| !self.expired(seen) || seen.from == self.address);
        seen.filter_map(|seen| Some((self.questions.get(seen.question)?, seen)))
    }

    /// Answers to datagrams: standing of the port, port, shape, what came.
    fn datagrams(&self) -> impl Iterator<Item = (Standing, u16, Shape, &Seen)> {
        self.telling().filter_map(|(question, seen)| match question {
            Question::Udp { port, shape, .. } => {
                Some((self.promise.standing(Protocol::Udp, *port), *port, *shape, seen))
            }
            _ => None,
        })
    }
}

/// Judges all but the pages.
pub fn judge(evidence: &Evidence) -> Report {
    let comparisons = compare::all(evidence);
    let mut found = Found::default();
    found.tether(evidence);
    found.closed(evidence);
    found.hops(evidence);
    found.segments(evidence);
    found.icmp(evidence);
    let told = comparisons.iter().filter(|comparison| comparison.p < SIGNIFICANT);
    found.leaks.extend(told.map(ToString::to_string));
    let unreached = found.reach(evidence);
    let verdict = match found.leaks.is_empty() {
        false => Verdict::Leak,
        true if unreached => Verdict::Unreachable,
        true => Verdict::Silent,
    };
    let asked = rows::all(evidence);
    let Found { leaks, notes } = found;
    Report { schema: 1, address: evidence.address, verdict, leaks, notes, asked, comparisons }
}

#[derive(Debug, Default)]
struct Found {
    leaks: Vec<String>,
    notes: Vec<String>,
}

impl Found {
    /// A sentence that is a leak, or a note when `whether` does not hold.
    fn tell(&mut self, leak: bool, sentence: String) {
        if leak { self.leaks.push(sentence) } else { self.notes.push(sentence) }
    }

    /// The Tether's port answers nothing, whatever it is sent.
    fn tether(&mut self, evidence: &Evidence) {
        let mut shapes: BTreeMap<String, BTreeSet<Shape>> = BTreeMap::new();
        for (standing, _, shape, seen) in evidence.datagrams() {
            if standing == Standing::Tether && !evidence.expired(seen) {
                shapes.entry(evidence.words(seen)).or_default().insert(shape);
            }
        }
        for (words, shapes) in shapes {
            let (few, all): (Vec<Shape>, Vec<Shape>) =
                shapes.into_iter().partition(|shape| matches!(shape, Shape::Hops(_)));
            let mut to: Vec<_> = all.iter().map(ToString::to_string).collect();
            to.extend((!few.is_empty()).then(|| "few hops".to_owned()));
            self.leaks.push(format!("the tether's port answers {words} (to {})", to.join("; ")));
        }
    }

    /// No other UDP port answers anything either.
    fn closed(&mut self, evidence: &Evidence) {
        let mut errors: BTreeSet<String> = BTreeSet::new();
        let mut services: BTreeMap<(u16, Standing), String> = BTreeMap::new();
        for (standing, port, _, seen) in evidence.datagrams() {
            let words = evidence.words(seen);
            match (standing, seen.what) {
                (Standing::Tether | Standing::Forest, _) => {}
                (_, What::Error(..)) if evidence.expired(seen) => {}
                (_, What::Error(..)) => {
                    errors.insert(words);
                }
                (standing, _) => {
                    services.insert((port, standing), words);
                }
            }
        }
        for words in errors {
            let tether = tether_says(evidence, &words);
            let other = if tether { "and the tether's too" } else { "none from the tether's" };
            self.leaks.push(format!("{words} from closed ports, {other}"));
        }
        for ((port, standing), words) in services {
            let leak = evidence.promise.whole || standing == Standing::Hidden;
            self.tell(leak, format!("udp port {port} answers {words}, and is not declared for everybody"));
        }
    }

    /// A host that hands a packet on takes a hop off it; nobody may learn which.
    fn hops(&mut self, evidence: &Evidence) {
        let expired = |wanted: Standing| {
            let mut all = evidence.datagrams();
            all.any(|(standing, _, _, seen)| (standing == wanted) && evidence.expired(seen))
        };
        match (expired(Standing::Tether), expired(Standing::Random)) {
            (true, false) => self.leaks.push(
                "icmp time exceeded for the tether's port alone: it is handed on behind the host".to_owned(),
            ),
            (_, true) => {
                self.leaks.push("icmp time exceeded from the host: it hands packets on".to_owned());
            }
            (false, false) => {}
        }
    }

    fn segments(&mut self, evidence: &Evidence) {
        let mut ports: BTreeMap<(String, Standing), BTreeSet<u16>> = BTreeMap::new();
        for (question, seen) in evidence.telling() {
            let Question::Tcp { port } = question else { continue };
            let standing = evidence.promise.standing(Protocol::Tcp, *port);
            ports.entry((evidence.words(seen), standing)).or_default().insert(*port);
        }
        let answered: BTreeSet<u16> = ports.values().flatten().copied().collect();
        for ((words, standing), ports) in ports {
            let ports = enumerated(&ports);
            match (words.as_str(), standing) {
                ("open", Standing::Forest) => {}
                ("open", Standing::Hidden) => {
                    self.leaks.push(format!("tcp {ports} open, and not declared for everybody"));
                }
                ("open", _) => {
                    self.tell(evidence.promise.whole, format!("tcp {ports} open, and not declared"));
                }
                (words, _) => self.leaks.push(format!("{words} instead of drop: tcp {ports}")),
            }
        }
        let forest = evidence.promise.forest.iter().filter(|(protocol, _)| *protocol == Protocol::Tcp);
        for (_, port) in forest.filter(|(_, port)| !answered.contains(port)) {
            self.notes.push(format!("tcp port {port} is declared for everybody, and answered nothing"));
        }
    }

    fn icmp(&mut self, evidence: &Evidence) {
        let mut answered: BTreeMap<Ask, String> = BTreeMap::new();
        for (question, seen) in evidence.telling() {
            if let Question::Icmp(ask) = question {
                answered.insert(*ask, evidence.words(seen));
            }
        }
        for (ask, words) in answered {
            match (ask, evidence.promise.echo) {
                (Ask::Echo, Some(true)) => {}
                (Ask::Echo, Some(false)) => {
                    self.leaks.push("echo answered, and the Codex lets none be".to_owned());
                }
                (Ask::Echo, None) => self.notes.push("echo answered".to_owned()),
                (ask, _) => self.leaks.push(format!("icmp {ask}: {words}")),
            }
        }
    }

    /// What the silence is worth; whether it is worth nothing.
    fn reach(&mut self, evidence: &Evidence) -> bool {
        let lost: Vec<_> = evidence.seen.iter().filter(|seen| evidence.unreached(seen)).collect();
        let senders: BTreeSet<_> = lost.iter().map(|seen| seen.from.to_string()).collect();
        if !lost.is_empty() {
            let senders = senders.into_iter().collect::<Vec<_>>().join(", ");
            self.notes.push(format!("{senders} said {} times that the host is not there", lost.len()));
        }
        if evidence.telling().next().is_some() {
            return false;
        }
        if !lost.is_empty() {
            return true;
        }
        // A port that should be open proves that somebody is there who is asked what he should be.
        let promised = evidence.promise.forest.iter().any(|(protocol, _)| *protocol == Protocol::Tcp);
        let nothing = "nothing came back at all, as from an address that nobody has";
        let (proven, note) = match (promised, evidence.neighbour, evidence.promise.dark) {
            (false, true, _) => (true, None),
            // Of who promises to answer nobody nothing else is to be expected.
            (false, false, true) => (true, Some("that a dark host is up only its peers can tell")),
            _ => (false, Some("look that the host is up")),
        };
        self.notes.extend(note.map(|note| format!("{nothing}: {note}")));
        !proven
    }
}

/// Whether the Tether's port gave that answer.
fn tether_says(evidence: &Evidence, words: &str) -> bool {
    let mut all = evidence.datagrams();
    all.any(|(standing, _, _, seen)| standing == Standing::Tether && evidence.words(seen) == words)
}

/// `port 1 is`, `ports 1, 2 and 30 more are`: without the verb.
fn enumerated(ports: &BTreeSet<u16>) -> String {
    let mut named: Vec<_> = ports.iter().take(NAMED).map(ToString::to_string).collect();
    if ports.len() > NAMED {
        named.push(format!("{} more", ports.len() - NAMED));
    }
    let noun = if ports.len() == 1 { "port" } else { "ports" };
    format!("{noun} {}", named.join(", "))
}

#[cfg(test)]
mod tests;
