//! WireGuard devices, of the kernel or of a userspace implementation: read, and change by plan.

mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::UNIX_EPOCH;

use wireguard_control::{Device, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder, PeerInfo};

pub use secret::{NotASecret, SecretKey, fresh_preshared_key};

use crate::codex::Backend;
use crate::codex::key::{PublicKey, SharedKey, StrayKey};
use crate::codex::net::Port;
use crate::sync::{DesiredPeer, ObservedPeer, PeerChange, Plan, Prefix, PresharedChange, Step, Traffic};

/// A WireGuard device that cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an interface name.
    #[error("`{0}` is not an interface name")]
    Name(String),
    /// Reading failed.
    #[error("cannot read the WireGuard device {name}")]
    Read {
        /// Interface name.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// There is a tun device of that name, and no WireGuard behind it.
    #[error("{0} exists, and no WireGuard answers behind it")]
    Nobody(String),
    /// Changing failed.
    #[error("cannot configure the WireGuard device {name}")]
    Apply {
        /// Interface name.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        let source = match self {
            Self::Name(_) => return None,
            Self::Nobody(_) => return Some("remove that device, or find out which program made it"),
            Self::Read { source, .. } | Self::Apply { source, .. } => source,
        };
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Some("run in a network namespace where this process has CAP_NET_ADMIN")
            }
            io::ErrorKind::NotFound => {
                Some("install `wireguard-go`, or name another one in $WG_USERSPACE_IMPLEMENTATION")
            }
            _ => None,
        }
    }
}

/// What a WireGuard device holds; what is not WireGuard's (link, addresses, routes) is in [`super::link`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Public half of its private key.
    pub public_key: Option<PublicKey>,
    /// UDP port.
    pub listen_port: Option<Port>,
    /// Peers; [`ObservedPeer::dialled`] is not known here.
    pub peers: BTreeMap<PublicKey, ObservedPeer>,
    /// Peers that nobody can be.
    pub strays: BTreeSet<StrayKey>,
}

/// Reads a device; `None` when there is no WireGuard device of that name.
pub fn read(name: &str, backend: Backend) -> Result<Option<Held>, Error> {
    match Device::get(&interface(name)?, control(backend)) {
        Ok(device) => Ok(Some(held(&device))),
        Err(error) if absent(&error) => Ok(None),
        Err(source) => Err(Error::Read { name: name.to_owned(), source }),
    }
}

/// Applies the WireGuard steps of a plan in one update; without such a step nothing is sent.
///
/// With [`Backend::Userspace`] and no device, `wireguard-go` (or `$WG_USERSPACE_IMPLEMENTATION`) is started.
pub fn apply(name: &str, backend: Backend, plan: &Plan, secret: &SecretKey) -> Result<(), Error> {
    match update(plan, secret) {
        None => Ok(()),
        Some(update) => send(name, backend, update),
    }
}

/// Starts the userspace implementation when it does not serve `name` yet.
pub fn start_userspace(name: &str) -> Result<(), Error> {
    send(name, Backend::Userspace, DeviceUpdate::new())
}

fn send(name: &str, backend: Backend, update: DeviceUpdate) -> Result<(), Error> {
    update
        .apply(&interface(name)?, control(backend))
        .map_err(|source| Error::Apply { name: name.to_owned(), source })
}

/// The WireGuard part of a plan as one update; `None` when it has none.
fn update(plan: &Plan, secret: &SecretKey) -> Option<DeviceUpdate> {
    let mut update = DeviceUpdate::new();
    let mut any = false;
    for step in &plan.steps {
        update = match step {
            Step::SetKey(_) => update.set_private_key(secret.to_control()),
            Step::SetListenPort(port) => update.set_listen_port(port.get()),
            Step::RemovePeer(key) => update.remove_peer_by_key(&Key(*key.as_bytes())),
            Step::RemoveStray(key) => update.remove_peer_by_key(&Key(*key.as_bytes())),
            Step::AddPeer(key, peer) => update.add_peer(added(key, peer)),
            Step::UpdatePeer(key, change) => update.add_peer(changed(key, change)),
            Step::CreateLink
            | Step::SetMtu { .. }
            | Step::AddAddress(_)
            | Step::RemoveAddress(_)
            | Step::BringUp
            | Step::AddRoute(_)
            | Step::RemoveRoute(_) => continue,
        };
        any = true;
    }
    any.then_some(update)
}

fn added(key: &PublicKey, peer: &DesiredPeer) -> PeerConfigBuilder {
    let DesiredPeer { name: _, allowed_ips, endpoint, named: _, keepalive, preshared } = peer;
    let mut builder = allow(PeerConfigBuilder::new(&Key(*key.as_bytes())), allowed_ips);
    if let Some(endpoint) = endpoint {
        builder = builder.set_endpoint(*endpoint);
    }
    if *keepalive > 0 {
        builder = builder.set_persistent_keepalive_interval(*keepalive);
    }
    if let Some(preshared) = preshared {
        builder = builder.set_preshared_key(Key(*preshared.as_bytes()));
    }
    builder
}

fn changed(key: &PublicKey, change: &PeerChange) -> PeerConfigBuilder {
    let PeerChange { name: _, allowed_ips, endpoint, keepalive, preshared } = change;
    let mut builder = PeerConfigBuilder::new(&Key(*key.as_bytes()));
    if let Some(allowed_ips) = allowed_ips {
        builder = allow(builder, allowed_ips);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.set_endpoint(*endpoint);
    }
    if let Some(keepalive) = keepalive {
        builder = builder.set_persistent_keepalive_interval(*keepalive);
    }
    match preshared {
        Some(PresharedChange::Set(key)) => builder.set_preshared_key(Key(*key.as_bytes())),
        Some(PresharedChange::Remove) => builder.unset_preshared_key(),
        None => builder,
    }
}

fn allow(builder: PeerConfigBuilder, allowed_ips: &BTreeSet<Prefix>) -> PeerConfigBuilder {
    allowed_ips.iter().fold(builder.replace_allowed_ips(), |builder, prefix| {
        builder.add_allowed_ip(prefix.address, prefix.length)
    })
}

fn interface(name: &str) -> Result<InterfaceName, Error> {
    name.parse().map_err(|_| Error::Name(name.to_owned()))
}

fn control(backend: Backend) -> wireguard_control::Backend {
    match backend {
        Backend::Kernel => wireguard_control::Backend::Kernel,
        Backend::Userspace => wireguard_control::Backend::Userspace,
    }
}

/// No such link, no WireGuard on it, no such generic netlink family, no socket, or nobody behind it.
fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        || matches!(error.raw_os_error().map(rustix::io::Errno::from_raw_os_error), Some(errno)
            if errno == rustix::io::Errno::NODEV || errno == rustix::io::Errno::OPNOTSUPP)
}

fn held(device: &Device) -> Held {
    let (peers, strays) = collect(&device.peers);
    Held {
        // A device without a private key has zeros.
        public_key: device.public_key.as_ref().and_then(|key| PublicKey::held(key.0).ok()),
        listen_port: device.listen_port.and_then(Port::new),
        peers,
        strays,
    }
}

/// The kernel tells a peer whose allowed IPs do not fit into one message in several parts: the first has
/// everything, the others have only more allowed IPs.
fn collect(parts: &[PeerInfo]) -> (BTreeMap<PublicKey, ObservedPeer>, BTreeSet<StrayKey>) {
    let (mut peers, mut strays) = (BTreeMap::<_, ObservedPeer>::new(), BTreeSet::new());
    for part in parts {
        match PublicKey::held(part.config.public_key.0) {
            Ok(key) => {
                let mut part = observed(part);
                peers
                    .entry(key)
                    .and_modify(|peer| peer.allowed_ips.append(&mut part.allowed_ips))
                    .or_insert(part);
            }
            Err(key) => {
                strays.insert(key);
            }
        }
    }
    (peers, strays)
}

fn observed(peer: &PeerInfo) -> ObservedPeer {
    let PeerInfo { config, stats } = peer;
    ObservedPeer {
        allowed_ips: config
            .allowed_ips
            .iter()
            .map(|ip| Prefix { address: ip.address, length: ip.cidr })
            .collect(),
        endpoint: config.endpoint,
        dialled: None,
        keepalive: config.persistent_keepalive_interval.unwrap_or(0),
        // The absence of a preshared key is reported as zeros.
        preshared: config.preshared_key.as_ref().and_then(|key| SharedKey::new(key.0)),
        traffic: Traffic {
            last_handshake: stats
                .last_handshake_time
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map(|time| time.as_secs()),
            received: stats.rx_bytes,
            sent: stats.tx_bytes,
        },
    }
}

#[cfg(test)]
mod tests;
