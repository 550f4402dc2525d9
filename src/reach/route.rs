//! Routes of all services, and pinned ones inside a forest route of the same service.

use crate::codex::name::Name;
use crate::codex::{Codex, Route, Tier};

/// A route, whose it is, and where it stands among the service's, counted from 0.
pub type Owned<'a> = (&'a Name, usize, &'a Route);

/// Every route, the longest path first: the first that covers a path is the one that is asked.
pub fn routes(codex: &Codex) -> Vec<Owned<'_>> {
    let mut all: Vec<Owned<'_>> = Vec::new();
    for (name, service) in &codex.services {
        all.extend(service.routes.iter().enumerate().map(|(index, route)| (name, index, route)));
    }
    all.sort_by_key(|(_, _, route)| (std::cmp::Reverse(route.path.as_str().len()), route.path.as_str()));
    all
}

/// Pinned routes, each with the forest route around it, where both are of one service. Whoever may not ask for the
/// pinned one is answered by the other, and that service may know the path; another service does not.
pub fn sheltered(codex: &Codex) -> Vec<(Owned<'_>, Owned<'_>)> {
    let routes = routes(codex);
    let around = |path: &str| {
        routes.iter().find(|(_, _, route)| route.tier == Tier::Forest && route.covers(path)).copied()
    };
    let pinned = routes.iter().filter(|(_, _, route)| route.tier == Tier::Tether);
    let pairs = pinned.filter_map(|pinned| Some((*pinned, around(pinned.2.path.as_str())?)));
    pairs.filter(|(pinned, around)| pinned.0 == around.0).collect()
}
