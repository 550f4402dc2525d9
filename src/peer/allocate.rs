//! Which addresses are free.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Situation;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Peer, PeerState};

/// Why an address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// A bonded peer has it.
    Bonded,
    /// It was a revoked peer's and rests until then; `None` is for ever, because nobody knows since when.
    Resting(Option<Timestamp>),
}

/// The lowest IPv4 address of the tether's network that nobody holds.
pub fn lowest_free(situation: &Situation<'_>) -> Option<Ipv4Addr> {
    let codex = situation.codex;
    let mut taken: BTreeSet<_> = holders(codex, situation.now).map(|(peer, _)| peer.address).collect();
    taken.extend(unclear(situation).filter_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }));
    let network = codex.tether.network;
    let first = codex.tether.address.to_bits().checked_add(1)?;
    (first..network.last().to_bits()).map(Ipv4Addr::from_bits).find(|address| !taken.contains(address))
}

/// The lowest IPv6 address that nobody holds; `None` when the tether has no such network.
pub fn lowest_free6(situation: &Situation<'_>) -> Option<Ipv6Addr> {
    let codex = situation.codex;
    let (network, own) = codex.tether.network6?;
    let mut taken: BTreeSet<_> =
        holders(codex, situation.now).filter_map(|(peer, _)| peer.address6).collect();
    taken.extend(unclear(situation).filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }));
    let first = own.to_bits().checked_add(1)?;
    let mut candidates = (first..=u128::MAX).map(Ipv6Addr::from_bits);
    candidates.find(|address| !taken.contains(address)).filter(|address| network.contains(*address))
}

/// Who holds an address.
pub fn holder(situation: &Situation<'_>, address: IpAddr) -> Option<Held> {
    let has = |peer: &Peer| match address {
        IpAddr::V4(address) => peer.address == address,
        IpAddr::V6(address) => peer.address6 == Some(address),
    };
    let mut holders = holders(situation.codex, situation.now);
    let held = holders.find(|(peer, _)| has(peer)).map(|(_, held)| held);
    held.or_else(|| unclear(situation).any(|found| found == address).then_some(Held::Bonded))
}

/// Addresses that broken bonds name.
fn unclear(situation: &Situation<'_>) -> impl Iterator<Item = IpAddr> {
    situation.broken.iter().flat_map(|broken| broken.addresses.iter().copied())
}

/// Peers whose addresses are not free: bonded ones, expired or not, and revoked ones until the fence is over.
fn holders(codex: &Codex, now: Timestamp) -> impl Iterator<Item = (&Peer, Held)> {
    codex.peers.values().map(Arc::as_ref).filter_map(move |peer| match peer.state {
        PeerState::Active => Some((peer, Held::Bonded)),
        PeerState::Revoked => {
            let until = peer.revocation.at.map(|at| at.after(codex.tether.fence));
            until.is_none_or(|until| until > now).then_some((peer, Held::Resting(until)))
        }
    })
}
