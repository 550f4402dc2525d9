//! What peers ask for that nobody grants: dropped, counted for each of them, and told to none.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use sepulcher::codex::Protocol;
use sepulcher::render::nftables;

use crate::arena::{Arena, OUTSIDER, bonded, load};
use crate::lab::{can_run, scratch, until, until_equal};
use crate::packets::{Outcome, Trial, send, within};
use crate::pushes;
use crate::silence::without;

#[test]
fn a_peer_that_wants_through_the_pod_is_denied_and_counted() {
    if !can_run("a_peer_that_wants_through_the_pod_is_denied_and_counted") {
        return;
    }
    let (codex, peers) = bonded("", &["[]", "[]"]);
    let (_guard, folder) = scratch();
    let arena = Arena::new(&codex, &peers, &[7090], &folder);
    // To the network outside, and to the host, which offers nothing here.
    for to in [OUTSIDER, codex.pod.gateway] {
        let counted = |from: IpAddr| {
            let trial = Trial { from, to: SocketAddr::new(to.into(), 7090), protocol: Protocol::Tcp };
            assert_eq!(send(&arena.peers.network(), &[(trial, false)]), [Outcome::Silent]);
            arena.pod.sh("nft list set inet sepulcher denied").contains(&format!("{from} "))
        };
        let ruleset = nftables::pod(&codex).unwrap();
        load(&arena.pod, &ruleset, &folder.join("pod.nft"));
        assert!(counted(peers[0]), "{to}");
        let spoiled = without(&ruleset, "iifname \"wg0\" goto refused");
        load(&arena.pod, &spoiled, &folder.join("spoiled.nft"));
        assert!(!counted(peers[1]), "{to}: without the rule it would be dropped unseen");
    }
}

/// Has the peers count what comes in, by these rules.
fn listen(arena: &Arena, rules: &[&str]) {
    let rules: String = rules.iter().map(|rule| format!("{rule} counter;")).collect();
    arena.peers.sh(&format!(
        "nft 'table inet own {{ chain in {{ type filter hook prerouting priority raw; {rules} }}; }}'"
    ));
}

/// Sends a datagram of so many bytes to a port of somebody from the first peer's address of that family.
fn ask(arena: &Arena, peers: &[IpAddr], to: &str, length: usize) {
    let to: IpAddr = to.parse().unwrap();
    let from = peers.iter().find(|from| from.is_ipv6() == to.is_ipv6()).unwrap();
    let socket = within(&arena.peers.network(), || UdpSocket::bind((*from, 0)).unwrap());
    socket.send_to(&vec![0; length], (to, pushes::PORT)).unwrap();
}

#[test]
fn a_peer_is_not_told_which_ways_the_pod_has() {
    if !can_run("a_peer_is_not_told_which_ways_the_pod_has") {
        return;
    }
    let (_guard, folder) = scratch();
    let codex = pushes::codex();
    let peers = pushes::addresses(&codex);
    let arena = Arena::new(&codex, &peers, &[], &folder);
    // As it is when the bridge has lost its address, and as a person may set it.
    arena.pod.sh("ip route del default && ip route add prohibit 198.51.100.0/24 && \
         ip -6 route add prohibit 2001:db8:1::/48 && echo 0 > /proc/sys/net/ipv4/icmp_ratelimit");
    let errors = ["icmp type destination-unreachable", "icmpv6 type destination-unreachable"];
    listen(&arena, &errors);
    let told = || errors.iter().map(|error| arena.peers.counted("chain inet own in", error)).sum::<u64>();
    let stopped = || {
        let rules = ["icmp code != { 3, 4 }", "icmpv6 code != 4"];
        rules.iter().map(|rule| arena.pod.counted("chain inet sepulcher output", rule)).sum::<u64>()
    };
    // The kernel says such things at most once a second.
    let ask_all_until = |more: &dyn Fn() -> u64| {
        for to in ["192.0.2.99", "198.51.100.7", "2001:db8::99", "2001:db8:1::1"] {
            let before = more();
            until(to, || {
                ask(&arena, &peers, to, 1);
                (more() > before).then_some(())
            });
        }
    };
    let ruleset = nftables::pod(&codex).unwrap();
    let spoiled = without(&ruleset, "type destination-unreachable icmp");
    load(&arena.pod, &spoiled, &folder.join("spoiled.nft"));
    ask_all_until(&told);
    let before = told();
    load(&arena.pod, &ruleset, &folder.join("pod.nft"));
    ask_all_until(&stopped);
    assert_eq!(told(), before, "nothing of it comes");
}

#[test]
fn a_peer_is_told_what_sizes_its_packets_and_that_nobody_listens() {
    if !can_run("a_peer_is_told_what_sizes_its_packets_and_that_nobody_listens") {
        return;
    }
    let (_guard, folder) = scratch();
    let codex = pushes::codex();
    let peers = pushes::addresses(&codex);
    let arena = Arena::new(&codex, &peers, &[], &folder);
    arena.pod.sh("ip route add 10.88.16.3 dev wg0 mtu 1280 && ip -6 route add fd88::3 dev wg0 mtu 1280");
    // Fragmentation needed and port unreachable; in IPv6 the former is a type of its own.
    let errors = ["icmp code 4", "icmp code 3", "icmpv6 type packet-too-big", "icmpv6 code 4"];
    listen(&arena, &errors);
    for (to, length) in [("10.88.16.3", 1400), ("fd88::3", 1400), ("10.88.16.1", 1), ("fd88::1", 1)] {
        ask(&arena, &peers, to, length);
    }
    for error in errors {
        until_equal(error, &1, || arena.peers.counted("chain inet own in", error));
    }
}
