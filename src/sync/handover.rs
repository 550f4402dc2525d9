//! Addresses and endpoints that change hands: between two keys of one peer, between two peers, between two
//! places of one peer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Desired, Observed, ObservedPeer, Prefix, peers_digest};
use crate::codex::key::PublicKey;
use crate::codex::name::DnsName;
use crate::codex::net::Port;
use crate::tree::Sha256Digest;

/// A session whose handshake is older than this in seconds is dead: WireGuard refuses its keys
/// (`REJECT_AFTER_TIME`), so nothing proves any more that the peer is where its last packet came from.
const SESSION: u64 = 180;

/// An endpoint that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// Host name and port that it stood for, if any.
    pub named: Option<(DnsName, Port)>,
}

impl Desired {
    /// What this asks for, for the next look. Whose host name has no address yet stays with what was asked for
    /// `before`.
    pub fn asked(&self, before: &BTreeMap<PublicKey, Asked>) -> BTreeMap<PublicKey, Asked> {
        let asked = self.peers.iter().filter_map(|(key, peer)| {
            let asked = match (peer.endpoint, &peer.named) {
                (Some(endpoint), named) => Some(Asked { endpoint, named: named.clone() }),
                (None, Some(_)) => before.get(key).cloned(),
                (None, None) => None,
            };
            Some((*key, asked?))
        });
        asked.collect()
    }

    /// Leaves peers with a living session where they are, whatever address their host name has by now: for them,
    /// the endpoint is what was `asked` for. Another name or port is somebody's wish and no answer.
    pub fn hold_living(&mut self, observed: &Observed, asked: &BTreeMap<PublicKey, Asked>) {
        for (key, wanted) in &mut self.peers {
            let Some(held) = observed.peers.get(key).filter(|held| observed.is_living(held)) else {
                continue;
            };
            if wanted.named.is_none() || wanted.endpoint.is_none() {
                continue;
            }
            match asked.get(key) {
                Some(asked) if asked.named == wanted.named => wanted.endpoint = Some(asked.endpoint),
                Some(_) => {}
                // An agent that has just started: once the session is dead, the name is dialled.
                None => wanted.endpoint = held.endpoint.or(wanted.endpoint),
            }
        }
    }

    /// Host names to look up: those without an address, and those of peers without a living session.
    pub fn stale_names(&self, observed: &Observed) -> BTreeSet<DnsName> {
        let stale = self.peers.iter().filter(|(key, wanted)| {
            wanted.endpoint.is_none() || !observed.peers.get(key).is_some_and(|held| observed.is_living(held))
        });
        stale.filter_map(|(_, wanted)| wanted.named.as_ref().map(|(name, _)| name.clone())).collect()
    }

    /// Whether `key` is one of two keys of one peer.
    pub fn is_overlapping(&self, key: &PublicKey) -> bool {
        self.overlaps.iter().any(|(old, new)| old == key || new == key)
    }

    /// Gives the addresses that two keys of one peer share to that key which is in use: the one that shook hands
    /// last, and the old one until the new one has. The other one keeps its place without an address, so that it
    /// can shake hands, and take over by that.
    ///
    /// After the clock was set back, a handshake from before may lie in the future, for hours: one that proves a
    /// living session comes before it.
    pub(super) fn settled(&self, observed: &Observed) -> Cow<'_, Self> {
        if self.overlaps.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut settled = self.clone();
        for (old, new) in std::mem::take(&mut settled.overlaps) {
            let last = |key| {
                let at = observed.peers.get(key)?.traffic.last_handshake?;
                let living = observed.at.checked_sub(at).is_some_and(|age| age < SESSION);
                Some((living, at))
            };
            let taken_over = last(&new).is_some() && last(&new) >= last(&old);
            let loser = if taken_over { old } else { new };
            if let Some(peer) = settled.peers.get_mut(&loser) {
                peer.allowed_ips.clear();
            }
        }
        Cow::Owned(settled)
    }
}

impl Observed {
    /// [`peers_digest`] of the observed peers. What one of two keys of a peer holds counts for both: which of
    /// them it is follows from handshakes.
    pub fn peers_digest(&self, overlaps: &BTreeMap<PublicKey, PublicKey>) -> Sha256Digest {
        let mut held: BTreeMap<_, _> =
            self.peers.iter().map(|(key, peer)| (key, Cow::Borrowed(&peer.allowed_ips))).collect();
        for (old, new) in overlaps {
            if let (Some(one), Some(other)) = (self.peers.get(old), self.peers.get(new)) {
                let both: BTreeSet<_> = one.allowed_ips.union(&other.allowed_ips).copied().collect();
                held.insert(old, Cow::Owned(both.clone()));
                held.insert(new, Cow::Owned(both));
            }
        }
        peers_digest(held.iter().map(|(key, allowed_ips)| (*key, allowed_ips.as_ref())))
    }

    fn is_living(&self, peer: &ObservedPeer) -> bool {
        is_living(self.at, peer)
    }

    /// Notes which peers are left where they are. `asked` are the endpoints that were asked for before.
    ///
    /// A peer with a living session is where its packets come from, and an agent that has just started takes it
    /// that the endpoint of the Codex was asked for. One that we keep alive and that has fallen silent is dialled
    /// anew where the Codex says: the place that it roamed to does not answer.
    pub fn note_dialled(&mut self, desired: &Desired, asked: &BTreeMap<PublicKey, Asked>) {
        let now = self.at;
        for (key, peer) in &mut self.peers {
            let Some(wanted) = desired.peers.get(key) else { continue };
            let alive = is_living(now, peer);
            let asked = asked.get(key).map(|asked| asked.endpoint);
            peer.dialled = match (alive, asked) {
                (true, asked) => asked.or(wanted.endpoint),
                (false, asked) => asked.filter(|_| wanted.keepalive == 0),
            };
        }
    }
}

/// Whether a peer has a session at `now`. A clock that was set back a little makes nobody dead.
fn is_living(now: u64, peer: &ObservedPeer) -> bool {
    peer.traffic.last_handshake.is_some_and(|at| now.abs_diff(at) < SESSION)
}

/// Allowed IPs that somebody holds who is not to have them any more. Until they are taken away, whoever has
/// them next must not have grants for them.
pub fn contested(desired: &Desired, observed: &Observed) -> BTreeSet<Prefix> {
    let mut contested = BTreeSet::new();
    for (key, peer) in &observed.peers {
        let allowed = desired.peers.get(key).map(|wanted| &wanted.allowed_ips);
        let taken = peer.allowed_ips.iter().filter(|prefix| !allowed.is_some_and(|ips| ips.contains(prefix)));
        contested.extend(taken);
    }
    contested
}
