//! The whole reachability as a table: what there is, and who reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{Family, Place, Reach, Source, Target};
use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::{Codex, DOOR_PORT, Door, Grants, Protocol, Tier};

/// Who × what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Who asks: the forest, the host, the pod, then classes of peers that reach the same.
    pub columns: Vec<Column>,
    /// What there is, in the order of the Codex.
    pub rows: Vec<Row>,
}

/// Those who reach the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Who asks for all of them.
    pub source: Source,
    /// The peers, by name; empty for those who are no peers.
    pub peers: Vec<Name>,
}

/// One thing to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose it is; `None` is the tether's own.
    pub service: Option<Name>,
    /// For people: `6006/tcp`, `/a2a/smith`, `bonds`.
    pub label: String,
    /// Who it is declared for.
    pub tier: Tier,
    /// For each column whether it is reached.
    pub reached: Vec<bool>,
}

impl Column {
    /// `forest`, `phone`, `phone +3`.
    pub fn title(&self) -> String {
        match self.peers.len() {
            0 | 1 => self.source.to_string(),
            count => format!("{} +{}", self.source, count - 1),
        }
    }
}

/// One thing, not yet asked for by anybody.
struct Thing {
    service: Option<Name>,
    label: String,
    tier: Tier,
    /// As the forest asks for it, as the host does, and as everybody else does.
    outside: Target,
    host: Target,
    inside: Target,
}

impl Thing {
    /// One that everybody asks for in the same way.
    fn same(service: Option<Name>, label: String, tier: Tier, target: Target) -> Self {
        Self { service, label, tier, outside: target.clone(), host: target.clone(), inside: target }
    }
}

impl Reach<'_> {
    /// The table.
    pub fn map(&self) -> Map {
        let things = self.things();
        let asked = |source: &Source| -> Vec<bool> {
            let one = |thing: &Thing| {
                // What is public is so for peers too, beside the tunnel.
                let public = thing.tier == Tier::Forest && matches!(source, Source::Peer(_));
                let outside = || self.verdict(&Source::Forest, &thing.outside).allowed();
                match source {
                    Source::Forest => outside(),
                    Source::Host => self.verdict(source, &thing.host).allowed(),
                    _ => self.verdict(source, &thing.inside).allowed() || (public && outside()),
                }
            };
            things.iter().map(one).collect()
        };
        let mut columns = Vec::new();
        let mut cells = Vec::new();
        for source in [Source::Forest, Source::Host, Source::Pod] {
            cells.push(asked(&source));
            columns.push(Column { source, peers: Vec::new() });
        }
        let mut classes: BTreeMap<Vec<bool>, usize> = BTreeMap::new();
        for (name, _) in self.peers() {
            let source = Source::Peer(name.clone());
            let reached = asked(&source);
            let at = *classes.entry(reached.clone()).or_insert_with(|| {
                cells.push(reached);
                columns.push(Column { source, peers: Vec::new() });
                columns.len() - 1
            });
            columns[at].peers.push(name.clone());
        }
        let row = |(index, thing): (usize, Thing)| Row {
            service: thing.service,
            label: thing.label,
            tier: thing.tier,
            reached: cells.iter().map(|column| column[index]).collect(),
        };
        Map { columns, rows: things.into_iter().enumerate().map(row).collect() }
    }

    fn things(&self) -> Vec<Thing> {
        let codex = self.codex();
        let label = format!("{}/udp", codex.tether.port);
        let mut things = vec![self.pod_port(None, label, Tier::Forest, (Protocol::Udp, codex.tether.port))];
        for (name, service) in &codex.services {
            things.extend(service.ports.iter().map(|own| {
                let label = format!("{}/{}", own.number, own.protocol);
                self.pod_port(Some(name.clone()), label, own.tier, (own.protocol, own.number))
            }));
            things.extend(service.routes.iter().map(|route| {
                let target = Target::Path(route.path.to_string());
                Thing::same(Some(name.clone()), route.path.to_string(), route.tier, target)
            }));
        }
        things.extend(codex.host.iter().map(|service| {
            let at = |place| Target::Port(place, service.protocol, service.port);
            let label = format!("{}/{} of the host", service.port, service.protocol);
            let (outside, inside) = (at(Place::Uplink(Family::V4)), at(Place::At(codex.pod.gateway.into())));
            let (service, tier) = (Some(service.name.clone()), Tier::Tether);
            Thing { service, label, tier, outside, host: inside.clone(), inside }
        }));
        things.extend(self.machines());
        things.extend(Door::ALL.map(|door| {
            let label = format!("{} ({DOOR_PORT}/tcp)", door.word());
            Thing::same(None, label, Tier::Tether, Target::Door(door))
        }));
        things
    }

    /// A port of the pod.
    fn pod_port(
        &self,
        service: Option<Name>,
        label: String,
        tier: Tier,
        (protocol, port): (Protocol, Port),
    ) -> Thing {
        let at = |place| Target::Port(place, protocol, port);
        let Codex { pod, tether, .. } = self.codex();
        Thing {
            service,
            label,
            tier,
            outside: at(Place::Uplink(Family::V4)),
            host: at(Place::At(pod.address.into())),
            inside: at(Place::At(tether.address.into())),
        }
    }

    /// Peers that others are granted, and networks behind peers.
    fn machines(&self) -> Vec<Thing> {
        let granted: BTreeSet<&Name> = self.peers().flat_map(|(_, peer)| &peer.grants.peers).collect();
        let thing = |label, address: Ipv4Addr| {
            Thing::same(None, label, Tier::Tether, Target::Echo(Place::At(address.into())))
        };
        let mut things = Vec::new();
        for (name, peer) in self.peers() {
            let word = Grants::peer_word(name);
            things.extend(granted.contains(name).then(|| thing(word.clone(), peer.address)));
            let behind = peer.routes().iter();
            things.extend(behind.map(|route| thing(format!("{word} {route}"), route.first_host())));
        }
        things
    }
}
