//! The whole reachability as a table: what there is, and who reaches it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, Reach, Source, Target};
use crate::codex::name::Name;
use crate::codex::{DOOR_PORT, Door, Grants, Protocol, Tier};

/// Who × what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Who asks: the forest, the pod, then classes of peers that reach the same.
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
    /// As the forest asks for it, and as everybody else does.
    outside: Target,
    inside: Target,
}

impl Reach<'_> {
    /// The table.
    pub fn map(&self) -> Map {
        let things = self.things();
        let asked = |source: &Source| -> Vec<bool> {
            let one = |thing: &Thing| {
                // What is public is so for peers too, beside the tunnel.
                let public = thing.tier == Tier::Forest && matches!(source, Source::Peer(_));
                let outside = *source == Source::Forest || public;
                let inside = *source != Source::Forest;
                (inside && self.verdict(source, &thing.inside).allowed())
                    || (outside && self.verdict(&Source::Forest, &thing.outside).allowed())
            };
            things.iter().map(one).collect()
        };
        let mut columns = Vec::new();
        let mut cells = Vec::new();
        for source in [Source::Forest, Source::Pod] {
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
        let port = |protocol, port| {
            let at = |place| Target::Port(place, protocol, port);
            (at(Place::Uplink(super::Family::V4)), at(Place::At(codex.tether.address.into())))
        };
        let (outside, inside) = port(Protocol::Udp, codex.tether.port);
        let label = format!("{}/udp", codex.tether.port);
        let mut things = vec![Thing { service: None, label, tier: Tier::Forest, outside, inside }];
        for (name, service) in &codex.services {
            for own in &service.ports {
                let (outside, inside) = port(own.protocol, own.number);
                let label = format!("{}/{}", own.number, own.protocol);
                things.push(Thing { service: Some(name.clone()), label, tier: own.tier, outside, inside });
            }
            for route in &service.routes {
                let target = Target::Path(route.path.to_string());
                let (outside, inside) = (target.clone(), target);
                let label = route.path.to_string();
                things.push(Thing { service: Some(name.clone()), label, tier: route.tier, outside, inside });
            }
        }
        for service in &codex.host {
            let at = |place| Target::Port(place, service.protocol, service.port);
            let (outside, inside) =
                (at(Place::Uplink(super::Family::V4)), at(Place::At(codex.pod.gateway.into())));
            let label = format!("{}/{} of the host", service.port, service.protocol);
            let service = Some(service.name.clone());
            things.push(Thing { service, label, tier: Tier::Tether, outside, inside });
        }
        let granted: BTreeSet<&Name> = self.peers().flat_map(|(_, peer)| &peer.grants.peers).collect();
        for (name, peer) in granted.into_iter().filter_map(|name| Some((name, self.peer(name)?))) {
            let target = Target::Echo(Place::At(peer.address.into()));
            let (outside, inside, label) = (target.clone(), target, Grants::peer_word(name));
            things.push(Thing { service: None, label, tier: Tier::Tether, outside, inside });
        }
        for door in Door::ALL {
            let label = format!("{} ({DOOR_PORT}/tcp)", door.word());
            let target = Target::Door(door);
            let (outside, inside) = (target.clone(), target);
            things.push(Thing { service: None, label, tier: Tier::Tether, outside, inside });
        }
        things
    }
}
