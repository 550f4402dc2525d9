//! Who may ask what, and what is passed on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;

use super::*;
use crate::codex::{Backend, Sources};
use crate::tether::status::Peers;

const KEYS: [&str; 6] = [
    "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=",
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "/O8+G5a2GFPG6Kl6oB0kmvCkbKhLkf9a8HcHGEJGUlc=",
    "rUBGzRp4xKUz6e2gNDcCrZPYpLC7O0gUGdbTRNXNwmY=",
    "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
    "ilWM7S07cmS1LX8L0C9iF0d1uBj8lIRbQiF8o9bvqhY=",
];

fn board() -> Board {
    let peer = |key: usize, last: u8, grants: &str| {
        format!("public-key = \"{}\"\naddress = \"10.88.16.{last}\"\ngrants = [{grants}]\n", KEYS[key])
    };
    let sources: Sources = [
        (
            "lychd.toml",
            "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nnetwork6 = \"fd4c:7963:6864::/64\"\n"
                .to_owned(),
        ),
        ("peers/laptop.toml", peer(0, 2, "\"bonds\"")),
        ("peers/grafana.toml", peer(1, 3, "\"metrics\"")),
        ("peers/guest.toml", peer(2, 4, "\"bonds\"") + "expires = 2001-01-01T00:00:00Z\n"),
        ("peers/phone.toml", peer(3, 5, "\"*\"")),
        ("peers/tablet.toml", peer(4, 6, "\"rebirth\"")),
        ("peers/archivist.toml", peer(5, 7, "\"snapshots\"")),
    ]
    .into_iter()
    .collect();
    let codex = Codex::parse(&sources).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let board = Board::new("wg0", "/nonexistent/nft".as_ref());
    let known = Known { codex, backend: Backend::Kernel, peers: Peers::default(), broken: 0, drift: 0 };
    board.tell(known);
    board
}

fn ask(method: &str, target: &str, from: Caller, control: &Path, body: &str) -> (u16, serde_json::Value) {
    let (method, target, body) = (method.to_owned(), target.to_owned(), body.as_bytes().to_vec());
    let host = Some("10.88.16.1:51821".to_owned());
    let request = Request { method, target, host, deliberate: true, body };
    let answer = respond(&request, from, &board(), control);
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

fn peer(last: u8) -> Caller {
    Caller::Address([10, 88, 16, last].into())
}

const LIST: &str = r#"{"verb":"list"}"#;

#[test]
fn whoever_lacks_the_grant_is_told_what_an_unknown_path_is_told() {
    let nowhere = Path::new("/nonexistent");
    let unknown = ask("GET", "/", peer(2), nowhere, "");
    assert_eq!(unknown.0, 404);
    let [laptop, grafana, guest, phone, tablet, archivist, stranger] = [2, 3, 4, 5, 6, 7, 9].map(peer);
    let asked = [
        ("GET", "/metrics"),
        ("GET", "/v1/peers"),
        ("POST", "/v1/bonds"),
        ("GET", "/rebirth"),
        ("GET", "/snapshots"),
    ];
    let may = [
        (laptop, [false, true, true, false, false]),
        (grafana, [true, false, false, false, false]),
        (guest, [false; 5]),
        (phone, [false; 5]),
        (tablet, [false, false, false, true, false]),
        (archivist, [false, false, false, false, true]),
        (stranger, [false; 5]),
        (Caller::Host, [true, true, false, false, false]),
    ];
    for (caller, may) in may {
        for ((method, target), may) in asked.into_iter().zip(may) {
            let told = ask(method, target, caller, nowhere, LIST);
            // Behind the door there is neither an interface nor a control socket.
            let expected = if may { 503 } else { 404 };
            assert_eq!(told.0, expected, "{caller:?} {method} {target}: {}", told.1);
            assert!(may || told == unknown, "{}", told.1);
        }
    }
    assert_eq!(ask("POST", "/v1/peers", laptop, nowhere, ""), unknown);
    assert_eq!(ask("GET", "/v1/bonds", laptop, nowhere, ""), unknown);
    assert_eq!(ask("GET", "/metrics?x", grafana, nowhere, ""), unknown);
}

/// Answers one request at the control socket, and tells what it was.
fn control(path: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(answer.as_bytes()).unwrap();
        line
    })
}

#[test]
fn a_request_is_passed_on_with_the_name_of_who_asked_and_so_is_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let asked = |number: u8, answer: &'static str| {
        let path = folder.path().join(number.to_string());
        let host = control(&path, answer);
        let told = ask("POST", "/v1/bonds", peer(2), &path, LIST);
        (told.0, told.1.to_string(), host.join().unwrap())
    };
    let (status, body, line) = asked(1, "{\"ok\":{\"schema\":1}}\n");
    assert_eq!((status, body.as_str()), (200, "{\"ok\":{\"schema\":1}}"));
    assert_eq!(line, "{\"peer\":\"laptop\",\"request\":{\"verb\":\"list\"},\"schema\":1}\n");
    assert_eq!(asked(2, "{\"error\":{\"message\":\"no\",\"kind\":\"input\"}}\n").0, 400);
    assert_eq!(asked(3, "{\"error\":{\"message\":\"no\",\"kind\":\"unavailable\"}}\n").0, 503);
    assert_eq!(asked(4, "{\"error\":{\"message\":\"no\",\"kind\":\"io\"}}\n").0, 500);
    assert_eq!(asked(5, "{\"ok\"").0, 503, "half an answer");
}

#[test]
fn what_is_no_request_or_comes_from_a_web_page_is_not_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let _listener = UnixListener::bind(&path).unwrap();
    for body in ["", "{}", "[]", r#"{"verb":"dance"}"#, r#"{"verb":"revoke","name":"../x"}"#] {
        assert_eq!(ask("POST", "/v1/bonds", peer(2), &path, body).0, 400, "{body}");
    }
    let (method, target) = ("POST".into(), "/v1/bonds".into());
    let request =
        Request { method, target, host: Some("lychd".into()), deliberate: false, body: LIST.into() };
    assert_eq!(respond(&request, peer(2), &board(), &path).status, 415);
}

#[test]
fn a_request_for_another_host_is_refused_whoever_sends_it() {
    let status = |host: Option<&str>, caller| {
        let (method, target) = ("GET".into(), "/".into());
        let host = host.map(str::to_owned);
        let request = Request { method, target, host, deliberate: true, body: Vec::new() };
        respond(&request, caller, &board(), Path::new("/nonexistent")).status
    };
    for here in ["10.88.16.1", "10.88.16.1:51821", "lychd", "LychD:51821", "[fd4c:7963:6864::1]:51821"] {
        assert_eq!(status(Some(here), peer(2)), 404, "{here}");
    }
    for elsewhere in [
        "evil.example",
        "evil.example:51821",
        "lychd.evil.example",
        "10.88.16.1:80",
        "10.88.16.1.evil.example",
        "10.88.16.2",
        "fd4c:7963:6864::1",
        "[fd4c:7963:6864::2]",
        "localhost",
        "",
    ] {
        assert_eq!(status(Some(elsewhere), peer(2)), 421, "{elsewhere}");
        assert_eq!(status(Some(elsewhere), peer(9)), 421, "{elsewhere}: also to a stranger");
    }
    assert_eq!(status(None, peer(2)), 421);
    assert_eq!(status(None, Caller::Host), 404, "a socket of this machine is nobody else's");
}

#[test]
fn wishes_about_bodies_are_handed_on_with_the_peers_name() {
    let folder = tempfile::tempdir().unwrap();
    let digest = "0".repeat(64);
    let wishes = [
        (
            "/rebirth/stage",
            r#"{"nonce":"0123456789abcdef","source":"https://a/2.tar"}"#.to_owned(),
            r#"{"wish":{"nonce":"0123456789abcdef","wish":{"stage":{"allow-downgrade":false,"source":"https://a/2.tar"}}}}"#.to_owned(),
        ),
        (
            "/rebirth/activate",
            format!(r#"{{"nonce":"0123456789abcdef","digest":"{digest}"}}"#),
            format!(r#"{{"wish":{{"nonce":"0123456789abcdef","wish":{{"activate":{{"digest":"{digest}"}}}}}}}}"#),
        ),
        (
            "/rebirth/rollback",
            r#"{"nonce":"0123456789abcdef","leave":"2"}"#.to_owned(),
            r#"{"wish":{"nonce":"0123456789abcdef","wish":{"rollback":{"leave":"2"}}}}"#.to_owned(),
        ),
    ];
    for (index, (target, body, question)) in wishes.into_iter().enumerate() {
        let path = folder.path().join(index.to_string());
        let host = control(&path, "{\"ok\":{\"accepted\":\"0123456789abcdef.json\"}}\n");
        assert_eq!(ask("POST", target, peer(6), &path, &body).0, 202);
        let asked: serde_json::Value = serde_json::from_str(&host.join().unwrap()).unwrap();
        assert_eq!(asked["peer"], "tablet");
        assert_eq!(asked["rebirth"].to_string(), question);
    }
    let nowhere = Path::new("/nonexistent");
    for (target, body) in [
        ("/rebirth/stage", r#"{"nonce":"0123456789abcdef"}"#),
        ("/rebirth/stage", r#"{"nonce":"x","source":"https://a/"}"#),
        ("/rebirth/stage", r#"{"nonce":"0123456789abcdef","source":"https://a/","run":"sh"}"#),
        ("/rebirth/activate", r#"{"nonce":"0123456789abcdef","digest":"1"}"#),
        ("/rebirth/activate", ""),
        ("/rebirth/rollback", r#"{"nonce":"0123456789abcdef"}"#),
        ("/rebirth/rollback", r#"{"nonce":"0123456789abcdef","leave":"../2"}"#),
    ] {
        assert_eq!(ask("POST", target, peer(6), nowhere, body).0, 400, "{target} {body}");
        assert_eq!(ask("POST", target, peer(2), nowhere, body).0, 404, "{target} {body}");
    }
}

#[test]
fn a_snapshot_is_asked_for_with_the_peers_name_and_for_recipients_alone() {
    let folder = tempfile::tempdir().unwrap();
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let body = format!(r#"{{"recipients":["{recipient}"],"with-identity":true}}"#);
    let asked = [
        ("GET", "/snapshots", String::new(), r#"{"list":{}}"#.to_owned()),
        (
            "POST",
            "/snapshots/show",
            r#"{"snapshot":"2027"}"#.to_owned(),
            r#"{"show":{"snapshot":"2027"}}"#.to_owned(),
        ),
        (
            "POST",
            "/snapshots/verify",
            r#"{"nonce":"0123456789abcdef","wish":{}}"#.to_owned(),
            r#"{"wish":{"nonce":"0123456789abcdef","wish":{"verify-snapshot":{"snapshot":null}}}}"#
                .to_owned(),
        ),
        (
            "POST",
            "/snapshots/export",
            body,
            format!(r#"{{"export":{{"recipients":["{recipient}"],"snapshot":null,"with-identity":true}}}}"#),
        ),
        (
            "POST",
            "/snapshots/create",
            r#"{"nonce":"0123456789abcdef","wish":{"note":"x"}}"#.to_owned(),
            r#"{"wish":{"nonce":"0123456789abcdef","wish":{"create-snapshot":{"bonds-only":false,"note":"x","with-identity":false}}}}"#.to_owned(),
        ),
        (
            "POST",
            "/snapshots/restore",
            r#"{"nonce":"0123456789abcdef","wish":{"revive":["phone"]}}"#.to_owned(),
            r#"{"wish":{"nonce":"0123456789abcdef","wish":{"restore-snapshot":{"revive":["phone"],"snapshot":null,"with-identity":false,"with-volumes":false}}}}"#.to_owned(),
        ),
        (
            "POST",
            "/snapshots/prune",
            r#"{"nonce":"0123456789abcdef","wish":{"keep":3}}"#.to_owned(),
            r#"{"wish":{"nonce":"0123456789abcdef","wish":{"prune-snapshots":{"keep":3}}}}"#.to_owned(),
        ),
    ];
    for (index, (method, target, body, question)) in asked.into_iter().enumerate() {
        let path = folder.path().join(index.to_string());
        let host = control(&path, "{\"ok\":{}}\n");
        assert_eq!(ask(method, target, peer(7), &path, &body).0, 200);
        let asked: serde_json::Value = serde_json::from_str(&host.join().unwrap()).unwrap();
        assert_eq!((asked["peer"].as_str(), asked["snapshots"].to_string()), (Some("archivist"), question));
    }
    let nowhere = Path::new("/nonexistent");
    for body in ["", "{}", r#"{"recipients":["age1"]}"#, r#"{"recipients":[],"path":"/etc/passwd"}"#] {
        assert_eq!(ask("POST", "/snapshots/export", peer(7), nowhere, body).0, 400, "{body}");
        assert_eq!(ask("POST", "/snapshots/export", peer(6), nowhere, body).0, 404, "{body}");
    }
    let wishes = [r#"{"run":"sh"}"#, r#"{"keep":0}"#]
        .map(|wish| format!(r#"{{"nonce":"0123456789abcdef","wish":{wish}}}"#));
    for wish in ["{}", r#"{"nonce":"x","wish":{}}"#].into_iter().chain(wishes.iter().map(String::as_str)) {
        for target in ["/snapshots/create", "/snapshots/restore", "/snapshots/prune"] {
            assert_eq!(ask("POST", target, peer(7), nowhere, wish).0, 400, "{target} {wish}");
            assert_eq!(ask("POST", target, peer(6), nowhere, wish).0, 404, "{target} {wish}");
        }
    }
}
