use std::collections::BTreeSet;

use proptest::prelude::*;

use super::matrix::Case;
use super::*;
use crate::codex::Sources;
use crate::render::nftables;

const KEYS: [&str; 4] = [
    "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=",
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "/O8+G5a2GFPG6Kl6oB0kmvCkbKhLkf9a8HcHGEJGUlc=",
    "xJ/qdCX6f4aZiXqXwVnGaQJn2QA7t4xT+vqPwVwyXQQ=",
];

/// Before anything expires.
fn start() -> Timestamp {
    Timestamp::from_epoch(0)
}

fn parsed(files: &[(String, String)]) -> Codex {
    let sources: Sources = files.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
    let shown = |mistakes: Vec<_>| crate::codex::render_all(&mistakes, &sources, false);
    Codex::parse(&sources).unwrap_or_else(|mistakes| panic!("{}", shown(mistakes)))
}

/// A box with a service of each tier, a Veil with routes of both, and three peers of different states.
fn codex() -> Codex {
    let service = |more: &str| format!("description = \"x\"\nrootfs = \"stand-in\"\n{more}");
    let port = |number, tier| format!("[[port]]\nnumber = {number}\ntier = \"{tier}\"\n");
    let route = |path, tier| format!("[[route]]\npath = \"{path}\"\ntier = \"{tier}\"\nport = 9000\n");
    let chat = "[[route]]\npath = \"/pinned/chat\"\ntier = \"tether\"\nport = 9100\n".to_owned();
    let peer = |last: usize, grants: &str, more: &str| {
        format!(
            "public-key = \"{}\"\naddress = \"10.88.16.{last}\"\ngrants = {grants}\n{more}",
            KEYS[last - 2]
        )
    };
    let law = "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nnetwork6 = \"fd88::/64\"\n\
        [[host]]\nname = \"ssh\"\nport = 22\n";
    let many = [
        ("lychd.toml", law.to_owned()),
        ("services/echo.toml", service(&port(7878, "tether"))),
        ("services/veil.toml", service(&format!("veil = true\n{}", port(80, "forest")))),
        (
            "services/web.toml",
            service(&[port(9000, "pod"), route("/", "forest"), route("/Pinned", "tether")].concat()),
        ),
        ("services/chat.toml", service(&[port(9100, "pod"), chat].concat())),
        (
            "peers/phone.toml",
            peer(2, "[\"echo\", \"peer:crypt\", \"peer:lost\"]", "address6 = \"fd88::2\"\n"),
        ),
        ("peers/laptop.toml", peer(3, "[\"*\", \"metrics\", \"ssh\"]", "expires = 2026-11-22T20:05:00Z\n")),
        (
            "peers/lost.toml",
            peer(4, "[\"*\"]", "state = \"revoked\"\nkind = \"lych\"\nroutes = [\"10.99.9.0/24\"]\n"),
        ),
        (
            "peers/crypt.toml",
            peer(5, "[\"chat\"]", "address6 = \"fd88::5\"\nkind = \"lych\"\nroutes = [\"10.99.7.0/24\"]\n"),
        ),
    ];
    parsed(&many.map(|(name, text)| (name.to_owned(), text)))
}

fn asked(reach: &Reach<'_>, from: &str, to: &str) -> Verdict {
    let source = reach.source(from).unwrap();
    let questions = reach.questions(&source, to).unwrap();
    reach.verdict(&source, &questions[0].target)
}

#[test]
fn who_reaches_what_and_by_which_rule() {
    let codex = codex();
    let reach = Reach::new(&codex, start());
    for (from, to, fate, rule) in [
        ("forest", ":80", Fate::Allowed, Rule::Published),
        ("forest", "veil", Fate::Allowed, Rule::Published),
        ("forest", ":51820/udp", Fate::Allowed, Rule::Published),
        ("forest", ":51820/tcp", Fate::Silent, Rule::HostInput),
        ("forest", "echo", Fate::Silent, Rule::HostInput),
        ("forest", "host", Fate::Silent, Rule::HostInput),
        ("forest", "10.88.16.1:7878", Fate::Silent, Rule::HostBehind),
        ("forest", "10.88.0.10:80", Fate::Silent, Rule::HostBehind),
        ("forest", "[fd88::1]:7878", Fate::Silent, Rule::HostBehind6),
        ("forest", "198.51.100.7", Fate::Silent, Rule::HostOther),
        ("pod", "[2001:db8::1]:80", Fate::Silent, Rule::NoRoute),
        ("forest", "/x", Fate::Allowed, Rule::VeilRoute),
        ("forest", "/pinned/x", Fate::Unknown, Rule::VeilUnknown),
        ("forest", "metrics", Fate::Silent, Rule::HostInput),
        ("phone", "echo", Fate::Allowed, Rule::Grants),
        ("phone", "[fd88::1]:7878", Fate::Allowed, Rule::Grants6),
        ("phone", "[fd88::1]:7879", Fate::Denied, Rule::Denied),
        ("phone", "10.88.0.10:7878", Fate::Allowed, Rule::Grants),
        ("phone", ":7878/udp", Fate::Denied, Rule::Denied),
        ("phone", "10.88.16.1", Fate::Allowed, Rule::Echo),
        ("phone", "fd88::1", Fate::Allowed, Rule::Echo6),
        ("phone", "laptop", Fate::Denied, Rule::BetweenDenied),
        ("phone", "crypt:22", Fate::Allowed, Rule::Between),
        ("phone", "[fd88::5]:22", Fate::Allowed, Rule::Between6),
        ("phone", "10.99.7.9:22/udp", Fate::Allowed, Rule::Between),
        ("phone", "10.99.8.9:22", Fate::Denied, Rule::PodForward),
        ("phone", "lost", Fate::Denied, Rule::BetweenDenied),
        ("phone", "phone", Fate::Denied, Rule::BetweenDenied),
        ("crypt", "phone", Fate::Denied, Rule::BetweenDenied),
        ("laptop", "crypt", Fate::Denied, Rule::BetweenDenied),
        ("phone", "host", Fate::Denied, Rule::HostDenied),
        ("phone", "ssh", Fate::Denied, Rule::HostDenied),
        ("laptop", "ssh", Fate::Allowed, Rule::HostGrants),
        ("laptop", "10.88.0.1:23", Fate::Denied, Rule::HostDenied),
        ("forest", "ssh", Fate::Silent, Rule::HostInput),
        ("pod", "ssh", Fate::Silent, Rule::PodGateway),
        ("phone", "192.0.2.1:443", Fate::Denied, Rule::PodForward),
        ("phone", "/pinned", Fate::Denied, Rule::Denied),
        ("phone", "bonds", Fate::Denied, Rule::Denied),
        ("phone", "veil", Fate::Allowed, Rule::Published),
        ("laptop", "/pinned", Fate::Allowed, Rule::VeilPass),
        ("laptop", "/x", Fate::Allowed, Rule::VeilRoute),
        ("crypt", "/pinned/chat/x", Fate::Allowed, Rule::VeilPass),
        ("crypt", "/pinned/x", Fate::Unknown, Rule::VeilPass),
        ("crypt", "/x", Fate::Allowed, Rule::VeilRoute),
        ("laptop", "metrics", Fate::Allowed, Rule::AgentDoor),
        ("laptop", "bonds", Fate::Unknown, Rule::AgentDoor),
        ("laptop", "snapshots", Fate::Unknown, Rule::AgentDoor),
        ("forest", "snapshots", Fate::Silent, Rule::HostInput),
        ("laptop", "[fd88::1]:7878", Fate::Silent, Rule::NoBond),
        ("lost", "echo", Fate::Silent, Rule::NoBond),
        ("lost", "/", Fate::Silent, Rule::NoBond),
        ("10.88.16.4", "echo", Fate::Silent, Rule::NoBond),
        ("10.88.16.2", "echo", Fate::Allowed, Rule::Grants),
        ("host", "10.88.16.2", Fate::Silent, Rule::OutputTether),
        ("host", "fd88::2", Fate::Silent, Rule::OutputTether6),
        ("host", "veil", Fate::Allowed, Rule::Published),
        ("host", "echo", Fate::Silent, Rule::PodForest),
        ("pod", "web:9000", Fate::Allowed, Rule::PodLoopback),
        ("pod", "host", Fate::Silent, Rule::PodGateway),
        ("pod", "phone", Fate::Allowed, Rule::PodOutput),
        ("pod", "10.88.16.4", Fate::Silent, Rule::NoBond),
        ("pod", "10.99.9.9:443", Fate::Silent, Rule::PodGone),
        ("pod", "192.0.2.1:443", Fate::Allowed, Rule::HostContainers),
        ("pod", "/pinned", Fate::Allowed, Rule::VeilPass),
    ] {
        let verdict = asked(&reach, from, to);
        assert_eq!((verdict.fate, verdict.rule), (fate, rule), "{from} {to}: {}", verdict.why);
    }
}

#[test]
fn the_map_has_the_host_among_those_who_ask_and_networks_behind_peers_among_what_there_is() {
    let codex = codex();
    let map = Reach::new(&codex, start()).map();
    let at = |title: &str| map.columns.iter().position(|column| column.title().starts_with(title)).unwrap();
    let reached = |label: &str, by: &str| {
        let row = map.rows.iter().find(|row| row.label == label).unwrap_or_else(|| panic!("{label}"));
        row.reached[at(by)]
    };
    for (label, [forest, host, pod, phone, laptop]) in [
        ("80/tcp", [true, true, true, true, true]),
        ("7878/tcp", [false, false, true, true, true]),
        ("22/tcp of the host", [false, true, false, false, true]),
        ("peer:crypt", [false, false, true, true, false]),
        ("peer:crypt 10.99.7.0/24", [false, false, true, true, false]),
        ("metrics (51821/tcp)", [false, true, false, false, true]),
    ] {
        for (by, expected) in
            [("forest", forest), ("host", host), ("pod", pod), ("phone", phone), ("laptop", laptop)]
        {
            assert_eq!(reached(label, by), expected, "{by} {label}");
        }
    }
    assert!(!map.rows.iter().any(|row| row.label == "peer:lost"), "who is revoked is not there");
}

#[test]
fn a_peer_whose_time_is_over_reaches_nothing() {
    let codex = codex();
    let end = "2026-11-22T20:05:00Z".parse().unwrap();
    let verdict = asked(&Reach::new(&codex, end), "laptop", "echo");
    assert_eq!((verdict.fate, verdict.rule), (Fate::Silent, Rule::NoBond));
    assert_eq!(verdict.causes[0].key, [Step::Key("expires")]);
}

#[test]
fn a_denied_peer_is_told_the_grant_that_would_do() {
    let codex = codex();
    let reach = Reach::new(&codex, start());
    let remedy = |from, to| asked(&reach, from, to).remedy;
    assert_eq!(remedy("phone", "/pinned").as_deref(), Some("sepulcher peer grant phone web"));
    assert_eq!(remedy("crypt", "/pinned").as_deref(), Some("sepulcher peer grant crypt web"));
    assert_eq!(remedy("phone", "bonds").as_deref(), Some("sepulcher peer grant phone bonds"));
    assert_eq!(remedy("forest", "echo").as_deref(), Some("sepulcher peer bond NAME --grant echo"));
    assert_eq!(remedy("phone", ":9000"), None, "a port of the pod is nobody's to grant");
}

#[test]
fn networks_of_sites_that_are_gone_stay_closed_and_overlap_no_other() {
    let mut codex = codex();
    let site = |codex: &mut Codex, name: &str, state, routes: &[&str]| {
        let mut peer = codex.peers[&"crypt".parse().unwrap()].as_ref().clone();
        peer.state = state;
        let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
        peer.kind = crate::codex::PeerKind::Lych { endpoint: None, keepalive: 0, routes };
        codex.peers.insert(name.parse().unwrap(), std::sync::Arc::new(peer));
    };
    site(&mut codex, "old", PeerState::Revoked, &["10.99.9.0/25", "10.98.0.0/16"]);
    site(&mut codex, "older", PeerState::Revoked, &["10.98.4.0/24", "10.99.9.0/24", "10.99.10.0/24"]);
    let shown = |codex: &Codex| gone(codex).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&codex), ["10.98.0.0/16", "10.99.9.0/24", "10.99.10.0/24"]);
    site(&mut codex, "guest", PeerState::Active, &["10.97.0.0/16"]);
    assert!(!shown(&codex).contains(&"10.97.0.0/16".to_owned()));
    let mut guest = codex.peers[&"guest".parse().unwrap()].as_ref().clone();
    guest.expires = Some(start());
    codex.peers.insert("guest".parse().unwrap(), std::sync::Arc::new(guest));
    assert_eq!(shown(&codex.as_of(start()))[0], "10.97.0.0/16", "its time is over");
    assert!(shown(&codex.without_peers()).is_empty());
}

#[test]
fn a_pass_is_for_one_service_and_one_address() {
    let codex = codex();
    let passes = veil_grants(&codex);
    let of = |owner: &str| -> Vec<String> {
        let of = passes.iter().filter(|(name, _)| name.as_str() == owner);
        of.map(|(_, address)| address.to_string()).collect()
    };
    assert_eq!(of("web"), ["10.88.16.1", "10.88.16.3", "fd88::1"], "by `*`, and the pod itself");
    assert_eq!(of("chat"), ["10.88.16.1", "10.88.16.3", "10.88.16.5", "fd88::1", "fd88::5"]);
    assert_eq!(passes.len(), 8, "other services pin nothing");
    let mut blind = codex.clone();
    blind.services.retain(|_, service| !service.veil);
    assert!(veil_grants(&blind).is_empty(), "nobody would look at them");
}

#[test]
fn a_pinned_route_is_sheltered_where_its_own_service_is_around_it() {
    let codex = codex();
    let shown: Vec<_> = sheltered(&codex)
        .into_iter()
        .map(|(pinned, around)| format!("{} {} in {}", pinned.0, pinned.2.path, around.2.path))
        .collect();
    assert_eq!(shown, ["web /Pinned in /"]);
}

/// The body of a chain of a rendered ruleset.
fn chain<'a>(ruleset: &'a str, name: &str) -> &'a str {
    let (_, rest) = ruleset.split_once(&format!("\tchain {name} {{\n")).unwrap_or_else(|| panic!("{name}"));
    &rest[..rest.find("\n\t}").unwrap()]
}

#[test]
fn every_rule_that_an_answer_names_is_rendered_in_its_chain() {
    let mut codex = codex();
    codex.uplink.echo = true;
    let rulesets = [nftables::host(&codex).unwrap(), nftables::pod(&codex).unwrap()];
    for rule in Rule::ALL {
        let (guard, Some(name)) = rule.place() else { continue };
        let ruleset = &rulesets[usize::from(guard == Guard::Pod)];
        let text = rule.text(&codex);
        assert!(chain(ruleset, name).contains(&text), "{rule:?}: {text}");
    }
}

/// A law and bonds of a few services, routes and peers.
fn codexes() -> impl Strategy<Value = Codex> {
    let tier = prop::sample::select(vec!["pod", "tether", "forest"]);
    let port = (2000..2012_u16, prop::sample::select(vec!["tcp", "udp"]), tier);
    let services = prop::collection::vec(prop::collection::btree_set(port, 1..4), 1..4);
    let all = vec!["s0", "s1", "s2", "ssh", "metrics", "bonds", "peer:p0", "peer:p1", "peer:p2"];
    let words = prop::sample::subsequence(all, 0..9);
    let peers = prop::collection::vec((words, any::<bool>(), any::<bool>(), any::<bool>()), 0..3);
    (services, peers, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(services, peers, six, pinned, host)| {
        let mut taken = BTreeSet::new();
        let mut grantable = BTreeSet::new();
        let mut files = Vec::new();
        for (index, ports) in services.into_iter().enumerate() {
            let mut text = "description = \"x\"\nrootfs = \"stand-in\"\n".to_owned();
            let mut tcp = None;
            for (number, protocol, tier) in ports {
                if taken.insert((number, protocol)) {
                    text += &format!(
                        "[[port]]\nnumber = {number}\nprotocol = \"{protocol}\"\ntier = \"{tier}\"\n"
                    );
                    tcp = tcp.or((protocol == "tcp").then_some(number));
                    if tier == "tether" {
                        grantable.insert(format!("s{index}"));
                    }
                }
            }
            if let (Some(port), true) = (tcp, pinned) {
                text += &format!("[[route]]\npath = \"/r{index}\"\ntier = \"tether\"\nport = {port}\n");
                grantable.insert(format!("s{index}"));
            }
            files.push((format!("services/s{index}.toml"), text));
        }
        let veil =
            "description = \"x\"\nrootfs = \"veil\"\nveil = true\n[[port]]\nnumber = 80\ntier = \"forest\"\n";
        files.push(("services/veil.toml".to_owned(), veil.to_owned()));
        let ssh = if host { "[[host]]\nname = \"ssh\"\nport = 22\n" } else { "" };
        let six_line = if six { "[tether]\nnetwork6 = \"fd88::/64\"\n" } else { "" };
        files.push(("lychd.toml".into(), format!("schema = 1\n[appliance]\nname = \"lychd\"\n{six_line}{ssh}")));
        let count = peers.len();
        for (index, (words, every, revoked, own_six)) in peers.into_iter().enumerate() {
            let door = |word: &&str| ["metrics", "bonds"].contains(word);
            let other = |word: &&str| {
                let number = word.strip_prefix("peer:p").and_then(|number| number.parse::<usize>().ok());
                number.is_some_and(|number| number < count && number != index)
            };
            let wanted = |word: &&str| door(word) || other(word) || (host && *word == "ssh") || (!every && grantable.contains(*word));
            let words: Vec<&str> =
                every.then_some("*").into_iter().chain(words.into_iter().filter(wanted)).collect();
            let mut text = format!(
                "public-key = \"{}\"\naddress = \"10.88.16.{}\"\ngrants = {words:?}\n",
                KEYS[index],
                index + 2
            );
            if six && own_six {
                text += &format!("address6 = \"fd88::{}\"\n", index + 2);
            }
            if revoked {
                text += "state = \"revoked\"\n";
            }
            if index == 1 {
                text += "kind = \"lych\"\nroutes = [\"10.99.7.0/24\"]\n";
            }
            files.push((format!("peers/p{index}.toml"), text));
        }
        parsed(&files)
    })
}

/// Elements of a set of a rendered ruleset.
fn elements(ruleset: &str, set: &str) -> BTreeSet<String> {
    let (_, block) = ruleset.split_once(&format!("\tset {set} {{")).unwrap();
    let block = &block[..block.find("\n\t}").unwrap()];
    let Some((_, list)) = block.split_once("elements = {") else { return BTreeSet::new() };
    list[..list.find('}').unwrap()].split(',').map(|element| element.trim().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The rendered sets are read as text here, so that this does not ask the model about itself.
    #[test]
    fn the_verdicts_are_what_the_rendered_sets_say(codex in codexes()) {
        let ruleset = nftables::pod(&codex).unwrap();
        let granted: BTreeSet<String> =
            elements(&ruleset, "grants").union(&elements(&ruleset, "grants6")).cloned().collect();
        let between: BTreeSet<String> =
            elements(&ruleset, "between").union(&elements(&ruleset, "between6")).cloned().collect();
        let published = elements(&ruleset, "published");
        let of_host = if codex.host.is_empty() { BTreeSet::new() } else { elements(&ruleset, "host_grants") };
        let (mut yes, mut seen, mut seen_between) = (0, BTreeSet::new(), BTreeSet::new());
        for Case { from, to, verdict } in Reach::new(&codex, start()).matrix() {
            prop_assert_eq!(verdict.element.is_some(), verdict.allowed() && matches!(
                verdict.rule, Rule::Grants | Rule::Grants6 | Rule::HostGrants | Rule::Published | Rule::Between | Rule::Between6
            ));
            let Target::Port(place, protocol, port) = &to else { continue };
            let expected = match (&from, place) {
                (Source::Forest, Place::Uplink(Family::V4)) => published.contains(&format!("{protocol} . {port}")),
                (Source::Host, Place::At(at)) if *at == codex.pod.address => {
                    published.contains(&format!("{protocol} . {port}"))
                }
                (Source::Peer(name), Place::At(at)) if *at == codex.pod.gateway => {
                    let element = format!("{} . {protocol} . {port}", codex.peers[name].address);
                    of_host.contains(&element)
                }
                (Source::Peer(name), Place::At(at)) if verdict.rule.place().1 == Some("between") => {
                    let peer = &codex.peers[name];
                    let with = if at.is_ipv4() { Some(peer.address.into()) } else { peer.address6.map(IpAddr::V6) };
                    let to = if *at == IpAddr::from([10, 99, 7, 1]) { "10.99.7.0/24".to_owned() } else { at.to_string() };
                    let element = with.map(|with: IpAddr| format!("{with} . {to}"));
                    match element.filter(|element| between.contains(element)) {
                        Some(element) => {
                            seen_between.insert(element);
                            true
                        }
                        None => false,
                    }
                }
                (Source::Peer(name), Place::At(at)) => {
                    let peer = &codex.peers[name];
                    let own = codex.tether.network6.map(|(_, own)| IpAddr::V6(own));
                    let here = *at == codex.tether.address || *at == codex.pod.address || Some(*at) == own;
                    let with = if at.is_ipv4() { Some(peer.address.into()) } else { peer.address6.map(IpAddr::V6) };
                    let element = with.map(|with: IpAddr| format!("{with} . {protocol} . {port}"));
                    match element.filter(|element| here && granted.contains(element)) {
                        Some(element) => {
                            seen.insert(element);
                            true
                        }
                        None => false,
                    }
                }
                (Source::Forest | Source::Stranger(_), _) => false,
                _ => continue,
            };
            prop_assert_eq!(verdict.allowed(), expected, "{} {:?}: {:?}", from, to, verdict);
            yes += usize::from(expected);
        }
        prop_assert!(yes > 0, "the tether's port is published at least");
        prop_assert_eq!(seen, granted, "every element was asked about");
        prop_assert_eq!(seen_between, between, "every element between peers was asked about");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The ruleset lets it speak to the Veil, and the Veil finds its pass: both are looked up here by themselves.
    #[test]
    fn a_pinned_path_is_reached_by_exactly_those_who_have_both(codex in codexes()) {
        let ruleset = nftables::pod(&codex).unwrap();
        let (granted, passes) = (elements(&ruleset, "grants"), veil_grants(&codex));
        let reach = Reach::new(&codex, start());
        for (owner, index, route) in routes(&codex) {
            let path = Target::Path(route.path.to_string());
            for (name, peer) in reach.peers() {
                let speaks = granted.contains(&format!("{} . tcp . 80", peer.address));
                let has_pass = passes.contains(&(owner.clone(), peer.address.into()));
                let verdict = reach.verdict(&Source::Peer(name.clone()), &path);
                let fate = match (speaks, has_pass) {
                    (true, true) => Fate::Allowed,
                    (true, false) => Fate::Unknown,
                    (false, _) => Fate::Denied,
                };
                prop_assert_eq!(verdict.fate, fate, "{} {} {}: {:?}", name, owner, index, verdict);
                prop_assert!(speaks || !has_pass, "a pass opens nothing without its element");
            }
        }
    }
}

#[test]
fn the_matrix_tries_what_nobody_declares() {
    let codex = codex();
    let matrix = Reach::new(&codex, start()).matrix();
    let undeclared = |case: &&Case| matches!(&case.to, Target::Port(_, _, port) if port.get() == 40000);
    assert!(matrix.iter().filter(undeclared).count() > 20);
    assert!(matrix.iter().any(|case| matches!(case.from, Source::Stranger(_))));
    let distinct: BTreeSet<_> = matrix.iter().map(|case| (case.from.clone(), case.to.clone())).collect();
    assert_eq!(distinct.len(), matrix.len());
}
