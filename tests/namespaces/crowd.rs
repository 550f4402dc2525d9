//! What the host gives: to the forest connections and answers to pings, to peers its own services.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};
use sepulcher::codex::{Codex, Protocol, Sources};
use sepulcher::render::nftables;

use crate::arena::{Arena, UPLINK, UPLINK6, bonded, load};
use crate::lab::{can_run, scratch};
use crate::packets::{Outcome, Trial, send, within};
use crate::silence::{replaced, without};

/// What a source may hold, and what it tries.
const HELD: u64 = 128;
const TRIED: u64 = 140;

/// More sources than may begin at once.
const THRONG: u64 = 12_000;

fn codex(uplink: &str) -> Codex {
    let mut sources = Sources::default();
    sources.insert("lychd.toml", format!("schema = 1\n[appliance]\nname = \"arena\"\n{uplink}"));
    let port = "[[port]]\nnumber = 7000\nprotocol = \"udp\"\ntier = \"forest\"\n";
    sources.insert("services/s.toml", format!("description = \"s\"\nrootfs = \"stand-in\"\n{port}"));
    Codex::parse(&sources).unwrap()
}

#[test]
fn one_source_holds_a_share_of_the_connections_and_the_tether_is_not_counted() {
    if !can_run("one_source_holds_a_share_of_the_connections_and_the_tether_is_not_counted") {
        return;
    }
    let (_guard, folder) = scratch();
    let arena = Arena::new(&codex(""), &[], &[], &folder);
    let knock = |port: u16| {
        arena.outsider.sh(&format!("for i in $(seq {TRIED}); do echo > /dev/udp/{UPLINK}/{port}; done"));
    };
    let refused = || arena.host.counted("chain inet sepulcher crowd", "ct count over");
    knock(51820);
    assert_eq!(refused(), 0);
    knock(7000);
    // Within one tick the kernel counts a few less.
    let full = refused();
    assert!((TRIED - HELD - 4..=TRIED - HELD).contains(&full), "{full}");
    knock(51820);
    assert_eq!(refused(), full, "who holds too much still reaches the tether");
}

/// Sends a datagram from each of so many addresses; how many reach the pod.
fn throng(arena: &Arena, count: u64) -> u64 {
    arena.pod.sh("nft 'table ip ear; delete table ip ear; table ip ear { \
        chain in { type filter hook prerouting priority raw; udp dport 7000 counter; }; }'");
    within(&arena.outsider.network(), || {
        for number in 0..u32::try_from(count).unwrap() {
            let from = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 1, 0).to_bits() + number);
            UdpSocket::bind((from, 0)).unwrap().send_to(b"probe", (UPLINK, 7000)).unwrap();
        }
    });
    arena.pod.counted("chain ip ear in", "udp dport")
}

/// An arena whose outsider has a whole network of addresses, and whose host has that ruleset.
fn crowded(folder: &Path, spoil: impl FnOnce(&str) -> String) -> Arena {
    let codex = codex("");
    let arena = Arena::new(&codex, &[], &[], folder);
    arena.outsider.sh("ip route add local 198.18.0.0/16 dev lo");
    arena.host.sh("ip route add 198.18.0.0/16 dev up0");
    load(&arena.host, &spoil(&nftables::host(&codex).unwrap()), &folder.join("crowd.nft"));
    arena
}

#[test]
fn all_sources_together_begin_so_many_connections_a_second() {
    if !can_run("all_sources_together_begin_so_many_connections_a_second") {
        return;
    }
    let (_guard, folder) = scratch();
    let arena = crowded(&folder, str::to_owned);
    let start = Instant::now();
    let arrived = throng(&arena, THRONG);
    // 4,000 at once, and 2,000 in each second that it took.
    let most = 4000 + 2000 * (start.elapsed().as_secs() + 1);
    assert!(most < THRONG, "the machine is too slow to be a throng");
    assert!((4000..=most).contains(&arrived), "{arrived} of {most}");
    let all = throng(&crowded(&folder, |text| without(text, "limit rate over 2000")), THRONG);
    assert_eq!(all, THRONG, "without the rule");
}

#[test]
fn all_sources_together_leave_the_tether_room() {
    if !can_run("all_sources_together_leave_the_tether_room") {
        return;
    }
    let (_guard, folder) = scratch();
    // Four heaps are full sooner than 512.
    let few = |text: &str| without(&replaced(text, "mod 512", "mod 4"), "limit rate over 2000");
    let arena = crowded(&folder, few);
    let arrived = throng(&arena, 2000);
    // Within one tick the kernel counts a few less.
    assert!((4 * 192..4 * 192 + 40).contains(&arrived), "{arrived}");
    arena.pod.sh("nft insert rule inet sepulcher forest udp dport 51820 counter");
    arena.outsider.sh(&format!("echo > /dev/udp/{UPLINK}/51820"));
    assert_eq!(arena.pod.counted("chain inet sepulcher forest", "udp dport 51820 counter"), 1);
    let all = throng(&crowded(&folder, |text| without(&few(text), "@heaps")), 2000);
    assert_eq!(all, 2000, "without the rule");
}

#[test]
fn what_all_sources_hold_is_three_quarters_of_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/system/tree/usr/lib/sysctl.d");
    let sysctl = std::fs::read_to_string(folder.join("50-sepulcher.conf")).unwrap();
    let number = |text: &str, before: &str| -> u64 {
        let (_, rest) = text.split_once(before).unwrap();
        rest.split(|other: char| !other.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let ruleset = nftables::host(&codex("")).unwrap();
    let (_, rule) = ruleset.split_once("add @heaps").unwrap();
    let held = number(rule, "mod ") * number(rule, "over ");
    assert_eq!(held * 4, number(&sysctl, "nf_conntrack_max = ") * 3);
    assert!(number(rule, "over ") > HELD, "one source alone does not fill a heap");
}

#[test]
fn pings_are_answered_where_the_codex_says_so_and_not_without_end() {
    if !can_run("pings_are_answered_where_the_codex_says_so_and_not_without_end") {
        return;
    }
    for (uplink, answered) in [("", false), ("[uplink]\necho = true\n", true)] {
        let (_guard, folder) = scratch();
        let arena = Arena::new(&codex(uplink), &[], &[], &folder);
        let answers = |address: IpAddr, count| within(&arena.outsider.network(), || pings(address, count));
        for address in [UPLINK.into(), UPLINK6.into()] {
            assert_eq!(answers(address, 1), usize::from(answered), "{uplink:?} {address}");
        }
        if answered {
            let flood = answers(UPLINK.into(), 200);
            assert!((1..60).contains(&flood), "of 200 at once {flood} were answered");
        }
    }
}

#[test]
fn the_host_answers_a_peer_with_the_grant_and_needs_no_way_to_the_tether() {
    if !can_run("the_host_answers_a_peer_with_the_grant_and_needs_no_way_to_the_tether") {
        return;
    }
    let shell = "[[host]]\nname = \"shell\"\nport = 7090\n";
    let (codex, peers) = bonded(shell, &["[\"shell\"]", "[\"*\"]"]);
    let (_guard, folder) = scratch();
    let arena = Arena::new(&codex, &peers, &[7090], &folder);
    arena.host.sh(&format!("ip route del {}", codex.tether.network));
    let to = SocketAddr::new(codex.pod.gateway.into(), 7090);
    let trial = |from| Trial { from, to, protocol: Protocol::Tcp };
    let said = send(&arena.peers.network(), &[(trial(peers[0]), true), (trial(peers[1]), false)]);
    assert_eq!(said, [Outcome::Open, Outcome::Silent]);
    // Who was denied is counted under the own address, though the host never sees that.
    let denied = arena.pod.sh("nft list set inet sepulcher denied");
    assert!(denied.contains("10.88.16.3") && !denied.contains("10.88.16.2"), "{denied}");
}

/// Sends so many echo requests; how many answers come back.
pub fn pings(address: IpAddr, count: usize) -> usize {
    let (family, protocol, request, reply) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol)).unwrap();
    // Type, code, checksum (the kernel makes that of ICMPv6), an identifier, a number.
    let mut packet = [request, 0, 0, 0, 0x5e, 0x50, 0, 0];
    if address.is_ipv4() {
        packet[2..4].copy_from_slice(&(!(0x0800_u16 + 0x5e50)).to_be_bytes());
    }
    for _ in 0..count {
        rustix::net::sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(address, 0)).unwrap();
    }
    let mut answers = 0;
    let mut polled = [PollFd::new(&socket, PollFlags::IN)];
    while poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 300_000_000 })).unwrap() > 0 {
        let mut buffer = [0_u8; 128];
        rustix::net::recv(&socket, &mut buffer, RecvFlags::empty()).unwrap();
        // A raw socket of IPv4 is given the header too.
        let at = if address.is_ipv4() { 20 } else { 0 };
        answers += usize::from(buffer[at] == reply && buffer[at + 4..at + 6] == packet[4..6]);
    }
    answers
}
