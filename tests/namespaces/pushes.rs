//! Services that go on sending to whoever asked once: a grant that goes ends that, too.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sepulcher::codex::{Codex, Sources};
use sepulcher::render::nftables;
use sepulcher::sys::wireguard::SecretKey;

use crate::arena::{Arena, load};
use crate::lab::{Machine, can_run, scratch};
use crate::packets::within;
use crate::silence::{replaced, without};

/// A port that the first peer is granted.
pub const PORT: u16 = 7000;
const OF_HOST: u16 = 7090;

/// Long enough to hear many of what is sent every 5 ms.
const WHILE: Duration = Duration::from_millis(300);

/// Something that sends to whoever asked it last, again and again, until it is dropped.
struct Pusher {
    _end: mpsc::Sender<()>,
}

impl Pusher {
    fn on(machine: &Machine, at: SocketAddr) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let socket = within(&machine.network(), || UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        thread::spawn(move || {
            let mut listener = None;
            while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
                listener = socket.recv_from(&mut [0; 64]).map(|(_, from)| from).ok().or(listener);
                // The pod's own ruleset tells its containers when it stops them.
                let _ = listener.map(|listener| socket.send_to(b"still here", listener));
            }
        });
        Self { _end: end }
    }
}

/// How much comes from now on.
fn heard(socket: &UdpSocket) -> usize {
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 64]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < WHILE {
        count += usize::from(socket.recv(&mut [0; 64]).is_ok());
    }
    count
}

/// Two peers with addresses of both families, the first of which holds all that there is.
pub fn codex() -> Codex {
    let mut sources = Sources::default();
    let law = format!(
        "schema = 1\n[appliance]\nname = \"arena\"\n[tether]\nnetwork6 = \"fd88::/64\"\n\
         [[host]]\nname = \"clock\"\nport = {OF_HOST}\nprotocol = \"udp\"\n"
    );
    sources.insert("lychd.toml", law);
    let port = format!("[[port]]\nnumber = {PORT}\nprotocol = \"udp\"\ntier = \"tether\"\n");
    sources.insert("services/s.toml", format!("description = \"s\"\nrootfs = \"stand-in\"\n{port}"));
    for (last, grants) in [(2, "[\"s\", \"clock\", \"peer:p3\"]"), (3, "[]")] {
        let key = SecretKey::generate().public();
        let text = format!(
            "public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\naddress6 = \"fd88::{last}\"\ngrants = {grants}\n"
        );
        sources.insert(format!("peers/p{last}.toml"), text);
    }
    Codex::parse(&sources).unwrap()
}

/// Addresses of all peers, each peer's of IPv4 before that of IPv6.
pub fn addresses(codex: &Codex) -> Vec<IpAddr> {
    let both = |peer: &sepulcher::codex::Peer| [IpAddr::V4(peer.address), peer.address6.unwrap().into()];
    codex.active().flat_map(|(_, peer)| both(peer)).collect()
}

/// Who pushes and from where, the grant's element, and the ruleset without the rule that ends it.
type Case = (&'static str, &'static str, &'static str, fn(&str) -> String);

const CASES: [Case; 4] = [
    ("pod", "10.88.16.1:7000", "grants { 10.88.16.2 . udp . 7000 }", |text| {
        without(text, "@offered counter drop")
    }),
    ("pod", "[fd88::1]:7000", "grants6 { fd88::2 . udp . 7000 }", |text| {
        without(text, "@offered counter drop")
    }),
    ("host", "10.88.0.1:7090", "host_grants { 10.88.16.2 . udp . 7090 }", |text| {
        replaced(text, "ip daddr . meta l4proto . th sport @host_grants ", "")
    }),
    ("peers", "10.88.16.3:7000", "between { 10.88.16.2 . 10.88.16.3 }", |text| {
        replaced(text, "ip daddr . ip saddr @between ct direction reply", "ct direction reply")
    }),
];

#[test]
fn a_grant_that_goes_ends_what_is_pushed() {
    if !can_run("a_grant_that_goes_ends_what_is_pushed") {
        return;
    }
    let (_guard, folder) = scratch();
    let codex = codex();
    let arena = Arena::new(&codex, &addresses(&codex), &[], &folder);
    let ruleset = nftables::pod(&codex).unwrap();
    for (who, at, element, spoil) in CASES {
        let machine = match who {
            "pod" => &arena.pod,
            "host" => &arena.host,
            _ => &arena.peers,
        };
        let at: SocketAddr = at.parse().unwrap();
        let from: IpAddr = if at.is_ipv4() { "10.88.16.2" } else { "fd88::2" }.parse().unwrap();
        let _pusher = Pusher::on(machine, at);
        let socket = within(&arena.peers.network(), || UdpSocket::bind((from, 0)).unwrap());
        let ungrant = || arena.pod.sh(&format!("nft 'delete element inet sepulcher {element}'"));
        load(&arena.pod, &ruleset, &folder.join("pod.nft"));
        socket.send_to(b"hello", at).unwrap();
        assert!(heard(&socket) > 10, "{who} pushes while {element} is there");
        ungrant();
        assert_eq!(heard(&socket), 0, "{who} is silent at once when {element} goes");
        load(&arena.pod, &spoil(&ruleset), &folder.join("spoiled.nft"));
        ungrant();
        assert!(heard(&socket) > 10, "{who} would go on without the rule");
    }
}

#[test]
fn from_a_granted_port_nobody_hears_anything_who_holds_no_grant() {
    if !can_run("from_a_granted_port_nobody_hears_anything_who_holds_no_grant") {
        return;
    }
    let (_guard, folder) = scratch();
    let codex = codex();
    let arena = Arena::new(&codex, &addresses(&codex), &[], &folder);
    // As a service does that goes on when the kernel has forgotten who had asked it.
    let says = |port: u16, to: &str| {
        let socket = within(&arena.peers.network(), || UdpSocket::bind((to, 7777)).unwrap());
        let pusher = within(&arena.pod.network(), || UdpSocket::bind(("10.88.16.1", port)).unwrap());
        socket.set_read_timeout(Some(WHILE)).unwrap();
        // The kernel refuses what the ruleset stops.
        let _ = pusher.send_to(b"still here", (to, 7777));
        socket.recv(&mut [0; 64]).is_ok()
    };
    assert!(says(PORT, "10.88.16.2"), "it holds the grant");
    assert!(!says(PORT, "10.88.16.3"));
    assert!(says(7050, "10.88.16.3"), "what containers begin themselves is theirs to send");
    let spoiled = without(&nftables::pod(&codex).unwrap(), "@offered counter drop");
    load(&arena.pod, &spoiled, &folder.join("spoiled.nft"));
    assert!(says(PORT, "10.88.16.3"), "without the rule it would hear");
}
