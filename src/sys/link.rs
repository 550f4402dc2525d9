//! Links, addresses and routes of the network namespace we are in, through rtnetlink.

mod encode;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkPayload,
};
use netlink_packet_route::link::InfoKind;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_request::netlink_request_rtnl;
use rustix::io::Errno;

pub use encode::Link;

use crate::codex::Backend;
use crate::sync::{ObservedLink, Plan, Step};

/// A link that cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel knows no links of the kind `wireguard`.
    #[error("cannot create {0}: the kernel has no WireGuard")]
    NoModule(String),
    /// The process may not.
    #[error("cannot {action} {name}: CAP_NET_ADMIN is missing")]
    NoCapability {
        /// Verb and object.
        action: &'static str,
        /// Interface name.
        name: String,
    },
    /// Something else has the name.
    #[error("{name} exists and is of kind `{kind}`, not `wireguard`")]
    OtherKind {
        /// Interface name.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// Gone while it was being configured.
    #[error("{0} vanished while it was being configured")]
    Vanished(String),
    /// Anything else that the kernel said.
    #[error("cannot {action} {name}")]
    Kernel {
        /// Verb and object.
        action: &'static str,
        /// Interface name.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoModule(_) => Some(
                "load the kernel module `wireguard` on the host, or set `backend = \"userspace\"` in [tether]",
            ),
            Self::NoCapability { .. } => {
                Some("run in a network namespace where this process has CAP_NET_ADMIN")
            }
            Self::OtherKind { .. } => Some("remove that link, or find out who made it"),
            Self::Vanished(_) | Self::Kernel { .. } => None,
        }
    }
}

/// Reads the link `name`; `None` when there is none. Anything but a WireGuard link of `backend` is an error.
pub fn read(name: &str, backend: Backend) -> Result<Option<ObservedLink>, Error> {
    let Some(link) = find(name)? else { return Ok(None) };
    let expected = match backend {
        Backend::Kernel => "wireguard",
        Backend::Userspace => "tun",
    };
    if link.kind != expected {
        return Err(Error::OtherKind { name: name.to_owned(), kind: link.kind });
    }
    state(name, &link).map(Some)
}

/// Addresses and our routes of a link.
fn state(name: &str, link: &Link) -> Result<ObservedLink, Error> {
    let list = |action, message| request(action, name, message, NLM_F_REQUEST | NLM_F_DUMP);
    let addresses = list("list the addresses of", encode::list_addresses())?;
    let mut routes = list("list the routes of", encode::list_routes(AddressFamily::Inet))?;
    routes.extend(list("list the routes of", encode::list_routes(AddressFamily::Inet6))?);
    Ok(ObservedLink {
        up: link.up,
        mtu: link.mtu,
        addresses: addresses.iter().filter_map(|message| encode::read_address(link.index, message)).collect(),
        routes: routes.iter().filter_map(|message| encode::read_route(link.index, message)).collect(),
    })
}

/// Makes the link `name` of kind WireGuard; one that is there already is success.
pub fn create(name: &str) -> Result<(), Error> {
    create_kind(name, InfoKind::Wireguard)
}

fn create_kind(name: &str, kind: InfoKind) -> Result<(), Error> {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    match request("create", name, encode::create(name, kind), flags) {
        Err(Error::Kernel { source, .. }) if errno(&source) == Some(Errno::EXIST) => Ok(()),
        Err(Error::Kernel { source, .. }) if errno(&source) == Some(Errno::OPNOTSUPP) => {
            Err(Error::NoModule(name.to_owned()))
        }
        result => result.map(drop),
    }
}

/// Applies the steps of a plan that make an interface ready: MTU and addresses. The link must be there.
pub fn prepare(name: &str, plan: &Plan) -> Result<(), Error> {
    apply(name, plan, |step| {
        matches!(step, Step::SetMtu { .. } | Step::AddAddress(_) | Step::RemoveAddress(_))
    })
}

/// Applies the steps of a plan that let traffic in: up, then routes. The link must be there.
pub fn open(name: &str, plan: &Plan) -> Result<(), Error> {
    apply(name, plan, |step| matches!(step, Step::BringUp | Step::AddRoute(_) | Step::RemoveRoute(_)))
}

fn apply(name: &str, plan: &Plan, wanted: impl Fn(&Step) -> bool) -> Result<(), Error> {
    let mut steps = plan.steps.iter().filter(|step| wanted(step)).peekable();
    if steps.peek().is_none() {
        return Ok(());
    }
    let link = find(name)?.ok_or_else(|| Error::Vanished(name.to_owned()))?;
    steps.try_for_each(|step| apply_step(name, link.index, step))
}

fn apply_step(name: &str, index: u32, step: &Step) -> Result<(), Error> {
    let change = NLM_F_REQUEST | NLM_F_ACK;
    let replace = change | NLM_F_CREATE | NLM_F_REPLACE;
    let (action, message, flags) = match step {
        Step::SetMtu { to, .. } => ("set the MTU of", encode::set_mtu(index, *to), change),
        Step::BringUp => ("bring up", encode::bring_up(index), change),
        Step::AddAddress(prefix) => {
            ("add an address to", RouteNetlinkMessage::NewAddress(encode::address(index, *prefix)), replace)
        }
        Step::RemoveAddress(prefix) => {
            ("remove an address of", RouteNetlinkMessage::DelAddress(encode::address(index, *prefix)), change)
        }
        Step::AddRoute(prefix) => {
            ("add a route to", RouteNetlinkMessage::NewRoute(encode::route(index, *prefix)), replace)
        }
        Step::RemoveRoute(prefix) => {
            ("remove a route to", RouteNetlinkMessage::DelRoute(encode::route(index, *prefix)), change)
        }
        Step::CreateLink
        | Step::SetKey(_)
        | Step::SetListenPort(_)
        | Step::RemovePeer(_)
        | Step::AddPeer(..)
        | Step::UpdatePeer(..) => return Ok(()),
    };
    request(action, name, message, flags).map(drop)
}

fn find(name: &str) -> Result<Option<Link>, Error> {
    match request("find", name, encode::get(name), NLM_F_REQUEST | NLM_F_ACK) {
        Err(Error::Kernel { source, .. }) if errno(&source) == Some(Errno::NODEV) => Ok(None),
        result => Ok(result?.iter().find_map(encode::read_link)),
    }
}

fn request(
    action: &'static str,
    name: &str,
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<Vec<RouteNetlinkMessage>, Error> {
    let responses = netlink_request_rtnl(message, Some(flags)).map_err(|source| match errno(&source) {
        Some(Errno::PERM) => Error::NoCapability { action, name: name.to_owned() },
        _ => Error::Kernel { action, name: name.to_owned(), source },
    })?;
    Ok(responses
        .into_iter()
        .filter_map(|response| match response.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        })
        .collect())
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}
