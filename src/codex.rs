//! The validated Codex: what the appliance is, which services it runs, who is bonded.
//!
//! A [`Codex`] in hand is right: renderers never check again. [`Codex::parse`] reports
//! every mistake at once, each with its place and remedy.

mod check;
mod diagnostic;
pub mod key;
mod law;
pub mod ledger;
mod locate;
pub mod migrate;
pub mod name;
pub mod net;
mod peer;
mod publisher;
mod schema;
mod service;
mod suggest;
pub mod time;

/// Serialises a type as the text that it displays as, and reads it back from that.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_as_text;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use diagnostic::plain;
pub use diagnostic::{Diagnostic, Place, Severity, Sources, Text, render_all};
use key::PublicKey;
pub use law::{
    Addressing, Appliance, Backend, Encryption, Endpoint, HostService, Pod, Rebirth, State, Tether, Uplink,
};
pub use locate::{Step, locate};
use name::Name;
use net::Net4;
pub use peer::{
    DOOR_PORT, Door, Grants, Overlap, Peer, PeerKind, PeerState, Revocation, is_tombstone, preshared_file,
};
pub use publisher::{NotAPublisher, PublisherKey, UrlPrefix};
pub use schema::LAW;
pub(crate) use schema::{file_name, in_shares};
pub use service::{Hooks, Protocol, Route, Service, ServicePort, Source, Tier, Volume};
pub(crate) use suggest::{distance as edits, nearest};
use time::Timestamp;

/// The bridge interface of the pod's network on the host.
pub const BRIDGE: &str = "sepulcher0";

/// The schema version that this program writes and reads.
pub const SCHEMA: u32 = 1;

/// Whether a file of this name is the law's: `lychd.toml`, `services/*.toml`.
pub fn is_law(file: &str) -> bool {
    file == LAW || file.starts_with("services/")
}

/// Whether a file of this name is the bonds': `peers/*.toml`, the ledger of dead keys.
pub fn is_bond(file: &str) -> bool {
    file.starts_with("peers/") || file == ledger::LEDGER
}

/// One of the ways to read a Codex.
pub type Parse = fn(&Sources) -> Result<Codex, Vec<Diagnostic>>;

/// What has to be there of what a bond names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Other peers, services, and the network of its IPv6 address.
    All,
    /// All but peers.
    Law,
    /// Nothing.
    Nothing,
}

/// A valid Codex: the law (`lychd.toml`, `services/`) and the bonds (`peers/`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codex {
    /// `[appliance]` of `lychd.toml`.
    pub appliance: Appliance,
    /// `[uplink]`: how the machine reaches the network.
    pub uplink: Uplink,
    /// `[pod]`: the bridge network between host and pod.
    pub pod: Pod,
    /// `[tether]`: the WireGuard interface.
    pub tether: Tether,
    /// `[[host]]`: what the host itself offers to peers, in the order of the file.
    pub host: Vec<HostService>,
    /// `[rebirth]`: whose updates this body takes.
    pub rebirth: Rebirth,
    /// `[state]`: how the machine keeps what it remembers.
    pub state: State,
    /// `services/<name>.toml` by name.
    pub services: BTreeMap<Name, Service>,
    /// `peers/<name>.toml` by name. Copies of a Codex share them: there can be thousands.
    pub peers: BTreeMap<Name, Arc<Peer>>,
    /// Keys of the ledger `revoked`: they never come back.
    pub revoked_keys: BTreeSet<PublicKey>,
    /// Networks behind peers that were left out since ([`Codex::keep_peers`]).
    pub gone: BTreeSet<Net4>,
}

impl Codex {
    /// Reads the files of a Codex.
    ///
    /// # Errors
    /// Every mistake that the files hold, at least one, sorted by file and position; of a file with more than a
    /// hundred the first ones.
    pub fn parse(sources: &Sources) -> Result<Self, Vec<Diagnostic>> {
        check::parse(sources, Needs::All)
    }

    /// The same where bonds are left out, broken ones for example: a grant of a peer that is not there opens nothing, and
    /// is no mistake. So nobody is cut off because somebody else is.
    ///
    /// # Errors
    /// As [`Codex::parse`].
    pub fn parse_part(sources: &Sources) -> Result<Self, Vec<Diagnostic>> {
        check::parse(sources, Needs::Law)
    }

    /// The same on a machine, whose law may be that of an older body than the bonds: a grant of a service that is not there
    /// opens nothing either, nor does an IPv6 address without a network, and neither is a mistake. So a bond survives a
    /// body that has more.
    ///
    /// # Errors
    /// As [`Codex::parse`].
    pub fn parse_living(sources: &Sources) -> Result<Self, Vec<Diagnostic>> {
        check::parse(sources, Needs::Nothing)
    }

    /// The same as `parse` does of what is left when bonds that hold mistakes are taken out of `sources`; only those go that
    /// `may_go` allows. `gone` hears each mistake for which one went. One that is out can be what another one's mistake is about: so the
    /// rest is looked at anew.
    ///
    /// # Errors
    /// The mistakes for which no bond can go.
    pub fn parse_sound(
        sources: &mut Sources,
        parse: Parse,
        may_go: impl Fn(&str) -> bool,
        gone: &mut dyn FnMut(Diagnostic),
    ) -> Result<Self, Vec<Diagnostic>> {
        loop {
            let mistakes = match parse(sources) {
                Ok(codex) => return Ok(codex),
                Err(mistakes) => mistakes,
            };
            let goes = |file: &str| file.starts_with("peers/") && may_go(file);
            if !mistakes.iter().any(|mistake| goes(&mistake.file)) {
                return Err(mistakes);
            }
            for mistake in mistakes.into_iter().filter(|mistake| goes(&mistake.file)) {
                sources.remove(&mistake.file);
                gone(mistake);
            }
        }
    }

    /// Bonded peers, whether or not their time is over: see [`Codex::as_of`].
    pub fn active(&self) -> impl Iterator<Item = (&Name, &Peer)> {
        let peers = self.peers.iter().map(|(name, peer)| (name, peer.as_ref()));
        peers.filter(|(_, peer)| peer.state == PeerState::Active)
    }

    /// The peer that is called `name`, bonded or not.
    pub fn peer(&self, name: &Name) -> Option<&Peer> {
        self.peers.get(name).map(Arc::as_ref)
    }

    /// Whose key is whose, both keys of a peer that has two; those who are revoked included.
    pub fn names_by_key(&self) -> BTreeMap<PublicKey, &Name> {
        let keys = |peer: &Peer| [Some(peer.public_key), peer.overlap.as_ref().map(|old| old.public_key)];
        let named = self
            .peers
            .iter()
            .map(|(name, peer)| keys(peer).into_iter().flatten().map(move |key| (key, name)));
        named.flatten().collect()
    }

    /// The service of the host that is called `name`.
    pub fn host_service(&self, name: &str) -> Option<&HostService> {
        self.host.iter().find(|service| service.name.as_str() == name)
    }

    /// Services, and secrets that they name.
    pub fn secrets(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.services
            .iter()
            .flat_map(|(name, service)| service.secrets.iter().map(move |secret| (name, secret)))
    }

    /// Whether a service has a volume of that name.
    pub fn has_volume(&self, name: &Name) -> bool {
        self.services.values().flat_map(|service| &service.volumes).any(|volume| volume.name == *name)
    }

    /// What is in force at `now`: without the peers that have expired and the overlaps that are over.
    #[must_use]
    pub fn as_of(&self, now: Timestamp) -> Self {
        let mut codex = self.clone();
        codex.keep_peers(|_, peer| !peer.is_expired(now));
        let over =
            |overlap: &Overlap| overlap.until <= now || self.revoked_keys.contains(&overlap.public_key);
        for peer in codex.peers.values_mut().filter(|peer| peer.overlap.as_ref().is_some_and(over)) {
            Arc::make_mut(peer).overlap = None;
        }
        codex
    }

    /// Leaves out peers. Networks behind them are remembered: what was meant for them must not go elsewhere.
    pub fn keep_peers(&mut self, mut keep: impl FnMut(&Name, &mut Arc<Peer>) -> bool) {
        let gone = &mut self.gone;
        self.peers.retain(|name, peer| {
            let kept = keep(name, peer);
            if !kept {
                gone.extend(peer.routes());
            }
            kept
        });
    }

    /// The law alone. Peers, of which there can be many, are not copied on the way.
    #[must_use]
    pub fn without_peers(&self) -> Self {
        let Self {
            appliance,
            uplink,
            pod,
            tether,
            host,
            rebirth,
            state,
            services,
            peers: _,
            revoked_keys,
            gone: _,
        } = self;
        Self {
            appliance: appliance.clone(),
            uplink: uplink.clone(),
            pod: pod.clone(),
            tether: tether.clone(),
            host: host.clone(),
            rebirth: rebirth.clone(),
            state: *state,
            services: services.clone(),
            peers: BTreeMap::new(),
            revoked_keys: revoked_keys.clone(),
            gone: BTreeSet::new(),
        }
    }

    /// When [`Codex::as_of`] changes next after `now`.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.active().flat_map(|(_, peer)| {
            [peer.expires, peer.overlap.as_ref().map(|overlap| overlap.until)].into_iter().flatten()
        });
        ends.filter(|end| *end > now).min()
    }
}
