//! The WireGuard interface: what it holds, and how a plan is carried out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Error;
use crate::codex::Backend;
use crate::codex::key::PublicKey;
use crate::sync::{self, Desired, Observed, Plan, Step};
use crate::sys::wireguard::SecretKey;
use crate::sys::{link, wireguard};

/// Endpoints that were asked for, by peer.
pub type Dialled = BTreeMap<PublicKey, SocketAddr>;

/// Reads the interface `name`: link, addresses, routes, WireGuard configuration.
pub fn observe(name: &str, backend: Backend, dialled: &Dialled) -> Result<Observed, Error> {
    let link = link::read(name, backend)?;
    // A socket of a userspace implementation can outlive its interface.
    let held = match link {
        Some(_) => wireguard::read(name, backend)?.unwrap_or_default(),
        None => wireguard::Held::default(),
    };
    let mut peers = held.peers;
    for (key, endpoint) in dialled {
        if let Some(peer) = peers.get_mut(key) {
            peer.dialled = Some(*endpoint);
        }
    }
    Ok(Observed { link, public_key: held.public_key, listen_port: held.listen_port, peers })
}

/// What is to be done now.
pub fn plan(name: &str, backend: Backend, desired: &Desired, dialled: &Dialled) -> Result<Plan, Error> {
    Ok(sync::plan(desired, &observe(name, backend, dialled)?))
}

/// Carries out a plan and reads back what came of it; anything left to do is an error.
pub fn apply(
    name: &str,
    backend: Backend,
    desired: &Desired,
    dialled: &Dialled,
    plan: &Plan,
    secret: &SecretKey,
) -> Result<Observed, Error> {
    if plan.steps.contains(&Step::CreateLink) {
        match backend {
            Backend::Kernel => link::create(name)?,
            Backend::Userspace => wireguard::start_userspace(name)?,
        }
    }
    link::prepare(name, plan)?;
    wireguard::apply(name, backend, plan, secret)?;
    link::open(name, plan)?;
    // An endpoint that was asked for just now may have been left already: the peer roams.
    let mut asked = dialled.clone();
    asked.extend(desired.peers.iter().filter_map(|(key, peer)| Some((*key, peer.endpoint?))));
    let observed = observe(name, backend, &asked)?;
    let left = sync::plan(desired, &observed);
    if left.is_empty() {
        Ok(observed)
    } else {
        Err(Error::NotTaken { interface: name.to_owned(), plan: left.to_string() })
    }
}
