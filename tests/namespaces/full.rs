//! The host's table of connections, full. How many entries it takes is the same in all namespaces, and no namespace but the
//! first one may say so; how many it holds is each namespace's own. So it is filled up with connections of nobody first, until
//! a small table is left.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use sepulcher::sys::wireguard::SecretKey;

use crate::crowd::pings;
use crate::lab::{Machine, can_run, scratch, until};
use crate::packets::{make_room, within};
use crate::silence::{ADDRESS, Appliance, replaced, without};

/// What is left of the table. The heaps of the forest are as many as hold three quarters of that.
const ROOM: usize = 1024;
const HEAPS: &str = "mod 4 ";

/// Sources that connect to the forest's port, each once: more than the table takes.
const SOURCES: u32 = 1500;

/// `IPCTNL_MSG_CT_NEW` of the subsystem `NFNL_SUBSYS_CTNETLINK`; `NLM_F_REQUEST`, `NLM_F_EXCL` and `NLM_F_CREATE`.
const NEW_CONNECTION: u16 = 1 << 8;
const FLAGS: u16 = 0x601;

/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// `IPS_SEEN_REPLY`, `IPS_ASSURED` and `IPS_CONFIRMED`: nothing makes the kernel give such a connection up.
const HELD: u32 = 0b1110;

/// An attribute of netlink.
fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + content.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One way of a connection by UDP: `CTA_TUPLE_IP` and `CTA_TUPLE_PROTO` with what they hold.
fn tuple([from, to]: [(Ipv4Addr, u16); 2]) -> Vec<u8> {
    let addresses = [attribute(1, &from.0.octets()), attribute(2, &to.0.octets())].concat();
    let protocol = attribute(1, &[17]);
    let ports = [attribute(2, &from.1.to_be_bytes()), attribute(3, &to.1.to_be_bytes())].concat();
    [attribute(1 | NESTED, &addresses), attribute(2 | NESTED, &[protocol, ports].concat())].concat()
}

/// A message that adds a connection of nobody, for an hour.
fn connection(number: u32) -> Vec<u8> {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 0, 0).to_bits() + (number >> 16));
    let from = (address, u16::try_from(number & 0xffff).unwrap());
    let to = (Ipv4Addr::new(10, 201, 0, 1), 9);
    // `AF_INET`, version, resource; `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_STATUS`, `CTA_TIMEOUT`.
    let body = [
        vec![2, 0, 0, 0],
        attribute(1 | NESTED, &tuple([from, to])),
        attribute(2 | NESTED, &tuple([to, from])),
        attribute(3, &HELD.to_be_bytes()),
        attribute(7, &3600_u32.to_be_bytes()),
    ]
    .concat();
    let length = u32::try_from(16 + body.len()).unwrap().to_ne_bytes();
    let header = [&length[..], &NEW_CONNECTION.to_ne_bytes(), &FLAGS.to_ne_bytes(), &[0; 8]].concat();
    [header, body].concat()
}

/// A number of the table: `max` or `count`.
fn number(machine: &Machine, what: &str) -> usize {
    machine.sh(&format!("cat /proc/sys/net/netfilter/nf_conntrack_{what}")).trim().parse().unwrap()
}

/// Fills a machine's table until [`ROOM`] is left.
fn fill(machine: &Machine) {
    let missing = number(machine, "max") - ROOM - number(machine, "count");
    within(&machine.network(), || {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER));
        let (socket, kernel) = (socket.unwrap(), SocketAddrNetlink::new(0, 0));
        let numbers: Vec<u32> = (0..u32::try_from(missing).unwrap()).collect();
        for some in numbers.chunks(256) {
            let messages: Vec<u8> = some.iter().copied().flat_map(connection).collect();
            sendto(&socket, &messages, SendFlags::empty(), &kernel).unwrap();
        }
    });
    let left = number(machine, "max") - number(machine, "count");
    assert!(left.abs_diff(ROOM) < 8, "{left} is left");
}

/// Connects from [`SOURCES`] addresses to the forest's port, which answers all that come through, and stays connected while
/// `meanwhile` goes on: that begins a second later.
fn flooded<T: Send>(appliance: &Appliance, meanwhile: impl FnOnce() -> T + Send) -> T {
    appliance.outsider.sh("ip route add local 198.18.0.0/16 dev lo");
    appliance.host.sh("ip route add 198.18.0.0/16 via 192.0.2.2");
    make_room();
    let listener = within(&appliance.pod.network(), || TcpListener::bind("0.0.0.0:80").unwrap());
    listener.set_nonblocking(true).unwrap();
    let (start, end) = (Instant::now(), AtomicBool::new(false));
    // It ends by itself where what follows fails.
    let over = || end.load(Ordering::Relaxed) || start.elapsed() > Duration::from_secs(60);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut accepted = Vec::new();
            while !over() {
                match listener.accept() {
                    Ok((stream, _)) => accepted.push(stream),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let _connections = within(&appliance.outsider.network(), || {
            let connections: Vec<OwnedFd> = (0..SOURCES).map(connect).collect();
            thread::sleep(Duration::from_secs(1));
            connections
        });
        let result = meanwhile();
        end.store(true, Ordering::Relaxed);
        result
    })
}

/// Begins a connection from one of the sources; a few of them at a time, so that the listener keeps up.
fn connect(source: u32) -> OwnedFd {
    if source.is_multiple_of(50) {
        thread::sleep(Duration::from_millis(5));
    }
    let from = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 1, 0).to_bits() + source);
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(from.into(), 0)).unwrap();
    let to = SocketAddr::new(ADDRESS.parse().unwrap(), 80);
    // It is under way.
    let _ = rustix::net::connect(&socket, &to);
    socket
}

/// What becomes of a bonded phone while the forest floods a host whose ruleset is left so by `spoil`: how many of ten pings
/// through its session are answered, whether it shakes hands anew from a port of its own that nobody knows yet, and how much
/// room is left in the table.
fn besieged(spoil: impl FnOnce(&str) -> String) -> (usize, bool, usize) {
    let (_scratch, folder) = scratch();
    let appliance = Appliance::new(&folder);
    let key = appliance.wireguard();
    let (secret, file) = (SecretKey::generate(), folder.join("phone.key"));
    std::fs::write(&file, secret.to_file().as_bytes()).unwrap();
    appliance.pod.sh(&format!("wg set wg0 peer {} allowed-ips 10.88.16.2/32", secret.public()));
    let phone = &appliance.outsider;
    phone.wireguard();
    phone.sh(&format!(
        "wg set wg0 private-key {} && ip address add 10.88.16.2/20 dev wg0 && ip link set wg0 up",
        file.display()
    ));
    let dial = || {
        phone.sh(&format!(
            "wg set wg0 peer {key} remove; wg set wg0 peer {key} allowed-ips 10.88.16.0/20 \
             endpoint {ADDRESS}:51820 persistent-keepalive 1"
        ))
    };
    dial();
    let tether: IpAddr = "10.88.16.1".parse().unwrap();
    let ping = || within(&phone.network(), || pings(tether, 1));
    until("the phone is in", || (ping() == 1).then_some(()));
    // What goes on for more than two seconds is no connection that the kernel gives up.
    thread::sleep(Duration::from_secs(4));
    let ruleset = sepulcher::render::nftables::host(&appliance.codex).unwrap();
    appliance.load(&appliance.host, "small.nft", &spoil(&replaced(&ruleset, "mod 512 ", HEAPS)));
    fill(&appliance.host);
    flooded(&appliance, || {
        let answered = (0..10).map(|_| ping()).sum();
        let left = number(&appliance.host, "max").saturating_sub(number(&appliance.host, "count"));
        phone.sh("wg set wg0 listen-port 40404");
        dial();
        let start = Instant::now();
        let mut inside = false;
        while !inside && start.elapsed() < Duration::from_secs(8) {
            inside = ping() == 1;
        }
        (answered, inside, left)
    })
}

#[test]
fn a_flood_of_answered_connections_leaves_the_tether_room_in_the_table() {
    if !can_run("a_flood_of_answered_connections_leaves_the_tether_room_in_the_table") {
        return;
    }
    let (answered, inside, left) = besieged(str::to_owned);
    assert_eq!((answered, inside), (10, true), "{left} is left");
    // Three quarters are 768. Within one tick the kernel counts a few less.
    assert!((ROOM / 4 - 48..=ROOM / 4 + 8).contains(&left), "{left} is left");
    let (answered, inside, left) = besieged(|text| without(text, "@heaps"));
    assert_eq!((answered, inside), (10, false), "without the rule {left} is left: nobody new gets in");
}
