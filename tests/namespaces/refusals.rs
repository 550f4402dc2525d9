//! What peers ask for that nobody grants: dropped, and counted for each of them.

use std::net::{IpAddr, SocketAddr};

use sepulcher::codex::Protocol;
use sepulcher::render::nftables;

use crate::arena::{Arena, OUTSIDER, bonded, load};
use crate::lab::{can_run, scratch};
use crate::packets::{Outcome, Trial, send};
use crate::silence::without;

#[test]
fn a_peer_that_wants_through_the_pod_is_denied_and_counted() {
    if !can_run("a_peer_that_wants_through_the_pod_is_denied_and_counted") {
        return;
    }
    let (codex, peers) = bonded("", &["[]", "[]"]);
    let (_guard, folder) = scratch();
    let arena = Arena::new(&codex, &peers, &[7090], &folder);
    // To the network outside, and to the host, which offers nothing here.
    for to in [OUTSIDER, codex.pod.gateway] {
        let counted = |from: IpAddr| {
            let trial = Trial { from, to: SocketAddr::new(to.into(), 7090), protocol: Protocol::Tcp };
            assert_eq!(send(&arena.peers.network(), &[(trial, false)]), [Outcome::Silent]);
            arena.pod.sh("nft list set inet sepulcher denied").contains(&format!("{from} "))
        };
        let ruleset = nftables::pod(&codex).unwrap();
        load(&arena.pod, &ruleset, &folder.join("pod.nft"));
        assert!(counted(peers[0]), "{to}");
        let spoiled = without(&ruleset, "iifname \"wg0\" goto refused");
        load(&arena.pod, &spoiled, &folder.join("spoiled.nft"));
        assert!(!counted(peers[1]), "{to}: without the rule it would be dropped unseen");
    }
}
