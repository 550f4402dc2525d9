//! What comes from outside and has no business here.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sepulcher::codex::{Codex, Sources};
use sepulcher::render::nftables;

use crate::arena::{Arena, UPLINK, UPLINK6, add, load};
use crate::crowd::pings;
use crate::lab::{can_run, scratch};
use crate::packets::within;

/// A port that is public where there is a forest.
const PUBLIC: u16 = 7000;

fn codex(dark: bool) -> Codex {
    let mut sources = Sources::default();
    sources.insert("lychd.toml", format!("schema = 1\n[appliance]\nname = \"arena\"\ndark = {dark}\n"));
    let tier = if dark { "tether" } else { "forest" };
    let ports = ["tcp", "udp"].map(|protocol| {
        format!("[[port]]\nnumber = {PUBLIC}\nprotocol = \"{protocol}\"\ntier = \"{tier}\"\n")
    });
    sources
        .insert("services/s.toml", format!("description = \"s\"\nrootfs = \"stand-in\"\n{}", ports.concat()));
    Codex::parse(&sources).unwrap()
}

/// A datagram and a SYN to every port of an address.
fn knock_everywhere(address: IpAddr) {
    let own: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let udp = UdpSocket::bind(own).unwrap();
    for port in 1..=u16::MAX {
        let to = SocketAddr::new(address, port);
        // What is refused to us shows in what comes back.
        let _ = udp.send_to(b"probe", to);
        let tcp = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        let _ = rustix::net::connect(&tcp, &to);
    }
}

/// How many packets come back of every port, protocol and ping. Neighbours may ask each other for the way, and whole
/// networks.
fn comes_back(arena: &Arena) -> u64 {
    let others =
        "fib daddr type != local accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept";
    arena.outsider.sh(&format!(
        "nft 'table inet ear {{ chain in {{ type filter hook prerouting priority raw; {others}; \
         meta nfproto {{ ipv4, ipv6 }} counter; }}; }}'"
    ));
    within(&arena.outsider.network(), || {
        for address in [UPLINK.into(), UPLINK6.into()] {
            knock_everywhere(address);
            // Also the patience for whatever was asked before.
            assert_eq!(pings(address, 1), 0);
        }
    });
    arena.outsider.counted("chain inet ear in", "counter")
}

#[test]
fn a_dark_appliance_answers_nothing_at_any_port() {
    if !can_run("a_dark_appliance_answers_nothing_at_any_port") {
        return;
    }
    for dark in [true, false] {
        let (_guard, folder) = scratch();
        // Everybody listens where WireGuard does not: who is silent is made so.
        let arena = Arena::new(&codex(dark), &[], &[22, 80, 443, PUBLIC], &folder);
        let back = comes_back(&arena);
        assert_eq!(back == 0, dark, "dark: {dark}, packets back: {back}");
    }
}

#[test]
fn nobody_outside_speaks_with_an_address_of_the_pods_network() {
    if !can_run("nobody_outside_speaks_with_an_address_of_the_pods_network") {
        return;
    }
    let (_guard, folder) = scratch();
    let codex = codex(false);
    let arena = Arena::new(&codex, &[], &[PUBLIC], &folder);
    // The kernel would look at some of them itself.
    arena.host.sh("for name in /proc/sys/net/ipv4/conf/*/accept_local; do echo 1 > $name; done");
    let ear =
        "table ip ear { chain in { type filter hook prerouting priority raw; udp dport 7000 counter; }; }";
    arena.pod.sh(&format!("nft '{ear}'"));
    let heard = || arena.pod.counted("chain ip ear in", "udp dport");
    let rule = "ip saddr { 10.88.0.0/24";
    // The pod's own, the bridge's, and nobody's.
    for bogus in ["10.88.0.10", "10.88.0.1", "10.88.0.77"] {
        // Who stands for everybody has the pod's already.
        if bogus != codex.pod.address.to_string() {
            arena.outsider.sh(&add(bogus.parse().unwrap(), "eth0"));
        }
        let send = || {
            let before = heard();
            within(&arena.outsider.network(), || {
                let socket = UdpSocket::bind((bogus, 0)).unwrap();
                socket.send_to(b"probe", (UPLINK, PUBLIC)).unwrap();
                // An answer to our own address comes after it on the same way.
                let own = UdpSocket::bind("192.0.2.99:0").unwrap();
                own.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
                own.send_to(b"probe", (UPLINK, PUBLIC)).unwrap();
                own.recv(&mut [0; 64]).unwrap();
            });
            heard() - before
        };
        load(&arena.host, &nftables::host(&codex).unwrap(), &folder.join("host.nft"));
        assert_eq!(send(), 1, "{bogus}: our own alone arrives");
        assert_eq!(arena.host.counted("chain inet sepulcher prerouting", rule), 1, "{bogus}");
        arena.host.sh("nft flush chain inet sepulcher prerouting");
        assert_eq!(send(), 2, "{bogus} would arrive");
    }
}
