//! The Caddyfile of the Veil: one listener for the forest, one for the tether.
//!
//! The forest listener is bound to the pod's address, the tether listener to `wg0`'s: which routes a request
//! can reach is decided by where it arrives and from which address, not by what it says. On the tether a pinned
//! route asks for a pass besides: a file of the agent's, one for each service and address
//! ([`veil_grants`](crate::reach::veil_grants)), so that this text follows from the law alone.
//!
//! Whoever may not ask for a pinned route is answered by the route around it. A service that knows the path there,
//! because both routes lead to one of its ports, is asked for another one.

use std::collections::BTreeSet;

use minijinja::{Value, context};

use super::{RenderError, template};
use crate::codex::name::RoutePath;
use crate::codex::net::Port;
use crate::codex::{Codex, Protocol, Route, Service, Tier};
use crate::reach::{Owned, routes, sheltered, veil, veil_ports};
use crate::tree::Tree;

/// What a pinned path is turned into before a service that knows it is asked. A fixed path, so that all pinned
/// ones look alike; too odd to be served by anybody, and of one segment, so that no route lies below it.
const NOWHERE: &str = "/5f0c8ab1d7e3924630be81d9c47fa26e";

/// The Caddyfile; `None` without a Veil.
pub fn caddyfile(codex: &Codex) -> Result<Option<String>, RenderError> {
    let Some((_, veil)) = veil(codex) else { return Ok(None) };
    let mut sites = forest_sites(codex, veil);
    let own = [
        Some(codex.tether.address.to_string()),
        codex.tether.network6.map(|(_, address)| address.to_string()),
    ];
    let bind = own.into_iter().flatten().collect::<Vec<_>>().join(" ");
    sites.extend(veil_ports(codex).into_iter().map(|port| {
        let title = "The tether: every route, the pinned ones for peers that hold their service.";
        site(title, format!("http://:{port}"), &bind, false, tether_routes(codex))
    }));
    let domain = codex.appliance.domain.as_ref().map(ToString::to_string);
    template::render("Caddyfile", context! { domain, sites, nowhere => NOWHERE }).map(Some)
}

pub(super) fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    if let Some(text) = caddyfile(codex)? {
        tree.file("usr/share/sepulcher/Caddyfile", text)?;
    }
    Ok(())
}

/// HTTPS on 443 needs a domain; with both, plain HTTP only sends there.
fn forest_sites(codex: &Codex, veil: &Service) -> Vec<Value> {
    let bind = codex.pod.address.to_string();
    let ports = ports(veil, Tier::Forest);
    let secured = codex.appliance.domain.as_ref().filter(|_| ports.iter().any(|port| port.get() == 443));
    let listens = |port: &Port| port.get() != 443 || secured.is_some();
    ports
        .into_iter()
        .filter(listens)
        .map(|port| match secured {
            Some(domain) if port.get() == 443 => {
                let address = format!("https://{domain}");
                site("The forest.", address, &bind, false, forest_routes(codex))
            }
            secured => {
                let title = "The forest: what the Codex calls public, nothing else.";
                site(title, format!("http://:{port}"), &bind, secured.is_some(), forest_routes(codex))
            }
        })
        .collect()
}

fn site(title: &str, address: String, bind: &str, redirect: bool, routes: Vec<Value>) -> Value {
    context! { title, address, bind, redirect, routes }
}

/// Every route; the pinned ones for those who have a pass.
fn tether_routes(codex: &Codex) -> Vec<Value> {
    routes(codex).into_iter().enumerate().map(|(index, route)| entry(codex, index, route)).collect()
}

fn forest_routes(codex: &Codex) -> Vec<Value> {
    let numbered = routes(codex).into_iter().enumerate();
    let forest = numbered.filter(|(_, (_, _, route))| route.tier == Tier::Forest);
    forest.map(|(index, route)| entry(codex, index, route)).collect()
}

fn entry(codex: &Codex, index: usize, route: Owned<'_>) -> Value {
    let (owner, _, Route { path, tier, port }) = route;
    let inside =
        sheltered(codex).into_iter().filter(|(pinned, around)| *around == route && pinned.2.port == *port);
    let hidden: Vec<_> = inside.map(|(pinned, _)| paths(&pinned.2.path)).collect();
    context! {
        id => format!("r{index}"),
        paths => paths(path),
        port => port.to_string(),
        pass => (*tier == Tier::Tether).then(|| owner.to_string()),
        hidden => hidden.join(" "),
    }
}

/// What a path matcher takes for a route.
fn paths(path: &RoutePath) -> String {
    match path.as_str() {
        "/" => "/*".to_owned(),
        path => format!("{path} {path}/*"),
    }
}

fn ports(service: &Service, tier: Tier) -> BTreeSet<Port> {
    let matching = service.ports.iter().filter(|port| port.tier == tier && port.protocol == Protocol::Tcp);
    matching.map(|port| port.number).collect()
}
