//! The WireGuard interface: what it holds, and how a plan is carried out.

use super::Error;
use crate::codex::Backend;
use crate::codex::key::PublicKey;
use crate::sync::{self, Desired, Observed, Plan, Step};
use crate::sys::wireguard::SecretKey;
use crate::sys::{clock, link, wireguard};

/// Reads the interface `name`: link, addresses, routes, WireGuard configuration.
pub fn observe(name: &str, backend: Backend) -> Result<Observed, Error> {
    let link = link::read(name, backend)?;
    // A socket of a userspace implementation can outlive its interface.
    let held = match link {
        Some(_) => {
            wireguard::read(name, backend)?.ok_or_else(|| wireguard::Error::Nobody(name.to_owned()))?
        }
        None => wireguard::Held::default(),
    };
    let wireguard::Held { public_key, listen_port, peers, strays } = held;
    // After the reading: no handshake in it is later, unless the clock was set back.
    Ok(Observed { at: clock::epoch_seconds(), link, public_key, listen_port, peers, strays })
}

/// Refuses an interface that somebody else has set up: one that holds another private key than ours. One that
/// an earlier agent left holds ours, one that was just made holds none.
pub fn claim(name: &str, observed: &Observed, own: PublicKey) -> Result<(), Error> {
    match observed.public_key {
        Some(other) if other != own => Err(Error::NotOurs { interface: name.to_owned(), public_key: other }),
        _ => Ok(()),
    }
}

/// Carries out a plan.
pub fn carry_out(name: &str, backend: Backend, plan: &Plan, secret: &SecretKey) -> Result<(), Error> {
    if plan.steps.contains(&Step::CreateLink) {
        match backend {
            Backend::Kernel => link::create(name)?,
            Backend::Userspace => wireguard::start_userspace(name)?,
        }
    }
    link::prepare(name, plan)?;
    wireguard::apply(name, backend, plan, secret)?;
    Ok(link::open(name, plan)?)
}

/// Carries out a plan and reads back what came of it; anything left to do is an error.
pub fn apply(
    name: &str,
    backend: Backend,
    desired: &Desired,
    plan: &Plan,
    secret: &SecretKey,
) -> Result<Observed, Error> {
    carry_out(name, backend, plan, secret)?;
    let mut observed = observe(name, backend)?;
    // An endpoint that was asked for just now may have been left already: the peer roams.
    for (key, peer) in &mut observed.peers {
        peer.dialled = desired.peers.get(key).and_then(|wanted| wanted.endpoint);
    }
    // Which of two keys holds an address may have changed by now; the next look follows.
    let left = sync::plan(desired, &observed);
    if left.repairs(desired) {
        Err(Error::NotTaken { interface: name.to_owned(), plan: left.to_string() })
    } else {
        Ok(observed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_with_another_key_is_somebody_elses() {
        let [own, other] = [1, 2].map(|_| SecretKey::generate().public());
        let with = |public_key| Observed { public_key, ..Observed::default() };
        assert!(claim("wg0", &with(None), own).is_ok());
        assert!(claim("wg0", &with(Some(own)), own).is_ok());
        let error = claim("wg0", &with(Some(other)), own).unwrap_err();
        assert_eq!(error.to_string(), format!("wg0 exists and is not ours: it holds the key of {other}"));
        assert!(error.remedy().unwrap().contains("ip link delete"));
    }
}
