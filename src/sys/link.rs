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

/// Names of all links.
pub fn names() -> Result<Vec<String>, Error> {
    let links = request("list", "the links", encode::list_links(), NLM_F_REQUEST | NLM_F_DUMP)?;
    Ok(links.iter().filter_map(encode::read_name).collect())
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
        | Step::RemoveStray(_)
        | Step::AddPeer(..)
        | Step::UpdatePeer(..) => return Ok(()),
    };
    match request(action, name, message, flags) {
        Err(Error::Kernel { source, .. }) if is_gone(step, errno(&source)) => Ok(()),
        result => result.map(drop),
    }
}

/// Whether the kernel says of what a step removes that it is not there: it took a route along with an address, or
/// somebody else was quicker.
fn is_gone(step: &Step, errno: Option<Errno>) -> bool {
    match step {
        Step::RemoveAddress(_) => errno == Some(Errno::ADDRNOTAVAIL),
        Step::RemoveRoute(_) => errno == Some(Errno::SRCH),
        _ => false,
    }
}

/// Whether the network namespace of this thread has an interface of that name.
pub fn exists(name: &str) -> Result<bool, Error> {
    Ok(find(name)?.is_some())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Prefix;
    use crate::sys::cmd;

    /// Runs one of the ignored tests below in a network namespace of its own, behind `wrapper`.
    fn in_namespace(test: &str, wrapper: &[&str]) {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "{test} cannot run: root is needed");
            eprintln!("SKIPPED {test}: root is needed");
            return;
        }
        let told = cmd::Command::new("unshare")
            .arg("--net")
            .args(wrapper)
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", &format!("sys::link::tests::{test}")])
            .read()
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(String::from_utf8_lossy(&told).contains("1 passed"), "{test} did not run");
    }

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix { address: address.parse().unwrap(), length }
    }

    #[test]
    fn the_kernel_takes_and_tells_what_a_plan_says() {
        in_namespace("inner_the_kernel_takes_and_tells_what_a_plan_says", &[]);
    }

    /// A veth stands in for WireGuard, which not every kernel has: the messages are the same but for the kind.
    #[test]
    #[ignore = "runs in a namespace of its own, started by the test of that name"]
    fn inner_the_kernel_takes_and_tells_what_a_plan_says() {
        create_kind("t0", InfoKind::Veth).unwrap();
        create_kind("t0", InfoKind::Veth).expect("one that is there already is success");
        let addresses = [prefix("10.88.16.1", 20), prefix("fd88::1", 64)];
        let routes = [prefix("192.168.7.0", 24), prefix("fd99::", 64)];
        let mut steps = vec![Step::SetMtu { from: None, to: 1420 }, Step::BringUp];
        steps.extend(addresses.map(Step::AddAddress));
        steps.extend(routes.map(Step::AddRoute));
        let plan = Plan { steps };
        for _ in 0..2 {
            prepare("t0", &plan).unwrap();
            open("t0", &plan).unwrap();
        }
        let link = find("t0").unwrap().unwrap();
        let expected =
            ObservedLink { up: true, mtu: 1420, addresses: addresses.into(), routes: routes.into() };
        assert_eq!(state("t0", &link).unwrap(), expected);
        let plan = Plan { steps: vec![Step::RemoveAddress(addresses[0]), Step::RemoveRoute(routes[1])] };
        for _ in 0..2 {
            prepare("t0", &plan).expect("an address that is gone already is removed");
            open("t0", &plan).expect("so is a route");
        }
        let left = state("t0", &link).unwrap();
        assert_eq!(left.addresses, [addresses[1]].into());
        // The kernel takes a route along whose source address goes; the other one was removed by us.
        assert!(!left.routes.contains(&routes[1]));
        assert_eq!(read("t1", Backend::Kernel).unwrap(), None);
        let error = read("t0", Backend::Kernel).unwrap_err();
        assert_eq!(error.to_string(), "t0 exists and is of kind `veth`, not `wireguard`");
        match create("wg0") {
            Ok(()) => assert_eq!(find("wg0").unwrap().unwrap().kind, "wireguard"),
            Err(error) => assert!(matches!(error, Error::NoModule(_)), "{error:?}"),
        }
    }

    #[test]
    fn without_the_capability_the_remedy_names_it() {
        let wrapper = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
        in_namespace("inner_without_the_capability_the_remedy_names_it", &wrapper);
    }

    #[test]
    #[ignore = "runs in a namespace of its own, started by the test of that name"]
    fn inner_without_the_capability_the_remedy_names_it() {
        let error = create("wg0").unwrap_err();
        assert_eq!(error.to_string(), "cannot create wg0: CAP_NET_ADMIN is missing");
        assert!(error.remedy().unwrap().contains("CAP_NET_ADMIN"));
    }
}
