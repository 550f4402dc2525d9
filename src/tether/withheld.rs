//! Grants that wait: those of an address which somebody still holds who is to lose it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::codex::{Codex, Grants, Peer};
use crate::sync::Prefix;

/// The Codex without the grants of peers whose address somebody else still holds, and without grants of such peers by others:
/// packets for them would still go to that one. `None` when there are none.
pub(super) fn withheld(codex: &Codex, contested: &BTreeSet<Prefix>) -> Option<Codex> {
    let networks: Vec<_> = contested.iter().filter(|one| **one != Prefix::host(one.address)).collect();
    let is_contested = |prefix: Prefix| {
        contested.contains(&prefix)
            || networks.iter().any(|network| network.contains(prefix.address))
            || (prefix != Prefix::host(prefix.address)
                && contested.iter().any(|one| prefix.contains(one.address)))
    };
    let mut speakers = BTreeSet::new();
    let mut unsettled = BTreeSet::new();
    for (name, peer) in codex.active() {
        let speaks = addresses(peer).any(is_contested);
        if speaks {
            speakers.insert(name.clone());
        }
        if speaks || peer.routes().iter().any(|route| is_contested((*route).into())) {
            unsettled.insert(name.clone());
        }
    }
    if unsettled.is_empty() {
        return None;
    }
    let mut codex = codex.clone();
    for (name, peer) in &mut codex.peers {
        if speakers.contains(name) {
            Arc::make_mut(peer).grants = Grants::default();
        } else if !peer.grants.peers.is_disjoint(&unsettled) {
            Arc::make_mut(peer).grants.peers.retain(|granted| !unsettled.contains(granted));
        }
    }
    Some(codex)
}

fn addresses(peer: &Peer) -> impl Iterator<Item = Prefix> {
    let addresses = [Some(IpAddr::V4(peer.address)), peer.address6.map(IpAddr::V6)];
    addresses.into_iter().flatten().map(Prefix::host)
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
    fn grants_of_a_peer_wait_while_somebody_else_would_get_its_packets() {
        let law = "schema = 1\n[appliance]\nname = \"lychd\"\n";
        let phone =
            format!("public-key = \"{}\"\naddress = \"10.88.16.2\"\ngrants = [\"peer:crypt\"]\n", KEYS[0]);
        let crypt = format!(
            "public-key = \"{}\"\naddress = \"10.88.16.3\"\nkind = \"lych\"\nroutes = [\"10.99.7.0/24\"]\n\
             grants = []\n",
            KEYS[1]
        );
        let sources: Sources =
            [("lychd.toml", law), ("peers/phone.toml", &phone), ("peers/crypt.toml", &crypt)]
                .into_iter()
                .collect();
        let codex = Codex::parse(&sources).unwrap();
        let before = |held: [u8; 4], length| {
            let contested = BTreeSet::from([Prefix { address: held.into(), length }]);
            let withheld = withheld(&codex, &contested);
            reach::between(withheld.as_ref().unwrap_or(&codex)).len()
        };
        for (held, length) in
            [([10, 88, 16, 3], 32), ([10, 99, 7, 0], 24), ([10, 99, 0, 0], 16), ([10, 99, 7, 8], 32)]
        {
            assert_eq!(before(held, length), 0, "{held:?}/{length}");
        }
        assert_eq!(before([10, 99, 8, 0], 24), 2, "that is nobody's here");
    }

    #[test]
    fn the_grants_of_a_newcomer_and_of_a_peer_that_stays_wait_for_nobody() {
        let (codex, held) = bonded(0, 2, "\"oculus\"");
        for observed in [Observed::default(), held] {
            assert_eq!(before_the_peers(&codex, &observed), ["10.88.16.2 . tcp . 6006"]);
        }
    }
}
