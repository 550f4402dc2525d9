//! Sockets that answer: a thread a connection, a bounded number of them, and a deadline for each.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, shutdown, sockopt};

/// How long a listener rests after it could not accept, e.g. for want of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A process of this machine that may open the socket's file.
    Host,
    /// Whoever has this address.
    Address(IpAddr),
}

/// What is done with a connection.
pub type Handler = dyn Fn(Connection, Caller) + Send + Sync;

/// How many connections there may be at once, over all listeners that share it.
#[derive(Debug, Clone)]
pub struct Places {
    taken: Arc<Mutex<BTreeMap<Caller, usize>>>,
    limit: usize,
    each: usize,
}

impl Places {
    /// So many, and no more than `each` of them for one caller: nobody can fill all of them.
    pub fn new(limit: usize, each: usize) -> Self {
        Self { taken: Arc::default(), limit, each }
    }

    fn take(&self, caller: Caller) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&caller).copied().unwrap_or(0);
        if own >= self.each || taken.values().sum::<usize>() >= self.limit {
            return None;
        }
        taken.insert(caller, own + 1);
        Some(Place { taken: Arc::clone(&self.taken), caller })
    }
}

/// One place, given back when it goes out of scope.
struct Place {
    taken: Arc<Mutex<BTreeMap<Caller, usize>>>,
    caller: Caller,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.caller) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.caller)),
        }
    }
}

/// A connection with a time by which everything must have been said.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    deadline: Instant,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Connects to whoever listens at `path`; that, and all that is said, ends after `time`.
    pub fn open(path: &Path, time: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + time;
        let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, None)?;
        // Who does not take connections any more keeps those waiting that come when its queue is full.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(time))?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket: Socket::Unix(socket.into()), deadline })
    }

    /// Gives both sides this much time from now on.
    pub fn give(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
    }

    /// Says that nothing follows, and hears the other side out, up to a mebibyte: an end with bytes unread would
    /// take the answer with it.
    pub fn finish(mut self) {
        let ended = match &self.socket {
            Socket::Tcp(stream) => shutdown(stream, Shutdown::Write),
            Socket::Unix(stream) => shutdown(stream, Shutdown::Write),
        };
        if ended.is_ok() {
            let _ = io::copy(&mut Read::by_ref(&mut self).take(1 << 20), &mut io::sink());
        }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        match &mut self.socket {
            Socket::Tcp(stream) => stream.set_read_timeout(left).and_then(|()| stream.read(buffer)),
            Socket::Unix(stream) => stream.set_read_timeout(left).and_then(|()| stream.read(buffer)),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        match &mut self.socket {
            Socket::Tcp(stream) => stream.set_write_timeout(left).and_then(|()| stream.write(buffer)),
            Socket::Unix(stream) => stream.set_write_timeout(left).and_then(|()| stream.write(buffer)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers until it goes out of scope; connections that are under way come to their end by themselves.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<Listening>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    fn accept(&self) -> io::Result<(Socket, Caller)> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .map(|(stream, from)| (Socket::Tcp(stream), Caller::Address(from.ip().to_canonical()))),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| (Socket::Unix(stream), Caller::Host)),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    /// Answers on an address of this machine.
    pub fn tcp(address: SocketAddr, places: &Places, handler: Arc<Handler>) -> io::Result<Self> {
        Self::start(Listening::Tcp(TcpListener::bind(address)?), places, handler)
    }

    /// Answers on a socket in the file system, which root alone may open. One that an earlier process left there
    /// is replaced.
    pub fn unix(path: &Path, places: &Places, handler: Arc<Handler>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Self::start(Listening::Unix(listener), places, handler)
    }

    fn start(socket: Listening, places: &Places, handler: Arc<Handler>) -> io::Result<Self> {
        let (socket, stop) = (Arc::new(socket), Arc::new(AtomicBool::new(false)));
        let listener = Self { socket: Arc::clone(&socket), stop: Arc::clone(&stop) };
        let places = places.clone();
        std::thread::Builder::new().name("listener".into()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                match socket.accept() {
                    Ok((socket, caller)) => admit(socket, caller, &places, &handler),
                    Err(_) if stop.load(Ordering::Acquire) => return,
                    Err(_) => std::thread::sleep(REST),
                }
            }
        })?;
        Ok(listener)
    }
}

/// Hands a connection to a thread of its own; without a free place or a thread it ends at once.
fn admit(socket: Socket, caller: Caller, places: &Places, handler: &Arc<Handler>) {
    let Some(place) = places.take(caller) else { return };
    let handler = Arc::clone(handler);
    // A thread that cannot be made drops what it was given: the connection ends.
    let _ = std::thread::Builder::new().name("connection".into()).spawn(move || {
        let _place = place;
        handler(Connection { socket, deadline: Instant::now() }, caller);
    });
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Ends the accept that is under way.
        let _ = shutdown(self.socket.as_fd(), Shutdown::Both);
    }
}

/// Says one line to whoever listens at `path`, and returns the one that is answered, without its end.
///
/// # Errors
/// When nobody listens, no whole line comes within `time`, or it is longer than `limit` bytes.
pub fn ask(path: &Path, line: &str, limit: u64, time: Duration) -> io::Result<Vec<u8>> {
    let mut connection = Connection::open(path, time)?;
    connection.write_all(line.as_bytes())?;
    connection.write_all(b"\n")?;
    let mut answer = Vec::new();
    BufReader::new(Read::take(connection, limit + 1)).read_until(b'\n', &mut answer)?;
    if answer.pop() == Some(b'\n') {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no whole line was answered"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    /// Answers each line with itself.
    fn echo() -> Arc<Handler> {
        Arc::new(|mut connection: Connection, _| {
            connection.give(TIME);
            let mut line = Vec::new();
            BufReader::new(&mut connection).read_until(b'\n', &mut line).unwrap();
            let _ = connection.write_all(&line);
        })
    }

    #[test]
    fn a_line_is_answered_and_a_socket_that_was_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let _listener = Listener::unix(&path, &Places::new(2, 2), echo()).unwrap();
        // The first one's place is free a moment after its answer is there.
        assert_eq!(ask(&path, "hello", 6, TIME).unwrap(), b"hello");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let long = ask(&path, "longer", 5, TIME).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn one_who_says_nothing_is_left_at_the_deadline() {
        let listener = Listener::tcp(
            "127.0.0.1:0".parse().unwrap(),
            &Places::new(1, 1),
            Arc::new(|mut connection: Connection, _| {
                connection.give(Duration::from_millis(50));
                assert!(connection.read(&mut [0]).is_err());
            }),
        );
        let Listening::Tcp(socket) = &*listener.as_ref().unwrap().socket else { unreachable!() };
        let mut stream = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(TIME)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the other side has ended it");
    }

    #[test]
    fn one_caller_does_not_fill_all_places_and_gets_them_back() {
        let places = Places::new(3, 2);
        let [one, other] = [1, 2].map(|last| Caller::Address([10, 88, 16, last].into()));
        let first = places.take(one).unwrap();
        let second = places.take(one).unwrap();
        assert!(places.take(one).is_none(), "two are all that one caller may have");
        let third = places.take(other).unwrap();
        assert!(places.take(other).is_none(), "three are all that there are");
        drop((first, second));
        let again = [places.take(one), places.take(other)];
        assert!(again.iter().all(Option::is_some));
        drop((again, third));
        assert!(places.taken.lock().unwrap().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn who_does_not_accept_is_left_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let start = Instant::now();
        let tried: Vec<_> = (0..3).map(|_| Connection::open(&path, Duration::from_millis(50))).collect();
        assert!(tried[0].is_ok() && tried[2].is_err(), "{tried:?}");
        assert!(start.elapsed() < TIME);
    }

    #[test]
    fn no_more_connections_than_places_and_none_after_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::unix(&path, &Places::new(1, 1), echo()).unwrap();
        let mut first = UnixStream::connect(&path).unwrap();
        let mut second = UnixStream::connect(&path).unwrap();
        second.set_read_timeout(Some(TIME)).unwrap();
        assert_eq!(second.read(&mut [0]).unwrap(), 0, "there is no place for it");
        first.write_all(b"x\n").unwrap();
        assert_eq!(first.read(&mut [0; 2]).unwrap(), 2);
        drop(listener);
        let start = Instant::now();
        while UnixStream::connect(&path).is_ok() {
            assert!(start.elapsed() < TIME, "it still answers");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
