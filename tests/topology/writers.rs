//! Two people who change the bonds at the same moment.

use std::collections::BTreeSet;

use sepulcher::codex::key::PublicKey;
use sepulcher::sys::wireguard::SecretKey;

use crate::host::until;
use crate::lab::{Gateway, World};

/// Bonds that each of the two makes.
const EACH: usize = 10;

#[test]
fn two_writers_lose_nothing() {
    let Some(world) = World::new("two_writers_lose_nothing") else { return };
    let gateway = Gateway::new(&world, "gateway", "10.88.16.0/20");
    let write = |who: &str| -> Vec<PublicKey> {
        let bond = |number| {
            let key = SecretKey::generate().public();
            let name = format!("{who}-{number}");
            gateway.peer(&["bond", &name, "--public-key", &key.to_string(), "--grant", "oculus"]);
            key
        };
        (0..EACH).map(bond).collect()
    };
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| write("second"));
        (write("first"), second.join().unwrap())
    });

    let keys: BTreeSet<PublicKey> = first.into_iter().chain(second).collect();
    let codex = gateway.bonds();
    assert_eq!(codex.peers.values().map(|peer| peer.public_key).collect::<BTreeSet<_>>(), keys);
    let addresses: BTreeSet<_> = codex.peers.values().map(|peer| peer.address).collect();
    assert_eq!(addresses.len(), 2 * EACH, "no address twice");
    until("the interface holds them all", || {
        let held = gateway.pod.sh("wg show wg0 peers");
        (held.lines().map(|key| key.parse().unwrap()).collect::<BTreeSet<PublicKey>>() == keys).then_some(())
    });
    assert!(
        addresses.iter().all(|address| gateway.grants_of(&address.to_string()) == 1),
        "each has its grant"
    );
    gateway.audit();
}
