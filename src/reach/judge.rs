//! The verdict on one packet: both rulesets, WireGuard and routing, as the Codex makes them.

use std::net::IpAddr;

use super::cause::{bond_command, grant_command, held, peer_cause, port_cause};
use super::rule::Rule;
use super::{Audience, Cause, Family, Fate, Grant, Offer, Origin, Place, Reach, Source, Target, Verdict};
use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::{Door, LAW, Peer, PeerState, Protocol, Step, Tier};

/// What a packet asks for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Port(Protocol, Port),
    Echo,
}

/// What an address is to the appliance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spot<'a> {
    /// The host, on the uplink.
    Uplink,
    /// The host, on the bridge.
    Gateway,
    /// The pod, on the bridge.
    Pod,
    /// The pod, on `wg0`.
    Own,
    /// Another address of the tether, and who has it.
    Tether(Option<&'a Name>),
    /// Behind a peer.
    Beyond(&'a Name),
    /// None of it.
    Elsewhere,
}

impl Reach<'_> {
    /// What becomes of what `source` sends to `target`.
    pub fn verdict(&self, source: &Source, target: &Target) -> Verdict {
        match target {
            Target::Port(place, protocol, port) => self.packet(source, *place, Ask::Port(*protocol, *port)),
            Target::Echo(place) => self.packet(source, *place, Ask::Echo),
            Target::Path(path) => self.path(source, path),
            Target::Door(door) => self.door(source, *door),
        }
    }

    fn packet(&self, source: &Source, place: Place, ask: Ask) -> Verdict {
        match source {
            Source::Forest => self.by_forest(place, ask),
            // No client sends the appliance's public address into the tunnel.
            Source::Peer(_) if matches!(place, Place::Uplink(_)) => self.by_forest(place, ask),
            Source::Peer(name) => match self.peer(name) {
                Some(peer) => self.by_peer(name, peer, place, ask),
                None => self.no_bond(source),
            },
            Source::Stranger(_) => self.no_bond(source),
            Source::Host => self.by_host(place, ask),
            Source::Pod => self.by_pod(place, ask),
        }
    }

    fn spot(&self, place: Place) -> Spot<'_> {
        let (pod, tether) = (&self.codex.pod, &self.codex.tether);
        let address = match place {
            Place::Uplink(_) => return Spot::Uplink,
            Place::At(address) => address,
        };
        if tether.is_own(address) {
            Spot::Own
        } else if tether.contains(address) {
            Spot::Tether(self.holder(address))
        } else if address == pod.address {
            Spot::Pod
        } else if address == pod.gateway {
            Spot::Gateway
        } else {
            let behind = |peer: &Peer| matches!(address, IpAddr::V4(address) if peer.routes().iter().any(|route| route.contains(address)));
            self.peers()
                .find(|(_, peer)| behind(peer))
                .map_or(Spot::Elsewhere, |(name, _)| Spot::Beyond(name))
        }
    }

    fn by_forest(&self, place: Place, ask: Ask) -> Verdict {
        match (self.spot(place), place.family(), ask) {
            (Spot::Uplink, Family::V4, Ask::Port(protocol, port)) => match self.published(protocol, port) {
                Some(verdict) => verdict,
                None => self.closed(Rule::HostInput, protocol, port),
            },
            (Spot::Uplink, Family::V6, Ask::Port(..)) => Verdict::new(
                Fate::Silent,
                Rule::HostInput,
                "the pod has no IPv6 address: nothing is published over IPv6",
            ),
            (Spot::Uplink, family, Ask::Echo) => self.echo(family),
            (Spot::Own | Spot::Tether(_), family, _) => Verdict::new(
                Fate::Silent,
                if family == Family::V4 { Rule::HostBehind } else { Rule::HostBehind6 },
                "addresses of the tether are reached through the tunnel alone",
            ),
            (Spot::Pod | Spot::Gateway, ..) => Verdict::new(
                Fate::Silent,
                Rule::HostBehind,
                "addresses of the pod's network are not asked for from outside",
            ),
            (Spot::Beyond(_) | Spot::Elsewhere, ..) => Verdict::new(
                Fate::Silent,
                Rule::HostOther,
                "the host hands on nothing but the ports that are published at its own address",
            ),
        }
    }

    /// A ping from outside.
    fn echo(&self, family: Family) -> Verdict {
        let cause = Cause {
            file: LAW.to_owned(),
            key: vec![Step::Key("uplink"), Step::Key("echo")],
            says: format!("echo = {}", self.codex.uplink.echo),
        };
        let (fate, rule, why) = match (self.codex.uplink.echo, family) {
            (false, _) => (Fate::Silent, Rule::HostInput, "no ping from outside is answered"),
            (true, Family::V4) => (Fate::Allowed, Rule::HostEcho, "pings are answered, a few a second"),
            (true, Family::V6) => (Fate::Allowed, Rule::HostEcho6, "pings are answered, a few a second"),
        };
        Verdict::new(fate, rule, why).causes([cause])
    }

    fn by_peer(&self, name: &Name, peer: &Peer, place: Place, ask: Ask) -> Verdict {
        let own = match place.family() {
            Family::V4 => Some(IpAddr::V4(peer.address)),
            Family::V6 => peer.address6.map(IpAddr::V6),
        };
        let Some(address) = own else {
            let why = format!("`{name}` has no IPv6 address on the tether");
            let cause = peer_cause(name, "address6", "has no `address6`");
            return Verdict::new(Fate::Silent, Rule::NoBond, why).causes([cause]);
        };
        match (self.spot(place), ask) {
            (Spot::Own | Spot::Pod, Ask::Port(protocol, port)) => {
                let grant = Grant { address, protocol, port };
                match self.admitting(peer, protocol, port) {
                    Some(offer) => self.granted(name, peer, offer, grant),
                    None => self.denied(name, protocol, port),
                }
            }
            (Spot::Own, Ask::Echo) => {
                let rule = if address.is_ipv4() { Rule::Echo } else { Rule::Echo6 };
                Verdict::new(Fate::Allowed, rule, "every peer may ping the tether's own address")
            }
            (Spot::Pod, Ask::Echo) => Verdict::new(
                Fate::Denied,
                Rule::Denied,
                "the pod answers pings at the tether's address alone",
            ),
            (Spot::Tether(Some(to)) | Spot::Beyond(to), _) => self.to_peer((name, address), to, place),
            (Spot::Tether(None), _) => {
                Verdict::new(Fate::Denied, Rule::BetweenDenied, "no bond in force has this address")
            }
            (Spot::Gateway, ask) if !self.codex.host.is_empty() => self.host_service(name, peer, ask),
            (Spot::Uplink | Spot::Gateway | Spot::Elsewhere, _) => {
                Verdict::new(Fate::Denied, Rule::PodForward, "nothing passes through the pod")
            }
        }
    }

    fn by_host(&self, place: Place, ask: Ask) -> Verdict {
        match (self.spot(place), ask) {
            (Spot::Uplink | Spot::Gateway, _) => {
                Verdict::new(Fate::Allowed, Rule::HostLoopback, "the host may talk to itself")
            }
            (Spot::Pod, Ask::Port(protocol, port)) => match self.published(protocol, port) {
                Some(verdict) => verdict,
                None => self.closed(Rule::PodForest, protocol, port),
            },
            (Spot::Pod, Ask::Echo) => {
                Verdict::new(Fate::Silent, Rule::PodForest, "the pod answers pings on wg0 alone")
            }
            (Spot::Own | Spot::Tether(_), _) => {
                let rule = match place.family() {
                    Family::V4 => Rule::OutputTether,
                    Family::V6 => Rule::OutputTether6,
                };
                Verdict::new(Fate::Silent, rule, "wg0 is in the pod: from the host it would leave in clear")
            }
            (Spot::Beyond(name), _) => {
                let why = format!("what is behind `{name}` is reached through wg0, which is in the pod");
                Verdict::new(Fate::Silent, Rule::NoRoute, why)
            }
            (Spot::Elsewhere, _) => Verdict::new(Fate::Allowed, Rule::HostOutput, "the host may reach out"),
        }
    }

    fn by_pod(&self, place: Place, ask: Ask) -> Verdict {
        let hairpin = |(protocol, port)| self.published(protocol, port).is_some();
        match (self.spot(place), place.family(), ask) {
            (Spot::Own | Spot::Pod, ..) => {
                Verdict::new(Fate::Allowed, Rule::PodLoopback, "all containers share the pod's network")
            }
            (Spot::Uplink, Family::V4, Ask::Port(protocol, port)) if hairpin((protocol, port)) => {
                Verdict::new(
                    Fate::Silent,
                    Rule::HostForward,
                    "the pod does not reach itself through the host",
                )
            }
            (Spot::Gateway, ..) if !self.codex.host.is_empty() => Verdict::new(
                Fate::Silent,
                Rule::PodGateway,
                "what the host offers is for peers, not for containers",
            ),
            (Spot::Gateway | Spot::Uplink, Family::V4, _) => {
                Verdict::new(Fate::Silent, Rule::HostBridge, "the pod asks nothing of the host")
            }
            (Spot::Tether(Some(name)) | Spot::Beyond(name), ..) => {
                let why = format!("containers may reach `{name}` and what is behind it");
                Verdict::new(Fate::Allowed, Rule::PodOutput, why)
            }
            (Spot::Tether(None), ..) => {
                Verdict::new(Fate::Silent, Rule::NoBond, "no bond in force has this address")
            }
            (Spot::Elsewhere, Family::V4, _) if let Some(name) = self.gone(place) => {
                let why = format!(
                    "this network was behind `{name}`, which is bonded no more: it would leave in clear"
                );
                Verdict::new(Fate::Silent, Rule::PodGone, why).causes([peer_cause(
                    name,
                    "routes",
                    "routes this network",
                )])
            }
            (Spot::Elsewhere, Family::V4, _) => {
                Verdict::new(Fate::Allowed, Rule::HostContainers, "containers may reach out")
            }
            (_, Family::V6, _) => {
                Verdict::new(Fate::Silent, Rule::NoRoute, "the pod has no IPv6 address outside the tether")
            }
        }
    }

    /// Who routed a place and is in force no more.
    fn gone(&self, place: Place) -> Option<&Name> {
        let Place::At(IpAddr::V4(address)) = place else { return None };
        let routed = |peer: &Peer| peer.routes().iter().any(|route| route.contains(address));
        let mut gone = self.codex.peers.iter().filter(|(name, _)| self.peer(name).is_none());
        gone.find(|(_, peer)| routed(peer)).map(|(name, _)| name)
    }

    /// The verdict on a published port.
    fn published(&self, protocol: Protocol, port: Port) -> Option<Verdict> {
        let offer = self.find(protocol, port, |offer| offer.audience == Audience::Everyone)?;
        let why = match offer.origin {
            Origin::Tether => "it is the tether's own port, which answers to bonded keys alone".to_owned(),
            Origin::Port(service, _) | Origin::Route(service, _) => {
                format!("`{service}` declares it public")
            }
            Origin::Door => "it is the agent's".to_owned(),
        };
        let verdict = Verdict::new(Fate::Allowed, Rule::Published, why);
        Some(verdict.element(format!("{protocol} . {port}")).causes([self.origin(offer)]))
    }

    /// The offer that lets `peer` reach a port through `wg0`.
    pub(super) fn admitting(&self, peer: &Peer, protocol: Protocol, port: Port) -> Option<&super::Offer<'_>> {
        self.find(protocol, port, |offer| offer.audience.admits(peer))
    }

    fn find(
        &self,
        protocol: Protocol,
        port: Port,
        wanted: impl Fn(&Offer<'_>) -> bool,
    ) -> Option<&Offer<'_>> {
        self.offers.iter().find(|offer| offer.protocol == protocol && offer.port == port && wanted(offer))
    }

    fn granted(&self, name: &Name, peer: &Peer, offer: &Offer<'_>, grant: Grant) -> Verdict {
        let rule = if grant.address.is_ipv4() { Rule::Grants } else { Rule::Grants6 };
        let word = match offer.audience {
            Audience::Holders(service) if peer.grants.services.contains(service) => service.as_str(),
            Audience::Holders(_) | Audience::Everyone => "*",
            Audience::Doors => peer.grants.doors.first().map_or("", |door| door.word()),
        };
        Verdict::new(Fate::Allowed, rule, format!("`{name}` holds the grant `{word}`"))
            .element(grant)
            .causes([held(name, word), self.origin(offer)])
    }

    /// A peer without the grant.
    fn denied(&self, name: &Name, protocol: Protocol, port: Port) -> Verdict {
        let open = self.find(protocol, port, |offer| offer.audience != Audience::Everyone);
        let Some(offer) = open else {
            return Verdict { fate: Fate::Denied, ..self.closed(Rule::Denied, protocol, port) };
        };
        let word = match offer.audience {
            Audience::Holders(service) => service.as_str(),
            Audience::Doors | Audience::Everyone => Door::Metrics.word(),
        };
        Verdict::new(Fate::Denied, Rule::Denied, format!("`{name}` does not hold the grant `{word}`"))
            .causes([peer_cause(name, "grants", "does not hold it"), self.origin(offer)])
            .remedy(grant_command(name, word))
    }

    /// A port that is closed to whoever asks: who declares it, and of which tier.
    fn closed(&self, rule: Rule, protocol: Protocol, port: Port) -> Verdict {
        if let Some(Offer { audience: Audience::Doors, .. }) =
            self.find(protocol, port, |offer| offer.origin == Origin::Door)
        {
            return Verdict::new(
                Fate::Silent,
                rule,
                "it is the agent's door, for peers that hold a grant of it",
            );
        }
        for (name, service) in &self.codex.services {
            let own = service.ports.iter().position(|own| (own.protocol, own.number) == (protocol, port));
            let Some(index) = own else { continue };
            let tier = service.ports[index].tier;
            let (why, remedy) = match tier {
                Tier::Pod => ("for the pod alone", None),
                Tier::Tether => ("for peers that hold the grant", Some(bond_command(name))),
                Tier::Forest => ("for the forest: it is published on the uplink", None),
            };
            let verdict =
                Verdict::new(Fate::Silent, rule, format!("`{name}` declares {protocol} {port} {why}"));
            return Verdict { remedy, ..verdict }.causes([port_cause(name, index, tier)]);
        }
        Verdict::new(Fate::Silent, rule, format!("no service declares {protocol} {port}"))
    }

    pub(super) fn no_bond(&self, source: &Source) -> Verdict {
        let Source::Peer(name) = source else {
            return Verdict::new(
                Fate::Silent,
                Rule::NoBond,
                format!("no bond in force has the address {source}"),
            );
        };
        let (why, cause) = match self.codex.peer(name) {
            Some(peer) if peer.state == PeerState::Revoked => {
                (format!("`{name}` is revoked"), peer_cause(name, "state", "is revoked"))
            }
            Some(Peer { expires: Some(at), .. }) => {
                (format!("the time of `{name}` was over at {at}"), peer_cause(name, "expires", "has expired"))
            }
            _ => return Verdict::new(Fate::Silent, Rule::NoBond, format!("there is no bond `{name}`")),
        };
        Verdict::new(Fate::Silent, Rule::NoBond, why).causes([cause])
    }
}
