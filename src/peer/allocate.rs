//! Which addresses are free.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

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

/// The lowest IPv4 address of the tether's network that nobody holds at `now`.
pub fn lowest_free(codex: &Codex, now: Timestamp) -> Option<Ipv4Addr> {
    let taken: BTreeSet<_> = holders(codex, now).map(|(peer, _)| peer.address).collect();
    let network = codex.tether.network;
    let first = codex.tether.address.to_bits().checked_add(1)?;
    (first..network.last().to_bits()).map(Ipv4Addr::from_bits).find(|address| !taken.contains(address))
}

/// The lowest IPv6 address that nobody holds; `None` when the tether has no such network.
pub fn lowest_free6(codex: &Codex, now: Timestamp) -> Option<Ipv6Addr> {
    let (network, own) = codex.tether.network6?;
    let taken: BTreeSet<_> = holders(codex, now).filter_map(|(peer, _)| peer.address6).collect();
    let first = own.to_bits().checked_add(1)?;
    let mut candidates = (first..=u128::MAX).map(Ipv6Addr::from_bits);
    candidates.find(|address| !taken.contains(address)).filter(|address| network.contains(*address))
}

/// Who holds an address at `now`.
pub fn holder(codex: &Codex, address: IpAddr, now: Timestamp) -> Option<Held> {
    let has = |peer: &Peer| match address {
        IpAddr::V4(address) => peer.address == address,
        IpAddr::V6(address) => peer.address6 == Some(address),
    };
    holders(codex, now).find(|(peer, _)| has(peer)).map(|(_, held)| held)
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
