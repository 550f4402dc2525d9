//! The Caddyfile of the Veil: one listener for the forest, one for the tether.
//!
//! The forest listener is bound to the pod's address, the tether listener to `wg0`'s: which routes a request
//! can reach is decided by where it arrives, not by what it says.

use std::collections::BTreeSet;

use minijinja::{Value, context};

use super::{RenderError, template};
use crate::codex::net::Port;
use crate::codex::{Codex, Protocol, Route, Service, Tier};
use crate::reach::{veil, veil_ports};
use crate::tree::Tree;

/// What a pinned path is turned into before the service around it is asked. A fixed path, so that all pinned
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
        let title = "The tether: every route.";
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

/// Every route, the longest path first: the first that matches serves.
fn routes(codex: &Codex) -> impl Iterator<Item = &Route> {
    let mut routes: Vec<_> = codex.services.values().flat_map(|service| &service.routes).collect();
    routes.sort_by_key(|route| (std::cmp::Reverse(route.path.as_str().len()), route.path.as_str()));
    routes.into_iter()
}

fn tether_routes(codex: &Codex) -> Vec<Value> {
    routes(codex).enumerate().map(|(index, route)| entry(index, route, None)).collect()
}

/// Forest routes, and pinned ones below them: whoever asks for those is answered by the service around them
/// as for any path that it does not know. Pinned ones outside need no entry to be unknown.
fn forest_routes(codex: &Codex) -> Vec<Value> {
    let around = |inner: &Route| {
        routes(codex).find(|outer| outer.tier == Tier::Forest && outer.covers(inner.path.as_str()))
    };
    let entries = routes(codex).enumerate().filter_map(|(index, route)| match route.tier {
        Tier::Forest => Some(entry(index, route, None)),
        Tier::Tether => around(route).map(|outer| entry(index, route, Some(outer))),
        Tier::Pod => None,
    });
    entries.collect()
}

/// A route; `instead` is the one whose service answers for it.
fn entry(index: usize, route: &Route, instead: Option<&Route>) -> Value {
    let Route { path, tier: _, port } = route;
    let paths = match path.as_str() {
        "/" => "/*".to_owned(),
        path => format!("{path} {path}/*"),
    };
    let port = instead.map_or(*port, |outer| outer.port).to_string();
    context! { id => format!("r{index}"), paths, port, pinned => instead.is_some() }
}

fn ports(service: &Service, tier: Tier) -> BTreeSet<Port> {
    let matching = service.ports.iter().filter(|port| port.tier == tier && port.protocol == Protocol::Tcp);
    matching.map(|port| port.number).collect()
}
