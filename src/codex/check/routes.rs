//! HTTP routes: one owner a path, and nothing public inside what is pinned to the Tether.

use std::collections::{BTreeMap, BTreeSet};

use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::name::{Name, RoutePath};
use crate::codex::schema::{At, Draft, Field, Route, Service, ServicePort};
use crate::codex::{Protocol, Tier};

/// Ports that a remedy names.
const LISTED: usize = 10;

/// A route whose path and tier are known.
struct Claim<'a> {
    service: &'a Name,
    path: &'a At<RoutePath>,
    /// Lower case: the Veil compares paths without regard to case.
    folded: String,
    tier: Tier,
}

/// Checks every route by itself and against all others, and that somebody serves them.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    let veils = veils(draft, mistakes);
    let mut claims: Vec<Claim<'_>> = Vec::new();
    for (name, service) in &draft.services {
        let Some(service) = service else { continue };
        let ports = Ports::of(service);
        for route in &service.routes {
            port(name, &ports, route, mistakes);
            tier(route, mistakes);
            let (Some(path), Some(tier)) = (&route.path, &route.tier) else { continue };
            let folded = path.value.as_str().to_ascii_lowercase();
            claims.push(Claim { service: name, path, folded, tier: tier.value });
        }
    }
    served(draft, &claims, &veils, mistakes);
    https(draft, &veils, mistakes);
    clashes(&claims, mistakes);
}

/// Services that are or may be the Veil; a second one is a mistake.
fn veils<'a>(draft: &'a Draft, mistakes: &mut Vec<Diagnostic>) -> Vec<(&'a Name, &'a Service)> {
    let mut veils = Vec::new();
    let mut first: Option<&Place> = None;
    for (name, service) in &draft.services {
        let Some(service) = service else { continue };
        let Some(veil) = service.veil.as_ref().filter(|veil| veil.value) else { continue };
        if let Some(first) = first {
            let mistake = Diagnostic::error("there are two Veils", &veil.place).label("the second");
            mistakes.push(mistake.related(first, "the first").hint("keep `veil = true` in one service"));
        }
        first.get_or_insert(&veil.place);
        veils.push((name, service));
    }
    veils
}

/// What a service listens on, as far as routes are concerned.
struct Ports {
    is_veil: bool,
    tcp: BTreeSet<u16>,
    /// Whether one of them was not understood.
    unknown: bool,
}

impl Ports {
    fn of(service: &Service) -> Self {
        let tcp = |port: &&ServicePort| {
            port.protocol.as_ref().is_some_and(|protocol| protocol.value == Protocol::Tcp)
        };
        let number = |port: &ServicePort| Some(port.number.as_ref()?.value.get());
        Self {
            is_veil: service.veil.as_ref().is_some_and(|veil| veil.value),
            tcp: service.ports.iter().filter(tcp).filter_map(number).collect(),
            unknown: service.ports.iter().any(|port| port.number.is_none() || port.protocol.is_none()),
        }
    }
}

fn port(name: &Name, ports: &Ports, route: &Route, mistakes: &mut Vec<Diagnostic>) {
    let Some(port) = &route.port else { return };
    if ports.is_veil {
        let message = "the Veil cannot forward a route to itself";
        mistakes.push(Diagnostic::error(message, &port.place).hint("give the route to another service"));
        return;
    }
    if ports.tcp.contains(&port.value.get()) || ports.unknown {
        return;
    }
    let mistake = Diagnostic::error(format!("`{name}` has no TCP port {}", port.value), &port.place)
        .label("forwarded to here");
    let numbers: Vec<String> = ports.tcp.iter().take(LISTED).map(u16::to_string).collect();
    let more = ports.tcp.len() - numbers.len();
    mistakes.push(mistake.hint(match (numbers.is_empty(), more) {
        (true, _) => format!("add `[[port]]` with `number = {}` and `tier = \"pod\"`", port.value),
        (false, 0) => format!("its TCP ports are: {}", numbers.join(", ")),
        (false, more) => format!("its TCP ports are: {} and {more} more", numbers.join(", ")),
    }));
}

fn tier(route: &Route, mistakes: &mut Vec<Diagnostic>) {
    if let Some(At { value: Tier::Pod, place }) = &route.tier {
        let mistake = Diagnostic::error("a route is of tier `forest` or `tether`, not `pod`", place);
        mistakes.push(mistake.hint("inside the pod services reach each other by port; remove the route"));
    }
}

/// Routes need a Veil, and forest routes one that listens in the forest.
fn served(draft: &Draft, claims: &[Claim<'_>], veils: &[(&Name, &Service)], mistakes: &mut Vec<Diagnostic>) {
    // A service that was not understood may be the Veil.
    if draft.services.values().any(|service| service.as_ref().is_none_or(|service| service.veil.is_none())) {
        return;
    }
    let in_forest = |(_, veil): &(&Name, &Service)| {
        veil.ports.iter().any(|port| port.tier.as_ref().is_none_or(|tier| tier.value == Tier::Forest))
    };
    for claim in claims {
        if veils.is_empty() {
            let message = format!("nobody serves the route `{}`: there is no Veil", claim.path.value);
            let mistake = Diagnostic::error(message, &claim.path.place);
            mistakes.push(mistake.hint(
                "add a service with `veil = true`, `rootfs = \"veil\"` and ports 80 and 443, or remove the route",
            ));
        } else if claim.tier == Tier::Forest && !veils.iter().any(in_forest) {
            let message = format!("nobody can reach the forest route `{}`", claim.path.value);
            let mistake = Diagnostic::error(message, &claim.path.place);
            mistakes.push(mistake.hint("give the Veil a port of tier `forest`, or make this a tether route"));
        }
    }
}

/// A domain is served with HTTPS, so that its Veil needs the port for it.
fn https(draft: &Draft, veils: &[(&Name, &Service)], mistakes: &mut Vec<Diagnostic>) {
    let Some(Field::Given(domain)) = draft.law.as_ref().map(|law| &law.domain) else { return };
    let in_forest = |port: &&ServicePort| port.tier.as_ref().is_none_or(|tier| tier.value == Tier::Forest);
    for (_, veil) in veils {
        let mut forest = veil.ports.iter().filter(in_forest).peekable();
        let https = |port: &ServicePort| port.number.as_ref().is_none_or(|number| number.value.get() == 443);
        if forest.peek().is_some() && !forest.any(https) {
            let mistake = Diagnostic::error(
                "the domain is served with HTTPS, and the Veil has no port 443",
                &veil.place,
            );
            let mistake = mistake.related(&domain.place, "the domain");
            mistakes
                .push(mistake.hint(
                    "add `[[port]]` with `number = 443` and `tier = \"forest\"`, or remove the domain",
                ));
        }
    }
}

fn clashes(claims: &[Claim<'_>], mistakes: &mut Vec<Diagnostic>) {
    // The first of each path, and where what is pinned lies: `/` is above everything, so its key is empty.
    let (mut firsts, mut pins) = (BTreeMap::new(), BTreeMap::new());
    for (index, claim) in claims.iter().enumerate() {
        firsts.entry(claim.folded.as_str()).or_insert(index);
        if claim.tier == Tier::Tether {
            pins.entry(claim.folded.trim_end_matches('/')).or_insert(index);
        }
    }
    for (index, claim) in claims.iter().enumerate() {
        let first = firsts.get(claim.folded.as_str()).and_then(|first| claims[..index].get(*first));
        if let Some(first) = first {
            let message = format!("the route `{}` is claimed twice", claim.path.value);
            let mistake = Diagnostic::error(message, &claim.path.place)
                .label("claimed again")
                .related(&first.path.place, format!("first claimed here, by `{}`", first.service));
            let mistake = if first.path.value == claim.path.value {
                mistake
            } else {
                mistake.note("the Veil compares paths without regard to case")
            };
            mistakes.push(mistake.hint("a path has one service and one tier; change one of the two"));
            continue;
        }
        if claim.tier != Tier::Forest {
            continue;
        }
        if let Some(pinned) = above(&claim.folded).filter_map(|path| pins.get(path)).min() {
            let pinned = &claims[*pinned];
            let message = format!(
                "the forest route `{}` lies inside `{}`, which is pinned to the Tether",
                claim.path.value, pinned.path.value
            );
            let mistake = Diagnostic::error(message, &claim.path.place)
                .label("public")
                .related(&pinned.path.place, format!("pinned here, by `{}`", pinned.service));
            mistakes.push(mistake.hint("move it out of the pinned path, or make it a tether route"));
        }
    }
}

/// Paths that `path` lies inside, segment by segment; the empty one is above all.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_inside_others_by_segments() {
        for (path, expected) in [("/", vec![""]), ("/a", vec![""]), ("/a/bc/d", vec!["", "/a", "/a/bc"])] {
            assert_eq!(above(path).collect::<Vec<_>>(), expected, "{path}");
        }
    }
}
