//! Requests through the real Caddy with a rendered Caddyfile: routes, tiers, passes, and what is not told.

mod passes;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use sepulcher::codex::Codex;
use sepulcher::render::caddy::caddyfile;

use crate::cases;
use crate::judge::program;

/// Routes of the v6 case: `/` is the forest's, `/a2a/smith` below it is pinned; both go to port 7134.
const CASE: &str = "v6";

/// Where the listeners are moved to, on an address of their own.
const FOREST: u16 = 8080;
const TETHER: u16 = 8081;
static STARTED: AtomicU8 = AtomicU8::new(0);

struct Proxy {
    child: std::process::Child,
    home: tempfile::TempDir,
    forest: SocketAddr,
    tether: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It is ours alone; one that ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Where its passes lie.
    fn passes(&self) -> PathBuf {
        self.home.path().join("veil")
    }

    /// Lays a pass down, as the agent does.
    fn give(&self, owner: &str, address: &str) {
        std::fs::create_dir_all(self.passes().join(owner)).unwrap();
        std::fs::write(self.passes().join(owner).join(address), "").unwrap();
    }

    fn take(&self, owner: &str, address: &str) {
        std::fs::remove_file(self.passes().join(owner).join(address)).unwrap();
    }
}

/// How a service behind the proxy takes a path that it does not know.
#[derive(Debug, Clone, Copy)]
enum Unknown {
    /// 404.
    Refused,
    /// 200, with the same words as for any path.
    Welcome,
    /// 404, with the path in it.
    Told,
}

/// What stands in for the service at a port of the Codex.
struct Service {
    port: u16,
    knows: &'static [&'static str],
    unknown: Unknown,
}

/// The service of the v6 case, which knows `/` and the pinned path.
fn vessel(unknown: Unknown) -> Service {
    Service { port: 7134, knows: &["/", "/a2a/smith", "/a2a/smith/x", "/a2a/smithy"], unknown }
}

/// Starts Caddy as the v6 case has it.
fn start(test: &str, unknown: Unknown) -> Option<Proxy> {
    let case = cases::all().into_iter().find(|case| case.name == CASE).unwrap();
    start_with(test, &case.codex, &[vessel(unknown)], None)
}

/// Starts Caddy with the listeners moved to loopback, in front of services. With the port `six` the one of the tether
/// is there, and listens for IPv6 too.
fn start_with(test: &str, codex: &Codex, services: &[Service], six: Option<u16>) -> Option<Proxy> {
    let caddy = program(test, "caddy")?;
    // An address of this proxy's own on loopback: ports of other tests cannot clash with it.
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let own = IpAddr::from([127, 1 + (std::process::id() % 250) as u8, 1 + number, 1]);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("Caddyfile");
    let moved = moved(codex, own, six);
    let passes = format!("root {}", home.path().join("veil").display());
    let moved = moved.replace("root /run/sepulcher/veil", &passes);
    let served = services.iter().fold(moved, |config, service| {
        config.replace(&format!("127.0.0.1:{}", service.port), &format!("127.0.0.1:{}", serve(service)))
    });
    std::fs::write(&file, served).unwrap();
    let ready = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = caddy
        .args(["run", "--adapter", "caddyfile", "--pingback"])
        .arg(ready.local_addr().unwrap().to_string());
    let mut child = run
        .arg("--config")
        .arg(&file)
        .env("HOME", home.path())
        .to_std()
        .stdin(std::process::Stdio::piped())
        .stderr(std::fs::File::create(home.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"ready").unwrap();
    let (forest, tether) = ((own, FOREST).into(), (own, six.unwrap_or(TETHER)).into());
    let proxy = Proxy { child, home, forest, tether };
    let mut waiting = [rustix::event::PollFd::new(&ready, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    let events = rustix::event::poll(&mut waiting, Some(&limit)).unwrap();
    assert_eq!(events, 1, "{}", std::fs::read_to_string(proxy.home.path().join("log")).unwrap());
    // Caddy gives up when nobody hears it out.
    let mut confirmation = [0; 5];
    ready.accept().unwrap().0.read_exact(&mut confirmation).unwrap();
    assert_eq!(&confirmation, b"ready");
    Some(proxy)
}

/// The rendered Caddyfile with its listeners at an address of ours. Where the forest has HTTPS, that is plain HTTP, and
/// what only sends there is out of the way.
fn moved(codex: &Codex, own: IpAddr, six: Option<u16>) -> String {
    let (port, beside) = six.map_or((TETHER, ""), |port| (port, " ::1"));
    let six_own = codex.tether.network6.map(|(_, own)| format!(" {own}")).unwrap_or_default();
    let forest = if codex.appliance.domain.is_some() { 0 } else { FOREST };
    let config = caddyfile(codex).unwrap().unwrap();
    [
        ("https://six.example {".to_owned(), format!("http://:{FOREST} {{")),
        (
            format!("http://:80 {{\n\tbind 10.88.16.1{six_own}\n"),
            format!("http://:{port} {{\n\tbind {own}{beside}\n"),
        ),
        ("http://:80 {\n\tbind 10.88.0.10\n".to_owned(), format!("http://:{forest} {{\n\tbind {own}\n")),
        ("bind 10.88.0.10".to_owned(), format!("bind {own}")),
    ]
    .iter()
    .fold(config, |config, (what, by)| config.replace(what, by))
}

/// A service whose answers name the method and the path where it knows the path, and its port in the Codex.
fn serve(service: &Service) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap().port();
    let Service { port, knows, unknown } = *service;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head(&mut stream);
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let from = head
                .lines()
                .find(|line| line.to_lowercase().starts_with("x-forwarded-for"))
                .unwrap_or_default();
            let (status, body) = match unknown {
                _ if knows.contains(&path) => ("200 OK", format!("{path} {from}")),
                Unknown::Refused => ("404 Gone", format!("the service does not know what to {method}")),
                Unknown::Welcome => ("200 OK", format!("welcome to {method}")),
                Unknown::Told => ("404 Gone", format!("cannot {method} {path}")),
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nServer: own\r\nX-Own: {port}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    here
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The whole answer to a GET, without its date.
fn get(listener: SocketAddr, path: &str) -> String {
    ask(listener, "GET", path)
}

fn ask(listener: SocketAddr, method: &str, path: &str) -> String {
    say(TcpStream::connect(listener).unwrap(), method, path, "")
}

/// A connection with that address on this side.
fn connect_from(address: IpAddr, listener: SocketAddr) -> TcpStream {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(address, 0)).unwrap();
    rustix::net::connect(&socket, &listener).unwrap();
    TcpStream::from(socket)
}

/// One request, which ends the connection. `more` are headers.
fn say(mut stream: TcpStream, method: &str, path: &str, more: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let rest = format!("HTTP/1.1\r\nHost: six.example\r\nContent-Length: 0\r\n{more}Connection: close");
    write!(stream, "{method} {path} {rest}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// Ways to write the pinned path.
const PINNED: [&str; 12] = [
    "/a2a/smith",
    "/a2a/smith/",
    "/a2a/smith/x",
    "/a2a/smith?x=1",
    "/A2A/Smith",
    "/a2a//smith",
    "/a2a/./smith",
    "/x/../a2a/smith",
    "/a2a/%73mith",
    "/%61%32a/smith/x",
    "//a2a/smith",
    "/a2a%2fsmith",
];

#[test]
fn a_pinned_path_is_served_on_the_tether_and_unknown_to_the_forest() {
    let test = "a_pinned_path_is_served_on_the_tether_and_unknown_to_the_forest";
    let Some(proxy) = start(test, Unknown::Refused) else { return };
    for method in ["GET", "POST", "OPTIONS"] {
        let unknown = ask(proxy.forest, method, "/nobody/knows");
        assert!(unknown.starts_with("HTTP/1.1 404 ") && !unknown.contains("Server"), "{unknown}");
        for path in PINNED {
            assert_eq!(ask(proxy.forest, method, path), unknown, "{method} {path}");
        }
    }
    proxy.give("vessel", "127.0.0.1");
    for path in ["/a2a/smith", "/a2a/smith/x", "/"] {
        assert!(get(proxy.tether, path).contains(&format!("\r\n\r\n{path} ")), "{path}");
    }
}

#[test]
fn a_pinned_path_is_as_welcome_as_any_where_the_service_around_it_answers_everything() {
    let test = "a_pinned_path_is_as_welcome_as_any_where_the_service_around_it_answers_everything";
    let Some(proxy) = start(test, Unknown::Welcome) else { return };
    for method in ["GET", "POST"] {
        let unknown = ask(proxy.forest, method, "/nobody/knows");
        assert!(unknown.starts_with("HTTP/1.1 200 ") && unknown.contains(&format!("welcome to {method}")));
        for path in PINNED {
            assert_eq!(ask(proxy.forest, method, path), unknown, "{method} {path}");
        }
    }
}

#[test]
fn routes_end_on_the_border_of_a_segment_and_tell_the_callers_address() {
    let test = "routes_end_on_the_border_of_a_segment_and_tell_the_callers_address";
    let Some(proxy) = start(test, Unknown::Refused) else { return };
    for listener in [proxy.forest, proxy.tether] {
        let answer = get(listener, "/a2a/smithy");
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Server:"), "{answer}");
        assert!(answer.to_lowercase().contains("/a2a/smithy x-forwarded-for: 127.0.0.1"), "{answer}");
    }
}
