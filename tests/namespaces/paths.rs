//! Paths through the tunnel are narrower than those at both of its ends.

use std::net::SocketAddr;

use sepulcher::codex::Protocol;

use crate::arena::{Arena, bonded};
use crate::lab::{can_run, scratch};
use crate::packets::{Outcome, Trial, send};

#[test]
fn segments_are_clamped_to_what_the_tunnel_carries() {
    if !can_run("segments_are_clamped_to_what_the_tunnel_carries") {
        return;
    }
    let (codex, peers) = bonded("", &["[\"peer:p3\"]", "[]"]);
    let (_guard, folder) = scratch();
    let arena = Arena::new(&codex, &peers, &[7000], &folder);
    arena.pod.sh("ip link set wg0 mtu 1280");
    // What the receiver is told of the sender's segments.
    let sizes = [1240, 1460].map(|size| format!("tcp option maxseg size {size} counter;"));
    arena.peers.sh(&format!(
        "nft 'table ip ear {{ chain in {{ type filter hook prerouting priority raw; \
         iifname != eth0 accept; tcp flags & (syn | ack) != syn accept; {} }}; }}'",
        sizes.concat()
    ));
    let told = |size: u16| arena.peers.counted("chain ip ear in", &format!("maxseg size {size} "));
    let connect = || {
        let trial = Trial { from: peers[0], to: SocketAddr::new(peers[1], 7000), protocol: Protocol::Tcp };
        assert_eq!(send(&arena.peers.network(), &[(trial, true)]), [Outcome::Open]);
    };
    connect();
    assert_eq!((told(1240), told(1460)), (1, 0), "the tunnel's 1280 bytes less both headers");
    arena.pod.sh("nft flush chain inet sepulcher mangle");
    connect();
    assert_eq!((told(1240), told(1460)), (1, 1), "without the rule it is the sender's own");
}
