//! The validated Codex: what the appliance is, which services it runs, who is bonded.
//!
//! A [`Codex`] in hand is right: renderers never check again. [`Codex::parse`] reports
//! every mistake at once, each with its place and remedy.

mod check;
mod diagnostic;
pub mod key;
pub mod ledger;
mod locate;
pub mod migrate;
pub mod name;
pub mod net;
mod peer;
mod publisher;
mod schema;
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
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub(crate) use diagnostic::plain;
pub use diagnostic::{Diagnostic, Place, Severity, Sources, Text, render_all};
use key::PublicKey;
pub use locate::{Step, locate};
use name::{DnsName, InterfacePattern, Name, RoutePath};
use net::{Net4, Net6, Port};
pub use peer::{
    DOOR_PORT, Door, Grants, Overlap, Peer, PeerKind, PeerState, Revocation, is_tombstone, preshared_file,
};
pub use publisher::{NotAPublisher, PublisherKey, UrlPrefix};
pub use schema::LAW;
pub(crate) use schema::{file_name, in_shares};
pub(crate) use suggest::{distance as edits, nearest};
use time::{Length, Timestamp};

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
        check::parse(sources, true)
    }

    /// The same where bonds are left out, broken ones for example: a grant of a peer that is not there opens nothing, and
    /// is no mistake. So nobody is cut off because somebody else is.
    ///
    /// # Errors
    /// As [`Codex::parse`].
    pub fn parse_part(sources: &Sources) -> Result<Self, Vec<Diagnostic>> {
        check::parse(sources, false)
    }

    /// The same of what is left when bonds that hold mistakes are taken out of `sources`; only those go that `may_go` allows.
    /// `gone` hears each mistake for which one went. One that is out can be what another one's mistake is about: so the
    /// rest is looked at anew.
    ///
    /// # Errors
    /// The mistakes for which no bond can go.
    pub fn parse_sound(
        sources: &mut Sources,
        may_go: impl Fn(&str) -> bool,
        gone: &mut dyn FnMut(Diagnostic),
    ) -> Result<Self, Vec<Diagnostic>> {
        loop {
            let mistakes = match Self::parse_part(sources) {
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

/// Who the machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// Host name and stem of all partition labels and unit names.
    pub name: Name,
    /// Public DNS name that the Veil answers to; without one it serves plain HTTP on any name.
    pub domain: Option<DnsName>,
    /// Whether it has no forest: nothing but the Tether's own port is published.
    pub dark: bool,
}

/// The interface towards the forest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Which interfaces are uplinks, as systemd-networkd matches names (e.g. `en*`).
    pub interface: InterfacePattern,
    /// Where its addresses come from.
    pub addressing: Addressing,
    /// Whether echo requests (pings) from the forest are answered, a few a second.
    pub echo: bool,
}

/// Where an uplink's addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressing {
    /// DHCPv4 and IPv6 router advertisements.
    Dhcp,
    /// Fixed.
    Static {
        /// Addresses with their prefix lengths.
        addresses: Vec<(IpAddr, u8)>,
        /// Default gateways, at most one a family.
        gateways: Vec<IpAddr>,
        /// Name servers.
        dns: Vec<IpAddr>,
    },
}

/// The pod's bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Subnet of the bridge, e.g. `10.88.0.0/24`.
    pub network: Net4,
    /// The host's address on the bridge: the first of the subnet.
    pub gateway: Ipv4Addr,
    /// The pod's address on the bridge, e.g. `10.88.0.10`.
    pub address: Ipv4Addr,
}

/// A service of the host itself: reached through `wg0` and the pod at [`Pod::gateway`], by peers that hold the grant
/// of its name. `*` does not hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostService {
    /// What it is granted by.
    pub name: Name,
    /// Port on the host.
    pub port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
    /// One line for people; may be empty.
    pub description: String,
}

/// Whose updates this body takes, and where from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebirth {
    /// Whose signature an update must carry; without one there are no updates.
    pub publisher: Option<PublisherKey>,
    /// What may be fetched besides folders and files on the machine: URLs below one of these.
    pub sources: Vec<UrlPrefix>,
    /// How long a body may take to prove healthy.
    pub patience: Length,
}

/// The partition of what the machine remembers, `/var`: its key, bonds, volumes, snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How it is encrypted; chosen when the partition is made, on the first boot of a disk.
    pub encryption: Encryption,
}

/// What a partition is encrypted with. Displays as the Codex writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing.
    None,
    /// LUKS2, with a key that only the TPM 2.0 of the machine releases.
    Tpm2,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Tpm2 => "tpm2",
        })
    }
}

/// The WireGuard interface `wg0` in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tether {
    /// UDP port, on the uplink and in the pod.
    pub port: Port,
    /// Address space of the peers, e.g. `10.88.16.0/20`.
    pub network: Net4,
    /// `wg0`'s own address: the first of the network.
    pub address: Ipv4Addr,
    /// Optional IPv6 address space of the peers and `wg0`'s address in it.
    pub network6: Option<(Net6, Ipv6Addr)>,
    /// MTU of `wg0` and of client configurations, 1280 to 1500.
    pub mtu: u16,
    /// What clients dial: host name or address; the port is [`Tether::port`]. Absent until it is known.
    pub endpoint: Option<Endpoint>,
    /// PersistentKeepalive of client configurations in seconds; 0 is off.
    pub keepalive: u16,
    /// Which WireGuard implementation serves `wg0`.
    pub backend: Backend,
    /// How long the address of a revoked peer rests before another one may have it.
    pub fence: Length,
}

impl Tether {
    /// Whether an address lies in the address space of the peers.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.network.contains(address),
            IpAddr::V6(address) => self.network6.is_some_and(|(network, _)| network.contains(address)),
        }
    }

    /// Whether it is `wg0`'s own address.
    pub fn is_own(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.address == address,
            IpAddr::V6(address) => self.network6.is_some_and(|(_, own)| own == address),
        }
    }
}

/// A host to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A name that the client resolves.
    Dns(DnsName),
    /// A fixed address.
    Ip(IpAddr),
}

/// Which WireGuard implementation serves `wg0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's.
    Kernel,
    /// A userspace one through its UAPI socket.
    Userspace,
}

/// Who can reach a port or a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Only other containers of the pod.
    Pod,
    /// Bonded peers that hold the grant, through `wg0`.
    Tether,
    /// Everybody.
    Forest,
}

/// Displays as the Codex writes it.
impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Tether => "tether",
            Self::Forest => "forest",
        })
    }
}

/// A transport protocol. Displays as nft and the Codex name it, `tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One container of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// One line for people; becomes the unit's description.
    pub description: String,
    /// What runs in the container.
    pub source: Source,
    /// Arguments; empty means the image's own.
    pub command: Vec<String>,
    /// User and group ids (`uid:gid`) inside the container; `None` is the image's own (root for a rootfs).
    pub user: Option<(u32, u32)>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Names of secrets, each given to the container as a file `/run/secrets/<name>`.
    pub secrets: BTreeSet<Name>,
    /// Ports that the service listens on inside the pod.
    pub ports: Vec<ServicePort>,
    /// HTTP paths that the Veil forwards to this service.
    pub routes: Vec<Route>,
    /// Named volumes.
    pub volumes: Vec<Volume>,
    /// What keeps the service still while its volumes are read; without it, it is frozen.
    pub hooks: Option<Hooks>,
    /// Whether this service is the Veil: the HTTP proxy that serves all routes. At most one is.
    pub veil: bool,
}

/// What runs in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A root tree of that name, made from locked packages and sealed in the image.
    Rootfs(Name),
    /// An OCI image by digest, pulled at run time: `registry/path@sha256:…`.
    Image(String),
}

/// A port that a service listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePort {
    /// Port number.
    pub number: Port,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Who can reach it.
    pub tier: Tier,
}

/// An HTTP path prefix that the Veil forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Path prefix, e.g. `/a2a/smith`; `/` is everything else.
    pub path: RoutePath,
    /// [`Tier::Forest`] or [`Tier::Tether`].
    pub tier: Tier,
    /// TCP port of the service that answers.
    pub port: Port,
}

impl Route {
    /// Whether `path` lies at or below it, on the border of a segment; without regard to case, as the Veil compares.
    pub fn covers(&self, path: &str) -> bool {
        let own = self.path.as_str();
        let starts = path.get(..own.len()).is_some_and(|start| start.eq_ignore_ascii_case(own));
        own == "/" || (starts && matches!(path.as_bytes().get(own.len()), None | Some(b'/')))
    }
}

/// A named volume of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Volume name, unique across services unless shared on purpose.
    pub name: Name,
    /// Absolute path inside the container.
    pub target: String,
    /// Whether snapshots contain it; a cache can be left out.
    pub snapshot: bool,
}

/// Commands that run in a service's container around the reading of its volumes. In between it goes on, and what lies in
/// its volumes must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments; the volumes are read when it has ended well.
    pub pause: Vec<String>,
    /// Program and arguments; runs also when `pause` failed.
    pub resume: Vec<String>,
}
