//! The reachability oracle: for Codexes that nobody wrote, what is said to be reachable is what packets reach.

mod law;
mod plain;
mod ways;

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::io::Errno;
use sepulcher::codex::Codex;
use sepulcher::reach::{Family, Place, Reach, Source, Target};

use crate::arena::{self, Arena, UPLINK, UPLINK6, noted};
use crate::lab::{can_run, scratch};
use crate::packets::{Ask, Attempt, Outcome, send_all};
use law::{Bond, Law, Service, laws};

/// Where packets start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    Outside,
    Host,
    Pod,
    Behind,
}

/// What the model answers, which must be what follows in plain words from the same Codex.
fn reachable(law: &Law, codex: &Codex, from: From, attempt: &Attempt) -> bool {
    let expected = plain::reaches(law, from, attempt);
    let source = match from {
        // Who sends with an address that is not his own is nobody that the model knows.
        From::Outside if plain::is_spoofed(law, attempt.from.ip()) => return expected,
        From::Outside => Source::Forest,
        From::Host => Source::Host,
        From::Pod => Source::Pod,
        From::Behind => {
            let holder = plain::holder(law, attempt.from.ip());
            let name = holder.map(|bond| format!("p{}", bond.number).parse().unwrap());
            name.map_or(Source::Stranger(attempt.from.ip()), Source::Peer)
        }
    };
    let place = match attempt.to {
        // A peer that sends it into the tunnel after all.
        address if from == From::Behind => Place::At(address),
        IpAddr::V4(UPLINK) => Place::Uplink(Family::V4),
        IpAddr::V6(UPLINK6) => Place::Uplink(Family::V6),
        address => Place::At(address),
    };
    let target = match attempt.ask {
        Ask::Port(protocol, port) => Target::Port(place, protocol, port.try_into().unwrap()),
        Ask::Echo => Target::Echo(place),
    };
    let verdict = Reach::new(codex, law::NOW.parse().unwrap()).verdict(&source, &target);
    assert_eq!(verdict.allowed(), expected, "{from:?} {attempt:?}: {}", verdict.why);
    expected
}

/// Where packets between machines that carry what `rendered` renders do not go as `said` says. `spoil` has the machines before
/// the first packet.
fn disagreements(rendered: &Law, said: &Law, spoil: fn(&Arena)) -> Vec<String> {
    let (_guard, folder) = scratch();
    let (carried, asked) = (rendered.codex().as_of(law::NOW.parse().unwrap()), said.codex());
    let arena = Arena::new(&carried, &ways::behind(rendered), &ways::ports(), &folder);
    spoil(&arena);
    let attempts = ways::attempts(rendered, &carried);
    let attempts = attempts.iter().filter(|(from, attempt)| !plain::is_tunnels(rendered, *from, attempt));
    let attempts: Vec<_> = attempts
        .map(|(from, attempt)| (*from, (*attempt, reachable(said, &asked, *from, attempt))))
        .collect();
    let machines = [
        (From::Outside, &arena.outsider),
        (From::Host, &arena.host),
        (From::Pod, &arena.pod),
        (From::Behind, &arena.peers),
    ];
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let each = machines.map(|(from, machine)| {
            let mine = attempts.iter().filter(|(source, _)| *source == from);
            let mine: Vec<_> = mine.map(|(_, attempt)| *attempt).collect();
            scope.spawn(move || {
                let outcomes = send_all(&machine.network(), &mine);
                mine.into_iter()
                    .zip(outcomes)
                    .map(|(attempt, outcome)| (from, attempt, outcome))
                    .collect::<Vec<_>>()
            })
        });
        each.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let delivered = arena.delivered();
    let found = outcomes.into_iter().filter_map(|(from, (attempt, expected), outcome)| {
        let came = delivered.contains(&noted(attempt.ask, attempt.from.port()));
        let packets = told(from, outcome, came);
        (packets != Ok(expected)).then(|| {
            let said = if expected { "open" } else { "silent" };
            let packets =
                packets.map_or_else(|words| words, |open| if open { "open" } else { "silent" }.into());
            format!("{from:?} {}: the model says {said}, packets say {packets}", shown(&attempt))
        })
    });
    // Somebody listens on all that is asked, so that nothing but silence is left to say to who is not let in.
    let errors = [(From::Outside, &arena.outsider), (From::Behind, &arena.peers)].map(|(from, machine)| {
        let count = arena::told(machine);
        (count > 0).then(|| format!("{from:?} is told {count} errors of ICMP"))
    });
    found.chain(errors.into_iter().flatten()).collect()
}

/// Whether something is open: let in where it was meant to go, and answered; or neither. Anything else, in words.
fn told(from: From, outcome: Outcome, came: bool) -> Result<bool, String> {
    match (outcome, came) {
        (Outcome::Open, true) => Ok(true),
        (Outcome::Silent, false) => Ok(false),
        // The ruleset of host and pod stops what they send before it leaves, or there is no way: they tell themselves alone.
        (Outcome::Kept(Errno::PERM | Errno::NETUNREACH), false) if matches!(from, From::Host | From::Pod) => {
            Ok(false)
        }
        (Outcome::Silent, true) => Err("let in, but not answered".to_owned()),
        (outcome, came) => Err(format!("{outcome}{}", if came { ", and let in" } else { "" })),
    }
}

/// `10.88.16.2 → 10.88.16.1:7000 Tcp`.
fn shown(Attempt { from, to, ask }: &Attempt) -> String {
    match ask {
        Ask::Port(protocol, port) => {
            format!("{} → {} {protocol:?}", from.ip(), std::net::SocketAddr::new(*to, *port))
        }
        Ask::Echo => format!("{} → {to} ping", from.ip()),
    }
}

/// Tries 20 Codexes, or as many as `SEPULCHER_ORACLE` says.
#[test]
fn the_model_and_packets_agree() {
    if !can_run("the_model_and_packets_agree") {
        return;
    }
    let cases = std::env::var("SEPULCHER_ORACLE").map_or(20, |count| count.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 8, ..Config::default() };
    let run = TestRunner::new(config).run(&laws(), |law| {
        let found = disagreements(&law, &law, |_| {});
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    eprintln!("{cases} Codexes, no disagreement");
}

/// A service with a port of that tier, and another; and a peer that is granted all.
fn one_port(tier: &'static str) -> Law {
    let ports = [(7000, "tcp", tier), (7001, "udp", "tether")];
    let services = ports.map(|port| Service { ports: vec![port], routes: Vec::new() }).to_vec();
    Law { services, bonds: vec![Bond::new(0, &["*"])], six: true, ..Law::default() }
}

#[test]
fn a_model_that_is_wrong_about_one_port_is_found_out() {
    if !can_run("a_model_that_is_wrong_about_one_port_is_found_out") {
        return;
    }
    for (rendered, said, expected) in [
        ("tether", "pod", "Behind 10.88.16.2 → 10.88.16.1:7000 Tcp: the model says silent, packets say open"),
        ("pod", "tether", "Behind 10.88.16.2 → 10.88.16.1:7000 Tcp: the model says open, packets say silent"),
        (
            "forest",
            "tether",
            "Outside 192.0.2.99 → 192.0.2.10:7000 Tcp: the model says silent, packets say open",
        ),
    ] {
        let found = disagreements(&one_port(rendered), &one_port(said), |_| {});
        assert!(found.iter().any(|line| line == expected), "{expected} is not among {found:?}");
        assert!(found.iter().all(|line| line.contains(":7000 Tcp")), "{found:?}");
    }
}

#[test]
fn a_model_that_is_wrong_about_one_peer_is_found_out() {
    if !can_run("a_model_that_is_wrong_about_one_peer_is_found_out") {
        return;
    }
    let is = |words: &[&str]| {
        let bonds = vec![Bond::new(0, words), Bond { lych: true, ..Bond::new(1, &[]) }];
        Law { bonds, six: true, ..Law::default() }
    };
    let (granted, not) = (is(&["peer:p1"]), is(&[]));
    for (rendered, said) in [(&granted, &not), (&not, &granted)] {
        let found = disagreements(rendered, said, |_| {});
        // To the peer and behind it, by two ports and two protocols and a ping; and to the peer by IPv6.
        assert_eq!(found.len(), 15, "{found:?}");
        for way in ["10.88.16.2 → 10.88.16.3", "10.88.16.2 → 10.99.1.1", "fd88::2 → "] {
            assert_eq!(found.iter().filter(|line| line.contains(way)).count(), 5, "{way}: {found:?}");
        }
    }
}

/// Nobody hears the answer to a spoofed source: it goes to whom the address belongs.
#[test]
fn a_host_that_believes_spoofed_sources_is_found_out() {
    if !can_run("a_host_that_believes_spoofed_sources_is_found_out") {
        return;
    }
    let law = one_port("forest");
    let found = disagreements(&law, &law, |arena| {
        arena.host.sh("nft flush chain inet sepulcher prerouting");
        // The pod alone would not believe them either.
        let published = "ip daddr 10.88.0.10 meta l4proto . th dport @published accept";
        arena.pod.sh(&format!("nft insert rule inet sepulcher forest {published}"));
    });
    for way in ["Outside 10.88.16.2 → 192.0.2.10:7000 Tcp", "Outside 10.88.16.77 → 192.0.2.10:51820 Udp"]
    {
        let expected = format!("{way}: the model says silent, packets say let in, but not answered");
        assert!(found.contains(&expected), "{expected} is not among {found:?}");
    }
    assert!(found.iter().all(|line| line.starts_with("Outside ")), "{found:?}");
}

#[test]
fn a_way_in_without_a_way_back_is_found_out() {
    if !can_run("a_way_in_without_a_way_back_is_found_out") {
        return;
    }
    let law = Law { bonds: vec![Bond::new(0, &[])], ..one_port("tether") };
    let found = disagreements(&law, &law, |arena| {
        arena.pod.sh(
            "nft insert rule inet sepulcher tether th dport 7001 accept && \
             nft insert rule inet sepulcher tether icmp type echo-request accept && \
             nft insert rule inet sepulcher output oifname wg0 th sport 7001 drop && \
             nft insert rule inet sepulcher output oifname wg0 icmp type echo-reply ip saddr 10.88.0.10 drop",
        );
    });
    for way in ["10.88.16.1:7001 Udp", "10.88.16.1:7001 Tcp", "10.88.0.10 ping"] {
        let expected =
            format!("Behind 10.88.16.2 → {way}: the model says silent, packets say let in, but not answered");
        assert!(found.contains(&expected), "{expected} is not among {found:?}");
    }
}
