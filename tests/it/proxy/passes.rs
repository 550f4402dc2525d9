//! Pinned routes on the tether, and around them: who has a pass, and what the others are told.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use sepulcher::codex::{Codex, Sources};
use sepulcher::tether::passes;

use super::{PINNED, Proxy, Service, Unknown, ask, connect_from, head, say, start_with};
use crate::cases;

const LAW: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nnetwork6 = \"fd88::/64\"\n";

/// Paths and their tiers.
type Routes = &'static [(&'static str, &'static str)];

/// Owner, port, and routes. The Vessel serves the forest and pins a path of its own; what the others
/// pin lies inside `/`, and the Intercom's inside the Bazaar's too.
const OWNERS: [(&str, u16, Routes); 3] = [
    ("bazaar", 7150, &[("/a2a", "tether")]),
    ("intercom", 7140, &[("/a2a/smith", "tether")]),
    ("vessel", 7134, &[("/", "forest"), ("/admin", "tether")]),
];

fn codex() -> Codex {
    let about = "description = \"x\"\nrootfs = \"stand-in\"\n";
    let mut sources = Sources::default();
    sources.insert("lychd.toml", LAW);
    let veil = format!("{about}veil = true\n[[port]]\nnumber = 80\ntier = \"forest\"\n");
    sources.insert("services/veil.toml", veil);
    for (owner, port, routes) in OWNERS {
        let mut text = format!("{about}[[port]]\nnumber = {port}\ntier = \"pod\"\n");
        for (path, tier) in routes {
            text += &format!("[[route]]\npath = \"{path}\"\ntier = \"{tier}\"\nport = {port}\n");
        }
        sources.insert(format!("services/{owner}.toml"), text);
    }
    Codex::parse(&sources).unwrap()
}

fn start(test: &str, unknown: Unknown, six: Option<u16>) -> Option<Proxy> {
    let services = [
        Service { port: 7150, knows: &["/a2a"], unknown: Unknown::Welcome },
        Service { port: 7140, knows: &["/a2a/smith", "/a2a/smith/x"], unknown },
        Service { port: 7134, knows: &["/", "/admin", "/admin/x"], unknown },
    ];
    start_with(test, &codex(), &services, six)
}

/// Somebody on the tether.
struct Asker {
    address: IpAddr,
    listener: SocketAddr,
}

impl Asker {
    fn at(address: &str, listener: SocketAddr) -> Self {
        Self { address: address.parse().unwrap(), listener }
    }

    fn ask(&self, method: &str, path: &str) -> String {
        say(connect_from(self.address, self.listener), method, path, "")
    }

    /// That each path is answered as one that nobody serves, byte for byte.
    fn knows_nothing_of(&self, paths: &[&str]) {
        for method in ["GET", "POST"] {
            let unknown = self.ask(method, "/nobody/knows");
            for path in paths {
                assert_eq!(self.ask(method, path), unknown, "{} {method} {path}", self.address);
            }
        }
    }

    /// That the service at that port answers.
    fn is_served(&self, path: &str, port: u16) {
        let answer = self.ask("GET", path);
        let own = format!("\r\nX-Own: {port}\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&own), "{path}: {answer}");
        assert!(answer.contains(&format!("\r\n\r\n{path} ")), "{path}: {answer}");
    }
}

const ADMIN: [&str; 4] = ["/admin", "/admin/x", "/Admin", "//admin"];

#[test]
fn a_pinned_route_answers_whoever_has_its_pass_and_is_unknown_to_others() {
    let test = "a_pinned_route_answers_whoever_has_its_pass_and_is_unknown_to_others";
    for unknown in [Unknown::Refused, Unknown::Welcome] {
        let Some(proxy) = start(test, unknown, None) else { return };
        let [phone, laptop] = ["127.0.0.1", "127.0.0.2"].map(|own| Asker::at(own, proxy.tether));
        for asker in [&phone, &laptop] {
            asker.knows_nothing_of(&[&PINNED[..], &ADMIN, &["/a2a", "/a2a/x"]].concat());
            asker.is_served("/", 7134);
        }
        proxy.give("intercom", "127.0.0.1");
        phone.is_served("/a2a/smith", 7140);
        phone.is_served("/a2a/smith/x", 7140);
        phone.knows_nothing_of(&[&ADMIN[..], &["/a2a", "/a2a/x"]].concat());
        laptop.knows_nothing_of(&[&PINNED[..], &ADMIN, &["/a2a"]].concat());
        let lie = "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n";
        let lied = say(connect_from(laptop.address, proxy.tether), "GET", "/a2a/smith", lie);
        assert_eq!(
            lied,
            laptop.ask("GET", "/nobody/knows"),
            "it is the address that counts, not what is said"
        );
        proxy.give("vessel", "127.0.0.2");
        laptop.is_served("/admin", 7134);
        laptop.knows_nothing_of(&PINNED);
        proxy.take("intercom", "127.0.0.1");
        phone.knows_nothing_of(&PINNED);
    }
}

#[test]
fn a_pinned_route_inside_another_ones_is_unknown_there() {
    let test = "a_pinned_route_inside_another_ones_is_unknown_there";
    let Some(proxy) = start(test, Unknown::Refused, None) else { return };
    let phone = Asker::at("127.0.0.1", proxy.tether);
    proxy.give("bazaar", "127.0.0.1");
    phone.is_served("/a2a", 7150);
    let unknown = phone.ask("GET", "/a2a/nobody");
    assert!(unknown.contains("X-Own: 7150"), "{unknown}");
    assert_eq!(phone.ask("GET", "/a2a/smith"), unknown);
    proxy.give("intercom", "127.0.0.1");
    phone.is_served("/a2a/smith", 7140);
}

#[test]
fn a_pass_of_ipv6_is_one_too() {
    let test = "a_pass_of_ipv6_is_one_too";
    let free = match TcpListener::bind("[::1]:0") {
        Ok(listener) => listener.local_addr().unwrap().port(),
        Err(error) if std::env::var_os("CI").is_some() => panic!("no IPv6 for {test}: {error}"),
        Err(error) => {
            eprintln!("SKIPPED {test}: there is no IPv6 on loopback: {error}");
            return;
        }
    };
    let Some(proxy) = start(test, Unknown::Refused, Some(free)) else { return };
    let phone = Asker::at("::1", SocketAddr::new("::1".parse().unwrap(), free));
    let other = Asker::at("127.0.0.1", proxy.tether);
    phone.knows_nothing_of(&PINNED);
    proxy.give("intercom", "::1");
    phone.is_served("/a2a/smith", 7140);
    other.knows_nothing_of(&PINNED);
    proxy.take("intercom", "::1");
    phone.knows_nothing_of(&PINNED);
}

#[test]
fn a_pass_that_is_taken_away_ends_with_the_next_request_of_an_open_connection() {
    let test = "a_pass_that_is_taken_away_ends_with_the_next_request_of_an_open_connection";
    let Some(proxy) = start(test, Unknown::Refused, None) else { return };
    let mut stream = TcpStream::connect(proxy.tether).unwrap();
    let mut ask = |path: &str| {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let head = head(&mut stream);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    };
    let unknown = ask("/nobody/knows");
    proxy.give("intercom", "127.0.0.1");
    assert!(ask("/a2a/smith").starts_with("/a2a/smith "));
    proxy.take("intercom", "127.0.0.1");
    assert_eq!(ask("/a2a/smith"), unknown);
}

/// Who names the path in its answers must be asked for the path itself, or the answer tells what was pinned.
#[test]
fn a_service_that_names_paths_names_a_pinned_one_of_others_as_any() {
    let test = "a_service_that_names_paths_names_a_pinned_one_of_others_as_any";
    let Some(proxy) = start(test, Unknown::Told, None) else { return };
    for listener in [proxy.forest, proxy.tether] {
        for method in ["GET", "POST"] {
            for pinned in PINNED {
                let other = pinned.replace('m', "q");
                assert_ne!(pinned, other);
                let (told, unknown) = (ask(listener, method, pinned), ask(listener, method, &other));
                assert!(unknown.ends_with(&format!("cannot {method} {other}")), "{unknown}");
                assert_eq!(told.replace(pinned, &other), unknown, "{method} {pinned}");
            }
        }
    }
}

#[test]
fn the_veil_looks_where_the_agent_lays_its_passes() {
    for case in cases::all() {
        let quadlets = cases::texts(&case.tree, cases::QUADLETS);
        let mount = format!("Volume={}:/run/sepulcher/veil:ro\n", passes::PATH);
        let with: Vec<_> = quadlets.filter(|(_, text)| text.contains(&mount)).map(|(name, _)| name).collect();
        let veils = case.codex.services.iter().filter(|(_, service)| service.veil);
        let veils: Vec<_> =
            veils.map(|(name, _)| format!("{}-{name}.container", case.codex.appliance.name)).collect();
        assert_eq!(with, veils, "{}", case.name);
        let folders = cases::text(&case.tree, "usr/lib/tmpfiles.d/sepulcher.conf");
        assert!(folders.contains(&format!("d {} 0755 root root -\n", passes::PATH)), "{}", case.name);
        if let Some(veil) = sepulcher::render::caddy::caddyfile(&case.codex).unwrap() {
            assert!(!veil.contains("try_files") || veil.contains("\troot /run/sepulcher/veil\n"));
        }
    }
}
