//! `sepulcher stand-in`: a small service in place of a real one, for the example and the tests.
//!
//! Each TCP port answers a GET of a path it serves with one line that names the stand-in, the port, the path
//! and the caller, and a GET of such a path with `?lines` with numbered lines, twenty a second, for as long as the caller
//! listens; each UDP port answers any datagram with one line.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::{Failure, Kind};
use crate::codex::Protocol;
use crate::codex::name::{Name, RoutePath};
use crate::codex::net::Port;

/// More callers than this at a time are turned away.
const CONNECTIONS: usize = 64;
/// A request head longer than this is refused.
const HEAD_BYTES: u64 = 8192;
/// A caller who says or takes nothing for this long is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two lines of a stream.
const BEAT: Duration = Duration::from_millis(50);
/// A stream ends after so many lines: ten minutes.
const LINES: u32 = 12_000;

/// Arguments of `sepulcher stand-in`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name to answer with
    name: Name,
    /// Ports to answer on: NUMBER for TCP, NUMBER/udp for UDP
    #[arg(required = true, value_name = "PORT[/udp]")]
    ports: Vec<Listen>,
    /// Serve this path and all below it, beside `/` alone; may be repeated
    #[arg(long = "path", value_name = "PREFIX")]
    paths: Vec<RoutePath>,
}

/// One port to answer on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listen {
    port: Port,
    protocol: Protocol,
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), Protocol::Tcp),
            Some((number, "udp")) => (number, Protocol::Udp),
            Some(_) => return Err("the protocol is `tcp` or `udp`"),
        };
        let port = number.parse().map_err(|_| "a port is a number from 1 to 65535")?;
        Ok(Self { port, protocol })
    }
}

/// Answers until SIGTERM.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Failure::from_error(Kind::Io, &error))?;
    for listen in &args.ports {
        let failed = |error: io::Error| {
            Failure::new(Kind::Io, format!("cannot listen on port {}: {error}", listen.port))
        };
        let (name, paths) = (args.name.clone(), args.paths.clone());
        let port = listen.port;
        match listen.protocol {
            Protocol::Tcp => {
                let listener = on_any(port, TcpListener::bind::<SocketAddr>).map_err(failed)?;
                thread::spawn(move || serve_tcp(&name, port, &paths, &listener));
            }
            Protocol::Udp => {
                let socket = on_any(port, UdpSocket::bind::<SocketAddr>).map_err(failed)?;
                thread::spawn(move || serve_udp(&name, port, &socket));
            }
        }
    }
    eprintln!("stand-in {}: listening", args.name);
    signals.forever().next();
    Ok(())
}

/// Both families at once, or IPv4 alone where the kernel has no IPv6.
fn on_any<T>(port: Port, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    bind((Ipv6Addr::UNSPECIFIED, port.get()).into()).or_else(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return Err(error);
        }
        bind((Ipv4Addr::UNSPECIFIED, port.get()).into())
    })
}

fn serve_tcp(name: &Name, port: Port, paths: &[RoutePath], listener: &TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        // A caller who is gone already, or a shortage of descriptors that passes.
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (name, paths, open) = (name.clone(), paths.to_owned(), Arc::clone(&open));
        thread::spawn(move || {
            // The caller's connection broke: nobody is left to be told.
            let _ = answer(&name, port, &paths, &stream);
            open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn answer(name: &Name, port: Port, paths: &[RoutePath], mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let caller = canonical(stream.peer_addr()?.ip());
    let mut head = Vec::new();
    let mut reader = BufReader::new(stream.take(HEAD_BYTES));
    loop {
        let before = head.len();
        reader.read_until(b'\n', &mut head)?;
        let line = &head[before..];
        if line.is_empty() || line == b"\r\n" || line == b"\n" {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let response = respond(name, port, paths, caller, &head);
    if !asks_for_lines(&head) || !response.starts_with("HTTP/1.1 200 ") {
        return stream.write_all(response.as_bytes());
    }
    // No length: it ends with the connection.
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
    )?;
    for number in 1..=LINES {
        stream.write_all(format!("line {number}\n").as_bytes())?;
        thread::sleep(BEAT);
    }
    Ok(())
}

/// Whether a request is a GET of a stream.
fn asks_for_lines(head: &str) -> bool {
    let mut words = head.split(' ');
    words.next() == Some("GET") && words.next().is_some_and(|target| target.ends_with("?lines"))
}

/// Whether a request's target is `/` or lies at or below one of `paths`.
fn serves(paths: &[RoutePath], target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let below = |prefix: &RoutePath| {
        let prefix = prefix.as_str();
        prefix == "/"
            || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path == "/" || paths.iter().any(below)
}

/// The whole response to a request head.
fn respond(name: &Name, port: Port, paths: &[RoutePath], caller: IpAddr, head: &str) -> String {
    let mut lines = head.lines();
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, path, version) = (request.next(), request.next(), request.next());
    let complete = head.ends_with("\r\n\r\n") || head.ends_with("\n\n");
    let (status, body) = match (method, path, version) {
        _ if !complete => ("400 Bad Request", String::from("not a request\n")),
        (_, Some(path), Some(version)) if version.starts_with("HTTP/1.") && !serves(paths, path) => {
            ("404 Not Found", String::from("nothing is here\n"))
        }
        (Some("GET" | "HEAD"), Some(path), Some(version)) if version.starts_with("HTTP/1.") => {
            let forwarded = lines
                .filter_map(|line| line.split_once(':'))
                .find(|(header, _)| header.eq_ignore_ascii_case("x-forwarded-for"))
                .map(|(_, value)| format!(" forwarded-for {}", value.trim()));
            let forwarded = forwarded.unwrap_or_default();
            ("200 OK", format!("stand-in {name} port {port} path {path} caller {caller}{forwarded}\n"))
        }
        (Some(_), Some(_), Some(version)) if version.starts_with("HTTP/1.") => {
            ("405 Method Not Allowed", String::from("a stand-in answers GET alone\n"))
        }
        _ => ("400 Bad Request", String::from("not a request\n")),
    };
    let length = body.len();
    let body = if method == Some("HEAD") { String::new() } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

fn serve_udp(name: &Name, port: Port, socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // An error here is an earlier answer that could not be delivered.
        let Ok((_, caller)) = socket.recv_from(&mut buffer) else { continue };
        let line = format!("stand-in {name} port {port} caller {}\n", canonical(caller.ip()));
        let _ = socket.send_to(line.as_bytes(), caller);
    }
}

/// IPv4 as IPv4, although the socket takes both families.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(head: &str) -> (String, String) {
        let caller = canonical("::ffff:10.88.16.2".parse().unwrap());
        let response = respond(
            &"oculus".parse().unwrap(),
            Port::new(6006).unwrap(),
            &["/a".parse().unwrap()],
            caller,
            head,
        );
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    #[test]
    fn a_get_is_answered_with_name_port_path_and_caller() {
        assert_eq!(
            body("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("HTTP/1.1 200 OK".into(), "stand-in oculus port 6006 path /a?b caller 10.88.16.2\n".into())
        );
        assert_eq!(
            body("GET / HTTP/1.1\r\nx-FORWARDED-for: 192.0.2.7\r\n\r\n").1,
            "stand-in oculus port 6006 path / caller 10.88.16.2 forwarded-for 192.0.2.7\n"
        );
    }

    #[test]
    fn every_path_that_is_not_served_gets_the_same_answer() {
        for path in ["/ab", "/b", "//a", "/b/a", "/x?/a"] {
            for method in ["GET", "POST"] {
                let told = body(&format!("{method} {path} HTTP/1.1\r\n\r\n"));
                assert_eq!(told, ("HTTP/1.1 404 Not Found".into(), "nothing is here\n".into()), "{path}");
            }
        }
        for path in ["/", "/?x", "/a", "/a/b"] {
            assert_eq!(body(&format!("GET {path} HTTP/1.1\r\n\r\n")).0, "HTTP/1.1 200 OK", "{path}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (head, status) in [
            ("POST / HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("GET / HTTP/1.1\r\nHost: x\r\n", "400 Bad Request"),
            ("GET /\r\n\r\n", "400 Bad Request"),
            ("", "400 Bad Request"),
            ("\r\n\r\n", "400 Bad Request"),
            ("GET / SPDY/3\r\n\r\n", "400 Bad Request"),
        ] {
            assert_eq!(body(head).0, format!("HTTP/1.1 {status}"), "{head:?}");
        }
    }

    #[test]
    fn both_transports_answer_their_caller() {
        let (name, port): (Name, _) = ("echo".parse().unwrap(), Port::new(7878).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = socket.local_addr().unwrap();
        let server = name.clone();
        thread::spawn(move || serve_tcp(&server, port, &["/x".parse().unwrap()], &listener));
        thread::spawn(move || serve_udp(&name, port, &socket));
        stream.write_all(b"GET /x HTTP/1.0\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(
            response.ends_with("\r\n\r\nstand-in echo port 7878 path /x caller 127.0.0.1\n"),
            "{response}"
        );
        let caller = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        caller.set_read_timeout(Some(PATIENCE)).unwrap();
        caller.send_to(b"?", at).unwrap();
        let mut buffer = [0; 100];
        let length = caller.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"stand-in echo port 7878 caller 127.0.0.1\n");
    }

    #[test]
    fn a_stream_goes_on_until_its_caller_leaves() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let serving = thread::spawn(move || {
            let (name, port) = ("oculus".parse().unwrap(), Port::new(6006).unwrap());
            answer(&name, port, &[], &listener.accept().unwrap().0)
        });
        stream.write_all(b"GET /?lines HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
        assert!(lines.by_ref().take_while(|line| !line.is_empty()).all(|line| !line.contains("Length")));
        assert_eq!(lines.by_ref().take(3).collect::<Vec<_>>(), ["line 1", "line 2", "line 3"]);
        drop(stream);
        assert!(serving.join().unwrap().is_err(), "nobody listens any more");
        for head in ["GET /lines HTTP/1.1\r\n\r\n", "HEAD /?lines HTTP/1.1\r\n\r\n", ""] {
            assert!(!asks_for_lines(head), "{head}");
        }
    }

    #[test]
    fn ports_are_numbers_with_an_optional_protocol() {
        let listen = |port, protocol| Ok(Listen { port: Port::new(port).unwrap(), protocol });
        assert_eq!("80".parse(), listen(80, Protocol::Tcp));
        assert_eq!("80/tcp".parse(), listen(80, Protocol::Tcp));
        assert_eq!("7879/udp".parse(), listen(7879, Protocol::Udp));
        for text in ["", "0", "65536", "80/", "80/sctp", "x/udp", "80/udp/udp"] {
            assert!(text.parse::<Listen>().is_err(), "{text:?}");
        }
    }
}
