//! The two rulesets: what the host lets through, and what the pod does.
//!
//! Each is one `table inet sepulcher`, replaced in one transaction. What their sets hold is decided in
//! [`reach`](crate::reach), where it is also explained; the agent adds and deletes single elements.

use std::collections::BTreeSet;
use std::fmt;

use minijinja::context;

use super::{RenderError, template};
use crate::codex::net::Port;
use crate::codex::{BRIDGE, Codex, Protocol};
use crate::reach::{between, beyond, gone, grants, host_grants, offered, published};
use crate::tree::Tree;

/// The host's ruleset: `/usr/share/sepulcher/nftables/host.nft`.
pub fn host(codex: &Codex) -> Result<String, RenderError> {
    template::render(
        "host.nft",
        context! {
            bridge => BRIDGE,
            published => ports(published(codex)),
            host_services => elements(host_ports(codex)),
            gateway => codex.pod.gateway.to_string(),
            echo => codex.uplink.echo,
            tether_port => codex.tether.port.to_string(),
            pod_network => codex.pod.network.to_string(),
            pod_address => codex.pod.address.to_string(),
            tether_network => codex.tether.network.to_string(),
            tether_network6 => codex.tether.network6.map(|(network, _)| network.to_string()),
        },
    )
}

/// The pod's ruleset: `/usr/share/sepulcher/nftables/pod.nft`, and what the agent loads.
pub fn pod(codex: &Codex) -> Result<String, RenderError> {
    let (grants, grants6): (Vec<_>, Vec<_>) =
        grants(codex).into_iter().partition(|grant| grant.address.is_ipv4());
    let (between, between6): (Vec<_>, Vec<_>) =
        between(codex).into_iter().partition(|one| one.from.is_ipv4());
    template::render(
        "pod.nft",
        context! {
            published => ports(published(codex)),
            offered => ports(offered(codex)),
            grants => elements(grants),
            grants6 => elements(grants6),
            beyond => elements(beyond(codex)),
            gone => elements(gone(codex)),
            between => elements(between),
            between6 => elements(between6),
            has_host => !codex.host.is_empty(),
            host_grants => elements(host_grants(codex)),
            gateway => codex.pod.gateway.to_string(),
            tether_port => codex.tether.port.to_string(),
            pod_address => codex.pod.address.to_string(),
            tether_network => codex.tether.network.to_string(),
            tether_address => codex.tether.address.to_string(),
            tether_network6 => codex.tether.network6.map(|(network, _)| network.to_string()),
            tether_address6 => codex.tether.network6.map(|(_, address)| address.to_string()),
        },
    )
}

pub(super) fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    tree.file("usr/share/sepulcher/nftables/host.nft", host(codex)?)?;
    tree.file("usr/share/sepulcher/nftables/pod.nft", pod(codex)?)?;
    Ok(())
}

/// Elements of the host's set `host_services`.
fn host_ports(codex: &Codex) -> impl Iterator<Item = String> {
    codex.host.iter().map(|service| format!("{} . {}", service.protocol, service.port))
}

/// Elements of a set of ports.
fn ports(all: BTreeSet<(Protocol, Port)>) -> minijinja::Value {
    elements(all.into_iter().map(|(protocol, port)| format!("{protocol} . {port}")))
}

/// `a, b, c`, one a line when there are many: elements are made of numbers and addresses alone.
fn elements<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> minijinja::Value {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(",\n\t\t\t     ");
        }
        // Writing to a string cannot fail.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{item}"));
    }
    template::safe(text)
}
