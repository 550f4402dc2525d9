//! The reachability oracle: for Codexes that nobody wrote, what is said to be reachable is what packets reach.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sepulcher::codex::time::Timestamp;
use sepulcher::codex::{Codex, DOOR_PORT, Peer, Protocol, Sources, render_all};
use sepulcher::reach::{Family, Place, Reach, Source, Target, grants};

use crate::arena::{Arena, OUTSIDER, OUTSIDER6, UPLINK, UPLINK6};
use crate::lab::{Machine, can_run, scratch};
use crate::packets::{Outcome, Trial, send};

/// Ports that services are given, and one that none ever has.
const PORTS: std::ops::Range<u16> = 7000..7006;
const NOBODYS: u16 = 7099;

/// Port of what the host offers itself, in some Codexes.
const HOSTS: u16 = 7090;

/// Addresses in the tether's network that no peer ever has.
const STRANGER: &str = "10.88.16.77";
const STRANGER6: &str = "fd88::77";

/// A service: protocol and tier of each of its ports.
type Ports = Vec<(u16, &'static str, &'static str)>;

/// A peer.
#[derive(Debug, Clone)]
struct Bond {
    state: &'static str,
    /// By position in the list of grantable services.
    grants: Vec<prop::sample::Index>,
    /// Whether it is granted every service.
    all: bool,
    /// Whether it is granted a door.
    door: bool,
    /// Whether it has a network behind it.
    lych: bool,
    /// Peers that it is granted, by position; itself stands for none.
    others: Vec<prop::sample::Index>,
}

fn tier() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("pod"), Just("tether"), Just("forest")]
}

fn services() -> impl Strategy<Value = Vec<Ports>> {
    let all = prop::collection::btree_map((PORTS, 0..2_u8), (tier(), 0..3_usize), 0..8);
    // Number and protocol are taken once in a pod: they are dealt out.
    all.prop_map(|all| {
        let mut services = vec![Vec::new(); 3];
        for ((number, protocol), (tier, service)) in all {
            services[service].push((number, ["tcp", "udp"][usize::from(protocol)], tier));
        }
        services
    })
}

fn bonds() -> impl Strategy<Value = Vec<Bond>> {
    let state = prop_oneof![3 => Just("active"), 1 => Just("revoked")];
    let grants = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let others = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let bond = (state, grants, prop::bool::weighted(0.2), any::<bool>(), prop::bool::weighted(0.3), others);
    let bond = bond.prop_map(|(state, grants, all, door, lych, others)| Bond {
        state,
        grants,
        all,
        door,
        lych,
        others,
    });
    prop::collection::vec(bond, 0..4)
}

fn codex(services: &[Ports], bonds: &[Bond], six: bool, host: bool) -> Sources {
    let mut sources = Sources::default();
    let shell = if host { format!("[[host]]\nname = \"shell\"\nport = {HOSTS}\n") } else { String::new() };
    let six_line = if six { "network6 = \"fd88::/64\"\n" } else { "" };
    sources.insert(
        "lychd.toml",
        format!("schema = 1\n[appliance]\nname = \"arena\"\n[tether]\n{six_line}{shell}"),
    );
    let mut grantable = Vec::new();
    for (number, ports) in services.iter().enumerate() {
        let text = ports.iter().map(|(port, protocol, tier)| {
            format!("[[port]]\nnumber = {port}\nprotocol = \"{protocol}\"\ntier = \"{tier}\"\n")
        });
        let head = format!("description = \"s{number}\"\nrootfs = \"stand-in\"\n");
        sources.insert(format!("services/s{number}.toml"), head + &text.collect::<String>());
        if ports.iter().any(|(_, _, tier)| *tier == "tether") {
            grantable.push(format!("s{number}"));
        }
    }
    for (number, Bond { state, grants, all, door, lych, others }) in bonds.iter().enumerate() {
        let others = others.iter().map(|index| index.index(bonds.len())).filter(|other| *other != number);
        let mut granted: BTreeSet<String> = BTreeSet::new();
        granted.extend(others.map(|other| format!("peer:p{other}")));
        if *all {
            granted.insert("*".into());
        } else if !grantable.is_empty() {
            granted.extend(grants.iter().map(|index| index.get(&grantable).clone()));
        }
        if *door {
            granted.insert("metrics".into());
            // Half of the peers as a rule, whatever else they hold.
            granted.extend(host.then(|| "shell".into()));
        }
        let granted: Vec<_> = granted.iter().map(|name| format!("\"{name}\"")).collect();
        let key = sepulcher::sys::wireguard::SecretKey::generate().public();
        let address6 = if six { format!("address6 = \"fd88::{}\"\n", number + 2) } else { String::new() };
        let behind = format!("kind = \"lych\"\nroutes = [\"10.99.{number}.0/24\"]\n");
        let behind = if *lych { behind } else { String::new() };
        let text = format!(
            "public-key = \"{key}\"\naddress = \"10.88.16.{}\"\n{address6}{behind}state = \"{state}\"\ngrants = [{}]\n",
            number + 2,
            granted.join(", ")
        );
        sources.insert(format!("peers/p{number}.toml"), text);
    }
    sources
}

/// Where packets start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    Outside,
    Host,
    Pod,
    Behind,
}

/// Every way to try: each source towards each place, on every port that the Codex names or reserves, and on one that it does
/// not. Between peers, where ports make no difference, two are enough.
fn trials(codex: &Codex, behind: &[IpAddr]) -> Vec<(From, Trial)> {
    let (gateway, pod, wg0) = (codex.pod.gateway, codex.pod.address, codex.tether.address);
    let four =
        |addresses: &[std::net::Ipv4Addr]| addresses.iter().copied().map(IpAddr::V4).collect::<Vec<_>>();
    let mut places: Vec<(From, IpAddr, Vec<IpAddr>)> = vec![
        (From::Outside, OUTSIDER.into(), four(&[UPLINK, pod, wg0, gateway])),
        (From::Outside, OUTSIDER6.into(), vec![UPLINK6.into()]),
        (From::Host, gateway.into(), four(&[pod])),
        (From::Pod, pod.into(), four(&[gateway, UPLINK, OUTSIDER])),
    ];
    let wg0_6 = codex.tether.network6.map(|(_, address)| IpAddr::V6(address));
    for &address in behind {
        let here = if address.is_ipv4() {
            four(&[wg0, pod, gateway, UPLINK, OUTSIDER])
        } else {
            wg0_6.into_iter().collect()
        };
        places.push((From::Behind, address, here));
        // The same address, from where it has no business.
        let spoofed = if address.is_ipv4() { four(&[UPLINK, pod, wg0]) } else { vec![UPLINK6.into()] };
        places.push((From::Outside, address, spoofed));
    }
    let ports: Vec<u16> = ports().collect();
    let mut trials = Vec::new();
    let all = places.into_iter().map(|place| (place, ports.as_slice()));
    let between = behind.iter().map(|&address| {
        let others = behind.iter().copied().filter(|other| *other != address);
        let others = others.filter(|other| other.is_ipv4() == address.is_ipv4());
        ((From::Behind, address, others.collect()), &ports[..2])
    });
    for ((from, source, targets), ports) in all.chain(between) {
        for to in targets {
            for &port in ports {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    trials.push((from, Trial { from: source, to: SocketAddr::new(to, port), protocol }));
                }
            }
        }
    }
    trials
}

fn ports() -> impl Iterator<Item = u16> {
    PORTS.chain([NOBODYS, HOSTS, DOOR_PORT.get(), 51820])
}

/// What the model answers, which must be what follows here from the Codex.
fn reachable(codex: &Codex, from: From, trial: &Trial) -> bool {
    let source = match from {
        From::Outside => Source::Forest,
        From::Host => Source::Host,
        From::Pod => Source::Pod,
        From::Behind => {
            let holder = codex.active().find(|(_, peer)| {
                trial.from == IpAddr::V4(peer.address) || Some(trial.from) == peer.address6.map(IpAddr::V6)
            });
            holder.map_or(Source::Stranger(trial.from), |(name, _)| Source::Peer(name.clone()))
        }
    };
    let port = trial.to.port().try_into().unwrap();
    let place = match trial.to.ip() {
        // A peer that sends it into the tunnel after all.
        address if from == From::Behind => Place::At(address),
        IpAddr::V4(UPLINK) => Place::Uplink(Family::V4),
        IpAddr::V6(UPLINK6) => Place::Uplink(Family::V6),
        address => Place::At(address),
    };
    let said = Reach::new(codex, Timestamp::from_epoch(0))
        .verdict(&source, &Target::Port(place, trial.protocol, port))
        .allowed();
    // Who sends with an address that is not his own is nobody that the model knows.
    let spoofed =
        from == From::Outside && ![IpAddr::V4(OUTSIDER), IpAddr::V6(OUTSIDER6)].contains(&trial.from);
    assert_eq!(said && !spoofed, declared(codex, from, trial), "{from:?} {trial:?}");
    said && !spoofed
}

/// What the policy says, in the fewest words: a port is reached by the forest when it is published, by a peer when it is
/// granted, and the pod may reach out.
fn declared(codex: &Codex, from: From, trial: &Trial) -> bool {
    let port = trial.to.port();
    let tier = |wanted: &str| {
        codex.services.values().flat_map(|service| &service.ports).any(|declared| {
            declared.number.get() == port
                && declared.protocol == trial.protocol
                && format!("{:?}", declared.tier).to_lowercase() == wanted
        })
    };
    let published = tier("forest") || (port == 51820 && trial.protocol == Protocol::Udp);
    match from {
        From::Outside => {
            trial.from == IpAddr::V4(OUTSIDER) && trial.to.ip() == IpAddr::V4(UPLINK) && published
        }
        From::Host => published,
        From::Pod => trial.to.ip() == IpAddr::V4(OUTSIDER),
        From::Behind => {
            let here = [Some(codex.tether.address.into()), Some(codex.pod.address.into())];
            let here6 = codex.tether.network6.map(|(_, address)| IpAddr::V6(address));
            let shell = codex
                .host_service("shell")
                .is_some_and(|shell| shell.port.get() == port && shell.protocol == trial.protocol)
                && codex.active().any(|(_, peer)| {
                    trial.from == IpAddr::V4(peer.address)
                        && peer.grants.services.iter().any(|name| name.as_str() == "shell")
                });
            if trial.to.ip() == IpAddr::V4(codex.pod.gateway) {
                return shell;
            }
            if between(codex, trial) {
                return true;
            }
            let granted = grants(codex).into_iter().any(|grant| {
                grant.address == trial.from && grant.port.get() == port && grant.protocol == trial.protocol
            });
            (here.contains(&Some(trial.to.ip())) || here6 == Some(trial.to.ip())) && granted
        }
    }
}

/// Whether the sender is an active peer that is granted another active one, who has the address or the network around it.
fn between(codex: &Codex, trial: &Trial) -> bool {
    let has = |peer: &Peer, address| {
        IpAddr::V4(peer.address) == address || peer.address6.map(IpAddr::V6) == Some(address)
    };
    let behind = |peer: &Peer| {
        let IpAddr::V4(address) = trial.to.ip() else { return false };
        peer.routes().iter().any(|route| route.contains(address))
    };
    let mut pairs = codex.active().flat_map(|(_, holder)| {
        let granted = codex.active().filter(|(name, _)| holder.grants.peers.contains(*name));
        granted.map(move |(_, granted)| (holder, granted))
    });
    pairs.any(|(holder, granted)| has(holder, trial.from) && (has(granted, trial.to.ip()) || behind(granted)))
}

/// Where packets between machines that carry what `rendered` renders do not go as `said` says.
fn disagreements(rendered: &Codex, said: &Codex) -> Vec<String> {
    let (_guard, folder) = scratch();
    let mut behind: Vec<IpAddr> = vec![STRANGER.parse().unwrap()];
    behind.extend(rendered.peers.values().map(|peer| IpAddr::V4(peer.address)));
    let routes = rendered.peers.values().flat_map(|peer| peer.routes());
    behind.extend(routes.map(|route| IpAddr::V4(route.first_host())));
    if rendered.tether.network6.is_some() {
        behind.push(STRANGER6.parse().unwrap());
        behind.extend(rendered.peers.values().filter_map(|peer| peer.address6.map(IpAddr::V6)));
    }
    let arena = Arena::new(rendered, &behind, &ports().collect::<Vec<_>>(), &folder);
    let trials = trials(rendered, &behind);
    let mut found = Vec::new();
    let machines = [
        (From::Behind, &arena.peers),
        (From::Pod, &arena.pod),
        (From::Host, &arena.host),
        (From::Outside, &arena.outsider),
    ];
    for (from, machine) in machines {
        if from == From::Outside {
            take(machine, &behind);
        }
        let mine: Vec<_> = trials
            .iter()
            .filter(|(source, _)| *source == from)
            .map(|(_, trial)| (*trial, reachable(said, from, trial)))
            .collect();
        for ((trial, expected), outcome) in mine.iter().zip(send(&machine.network(), &mine)) {
            // The pod's own ruleset stops a container before anything leaves, and the kernel says so to it alone.
            let stopped = from == From::Pod && outcome == Outcome::Told(rustix::io::Errno::PERM);
            let outcome = if stopped { Outcome::Silent } else { outcome };
            if outcome != if *expected { Outcome::Open } else { Outcome::Silent } {
                let Trial { from: source, to, protocol } = trial;
                found.push(format!(
                    "{from:?} {source} → {to} {protocol:?}: the model says {}, packets say {outcome}",
                    if *expected { "open" } else { "silent" }
                ));
            }
        }
    }
    found
}

/// The outsider pretends to be everybody behind `wg0`.
fn take(outsider: &Machine, addresses: &[IpAddr]) {
    let lines = addresses.iter().map(|address| crate::arena::add(*address, "eth0"));
    outsider.sh(&lines.collect::<Vec<_>>().join("\n"));
}

/// Tries 20 Codexes, or as many as `SEPULCHER_ORACLE` says.
#[test]
fn the_model_and_packets_agree() {
    if !can_run("the_model_and_packets_agree") {
        return;
    }
    let cases = std::env::var("SEPULCHER_ORACLE").map_or(20, |count| count.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 8, ..Config::default() };
    let run = TestRunner::new(config).run(
        &(services(), bonds(), any::<bool>(), any::<bool>()),
        |(services, bonds, six, host)| {
            let codex = parse(&codex(&services, &bonds, six, host));
            let found = disagreements(&codex, &codex);
            prop_assert!(found.is_empty(), "{}", found.join("\n"));
            Ok(())
        },
    );
    run.unwrap_or_else(|failure| panic!("{failure}"));
    eprintln!("{cases} Codexes, no disagreement");
}

fn parse(sources: &Sources) -> Codex {
    Codex::parse(sources).unwrap_or_else(|mistakes| panic!("{}", render_all(&mistakes, sources, false)))
}

#[test]
fn a_model_that_is_wrong_about_one_port_is_found_out() {
    if !can_run("a_model_that_is_wrong_about_one_port_is_found_out") {
        return;
    }
    let oculus = |tier| vec![vec![(7000, "tcp", tier)], vec![(7001, "udp", "tether")]];
    let bond = Bond { state: "active", grants: vec![], all: true, door: false, lych: false, others: vec![] };
    let bonds = [bond];
    let is = |tier| parse(&codex(&oculus(tier), &bonds, true, false));
    for (rendered, said, expected) in [
        ("tether", "pod", "Behind 10.88.16.2 → 10.88.16.1:7000 Tcp: the model says silent, packets say open"),
        ("pod", "tether", "Behind 10.88.16.2 → 10.88.16.1:7000 Tcp: the model says open, packets say silent"),
        (
            "forest",
            "tether",
            "Outside 192.0.2.99 → 192.0.2.10:7000 Tcp: the model says silent, packets say open",
        ),
    ] {
        let found = disagreements(&is(rendered), &is(said));
        assert!(found.iter().any(|line| line == expected), "{expected} is not among {found:?}");
        assert!(found.iter().all(|line| line.contains(":7000 Tcp")), "{found:?}");
    }
}

#[test]
fn a_model_that_is_wrong_about_one_peer_is_found_out() {
    if !can_run("a_model_that_is_wrong_about_one_peer_is_found_out") {
        return;
    }
    let is = |granted: bool| {
        let sources = codex(&[], &[], true, false);
        let peers = [("p0", 2, ""), ("p1", 3, "kind = \"lych\"\nroutes = [\"10.99.1.0/24\"]\n")];
        let peers = peers.map(|(name, last, more)| {
            let key = sepulcher::sys::wireguard::SecretKey::generate().public();
            let grants = if granted && last == 2 { "[\"peer:p1\"]" } else { "[]" };
            let text = format!(
                "public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\naddress6 = \"fd88::{last}\"\ngrants = {grants}\n{more}"
            );
            (format!("peers/{name}.toml"), text)
        });
        let law = sources.iter().map(|(file, text)| (file.to_owned(), text.to_owned()));
        parse(&law.chain(peers).collect())
    };
    for (rendered, said) in [(true, false), (false, true)] {
        let found = disagreements(&is(rendered), &is(said));
        // To the peer and behind it, by two ports and two protocols; and to the peer by IPv6.
        assert_eq!(found.len(), 12, "{found:?}");
        for way in ["10.88.16.2 → 10.88.16.3:", "10.88.16.2 → 10.99.1.1:", "fd88::2 → [fd88::3]:"] {
            assert_eq!(found.iter().filter(|line| line.contains(way)).count(), 4, "{way}: {found:?}");
        }
    }
}
