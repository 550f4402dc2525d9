//! HTTP paths: who reaches the Veil, and what it serves there.

use super::cause::{bond_command, grant_command, held, peer_cause};
use super::rule::Rule;
use super::{Audience, Cause, Fate, Grant, Owned, Reach, Source, Verdict, routes, veil, veil_ports};
use crate::codex::name::Name;
use crate::codex::{Peer, Protocol, Step, Tier};

impl Reach<'_> {
    pub(super) fn path(&self, source: &Source, path: &str) -> Verdict {
        match source {
            Source::Stranger(_) => self.no_bond(source),
            Source::Peer(name) => match self.peer(name) {
                Some(peer) => self.path_through_tether(name, peer, path),
                None => self.no_bond(source),
            },
            Source::Forest | Source::Host => self.path_in_forest(path),
            Source::Pod if veil_ports(self.codex()).is_empty() => unserved(),
            Source::Pod => self.served(path, Tier::Tether),
        }
    }

    /// The route that serves a path: the longest that covers it.
    fn route(&self, path: &str) -> Option<Owned<'_>> {
        routes(self.codex()).into_iter().find(|(_, _, route)| route.covers(path))
    }

    fn path_in_forest(&self, path: &str) -> Verdict {
        let public = veil(self.codex()).is_some_and(|(_, veil)| {
            veil.ports.iter().any(|port| port.tier == Tier::Forest && port.protocol == Protocol::Tcp)
        });
        if public { self.served(path, Tier::Forest) } else { unserved() }
    }

    fn path_through_tether(&self, name: &Name, peer: &Peer, path: &str) -> Verdict {
        let ports = veil_ports(self.codex());
        if ports.is_empty() {
            return unserved();
        }
        let open = ports.iter().find_map(|port| Some((*port, self.admitting(peer, Protocol::Tcp, *port)?)));
        let Some((port, offer)) = open else {
            let verdict = Verdict::new(
                Fate::Denied,
                Rule::Denied,
                format!("`{name}` holds no grant that opens the Veil's port"),
            );
            let verdict = verdict.causes(self.route(path).map(|(owner, at, _)| self.route_cause(owner, at)));
            return match self.key_to_the_veil(path) {
                Some(word) => verdict.remedy(grant_command(name, word.as_str())),
                None => verdict,
            };
        };
        let element = Grant { address: peer.address.into(), protocol: Protocol::Tcp, port };
        if let Some(route) = self.route(path).filter(|(_, _, route)| route.tier == Tier::Tether) {
            return self.pinned((name, peer), route, element);
        }
        let opened = self.origin(offer);
        let word = match offer.audience {
            Audience::Holders(service) => held_word(peer, service),
            _ => "*",
        };
        let verdict = self.served(path, Tier::Tether).element(element);
        verdict.causes([held(name, word), opened])
    }

    /// What the Veil answers a peer that may speak to it and asks for a pinned route.
    fn pinned(&self, (name, peer): (&Name, &Peer), pinned: Owned<'_>, element: Grant) -> Verdict {
        let (owner, at, route) = pinned;
        let cause = self.route_cause(owner, at);
        if Audience::Holders(owner).admits(peer) {
            let verdict = self.served(route.path.as_str(), Tier::Tether).element(element);
            return verdict.causes([held(name, held_word(peer, owner))]);
        }
        let why = format!(
            "`{name}` does not hold the grant `{owner}`: to it the route looks like a path that does not exist"
        );
        Verdict::new(Fate::Unknown, Rule::VeilPass, why)
            .causes([peer_cause(name, "grants", "does not hold it"), cause])
            .remedy(grant_command(name, owner.as_str()))
    }

    /// The service whose grant opens the Veil to a peer that asks for `path`: the path's own where that does it.
    fn key_to_the_veil(&self, path: &str) -> Option<&Name> {
        let ports = veil_ports(self.codex());
        let keys = self.offers().iter().filter(|offer| ports.contains(&offer.port));
        let keys: Vec<&Name> = keys
            .filter_map(|offer| match offer.audience {
                Audience::Holders(service) if offer.protocol == Protocol::Tcp => Some(service),
                _ => None,
            })
            .collect();
        let own = self.route(path).map(|(owner, ..)| owner).filter(|owner| keys.contains(owner));
        own.or_else(|| keys.first().copied())
    }

    /// What the Veil answers where routes up to `tier` are served.
    fn served(&self, path: &str, listener: Tier) -> Verdict {
        let Some((owner, index, route)) = self.route(path) else {
            return Verdict::new(Fate::Unknown, Rule::VeilUnknown, format!("no route covers {path}"));
        };
        let cause = self.route_cause(owner, index);
        if listener == Tier::Forest && route.tier != Tier::Forest {
            let why =
                format!("`{owner}` pins it to the tether: outside it looks like a path that does not exist");
            return Verdict::new(Fate::Unknown, Rule::VeilUnknown, why)
                .causes([cause])
                .remedy(bond_command(owner));
        }
        let why = format!("the Veil hands it to `{owner}`, by the route {}", route.path);
        let rule = if route.tier == Tier::Tether { Rule::VeilPass } else { Rule::VeilRoute };
        Verdict::new(Fate::Allowed, rule, why).causes([cause])
    }

    pub(super) fn route_cause(&self, service: &Name, index: usize) -> Cause {
        let route = &self.codex().services[service].routes[index];
        let key = vec![Step::Key("route"), Step::Index(index), Step::Key("tier")];
        let says = format!("route {} of tier `{}`", route.path, route.tier);
        Cause { file: format!("services/{service}.toml"), key, says }
    }
}

/// The word by which a peer holds a service.
fn held_word<'a>(peer: &Peer, service: &'a Name) -> &'a str {
    if peer.grants.services.contains(service) { service.as_str() } else { "*" }
}

fn unserved() -> Verdict {
    Verdict::new(Fate::Silent, Rule::HostInput, "no Veil listens there")
}
