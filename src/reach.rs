//! Who reaches what, and why: one model, pure, of both rulesets, of WireGuard and of the Veil.
//!
//! [`offers`] is what the Codex opens to anybody at all. The sets that the rulesets are rendered with
//! ([`published`], [`grants`], [`beyond`]), the Veil's passes ([`veil_grants`]) and the answers
//! ([`Reach::verdict`]) all follow from it, so that an answer cannot tell of a policy that is not in force.

pub mod ask;
mod between;
mod cause;
mod door;
mod host;
mod judge;
pub mod map;
#[cfg(test)]
mod matrix;
mod offer;
pub mod picture;
mod route;
mod rule;
mod web;

use std::fmt;
use std::net::IpAddr;

pub use between::{Between, between};
pub use offer::{
    Audience, Grant, Offer, Origin, beyond, gone, grants, holds_host, host_grants, offered, offers,
    published, veil, veil_grants, veil_ports,
};
pub use route::{Owned, routes, sheltered};
pub use rule::{Guard, Rule};

use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Door, Peer, PeerState, Protocol, Step};

/// Who sends the first packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Anybody on the uplink's side.
    Forest,
    /// A bonded peer, through `wg0`, with its own tunnel address.
    Peer(Name),
    /// A tunnel address that no peer in force has.
    Stranger(IpAddr),
    /// The host itself.
    Host,
    /// A container of the pod.
    Pod,
}

/// Displays as `explain` takes it.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forest => f.write_str("forest"),
            Self::Peer(name) => name.fmt(f),
            Self::Stranger(address) => address.fmt(f),
            Self::Host => f.write_str("host"),
            Self::Pod => f.write_str("pod"),
        }
    }
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where a packet is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The machine's own address on the uplink, whichever it is.
    Uplink(Family),
    /// This address.
    At(IpAddr),
}

impl Place {
    /// Its IP version.
    pub fn family(self) -> Family {
        match self {
            Self::Uplink(family) => family,
            Self::At(IpAddr::V4(_)) => Family::V4,
            Self::At(IpAddr::V6(_)) => Family::V6,
        }
    }
}

/// What is asked for there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A port, by the first packet of a connection or a datagram.
    Port(Place, Protocol, Port),
    /// An answer to an echo request (ping).
    Echo(Place),
    /// An HTTP path of the Veil.
    Path(String),
    /// A door of the agent.
    Door(Door),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It arrives. Whether somebody listens is another matter.
    Allowed,
    /// It is dropped; nothing comes back.
    Silent,
    /// It is dropped, counted under the sender's address and told in the log; nothing comes back.
    Denied,
    /// It is answered as anything is that does not exist: HTTP 404.
    Unknown,
}

/// What the Codex says that decides, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// Name in [`Sources`](crate::codex::Sources).
    pub file: String,
    /// The way to the key.
    pub key: Vec<Step>,
    /// What it says, for people.
    pub says: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of the packet.
    pub fate: Fate,
    /// One sentence for people: lower case, no full stop.
    pub why: String,
    /// The rule that decides.
    pub rule: Rule,
    /// The element of the rule's set, as nft shows it.
    pub element: Option<String>,
    /// Declarations that the rule follows from; none where the Codex says nothing.
    pub causes: Vec<Cause>,
    /// A command that changes the answer.
    pub remedy: Option<String>,
}

impl Verdict {
    /// Whether it arrives.
    pub fn allowed(&self) -> bool {
        self.fate == Fate::Allowed
    }

    fn new(fate: Fate, rule: Rule, why: impl Into<String>) -> Self {
        Self { fate, why: why.into(), rule, element: None, causes: Vec::new(), remedy: None }
    }

    fn element(mut self, element: impl fmt::Display) -> Self {
        self.element = Some(element.to_string());
        self
    }

    fn causes(mut self, causes: impl IntoIterator<Item = Cause>) -> Self {
        self.causes.extend(causes);
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// The reachability that a Codex declares, at one moment.
#[derive(Debug)]
pub struct Reach<'a> {
    codex: &'a Codex,
    now: Timestamp,
    offers: Vec<Offer<'a>>,
}

impl<'a> Reach<'a> {
    /// Of a Codex as it is at `now`.
    pub fn new(codex: &'a Codex, now: Timestamp) -> Self {
        Self { codex, now, offers: offers(codex) }
    }

    /// The Codex that is asked about.
    pub fn codex(&self) -> &'a Codex {
        self.codex
    }

    /// What is open to anybody at all.
    pub fn offers(&self) -> &[Offer<'a>] {
        &self.offers
    }

    /// Peers in force, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&'a Name, &'a Peer)> + '_ {
        self.codex.active().filter(|(_, peer)| !peer.is_expired(self.now))
    }

    /// The peer of that name, if it is in force.
    fn peer(&self, name: &Name) -> Option<&'a Peer> {
        let peer = self.codex.peers.get(name)?;
        (peer.state == PeerState::Active && !peer.is_expired(self.now)).then_some(peer)
    }

    /// The peer in force that has a tunnel address.
    pub fn holder(&self, address: IpAddr) -> Option<&'a Name> {
        self.peers().find(|(_, peer)| has_address(peer, address)).map(|(name, _)| name)
    }
}

fn has_address(peer: &Peer, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => peer.address == address,
        IpAddr::V6(address) => peer.address6 == Some(address),
    }
}

#[cfg(test)]
mod tests;
