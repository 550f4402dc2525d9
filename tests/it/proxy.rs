//! Requests through the real Caddy with a rendered Caddyfile: routes, tiers, and what is not told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::cases::{self, text};
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
    forest: (String, u16),
    tether: (String, u16),
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It is ours alone; one that ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the service behind the proxy takes a path that it does not know; none of them tells the path.
#[derive(Clone, Copy)]
enum Unknown {
    /// 404.
    Refused,
    /// 200, with the same words as for any path.
    Welcome,
}

/// Starts Caddy with the listeners moved to loopback, in front of a service that knows `/` and the pinned
/// path, and nothing else.
fn start(test: &str, unknown: Unknown) -> Option<Proxy> {
    let caddy = program(test, "caddy")?;
    let ready = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    // An address of this proxy's own on loopback: ports of other tests cannot clash with it.
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let own = format!("127.{}.{}.1", 1 + std::process::id() % 250, 1 + number);
    let case = cases::all().into_iter().find(|case| case.name == CASE).unwrap();
    let service = serve(unknown);
    let caddyfile = text(&case.tree, "usr/share/sepulcher/Caddyfile")
        .replace("https://six.example {", &format!("http://:{FOREST} {{"))
        .replace(
            "http://:80 {\n\tbind 10.88.16.1 fd88:0:0:16::1\n",
            &format!("http://:{TETHER} {{\n\tbind {own}\n"),
        )
        .replace("http://:80 {\n\tbind 10.88.0.10\n", &format!("http://:0 {{\n\tbind {own}\n"))
        .replace("bind 10.88.0.10", &format!("bind {own}"))
        .replace("127.0.0.1:7134", &format!("127.0.0.1:{service}"));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("Caddyfile");
    std::fs::write(&file, caddyfile).unwrap();
    let run = caddy
        .args(["run", "--adapter", "caddyfile", "--pingback"])
        .arg(format!("127.0.0.1:{}", port(&ready)));
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
    let proxy = Proxy { child, home, forest: (own.clone(), FOREST), tether: (own, TETHER) };
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

/// A service whose answers name the method and the path where it knows the path.
fn serve(unknown: Unknown) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
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
            let (status, body) = match path {
                "/" | "/a2a/smith" | "/a2a/smith/x" | "/a2a/smithy" => ("200 OK", format!("{path} {from}")),
                _ => match unknown {
                    Unknown::Refused => ("404 Gone", format!("the service does not know what to {method}")),
                    Unknown::Welcome => ("200 OK", format!("welcome to {method}")),
                },
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nServer: own\r\nX-Own: yes\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    port
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
fn get(listener: &(String, u16), path: &str) -> String {
    ask(listener, "GET", path)
}

fn ask((host, port): &(String, u16), method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect((host.as_str(), *port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let rest = "HTTP/1.1\r\nHost: six.example\r\nContent-Length: 0\r\nConnection: close";
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
        let unknown = ask(&proxy.forest, method, "/nobody/knows");
        assert!(unknown.starts_with("HTTP/1.1 404 ") && !unknown.contains("Server"), "{unknown}");
        for path in PINNED {
            assert_eq!(ask(&proxy.forest, method, path), unknown, "{method} {path}");
        }
    }
    for path in ["/a2a/smith", "/a2a/smith/x", "/"] {
        assert!(get(&proxy.tether, path).contains(&format!("\r\n\r\n{path} ")), "{path}");
    }
}

#[test]
fn a_pinned_path_is_as_welcome_as_any_where_the_service_around_it_answers_everything() {
    let test = "a_pinned_path_is_as_welcome_as_any_where_the_service_around_it_answers_everything";
    let Some(proxy) = start(test, Unknown::Welcome) else { return };
    for method in ["GET", "POST"] {
        let unknown = ask(&proxy.forest, method, "/nobody/knows");
        assert!(unknown.starts_with("HTTP/1.1 200 ") && unknown.contains(&format!("welcome to {method}")));
        for path in PINNED {
            assert_eq!(ask(&proxy.forest, method, path), unknown, "{method} {path}");
        }
    }
}

#[test]
fn routes_end_on_the_border_of_a_segment_and_tell_the_callers_address() {
    let test = "routes_end_on_the_border_of_a_segment_and_tell_the_callers_address";
    let Some(proxy) = start(test, Unknown::Refused) else { return };
    for listener in [&proxy.forest, &proxy.tether] {
        let answer = get(listener, "/a2a/smithy");
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Server:"), "{answer}");
        assert!(answer.to_lowercase().contains("/a2a/smithy x-forwarded-for: 127.0.0.1"), "{answer}");
    }
}
