//! Downloads from a server of this test on the loopback interface.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

/// What the server was asked: path and first byte.
type Asked = (String, u64);
/// Answers one request on its connection, which is closed afterwards.
type Answer = dyn Fn(&Asked, &mut TcpStream) + Send + Sync;

struct Server {
    base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(answer: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Arc<Answer>) = (Arc::clone(&asked), Arc::new(answer));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        Self { base, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &Answer) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let mut start = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().unwrap();
        }
    }
    let asked = (path, start);
    log.lock().unwrap().push(asked.clone());
    answer(&asked, &mut stream);
    let _ = stream.shutdown(Shutdown::Both);
}

fn status(stream: &mut TcpStream, status: &str) {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
}

/// Sends `body` from `start` on, but only its first `limit` bytes, as far as the other side takes them.
fn send(stream: &mut TcpStream, body: &[u8], start: u64, ranges: bool, limit: usize) {
    let start = if ranges { usize::try_from(start).unwrap() } else { 0 };
    let rest = &body[start..];
    let line = if start > 0 {
        format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", body.len() - 1, body.len())
    } else {
        "200 OK".to_owned()
    };
    let head = format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&rest[..limit.min(rest.len())]));
}

fn body() -> Vec<u8> {
    (0..200_000u32).flat_map(u32::to_le_bytes).collect()
}

struct Case {
    folder: tempfile::TempDir,
    item: Item,
}

impl Case {
    fn new(servers: &[&Server], body: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let item = Item {
            label: "demo 1".to_owned(),
            sha256: Sha256Digest::of(body),
            size: body.len() as u64,
            addresses: servers.iter().map(|server| format!("{}/demo.deb", server.base)).collect(),
            target: folder.path().join("debs/demo.deb"),
        };
        Self { folder, item }
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("debs/demo.deb.part")
    }

    fn started(self, part: &[u8]) -> Self {
        fs::create_dir_all(self.part().parent().unwrap()).unwrap();
        fs::write(&self.part(), 0o644, part).unwrap();
        self
    }

    fn fetch(&self) -> Result<(), Error> {
        all(&http::Client::new(Duration::from_millis(500)), vec![self.item.clone()], &Quiet)
    }

    fn is_whole(&self) -> bool {
        let right = Sha256Digest::of(&fs::read(&self.item.target).unwrap()) == self.item.sha256;
        right && !self.part().exists()
    }
}

#[test]
fn a_file_is_fetched_once_and_then_there() {
    let server = Server::start(|asked, stream| send(stream, &body(), asked.1, true, usize::MAX));
    let case = Case::new(&[&server], &body());
    case.fetch().unwrap();
    case.fetch().unwrap();
    assert!(case.is_whole());
    assert_eq!(server.asked(), [("/demo.deb".to_owned(), 0)]);
}

#[test]
fn a_started_file_goes_on_where_it_ends() {
    let server = Server::start(|asked, stream| send(stream, &body(), asked.1, true, usize::MAX));
    let case = Case::new(&[&server], &body()).started(&body()[..12_345]);
    case.fetch().unwrap();
    assert!(case.is_whole());
    assert_eq!(server.asked(), [("/demo.deb".to_owned(), 12_345)]);
}

#[test]
fn a_server_without_ranges_makes_it_start_again() {
    let server = Server::start(|asked, stream| send(stream, &body(), asked.1, false, usize::MAX));
    let case = Case::new(&[&server], &body()).started(&body()[..12_345]);
    case.fetch().unwrap();
    assert!(case.is_whole());
}

#[test]
fn a_started_file_with_wrong_bytes_is_fetched_anew() {
    let server = Server::start(|asked, stream| send(stream, &body(), asked.1, true, usize::MAX));
    for part in [vec![9; 12_345], vec![9; body().len()], vec![9; body().len() + 7]] {
        let case = Case::new(&[&server], &body()).started(&part);
        case.fetch().unwrap();
        assert!(case.is_whole());
    }
}

#[test]
fn a_cut_answer_is_continued() {
    let server = Server::start(|asked, stream| send(stream, &body(), asked.1, true, 300_000));
    let case = Case::new(&[&server], &body());
    case.fetch().unwrap();
    assert!(case.is_whole());
    assert_eq!(server.asked().len(), 3, "800 kB in pieces of 300 kB: {:?}", server.asked());
}

#[test]
fn wrong_content_names_the_package_and_leaves_nothing() {
    let mut wrong = body();
    wrong[77] ^= 1;
    let mut longer = body();
    longer.push(1);
    for content in [wrong, longer] {
        let server = Server::start(move |asked, stream| send(stream, &content, asked.1, true, usize::MAX));
        let case = Case::new(&[&server], &body());
        let error = case.fetch().unwrap_err();
        assert!(matches!(&error, Error::Digest { label, .. } if label == "demo 1"), "{error}");
        assert!(!case.item.target.exists() && !case.part().exists());
    }
}

#[test]
fn a_file_that_has_left_one_mirror_is_taken_from_the_next() {
    let gone = Server::start(|_, stream| status(stream, "404 Not Found"));
    let keeps = Server::start(|asked, stream| send(stream, &body(), asked.1, true, usize::MAX));
    let case = Case::new(&[&gone, &keeps], &body());
    case.fetch().unwrap();
    assert!(case.is_whole());
}

#[test]
fn a_file_that_no_mirror_has_is_told_without_trying_again() {
    let server = Server::start(|_, stream| status(stream, "404 Not Found"));
    let case = Case::new(&[&server], &body());
    let error = case.fetch().unwrap_err();
    assert!(matches!(&error, Error::Gone { label, .. } if label == "demo 1"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_file_is_gone_only_when_every_mirror_says_so() {
    let answers = |line: &'static str| Server::start(move |_, stream| status(stream, line));
    let refuses = || {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Server { base: format!("http://{free}"), asked: Arc::default() }
    };
    let (missing, removed) = (answers("404 Not Found"), answers("410 Gone"));
    let (broken, closed, nobody) = (answers("500 Internal Server Error"), refuses(), refuses());
    for servers in [
        [&broken, &missing],
        [&missing, &broken],
        [&closed, &nobody],
        [&closed, &missing],
        [&missing, &closed],
    ] {
        let error = Case::new(&servers, &body()).fetch().unwrap_err();
        assert!(matches!(&error, Error::Http { label, .. } if label == "demo 1"), "{error}");
    }
    let error = Case::new(&[&missing, &removed], &body()).fetch().unwrap_err();
    assert!(matches!(&error, Error::Gone { addresses, .. } if addresses.len() == 2), "{error}");
}

#[test]
fn a_server_that_is_busy_for_a_moment_is_asked_again() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |asked, stream| {
        if count.fetch_add(1, Ordering::Relaxed) < 2 {
            status(stream, "503 Service Unavailable");
        } else {
            send(stream, &body(), asked.1, true, usize::MAX);
        }
    });
    let case = Case::new(&[&server], &body());
    case.fetch().unwrap();
    assert!(case.is_whole());
}

#[test]
fn a_server_that_falls_silent_is_left_and_the_part_stays() {
    // The connection is kept open without a byte until the other side gives up.
    let server = Server::start(|asked, stream| {
        if asked.1 == 0 {
            send(stream, &body(), 0, true, 100_000);
        }
        let _ = stream.read(&mut [0]);
    });
    let case = Case::new(&[&server], &body());
    let error = case.fetch().unwrap_err();
    assert!(matches!(&error, Error::Http { label, .. } if label == "demo 1"), "{error}");
    assert_eq!(fs::read(&case.part()).unwrap(), &body()[..100_000]);
    assert!(!case.item.target.exists());
}

#[test]
fn no_server_at_all_is_an_error() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Server { base: format!("http://{free}"), asked: Arc::default() };
    assert!(matches!(Case::new(&[&nobody], &body()).fetch(), Err(Error::Http { .. })));
    assert!(matches!(Case::new(&[], &body()).fetch(), Err(Error::NoMirror(_))));
}

#[test]
fn two_at_once_fetch_it_once() {
    let server = Server::start(|asked, stream| send(stream, &body(), asked.1, true, usize::MAX));
    let case = Case::new(&[&server], &body());
    std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| case.fetch().unwrap())).collect();
        for one in both {
            one.join().unwrap();
        }
    });
    assert!(case.is_whole());
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn one_failure_stops_the_rest_and_keeps_what_is_whole() {
    let server = Server::start(|asked, stream| match asked.0.as_str() {
        "/good" => send(stream, b"good", asked.1, true, usize::MAX),
        _ => status(stream, "404 Not Found"),
    });
    let folder = tempfile::tempdir().unwrap();
    let item = |name: &str| Item {
        label: name.to_owned(),
        sha256: Sha256Digest::of(b"good"),
        size: 4,
        addresses: vec![format!("{}/{name}", server.base)],
        target: folder.path().join(name),
    };
    let client = http::Client::default();
    all(&client, vec![item("good")], &Quiet).unwrap();
    let items = std::iter::once(item("good")).chain((0..100).map(|number| item(&format!("bad{number}"))));
    let error = all(&client, items.collect(), &Quiet).unwrap_err();
    assert!(matches!(&error, Error::Gone { label, .. } if label.starts_with("bad")), "{error}");
    assert!(server.asked().len() < 100, "{}", server.asked().len());
    assert_eq!(fs::read(&folder.path().join("good")).unwrap(), b"good");
}
