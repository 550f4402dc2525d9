//! Sends a scanner's questions at a bounded rate, and hears everything that comes back to them.
//!
//! Each datagram and SYN has a connected socket of its own: the kernel takes answers from the host alone, and tells
//! through the socket's error queue which ICMP error came, and from whom. That needs no privileges; ICMP does.

mod neighbour;
mod raw;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use neighbour::is_there;
pub use raw::Raw;
use socket::Flight;

use crate::probe::dice::Dice;
use crate::probe::{Question, Seen, What};

/// Descriptors that are not the questions'.
const OTHERS: u64 = 64;

/// Questions that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be had, or did not take the packet.
    #[error("cannot send to {address}")]
    Send {
        /// Whom.
        address: IpAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Too many sockets at a time.
    #[error("{needed} sockets are needed at a time, and this process may have {allowed}")]
    Sockets {
        /// At this rate and wait.
        needed: u64,
        /// By its limit.
        allowed: u64,
    },
    /// Waiting failed.
    #[error("cannot wait for answers")]
    Wait(#[source] io::Error),
}

/// How fast, and how long an answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Packets a second.
    pub rate: u32,
    /// After the question.
    pub wait: Duration,
}

/// Whether an address is this machine's own: then its packet filter is passed by, and raw sockets hear the questions.
pub fn is_own(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Makes sure that the sockets that a pace needs at a time can be had.
pub fn make_room(pace: Pace) -> Result<(), Error> {
    let needed = u64::from(pace.rate) * (pace.wait.as_secs() + 1) + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum });
    raised.map_err(|_| Error::Sockets { needed, allowed: maximum.or(current).unwrap_or_default() })
}

/// Asks all questions and returns what was seen, in order of its coming. `raw` is needed for ICMP, and hears datagrams
/// that come from other ports than were asked.
pub fn ask(
    address: IpAddr,
    questions: &[Question],
    pace: Pace,
    raw: Option<&Raw>,
    dice: &mut Dice,
) -> Result<Vec<Seen>, Error> {
    let mut scan = Scan {
        address,
        own: is_own(address),
        questions,
        raw,
        flights: VecDeque::new(),
        sent: Vec::new(),
        seen: Vec::new(),
    };
    let mut next = Instant::now();
    let slot = Duration::from_secs(1) / pace.rate.max(1);
    for (index, question) in questions.iter().enumerate() {
        scan.listen(next, pace.wait)?;
        scan.send(index, question, dice).map_err(|source| Error::Send { address, source })?;
        // From now on, not from when it should have been: a late sender never hurries.
        next = Instant::now() + slot * question.packets();
    }
    scan.listen(Instant::now() + pace.wait, pace.wait)?;
    Ok(scan.seen)
}

struct Scan<'a> {
    address: IpAddr,
    /// Whether the address is this machine's.
    own: bool,
    questions: &'a [Question],
    raw: Option<&'a Raw>,
    /// Questions that may still be answered, the oldest first.
    flights: VecDeque<Flight>,
    /// When each question was sent.
    sent: Vec<Instant>,
    seen: Vec<Seen>,
}

impl Scan<'_> {
    fn send(&mut self, index: usize, question: &Question, dice: &mut Dice) -> io::Result<()> {
        match question {
            Question::Udp { port, shape, payload } => {
                self.sent.push(Instant::now());
                let flight = Flight::datagram(index, (self.address, *port).into(), *shape, payload)?;
                self.flights.push_back(flight);
            }
            Question::Tcp { port } => {
                self.sent.push(Instant::now());
                self.flights.push_back(Flight::segment(index, (self.address, *port).into())?);
            }
            Question::Icmp(ask) => {
                self.sent.push(Instant::now());
                if let Some(raw) = self.raw {
                    raw.send(*ask, index, dice)?;
                }
            }
        }
        Ok(())
    }

    /// Hears until then; lets go of what is older than `wait`.
    fn listen(&mut self, until: Instant, wait: Duration) -> Result<(), Error> {
        loop {
            while self.flights.front().is_some_and(|flight| self.sent[flight.question].elapsed() > wait) {
                self.flights.pop_front();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let ready = self.poll(left).map_err(Error::Wait)?;
            self.take(&ready).map_err(Error::Wait)?;
        }
    }

    /// Which sockets have something to say, by their place: those of the questions, then the raw ones.
    fn poll(&self, left: Duration) -> io::Result<Vec<usize>> {
        let own = self.flights.iter().map(|flight| PollFd::new(&flight.socket, flight.wanted()));
        let raw = self.raw.iter().flat_map(|raw| raw.sockets());
        let mut all: Vec<_> = own.chain(raw.map(|socket| PollFd::new(socket, PollFlags::IN))).collect();
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut all, Some(&timeout)) {
            Err(Errno::INTR) => return Ok(Vec::new()),
            done => done?,
        };
        let ready = all.iter().enumerate().filter(|(_, entry)| !entry.revents().is_empty());
        Ok(ready.map(|(index, _)| index).collect())
    }

    fn take(&mut self, ready: &[usize]) -> io::Result<()> {
        let now = Instant::now();
        let mut done = Vec::new();
        for &index in ready {
            let Some(flight) = self.flights.get_mut(index) else {
                self.take_raw(now)?;
                break;
            };
            let question = flight.question;
            let after = now - self.sent[question];
            let (told, over) = flight.told(self.address)?;
            self.seen.extend(told.into_iter().map(|(from, what)| Seen { question, after, from, what }));
            if over {
                done.push(index);
            }
        }
        for index in done.into_iter().rev() {
            self.flights.remove(index);
        }
        Ok(())
    }

    fn take_raw(&mut self, now: Instant) -> io::Result<()> {
        let Some(raw) = self.raw else { return Ok(()) };
        for heard in raw.heard()? {
            let question = heard.question.map(usize::from).or_else(|| self.last_of(heard.ask));
            // Somebody else's, or of a question that was never asked.
            let Some(sent) = question.and_then(|question| self.sent.get(question)) else { continue };
            let seen = Seen {
                question: question.unwrap_or_default(),
                after: now - *sent,
                from: self.address,
                what: heard.what,
            };
            self.seen.push(seen);
        }
        let mut strays = raw.strays()?;
        strays.retain(|(_, from_port)| !self.expects(*from_port));
        for (local, from_port) in strays {
            let ours = |flight: &&Flight| flight.is_datagram() && flight.local == local;
            let Some(Flight { question, .. }) = self.flights.iter().find(ours) else { continue };
            let (question, what) = (*question, What::Elsewhere(from_port));
            let after = now - self.sent[question];
            self.seen.push(Seen { question, after, from: self.address, what });
        }
        Ok(())
    }

    /// Whether a datagram from that port is no surprise: it was asked, and the answer's own socket takes it or is gone by
    /// now. On this machine itself, the questions are heard too.
    fn expects(&self, port: u16) -> bool {
        let asked = &self.questions[..self.sent.len()];
        let this =
            |question: &Question| matches!(question, Question::Udp { port: asked, .. } if *asked == port);
        self.own || asked.iter().any(this)
    }

    /// The latest question of that kind: what has no number answers that.
    fn last_of(&self, ask: crate::probe::icmp::Ask) -> Option<usize> {
        let asked = &self.questions[..self.sent.len()];
        asked.iter().rposition(|question| matches!(question, Question::Icmp(asked) if *asked == ask))
    }
}
