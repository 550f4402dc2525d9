//! Whether a listener answers, and not the kernel in its place.
//!
//! A connection comes about without the program that listens: the kernel makes it, and keeps it until the program takes
//! it. So a connection proves nothing. What does is that the program has accepted it, which the kernel's table shows, or
//! that something comes back, be it an end. Nothing is sent to a program whose language is not known.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Socket, all};
use crate::codex::Protocol;
use crate::sys::fs::Error;

/// A handshake that does not need to leave this machine takes no longer, unless no more connections fit.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// Time between two looks, the first and the longest one.
const STEP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// State of a connection that the kernel keeps to itself until it brings data (TCP_DEFER_ACCEPT).
const DEFERRED: u8 = 0x03;

/// Whether whoever listens there answers within `patience`: to a request for `path` if it speaks HTTP, else by accepting a
/// connection, which is closed again.
///
/// # Errors
/// The kernel's table cannot be read.
pub fn answers(listener: &Socket, path: Option<&str>, patience: Duration) -> Result<bool, Error> {
    let end = Instant::now() + patience;
    let Some(mut stream) = connected(listener.local, patience.min(HANDSHAKE)) else { return Ok(false) };
    let asked = path.map(|path| stream.write_all(request(path).as_bytes()).is_ok());
    let (Ok(own), Ok(())) = (stream.local_addr(), stream.set_nonblocking(true)) else { return Ok(false) };
    let mut step = STEP.0;
    loop {
        let answered =
            spoke(&stream) || asked == Some(false) || (asked.is_none() && accepted(own, listener)?);
        if answered || Instant::now() >= end {
            return Ok(answered);
        }
        std::thread::sleep(step.min(end.saturating_duration_since(Instant::now())));
        step = (step * 2).min(STEP.1);
    }
}

/// Only whether there is an answer matters.
fn request(path: &str) -> String {
    format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: sepulcher\r\nConnection: close\r\n\r\n")
}

fn connected(listens: SocketAddr, patience: Duration) -> Option<TcpStream> {
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let addresses = match listens.ip() {
        IpAddr::V4(any) if any.is_unspecified() => vec![v4],
        // There may be no IPv6 to reach it by.
        IpAddr::V6(any) if any.is_unspecified() => vec![v6, v4],
        address => vec![address],
    };
    let dial = |address| TcpStream::connect_timeout(&SocketAddr::new(address, listens.port()), patience).ok();
    addresses.into_iter().find_map(dial)
}

/// Whether something came: data, the end, or a reset.
fn spoke(stream: &TcpStream) -> bool {
    !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether a program has the other end of the connection that is `own` on this side. One that the kernel keeps back until
/// it brings data is no sign of a program that hangs, as long as nobody else waits there.
fn accepted(own: SocketAddr, listener: &Socket) -> Result<bool, Error> {
    let sockets = all(&[Protocol::Tcp])?;
    let waits = sockets.iter().any(|socket| socket.inode == listener.inode && socket.waiting > 0);
    let ours = |socket: &&Socket| socket.remote == own && socket.local.port() == listener.local.port();
    Ok(sockets.iter().filter(ours).any(|socket| socket.inode != 0 || (socket.state == DEFERRED && !waits)))
}

#[cfg(test)]
mod tests {
    use super::super::listening;
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;

    const SHORT: Duration = Duration::from_millis(300);

    fn bound(address: &str) -> (TcpListener, Socket) {
        let listener = TcpListener::bind(address).unwrap();
        let own = listener.local_addr().unwrap();
        let found = listening().unwrap().into_iter().find(|socket| socket.local == own).unwrap();
        (listener, found)
    }

    #[test]
    fn who_listens_and_never_accepts_does_not_answer() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let (listener, socket) = bound(address);
            assert!(!answers(&socket, None, SHORT).unwrap());
            assert!(!answers(&socket, Some("/"), SHORT).unwrap());
            let (_, again) = (&listener, listening().unwrap());
            let waiting = again.iter().find(|other| other.inode == socket.inode).unwrap().waiting;
            assert_eq!(waiting, 2, "they wait");
        }
    }

    #[test]
    fn who_accepts_answers_and_is_sent_nothing() {
        let (listener, socket) = bound("127.0.0.1:0");
        let serving = std::thread::spawn(move || {
            let mut sent = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut sent).unwrap();
            (listener, sent)
        });
        assert!(answers(&socket, None, Duration::from_secs(60)).unwrap());
        let (listener, sent) = serving.join().unwrap();
        assert!(sent.is_empty());
        // One that turns everybody away at once is not hanging.
        let serving = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(answers(&socket, None, Duration::from_secs(60)).unwrap());
        serving.join().unwrap();
        assert!(!answers(&socket, None, SHORT).unwrap(), "nobody listens any more");
    }

    #[test]
    fn who_speaks_http_must_speak() {
        let (listener, socket) = bound("127.0.0.1:0");
        let serving = std::thread::spawn(move || {
            let mute = listener.accept().unwrap().0;
            let mut stream = listener.accept().unwrap().0;
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
            (mute, head)
        });
        assert!(!answers(&socket, Some("/traces"), SHORT).unwrap());
        assert!(answers(&socket, Some("/traces"), Duration::from_secs(60)).unwrap());
        assert_eq!(&serving.join().unwrap().1, b"HEAD");
    }
}
