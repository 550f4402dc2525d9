//! WireGuard: the public half of `wg0`, and a configuration for each peer.
//!
//! Private keys are not among what is rendered: a client's is given by its caller, who shows it once.

use std::net::IpAddr;

use minijinja::{Value, context};

use super::{RenderError, template};
use crate::codex::key::{PublicKey, SharedKey};
use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::{Codex, Endpoint, Peer, PeerKind, PeerState};
use crate::tree::Tree;

/// Keys of a client configuration; what is unknown becomes a placeholder.
#[derive(Clone, Copy, Default)]
pub struct ClientKeys<'a> {
    /// The appliance's public key, known once it has awoken.
    pub host: Option<&'a PublicKey>,
    /// The peer's private key in base64, when it was made here.
    pub private: Option<&'a str>,
    /// The preshared key of a peer that has one.
    pub preshared: Option<&'a SharedKey>,
}

/// What stands for a private key that is not known here.
pub const PRIVATE_KEY_PLACEHOLDER: &str = "PRIVATE-KEY-OF-THIS-DEVICE";

/// What stands for a preshared key that is not known here.
const PRESHARED_KEY_PLACEHOLDER: &str = "PRESHARED-KEY-OF-THIS-BOND";

/// The public half of `wg0` as wg-quick(8) reads it: `/usr/share/sepulcher/wireguard/wg0.conf`.
pub fn host(codex: &Codex) -> Result<String, RenderError> {
    let tether = &codex.tether;
    let own = [
        Some(format!("{}/{}", tether.address, tether.network.prefix())),
        tether.network6.map(|(network, address)| format!("{address}/{}", network.prefix())),
    ];
    template::render(
        "wg0.conf",
        context! {
            addresses => template::list(own.into_iter().flatten()),
            port => tether.port.to_string(),
            mtu => tether.mtu,
            peers => codex.active().map(|(name, peer)| host_peer(name, peer)).collect::<Vec<_>>(),
        },
    )
}

fn host_peer(name: &Name, peer: &Peer) -> Value {
    let (endpoint, keepalive) = match &peer.kind {
        PeerKind::Device => (None, 0),
        PeerKind::Lych { endpoint, keepalive, routes: _ } => {
            (endpoint.as_ref().map(|(host, port)| dial(host, *port)), *keepalive)
        }
    };
    let routes = peer.routes().iter().map(ToString::to_string);
    context! {
        name => name.as_str(),
        key => peer.public_key.to_string(),
        allowed => addresses(peer).into_iter().chain(routes).collect::<Vec<_>>().join(", "),
        endpoint => endpoint,
        keepalive => keepalive,
    }
}

/// A peer's own configuration as wg-quick(8) and the WireGuard apps read it; `None` when nobody of that name
/// is bonded.
pub fn client(codex: &Codex, name: &Name, keys: ClientKeys<'_>) -> Result<Option<String>, RenderError> {
    let Some(peer) = codex.peers.get(name).filter(|peer| peer.state == PeerState::Active) else {
        return Ok(None);
    };
    let tether = &codex.tether;
    // Whole networks, so that a change of grants needs no new configuration, unless it is of networks behind a peer.
    let granted = peer.grants.peers.iter().filter_map(|name| codex.peer(name));
    let granted = granted.filter(|granted| granted.state == PeerState::Active);
    let behind = granted.flat_map(Peer::routes).map(ToString::to_string);
    let allowed = [
        Some(tether.network.to_string()),
        Some(codex.pod.network.to_string()),
        tether.network6.map(|(network, _)| network.to_string()),
    ];
    let preshared = keys.preshared.map(SharedKey::to_text);
    template::render(
        "peer.conf",
        context! {
            peer => name.as_str(),
            app => codex.appliance.name.as_str(),
            private => keys.private.unwrap_or(PRIVATE_KEY_PLACEHOLDER),
            private_known => keys.private.is_some(),
            preshared => peer.preshared.then(|| preshared.as_ref().map_or(PRESHARED_KEY_PLACEHOLDER, |key| key.as_str())),
            preshared_known => keys.preshared.is_some(),
            host => keys.host.map(PublicKey::to_string),
            addresses => addresses(peer).join(", "),
            mtu => tether.mtu,
            allowed => allowed.into_iter().flatten().chain(behind).collect::<Vec<_>>().join(", "),
            endpoint => tether.endpoint.as_ref().map(|host| dial(host, tether.port)),
            port => tether.port.to_string(),
            keepalive => tether.keepalive,
        },
    )
    .map(Some)
}

pub(super) fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    tree.file("usr/share/sepulcher/wireguard/wg0.conf", host(codex)?)?;
    for name in codex.peers.keys() {
        if let Some(text) = client(codex, name, ClientKeys::default())? {
            tree.file(format!("usr/share/sepulcher/wireguard/peers/{name}.conf"), text)?;
        }
    }
    Ok(())
}

/// A peer's tunnel addresses with host prefixes.
fn addresses(peer: &Peer) -> Vec<String> {
    let six = peer.address6.map(|address| format!("{address}/128"));
    [Some(format!("{}/32", peer.address)), six].into_iter().flatten().collect()
}

/// `host:port`, with brackets around an IPv6 address.
pub fn dial(host: &Endpoint, port: Port) -> String {
    match host {
        Endpoint::Dns(name) => format!("{name}:{port}"),
        Endpoint::Ip(IpAddr::V4(address)) => format!("{address}:{port}"),
        Endpoint::Ip(IpAddr::V6(address)) => format!("[{address}]:{port}"),
    }
}
