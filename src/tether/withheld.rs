//! Grants that wait: those of an address which somebody still holds who is to lose it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::codex::{Codex, Grants};
use crate::sync::Prefix;

/// The Codex without the grants of peers whose address somebody else still holds; `None` when there are none.
pub(super) fn withheld(codex: &Codex, contested: &BTreeSet<Prefix>) -> Option<Codex> {
    let networks: Vec<_> = contested.iter().filter(|one| **one != Prefix::host(one.address)).collect();
    let is_contested = |address: IpAddr| {
        contested.contains(&Prefix::host(address)) || networks.iter().any(|network| network.contains(address))
    };
    let affected: Vec<_> = codex
        .active()
        .filter(|(_, peer)| {
            is_contested(peer.address.into()) || peer.address6.is_some_and(|own| is_contested(own.into()))
        })
        .map(|(name, _)| name.clone())
        .collect();
    if affected.is_empty() {
        return None;
    }
    let mut codex = codex.clone();
    for name in affected {
        if let Some(peer) = codex.peers.get_mut(&name) {
            peer.grants = Grants::default();
        }
    }
    Some(codex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Sources;
    use crate::reach;
    use crate::sync::{self, Desired, DialTargets, Observed, ObservedPeer, PresharedKeys};
    use crate::sys::wireguard::SecretKey;

    const KEYS: [&str; 2] =
        ["DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="];

    const OCULUS: &str =
        "description = \"x\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"tether\"\n";

    /// A Codex with one peer, and that peer as the interface holds it.
    fn bonded(key: usize, last: u8, grants: &str) -> (Codex, Observed) {
        let key = KEYS[key];
        let peer = format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = [{grants}]\n");
        let sources: Sources = [
            ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
            ("services/oculus.toml", OCULUS.to_owned()),
            ("peers/phone.toml", peer),
        ]
        .into_iter()
        .collect();
        let codex = Codex::parse(&sources).unwrap();
        let held = desired(&codex).peers.into_iter().map(|(key, peer)| {
            (key, ObservedPeer { allowed_ips: peer.allowed_ips, ..ObservedPeer::default() })
        });
        let observed = Observed { peers: held.collect(), ..Observed::default() };
        (codex, observed)
    }

    fn desired(codex: &Codex) -> Desired {
        let own = SecretKey::generate().public();
        Desired::of(codex, own, &DialTargets::new(), &PresharedKeys::new())
    }

    /// The ruleset's grants while the interface is still as observed.
    fn before_the_peers(codex: &Codex, observed: &Observed) -> Vec<String> {
        let withheld = withheld(codex, &sync::contested(&desired(codex), observed));
        reach::grants(withheld.as_ref().unwrap_or(codex)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn grants_of_an_address_wait_until_its_last_holder_is_gone() {
        let (_, before) = bonded(0, 2, "\"oculus\"");
        let (after, settled) = bonded(1, 2, "\"oculus\", \"bonds\"");
        assert!(before_the_peers(&after, &before).is_empty());
        assert_eq!(
            before_the_peers(&after, &settled),
            ["10.88.16.2 . tcp . 6006", "10.88.16.2 . tcp . 51821"]
        );
    }

    #[test]
    fn grants_wait_too_where_somebody_took_a_whole_network() {
        let (codex, mut observed) = bonded(0, 2, "\"oculus\"");
        let intruder = ObservedPeer {
            allowed_ips: [Prefix { address: [10, 88, 16, 0].into(), length: 20 }].into(),
            ..ObservedPeer::default()
        };
        observed.peers.insert(KEYS[1].parse().unwrap(), intruder);
        assert!(before_the_peers(&codex, &observed).is_empty());
    }

    #[test]
    fn the_grants_of_a_newcomer_and_of_a_peer_that_stays_wait_for_nobody() {
        let (codex, held) = bonded(0, 2, "\"oculus\"");
        for observed in [Observed::default(), held] {
            assert_eq!(before_the_peers(&codex, &observed), ["10.88.16.2 . tcp . 6006"]);
        }
    }
}
