//! Packets from a chosen address to a chosen port, many at once, and what comes of each.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sepulcher::codex::Protocol;
use sepulcher::sys::netns;

/// One attempt to reach something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trial {
    /// The sender's address.
    pub from: IpAddr,
    /// Where to.
    pub to: SocketAddr,
    /// By what.
    pub protocol: Protocol,
}

/// The same with all that it can be: a port of one's own, or a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The sender's address and port, any port when that is 0; of a ping its identifier.
    pub from: SocketAddr,
    /// Where to.
    pub to: IpAddr,
    /// What for.
    pub ask: Ask,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A port.
    Port(Protocol, u16),
    /// An answer to a ping.
    Echo,
}

impl From<Trial> for Attempt {
    fn from(Trial { from, to, protocol }: Trial) -> Self {
        let ask = Ask::Port(protocol, to.port());
        Self { from: SocketAddr::new(from, 0), to: to.ip(), ask }
    }
}

/// What comes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It reached a socket, which answered.
    Open,
    /// Nothing came back.
    Silent,
    /// A refusal came back, which is not silence: a reset, or an error of ICMP.
    Told(Errno),
    /// The sender's own kernel let nothing out.
    Kept(Errno),
}

/// Attempts at a time, each with a descriptor of its own.
const AT_ONCE: usize = 1000;

/// How long an answer may take that is expected.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long to wait for those that nobody expects, once the others are there.
const QUIET: Duration = Duration::from_millis(250);

/// Runs `work` in a network namespace: in a thread of its own, which never leaves it.
pub fn within<T: Send>(network: &File, work: impl FnOnce() -> T + Send) -> T {
    netns::within(network.as_fd(), work).unwrap()
}

/// Something that answers on every one of some ports, TCP and UDP, until it is dropped.
pub struct Listeners {
    end: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Listeners {
    /// At those addresses, each with sockets of its own: so an answer leaves with the address that was asked.
    pub fn on(network: File, addresses: Vec<IpAddr>, ports: Vec<u16>) -> Self {
        let (end, ended) = mpsc::channel();
        let (open, opened) = mpsc::channel();
        let thread = thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let all: Vec<SocketAddr> = addresses
                .iter()
                .flat_map(|&address| ports.iter().map(move |&port| SocketAddr::new(address, port)))
                .collect();
            // The kernel completes a handshake; nobody has to accept it.
            let tcp: Vec<_> = all.iter().map(|place| TcpListener::bind(place).unwrap()).collect();
            let udp: Vec<_> = all.iter().map(|place| UdpSocket::bind(place).unwrap()).collect();
            for socket in &udp {
                socket.set_nonblocking(true).unwrap();
            }
            open.send(()).unwrap();
            while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
                answer(&udp);
            }
            drop(tcp);
        });
        opened.recv().unwrap();
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        // It may have ended by a panic, which `join` tells.
        let _ = self.end.send(());
        let joined = self.thread.take().unwrap().join();
        assert!(joined.is_ok() || thread::panicking(), "the listeners ended too early");
    }
}

/// Sends back what came, for at most 20 ms.
fn answer(sockets: &[UdpSocket]) {
    let mut polled: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
    let mut buffer = [0; 64];
    for socket in sockets {
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // A refusal on the way back is what the other side will find out.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

/// Tries all of them from one namespace; `expected` are those to be patient with.
pub fn send(network: &File, trials: &[(Trial, bool)]) -> Vec<Outcome> {
    let attempts: Vec<_> = trials.iter().map(|(trial, expected)| ((*trial).into(), *expected)).collect();
    send_all(network, &attempts)
}

/// The same of any attempts.
pub fn send_all(network: &File, attempts: &[(Attempt, bool)]) -> Vec<Outcome> {
    make_room();
    attempts.chunks(AT_ONCE).flat_map(|some| within(network, || send_some(some))).collect()
}

/// Takes as many descriptors as the machine gives: what listens in other threads has thousands.
pub fn make_room() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn send_some(attempts: &[(Attempt, bool)]) -> Vec<Outcome> {
    let sockets: Vec<_> = attempts.iter().map(|(attempt, _)| open(attempt)).collect();
    let mut outcomes = vec![None; attempts.len()];
    let (start, mut calm) = (Instant::now(), Instant::now());
    loop {
        let waiting =
            outcomes.iter().zip(attempts).any(|(outcome, (_, expected))| *expected && outcome.is_none());
        if waiting {
            calm = Instant::now();
        }
        if start.elapsed() > PATIENCE || calm.elapsed() > QUIET {
            return outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Silent)).collect();
        }
        look(attempts, &sockets, &mut outcomes);
    }
}

/// A socket that has begun; an error that is immediate is the kernel's own refusal.
fn open(attempt: &Attempt) -> Result<OwnedFd, Errno> {
    let six = attempt.to.is_ipv6();
    let family = if six { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, protocol) = match attempt.ask {
        Ask::Port(Protocol::Tcp, _) => (SocketType::STREAM, None),
        Ask::Port(Protocol::Udp, _) => (SocketType::DGRAM, None),
        Ask::Echo => (SocketType::DGRAM, Some(if six { ipproto::ICMPV6 } else { ipproto::ICMP })),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, kind, flags, protocol)?;
    rustix::net::bind(&socket, &attempt.from)?;
    let (port, message): (u16, &[u8]) = match attempt.ask {
        Ask::Port(Protocol::Tcp, port) => (port, b""),
        Ask::Port(Protocol::Udp, port) => (port, b"probe"),
        // The kernel writes identifier and checksum.
        Ask::Echo => (0, if six { &[128, 0, 0, 0, 0, 0, 0, 0] } else { &[8, 0, 0, 0, 0, 0, 0, 0] }),
    };
    match rustix::net::connect(&socket, &SocketAddr::new(attempt.to, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    if !message.is_empty() {
        rustix::net::send(&socket, message, SendFlags::empty())?;
    }
    Ok(socket)
}

fn look(attempts: &[(Attempt, bool)], sockets: &[Result<OwnedFd, Errno>], outcomes: &mut [Option<Outcome>]) {
    let mut pending = Vec::new();
    for (at, socket) in sockets.iter().enumerate() {
        match socket {
            Err(error) => outcomes[at] = Some(Outcome::Kept(*error)),
            Ok(socket) if outcomes[at].is_none() => pending.push((at, socket)),
            Ok(_) => {}
        }
    }
    let wanted = |at: usize| match attempts[at].0.ask {
        Ask::Port(Protocol::Tcp, _) => PollFlags::OUT,
        Ask::Port(Protocol::Udp, _) | Ask::Echo => PollFlags::IN,
    };
    let mut polled: Vec<_> = pending.iter().map(|&(at, socket)| PollFd::new(socket, wanted(at))).collect();
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
    for ((at, socket), seen) in pending.iter().zip(&polled) {
        if !seen.revents().is_empty() {
            outcomes[*at] = Some(outcome(attempts[*at].0.ask, socket));
        }
    }
}

fn outcome(ask: Ask, socket: &OwnedFd) -> Outcome {
    if let Err(error) = sockopt::socket_error(socket).unwrap() {
        return Outcome::Told(error);
    }
    let mut buffer = [0_u8; 16];
    match ask {
        Ask::Port(Protocol::Tcp, _) => Outcome::Open,
        Ask::Port(Protocol::Udp, _) | Ask::Echo => {
            match rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
                Ok(_) => Outcome::Open,
                Err(error) => Outcome::Told(error),
            }
        }
    }
}

/// An error's number as people know it.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => write!(f, "open"),
            Self::Silent => write!(f, "silent"),
            Self::Told(error) => write!(f, "told: {}", io::Error::from(*error)),
            Self::Kept(error) => write!(f, "kept by the sender: {}", io::Error::from(*error)),
        }
    }
}
