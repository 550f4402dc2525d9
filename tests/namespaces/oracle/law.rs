//! Codexes that nobody wrote: what is drawn by lot, and how it is written down.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::Index;
use sepulcher::codex::{Codex, Sources, render_all};

/// Ports that services are given, and one that none ever has.
pub const PORTS: std::ops::Range<u16> = 7000..7006;
pub const NOBODYS: u16 = 7099;

/// Port of what the host offers itself, in some Codexes.
pub const SHELL: u16 = 7090;

/// The agent's door.
pub const DOOR: u16 = 51821;

/// The tether's own port.
pub const TETHER: u16 = 51820;

/// Ports of the Veil: one that it has in the forest or on the tether, one that it may have on the tether besides.
pub const WEB: u16 = 80;
pub const WEB2: u16 = 443;

/// When packets are sent.
pub const NOW: &str = "2026-06-01T12:00:00Z";

/// A service: protocol and tier of each of its ports, and tiers of its routes.
#[derive(Debug, Clone, Default)]
pub struct Service {
    pub ports: Vec<(u16, &'static str, &'static str)>,
    pub routes: Vec<&'static str>,
}

/// The public proxy: the tier of its port 80, and whether it has another one for peers.
#[derive(Debug, Clone, Copy)]
pub struct Veil {
    pub tier: &'static str,
    pub second: bool,
}

/// How a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Active,
    /// In force for one more second.
    Ending,
    /// Its time is over since this very second.
    Expired,
    Revoked,
}

/// A peer: its number gives its addresses.
#[derive(Debug, Clone)]
pub struct Bond {
    pub number: u8,
    pub state: State,
    /// Its grants as they are written.
    pub words: BTreeSet<String>,
    /// Whether it has a network behind it.
    pub lych: bool,
}

/// A whole Codex.
#[derive(Debug, Clone, Default)]
pub struct Law {
    /// Called `s0`, `s1` and so on.
    pub services: Vec<Service>,
    pub veil: Option<Veil>,
    pub bonds: Vec<Bond>,
    /// Whether the tether has IPv6 addresses.
    pub six: bool,
    /// Whether the host offers something.
    pub shell: bool,
    /// Whether pings from outside are answered.
    pub echo: bool,
}

impl Bond {
    pub fn new(number: u8, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { number, state: State::Active, words, lych: false }
    }

    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 88, 16, self.number + 2).into()
    }

    pub fn address6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, u16::from(self.number) + 2).into()
    }

    /// The one machine in the network behind it.
    pub fn behind(&self) -> Option<IpAddr> {
        self.lych.then(|| Ipv4Addr::new(10, 99, self.number, 1).into())
    }

    fn text(&self, six: bool) -> String {
        let Self { number, state, words, lych } = self;
        let key = sepulcher::sys::wireguard::SecretKey::generate().public();
        let address6 = if six { format!("address6 = \"{}\"\n", self.address6()) } else { String::new() };
        let behind = format!("kind = \"lych\"\nroutes = [\"10.99.{number}.0/24\"]\n");
        let state = match state {
            State::Active => "",
            State::Ending => "expires = 2026-06-01T12:00:01Z\n",
            State::Expired => "expires = 2026-06-01T12:00:00Z\n",
            State::Revoked => "state = \"revoked\"\n",
        };
        format!(
            "public-key = \"{key}\"\naddress = \"{}\"\ngrants = {words:?}\n{address6}{}{state}",
            self.address(),
            if *lych { &behind } else { "" }
        )
        .replace('{', "[")
        .replace('}', "]")
    }
}

impl Law {
    /// What is written.
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        let part = |whether, text: String| if whether { text } else { String::new() };
        sources.insert(
            "lychd.toml",
            format!(
                "schema = 1\n[appliance]\nname = \"arena\"\n[uplink]\necho = {}\n[tether]\n{}{}",
                self.echo,
                part(self.six, "network6 = \"fd88::/64\"\n".into()),
                part(self.shell, format!("[[host]]\nname = \"shell\"\nport = {SHELL}\n")),
            ),
        );
        for (number, Service { ports, routes }) in self.services.iter().enumerate() {
            let mut text = format!("description = \"s{number}\"\nrootfs = \"stand-in\"\n");
            for (port, protocol, tier) in ports {
                text += &port_text(*port, protocol, tier);
            }
            let to = ports.iter().find(|(_, protocol, _)| *protocol == "tcp").map_or(0, |(port, ..)| *port);
            for (route, tier) in routes.iter().enumerate() {
                text +=
                    &format!("[[route]]\npath = \"/s{number}/r{route}\"\ntier = \"{tier}\"\nport = {to}\n");
            }
            sources.insert(format!("services/s{number}.toml"), text);
        }
        if let Some(Veil { tier, second }) = self.veil {
            let text = "description = \"veil\"\nrootfs = \"veil\"\nveil = true\n".to_owned();
            let text = text + &port_text(WEB, "tcp", tier);
            sources.insert("services/veil.toml", text + &part(second, port_text(WEB2, "tcp", "tether")));
        }
        for bond in &self.bonds {
            sources.insert(format!("peers/p{}.toml", bond.number), bond.text(self.six));
        }
        sources
    }

    pub fn codex(&self) -> Codex {
        let sources = self.sources();
        Codex::parse(&sources).unwrap_or_else(|mistakes| panic!("{}", render_all(&mistakes, &sources, false)))
    }
}

fn port_text(number: u16, protocol: &str, tier: &str) -> String {
    format!("[[port]]\nnumber = {number}\nprotocol = \"{protocol}\"\ntier = \"{tier}\"\n")
}

fn tier() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("pod"), Just("tether"), Just("forest")]
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let ports = prop::collection::btree_map((PORTS, any::<bool>()), (tier(), 0..3_usize), 0..8);
    let routes = prop::collection::vec((prop::bool::ANY, 0..3_usize), 0..4);
    // Number and protocol are taken once in a pod: they are dealt out.
    (ports, routes).prop_map(|(ports, routes)| {
        let mut services = vec![Service::default(); 3];
        for ((number, udp), (tier, service)) in ports {
            services[service].ports.push((number, if udp { "udp" } else { "tcp" }, tier));
        }
        for (pinned, service) in routes {
            // A route leads to a TCP port.
            if services[service].ports.iter().any(|(_, protocol, _)| *protocol == "tcp") {
                services[service].routes.push(if pinned { "tether" } else { "forest" });
            }
        }
        services
    })
}

fn veil() -> impl Strategy<Value = Option<Veil>> {
    let veil = (prop_oneof![Just("forest"), Just("tether")], any::<bool>());
    prop::option::weighted(0.7, veil.prop_map(|(tier, second)| Veil { tier, second }))
}

/// A peer before it is known what there is to be granted.
type Lot = (State, Vec<Index>, Vec<Index>, [bool; 3], bool);

fn lots() -> impl Strategy<Value = Vec<Lot>> {
    let state = prop_oneof![
        4 => Just(State::Active), 1 => Just(State::Ending), 1 => Just(State::Expired), 1 => Just(State::Revoked)
    ];
    let some = || prop::collection::vec(any::<Index>(), 0..3);
    let flags = [prop::bool::weighted(0.2), prop::bool::weighted(0.5), prop::bool::weighted(0.5)];
    prop::collection::vec((state, some(), some(), flags, prop::bool::weighted(0.3)), 0..4)
}

/// Any Codex that holds no mistake.
pub fn laws() -> impl Strategy<Value = Law> {
    (services(), veil(), lots(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(mut services, veil, lots, six, shell, echo)| {
            for service in &mut services {
                match veil {
                    None => service.routes.clear(),
                    Some(Veil { tier: "tether", .. }) => service.routes.fill("tether"),
                    Some(_) => {}
                }
            }
            let mut law = Law { services, veil, bonds: Vec::new(), six, shell, echo };
            let grantable = law.grantable();
            let count = lots.len();
            law.bonds =
                (0..).zip(lots).map(|(number, lot)| bond(number, lot, count, &grantable, shell)).collect();
            law
        },
    )
}

impl Law {
    /// Names of the services that a peer can be granted.
    fn grantable(&self) -> Vec<String> {
        let pinned = |service: &Service| {
            service.ports.iter().any(|(.., tier)| *tier == "tether") || service.routes.contains(&"tether")
        };
        let services = (0..).zip(&self.services).filter(|(_, service)| pinned(service));
        let services = services.map(|(number, _): (u8, _)| format!("s{number}"));
        let veil = self.veil.filter(|veil| veil.second || veil.tier == "tether").map(|_| "veil".to_owned());
        services.chain(veil).collect()
    }
}

fn bond(number: u8, lot: Lot, count: usize, grantable: &[String], host: bool) -> Bond {
    let (state, grants, others, [all, door, shell], lych) = lot;
    let others = others.iter().map(|index| index.index(count)).filter(|other| *other != usize::from(number));
    let mut words: BTreeSet<String> = others.map(|other| format!("peer:p{other}")).collect();
    if all {
        words.insert("*".into());
    } else if !grantable.is_empty() {
        words.extend(grants.iter().map(|index| index.get(grantable).clone()));
    }
    words.extend(
        door.then(|| ["metrics", "bonds", "rebirth", "snapshots"][usize::from(number) % 4].to_owned()),
    );
    words.extend((host && shell).then(|| "shell".to_owned()));
    Bond { number, state, words, lych }
}
