//! What the kernel should hold, what it holds, and the plan between the two.
//!
//! [`plan`] decides, [`Plan`]'s `Display` is the dry-run text, and [`crate::sys`] applies it. An unchanged
//! peer never appears in a plan: its session, its counters and its learnt endpoint stay as they are.

mod desired;
mod display;
mod handover;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::codex::key::{PublicKey, SharedKey, StrayKey};
use crate::codex::name::{DnsName, Name};
use crate::codex::net::{Net4, Net6, Port};
use crate::tree::Sha256Digest;

pub use desired::{DialTargets, PresharedKeys};
pub use handover::{Asked, contested};

/// An address with a prefix length: an interface's own address, an allowed IP, or a route's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The address; host bits are kept.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub length: u8,
}

impl Prefix {
    /// One address alone: `/32` or `/128`.
    pub fn host(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `address` is one of its addresses.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let host = 32_u32.saturating_sub(self.length.into());
                (own.to_bits() ^ other.to_bits()).checked_shr(host).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let host = 128_u32.saturating_sub(self.length.into());
                (own.to_bits() ^ other.to_bits()).checked_shr(host).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl From<Net4> for Prefix {
    fn from(network: Net4) -> Self {
        Self { address: network.address().into(), length: network.prefix() }
    }
}

impl From<Net6> for Prefix {
    fn from(network: Net6) -> Self {
        Self { address: network.address().into(), length: network.prefix() }
    }
}

/// What the Codex asks of the WireGuard interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Public half of the private key that the interface must hold.
    pub public_key: PublicKey,
    /// UDP port to listen on.
    pub listen_port: Port,
    /// MTU in bytes.
    pub mtu: u32,
    /// The interface's own addresses.
    pub addresses: BTreeSet<Prefix>,
    /// Networks behind peers, routed to the interface.
    pub routes: BTreeSet<Prefix>,
    /// Bonded peers. Two keys of one peer, see [`Desired::overlaps`], both name all of its addresses here.
    pub peers: BTreeMap<PublicKey, DesiredPeer>,
    /// Peers that have two keys for a while: old key → new key.
    pub overlaps: BTreeMap<PublicKey, PublicKey>,
}

/// What the Codex asks of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPeer {
    /// Its name in the Codex, for people.
    pub name: Name,
    /// Addresses and networks it may use; disjoint from every other peer's.
    pub allowed_ips: BTreeSet<Prefix>,
    /// Where to dial it first; WireGuard then follows it when it roams.
    pub endpoint: Option<SocketAddr>,
    /// Host name and port that the endpoint stands for, where the Codex names a host.
    pub named: Option<(DnsName, Port)>,
    /// PersistentKeepalive in seconds; 0 is off.
    pub keepalive: u16,
    /// Preshared key.
    pub preshared: Option<SharedKey>,
}

/// What the kernel (or a userspace WireGuard) holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// When it was read, in seconds since the epoch.
    pub at: u64,
    /// The link, when there is one.
    pub link: Option<ObservedLink>,
    /// Public half of the private key it holds, when it holds one.
    pub public_key: Option<PublicKey>,
    /// UDP port it listens on; `None` before one was chosen.
    pub listen_port: Option<Port>,
    /// Its peers.
    pub peers: BTreeMap<PublicKey, ObservedPeer>,
    /// Peers that no bond can name. Whoever added them by hand, they hold addresses.
    pub strays: BTreeSet<StrayKey>,
}

/// The link of the interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedLink {
    /// Whether it is administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its addresses, without link-local ones.
    pub addresses: BTreeSet<Prefix>,
    /// Routes to it that the agent made (protocol `static`).
    pub routes: BTreeSet<Prefix>,
}

/// What is held of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedPeer {
    /// Allowed IPs.
    pub allowed_ips: BTreeSet<Prefix>,
    /// Where its packets come from or go to.
    pub endpoint: Option<SocketAddr>,
    /// The endpoint that was asked for and need not be asked for again, wherever the peer roamed to:
    /// see [`Observed::note_dialled`].
    pub dialled: Option<SocketAddr>,
    /// PersistentKeepalive in seconds; 0 is off.
    pub keepalive: u16,
    /// Preshared key.
    pub preshared: Option<SharedKey>,
    /// What passed between us.
    pub traffic: Traffic,
}

/// What passed between us and a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Last handshake in seconds since the epoch; `None` when there was none.
    pub last_handshake: Option<u64>,
    /// Bytes received from it.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
}

/// One change. Values before it are kept where a reader of the plan wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the link, of kind WireGuard.
    CreateLink,
    /// Set the MTU in bytes.
    SetMtu {
        /// MTU until now; `None` on a link that is yet to be made.
        from: Option<u32>,
        /// MTU from now on.
        to: u32,
    },
    /// Add an address of the interface's own.
    AddAddress(Prefix),
    /// Remove an address that is not the Codex's.
    RemoveAddress(Prefix),
    /// Give the interface the private key that belongs to this public one.
    SetKey(PublicKey),
    /// Cut a peer off.
    RemovePeer(PublicKey),
    /// Remove a peer that nobody can be.
    RemoveStray(StrayKey),
    /// Add a peer.
    AddPeer(PublicKey, DesiredPeer),
    /// Change a peer in place.
    UpdatePeer(PublicKey, PeerChange),
    /// Listen on this UDP port.
    SetListenPort(Port),
    /// Bring the link up.
    BringUp,
    /// Route a network to the interface.
    AddRoute(Prefix),
    /// Remove such a route.
    RemoveRoute(Prefix),
}

/// What differs in one peer; `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerChange {
    /// Its name in the Codex.
    pub name: Name,
    /// Allowed IPs that replace the present ones.
    pub allowed_ips: Option<BTreeSet<Prefix>>,
    /// Endpoint to dial.
    pub endpoint: Option<SocketAddr>,
    /// PersistentKeepalive in seconds; 0 turns it off.
    pub keepalive: Option<u16>,
    /// What becomes of its preshared key.
    pub preshared: Option<PresharedChange>,
}

/// What becomes of a preshared key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresharedChange {
    /// Handshakes need this one from now on.
    Set(SharedKey),
    /// Handshakes need none any more.
    Remove,
}

/// Steps in the order in which they are to be applied; empty when all is as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether it puts something right that nobody asked to be otherwise. Dialling anew and moving an address
    /// between two keys of one peer follow from what peers do.
    pub fn repairs(&self, desired: &Desired) -> bool {
        self.steps.iter().any(|step| match step {
            Step::UpdatePeer(key, PeerChange { name: _, allowed_ips, endpoint: _, keepalive, preshared }) => {
                let moved = allowed_ips.is_some() && !desired.is_overlapping(key);
                moved || keepalive.is_some() || preshared.is_some()
            }
            _ => true,
        })
    }

    /// The steps that only take away from peers: what can be done while nothing may be added.
    #[must_use]
    pub fn cuts(self) -> Self {
        let cuts = |step: &Step| matches!(step, Step::RemovePeer(_) | Step::RemoveStray(_));
        Self { steps: self.steps.into_iter().filter(cuts).collect() }
    }
}

/// Decides what turns `observed` into `desired`.
///
/// Removals stand before additions, so that an address changes hands without two holders, and the link is
/// brought up only when everything on it is right. Every step concerns one thing that differs.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let desired = &desired.settled(observed);
    let Desired { public_key, listen_port, mtu, addresses, routes, peers, overlaps: _ } = desired.as_ref();
    let mut steps = Vec::new();
    let link = observed.link.as_ref();
    let none = BTreeSet::new();
    if link.is_none() {
        steps.push(Step::CreateLink);
    }
    let held = link.map_or(&none, |link| &link.addresses);
    steps.extend(held.difference(addresses).copied().map(Step::RemoveAddress));
    if link.is_none_or(|link| link.mtu != *mtu) {
        steps.push(Step::SetMtu { from: link.map(|link| link.mtu), to: *mtu });
    }
    steps.extend(addresses.difference(held).copied().map(Step::AddAddress));
    if observed.public_key.as_ref() != Some(public_key) {
        steps.push(Step::SetKey(*public_key));
    }
    steps.extend(observed.strays.iter().copied().map(Step::RemoveStray));
    plan_peers(peers, &observed.peers, &mut steps);
    if observed.listen_port != Some(*listen_port) {
        steps.push(Step::SetListenPort(*listen_port));
    }
    if link.is_none_or(|link| !link.up) {
        steps.push(Step::BringUp);
    }
    let routed = link.map_or(&none, |link| &link.routes);
    steps.extend(routed.difference(routes).copied().map(Step::RemoveRoute));
    steps.extend(routes.difference(routed).copied().map(Step::AddRoute));
    Plan { steps }
}

fn plan_peers(
    desired: &BTreeMap<PublicKey, DesiredPeer>,
    observed: &BTreeMap<PublicKey, ObservedPeer>,
    steps: &mut Vec<Step>,
) {
    let stale = observed.keys().filter(|key| !desired.contains_key(key));
    steps.extend(stale.copied().map(Step::RemovePeer));
    let (losers, others): (Vec<_>, Vec<_>) =
        desired.iter().partition(|(_, peer)| peer.allowed_ips.is_empty());
    for (key, peer) in losers.into_iter().chain(others) {
        match observed.get(key) {
            None => steps.push(Step::AddPeer(*key, peer.clone())),
            Some(held) => steps.extend(change(peer, held).map(|change| Step::UpdatePeer(*key, change))),
        }
    }
}

/// What differs, if anything does. A learnt endpoint is left alone: only one that was asked for and was
/// not asked for before is dialled.
fn change(desired: &DesiredPeer, observed: &ObservedPeer) -> Option<PeerChange> {
    let DesiredPeer { name, allowed_ips, endpoint, named: _, keepalive, preshared } = desired;
    let change = PeerChange {
        name: name.clone(),
        allowed_ips: (*allowed_ips != observed.allowed_ips).then(|| allowed_ips.clone()),
        endpoint: endpoint
            .filter(|wanted| observed.dialled != Some(*wanted) && observed.endpoint != Some(*wanted)),
        keepalive: (*keepalive != observed.keepalive).then_some(*keepalive),
        preshared: (*preshared != observed.preshared)
            .then(|| preshared.clone().map_or(PresharedChange::Remove, PresharedChange::Set)),
    };
    let same = change.allowed_ips.is_none()
        && change.endpoint.is_none()
        && change.keepalive.is_none()
        && change.preshared.is_none();
    (!same).then_some(change)
}

/// Digest over the keys and allowed IPs of peers: equal exactly when the same keys hold the same addresses.
pub fn peers_digest<'a>(
    peers: impl IntoIterator<Item = (&'a PublicKey, &'a BTreeSet<Prefix>)>,
) -> Sha256Digest {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (key, allowed_ips) in peers {
        let _ = write!(text, "{key}");
        for prefix in allowed_ips {
            let _ = write!(text, " {prefix}");
        }
        text.push('\n');
    }
    Sha256Digest::of(text.as_bytes())
}

impl Desired {
    /// [`peers_digest`] of the desired peers.
    pub fn peers_digest(&self) -> Sha256Digest {
        peers_digest(self.peers.iter().map(|(key, peer)| (key, &peer.allowed_ips)))
    }
}
