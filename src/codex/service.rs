//! Services, as they are once nothing is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::name::{Name, RoutePath};
use super::net::Port;

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
