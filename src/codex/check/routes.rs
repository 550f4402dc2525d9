//! HTTP routes: one owner a path, and nothing public inside what is pinned to the Tether.

use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::name::{Name, RoutePath};
use crate::codex::schema::{At, Draft, Route, Service};
use crate::codex::{Protocol, Tier};

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
        for route in &service.routes {
            port(name, service, route, mistakes);
            tier(route, mistakes);
            let (Some(path), Some(tier)) = (&route.path, &route.tier) else { continue };
            let folded = path.value.as_str().to_ascii_lowercase();
            claims.push(Claim { service: name, path, folded, tier: tier.value });
        }
    }
    served(draft, &claims, &veils, mistakes);
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

fn port(name: &Name, service: &Service, route: &Route, mistakes: &mut Vec<Diagnostic>) {
    let Some(port) = &route.port else { return };
    let is_veil = service.veil.as_ref().is_some_and(|veil| veil.value);
    if is_veil {
        let message = "the Veil cannot forward a route to itself";
        mistakes.push(Diagnostic::error(message, &port.place).hint("give the route to another service"));
        return;
    }
    let unknown = |port: &crate::codex::schema::ServicePort| port.number.is_none() || port.protocol.is_none();
    let tcp: Vec<u16> = service
        .ports
        .iter()
        .filter(|port| port.protocol.as_ref().is_some_and(|protocol| protocol.value == Protocol::Tcp))
        .filter_map(|port| Some(port.number.as_ref()?.value.get()))
        .collect();
    if tcp.contains(&port.value.get()) || service.ports.iter().any(unknown) {
        return;
    }
    let mistake = Diagnostic::error(format!("`{name}` has no TCP port {}", port.value), &port.place)
        .label("forwarded to here");
    let numbers: Vec<String> = tcp.iter().map(u16::to_string).collect();
    mistakes.push(mistake.hint(if numbers.is_empty() {
        format!("add `[[port]]` with `number = {}` and `tier = \"pod\"`", port.value)
    } else {
        format!("its TCP ports are: {}", numbers.join(", "))
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

fn clashes(claims: &[Claim<'_>], mistakes: &mut Vec<Diagnostic>) {
    for (index, claim) in claims.iter().enumerate() {
        if let Some(first) = claims[..index].iter().find(|first| first.folded == claim.folded) {
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
        let above = |pinned: &&Claim<'_>| pinned.tier == Tier::Tether && below(&claim.folded, &pinned.folded);
        if let Some(pinned) = claims.iter().find(above) {
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

/// Whether `path` lies inside `above`, segment by segment.
fn below(path: &str, above: &str) -> bool {
    let above = above.trim_end_matches('/');
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')) && path != above
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_inside_another_by_segments() {
        for (path, above) in [("/a/b", "/a"), ("/a", "/"), ("/a/b/c", "/a/b")] {
            assert!(below(path, above), "{path} {above}");
        }
        for (path, above) in [("/a", "/a"), ("/ab", "/a"), ("/", "/a"), ("/a", "/a/b")] {
            assert!(!below(path, above), "{path} {above}");
        }
    }
}
