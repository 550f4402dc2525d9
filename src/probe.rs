//! What a scanner asks a host, and what its answers say: whether the Tether's port can be told from any other.
//!
//! Pure: [`plan`] makes the questions out of a seed, [`verdict`] judges what came back. The packets are sent by
//! [`crate::sys::probe`].

pub mod dice;
pub mod icmp;
pub mod payload;
pub mod statistics;
pub mod verdict;
pub mod web;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use dice::Dice;
use icmp::Ask;
use payload::{SHAPES, Shape};

use crate::codex::key::PublicKey;
use crate::codex::{Codex, Protocol};
use crate::reach::published;

/// Random TCP ports that are asked.
const RANDOM_TCP: usize = 16;
/// Packets with few hops go to the Tether's port and another one, with up to so many.
const HOPS: u8 = 30;
/// How often each kind of ICMP is asked.
const ICMP: usize = 3;

/// What a host promises.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promise {
    /// UDP port of the Tether.
    pub tether: u16,
    /// Ports that are open to everybody.
    pub forest: BTreeSet<(Protocol, u16)>,
    /// Ports that exist behind it and answer nobody outside.
    pub hidden: BTreeSet<(Protocol, u16)>,
    /// Whether it answers echo requests; `None` when that is not known.
    pub echo: Option<bool>,
    /// Whether it answers nobody outside at all: a Codex says so.
    pub dark: bool,
    /// Whether this is all of it: a Codex was read. Else only ports that were named are known.
    pub whole: bool,
}

impl Promise {
    /// What a Codex promises.
    pub fn of(codex: &Codex) -> Self {
        let tether = codex.tether.port.get();
        let published = published(codex).into_iter().map(|(protocol, port)| (protocol, port.get()));
        let forest: BTreeSet<_> = published.filter(|port| *port != (Protocol::Udp, tether)).collect();
        let services = codex.services.values().flat_map(|service| &service.ports);
        let services = services.map(|port| (port.protocol, port.number.get()));
        let host = codex.host.iter().map(|service| (service.protocol, service.port.get()));
        let hidden = services.chain(host).filter(|port| !forest.contains(port)).collect();
        Self {
            tether,
            forest,
            hidden,
            echo: Some(codex.uplink.echo),
            dark: codex.appliance.dark,
            whole: true,
        }
    }

    /// What is known of a port.
    pub fn standing(&self, protocol: Protocol, port: u16) -> Standing {
        if protocol == Protocol::Udp && port == self.tether {
            Standing::Tether
        } else if self.forest.contains(&(protocol, port)) {
            Standing::Forest
        } else if self.hidden.contains(&(protocol, port)) {
            Standing::Hidden
        } else {
            Standing::Random
        }
    }
}

/// What is known of a port beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The Tether's own.
    Tether,
    /// Declared as open to everybody, or named on the command line.
    Forest,
    /// Declared, and not open to everybody.
    Hidden,
    /// Nobody has declared it.
    Random,
}

/// One question; by UDP and TCP from a port of its own, so that no answer is taken for another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A datagram.
    Udp {
        /// Port asked.
        port: u16,
        /// What it looks like.
        shape: Shape,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// A SYN.
    Tcp {
        /// Port asked.
        port: u16,
    },
    /// An ICMP message, or a packet of a protocol that nobody speaks. Needs CAP_NET_RAW.
    Icmp(Ask),
}

impl Question {
    /// How many packets it is.
    pub fn packets(&self) -> u32 {
        match self {
            Self::Udp { shape, .. } => shape.packets(),
            Self::Tcp { .. } | Self::Icmp(_) => 1,
        }
    }
}

/// Something that came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Index of the question that it answers.
    pub question: usize,
    /// Time since that was sent.
    pub after: Duration,
    /// Who sent it.
    pub from: IpAddr,
    /// What it is.
    pub what: What,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A datagram of so many bytes.
    Datagram(usize),
    /// A datagram from another port than was asked.
    Elsewhere(u16),
    /// A SYN with an ACK.
    Open,
    /// A reset.
    Reset,
    /// An ICMP error of that type and code; of ICMPv6 when the host's address is one.
    Error(u8, u8),
    /// The answer to an ICMP message.
    Answer,
}

/// What is to be asked.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    /// Whom.
    pub address: IpAddr,
    /// What is known of its ports.
    pub promise: &'a Promise,
    /// The host's public key, when it is known.
    pub key: Option<&'a PublicKey>,
    /// How often each shape is sent to the Tether's port, and as often to another one.
    pub rounds: usize,
    /// Whether ICMP can be asked.
    pub raw: bool,
}

/// All questions, in random order.
pub fn plan(scope: &Scope, dice: &mut Dice) -> Vec<Question> {
    let mut questions = datagrams(scope, dice);
    questions.extend(hops(scope, dice));
    questions.extend(segments(scope.promise, dice));
    if scope.raw {
        let asks = Ask::all(scope.address).iter();
        questions.extend(asks.flat_map(|ask| vec![Question::Icmp(*ask); ICMP]));
    }
    dice.shuffle(&mut questions);
    questions
}

/// Each shape to the Tether's port and to another; the hidden ones among those come first, each for once.
fn datagrams(scope: &Scope, dice: &mut Dice) -> Vec<Question> {
    let promise = scope.promise;
    let mut hidden = promise.hidden.iter().filter(|(protocol, _)| *protocol == Protocol::Udp);
    let shapes = SHAPES.iter().filter(|shape| scope.key.is_some() || !shape.needs_key());
    let mut questions = Vec::new();
    for &shape in shapes.cycle().take(shapes_of(scope) * scope.rounds) {
        let other = match hidden.next() {
            Some(&(_, port)) => port,
            None => random_port(promise, Protocol::Udp, dice),
        };
        for port in [promise.tether, other] {
            questions.push(Question::Udp { port, shape, payload: shape.payload(scope.key, dice) });
        }
    }
    questions
}

fn shapes_of(scope: &Scope) -> usize {
    SHAPES.iter().filter(|shape| scope.key.is_some() || !shape.needs_key()).count()
}

/// Packets that expire on the way: a host that hands the Tether's port on is a router one hop before it.
fn hops(scope: &Scope, dice: &mut Dice) -> Vec<Question> {
    let other = random_port(scope.promise, Protocol::Udp, dice);
    let mut questions = Vec::new();
    for hops in 1..=HOPS {
        for port in [scope.promise.tether, other] {
            let shape = Shape::Hops(hops);
            questions.push(Question::Udp { port, shape, payload: shape.payload(None, dice) });
        }
    }
    questions
}

fn segments(promise: &Promise, dice: &mut Dice) -> Vec<Question> {
    let declared = promise.forest.iter().chain(&promise.hidden);
    let declared = declared.filter(|(protocol, _)| *protocol == Protocol::Tcp).map(|(_, port)| *port);
    let mut ports: BTreeSet<u16> = declared.chain([promise.tether]).collect();
    let known = ports.len();
    while ports.len() < known + RANDOM_TCP {
        ports.insert(random_port(promise, Protocol::Tcp, dice));
    }
    ports.into_iter().map(|port| Question::Tcp { port }).collect()
}

fn random_port(promise: &Promise, protocol: Protocol, dice: &mut Dice) -> u16 {
    loop {
        let port = dice.port();
        if promise.standing(protocol, port) == Standing::Random {
            return port;
        }
    }
}

/// How long the questions take at so many packets a second, the wait for the last answer included.
pub fn duration(questions: &[Question], rate: u32, wait: Duration) -> Duration {
    let packets: u32 = questions.iter().map(Question::packets).sum();
    Duration::from_secs(1) * packets / rate.max(1) + wait
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise() -> Promise {
        let forest = BTreeSet::from([(Protocol::Tcp, 80)]);
        let hidden = BTreeSet::from([(Protocol::Tcp, 6006), (Protocol::Udp, 5004)]);
        Promise { tether: 51820, forest, hidden, echo: Some(false), dark: false, whole: true }
    }

    #[test]
    fn a_codex_promises_what_it_publishes_and_hides_the_rest() {
        let mut sources = crate::codex::Sources::default();
        let host = "[[host]]\nname = \"ssh\"\nport = 22\n";
        let law = format!("schema = 1\n[appliance]\nname = \"lychd\"\n[uplink]\necho = true\n{host}");
        sources.insert("lychd.toml", law);
        let port = |number, tier| format!("[[port]]\nnumber = {number}\ntier = \"{tier}\"\n");
        let text = "description = \"x\"\nrootfs = \"stand-in\"\n".to_owned();
        sources.insert("services/s.toml", text + &port(7000, "forest") + &port(7001, "tether"));
        let promise = Promise::of(&Codex::parse(&sources).unwrap());
        let tcp = |ports: &[u16]| ports.iter().map(|port| (Protocol::Tcp, *port)).collect::<BTreeSet<_>>();
        assert_eq!((promise.forest, promise.hidden), (tcp(&[7000]), tcp(&[22, 7001])));
        assert_eq!((promise.tether, promise.echo, promise.whole), (51820, Some(true), true));
    }

    fn asked(key: Option<&PublicKey>, raw: bool) -> Vec<Question> {
        let promise = promise();
        let address = "192.0.2.1".parse().unwrap();
        plan(&Scope { address, promise: &promise, key, rounds: 4, raw }, &mut Dice::new([3; 32]))
    }

    #[test]
    fn tether_and_others_are_asked_the_same_in_random_order() {
        let questions = asked(None, false);
        let shapes = |tether: bool| {
            let mut shapes: Vec<_> = questions
                .iter()
                .filter_map(|question| match question {
                    Question::Udp { port, shape, .. } => ((*port == 51820) == tether).then_some(*shape),
                    _ => None,
                })
                .collect();
            shapes.sort();
            shapes
        };
        assert_eq!(shapes(true), shapes(false));
        assert_eq!(shapes(true).len(), 12 * 4 + 30, "without the key all but one");
        let first = questions.iter().take(questions.len() / 2);
        let early = first.filter(|question| matches!(question, Question::Udp { port: 51820, .. })).count();
        assert!((25..53).contains(&early), "{early} of 78 in the first half");
    }

    #[test]
    fn declared_ports_are_asked_and_icmp_only_where_it_can_be() {
        let questions = asked(None, false);
        for port in [80, 6006, 51820] {
            assert!(questions.contains(&Question::Tcp { port }), "tcp {port}");
        }
        let to = |wanted: u16| move |question: &&Question| matches!(question, Question::Udp { port, .. } if *port == wanted);
        assert_eq!(questions.iter().filter(to(5004)).count(), 1);
        assert_eq!(questions.iter().filter(|question| matches!(question, Question::Tcp { .. })).count(), 19);
        assert!(!questions.iter().any(|question| matches!(question, Question::Icmp(_))));
        assert!(asked(None, true).contains(&Question::Icmp(Ask::Timestamp)));
    }

    #[test]
    fn a_right_mac1_is_only_asked_with_the_key() {
        let good = |questions: &[Question]| {
            questions
                .iter()
                .filter(|question| matches!(question, Question::Udp { shape: Shape::GoodMac1, .. }))
                .count()
        };
        let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap();
        assert_eq!((good(&asked(None, true)), good(&asked(Some(&key), true))), (0, 8));
    }

    #[test]
    fn the_time_follows_from_packets_and_rate() {
        let questions = [
            Question::Tcp { port: 1 },
            Question::Udp { port: 1, shape: Shape::Replayed, payload: Vec::new() },
        ];
        assert_eq!(duration(&questions, 2, Duration::from_secs(2)), Duration::from_millis(3500));
    }
}
