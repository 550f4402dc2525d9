//! Properties of the plan, against a small model of what WireGuard does with each step.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

mod handover;

fn key(number: u32) -> PublicKey {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PublicKey::try_from(bytes).unwrap()
}

fn address(number: u32) -> Prefix {
    Prefix::host(std::net::Ipv4Addr::from_bits(0x0a58_1000 + number))
}

fn desired_peer(allowed_ips: BTreeSet<Prefix>) -> DesiredPeer {
    let name = "phone".parse().unwrap();
    DesiredPeer { name, allowed_ips, endpoint: None, named: None, keepalive: 0, preshared: None }
}

fn desired(peers: BTreeMap<PublicKey, DesiredPeer>) -> Desired {
    Desired {
        public_key: key(u32::MAX),
        listen_port: Port::new(51820).unwrap(),
        mtu: 1420,
        addresses: BTreeSet::from([Prefix { length: 20, ..address(1) }]),
        routes: BTreeSet::new(),
        peers,
        overlaps: BTreeMap::new(),
    }
}

/// What WireGuard and the kernel do with a plan; an allowed IP moves to whoever asked for it last.
fn apply(plan: &Plan, observed: &mut Observed) {
    for step in &plan.steps {
        if let Step::CreateLink = step {
            assert_eq!(observed.link, None, "a link is made twice");
            observed.link = Some(ObservedLink::default());
        }
        let link = observed.link.as_mut().expect("no step before the link is there");
        match step.clone() {
            Step::CreateLink => {}
            Step::SetMtu { to, .. } => link.mtu = to,
            Step::AddAddress(prefix) => assert!(link.addresses.insert(prefix)),
            Step::RemoveAddress(prefix) => assert!(link.addresses.remove(&prefix)),
            Step::BringUp => link.up = true,
            Step::AddRoute(prefix) => assert!(link.routes.insert(prefix)),
            Step::RemoveRoute(prefix) => assert!(link.routes.remove(&prefix)),
            Step::SetKey(key) => observed.public_key = Some(key),
            Step::SetListenPort(port) => observed.listen_port = Some(port),
            Step::RemovePeer(key) => assert!(observed.peers.remove(&key).is_some()),
            Step::RemoveStray(key) => assert!(observed.strays.remove(&key)),
            Step::AddPeer(key, peer) => {
                let DesiredPeer { name: _, allowed_ips, endpoint, named: _, keepalive, preshared } = peer;
                take(observed, &allowed_ips);
                let held = ObservedPeer {
                    allowed_ips,
                    endpoint,
                    dialled: endpoint,
                    keepalive,
                    preshared,
                    ..ObservedPeer::default()
                };
                assert!(observed.peers.insert(key, held).is_none());
            }
            Step::UpdatePeer(key, change) => {
                let PeerChange { name: _, allowed_ips, endpoint, keepalive, preshared } = change;
                if let Some(allowed_ips) = &allowed_ips {
                    take(observed, allowed_ips);
                }
                let held = observed.peers.get_mut(&key).expect("only a present peer is changed");
                held.allowed_ips = allowed_ips.unwrap_or(std::mem::take(&mut held.allowed_ips));
                held.endpoint = endpoint.or(held.endpoint);
                held.dialled = endpoint.or(held.dialled);
                held.keepalive = keepalive.unwrap_or(held.keepalive);
                match preshared {
                    Some(PresharedChange::Set(key)) => held.preshared = Some(key),
                    Some(PresharedChange::Remove) => held.preshared = None,
                    None => {}
                }
            }
        }
    }
}

fn take(observed: &mut Observed, prefixes: &BTreeSet<Prefix>) {
    for peer in observed.peers.values_mut() {
        peer.allowed_ips.retain(|prefix| !prefixes.contains(prefix));
    }
}

/// Disjoint allowed IPs, as the Codex guarantees: each address goes to the peer that the map names.
fn any_peers() -> impl Strategy<Value = BTreeMap<PublicKey, DesiredPeer>> {
    let owners = btree_map(2..40_u32, 0..8_u32, 0..20);
    let settings = vec((any::<Option<u8>>(), 0..3_u16, any_shared()), 8);
    (owners, settings).prop_map(|(owners, settings)| {
        let mut peers = BTreeMap::new();
        for (number, owner) in owners {
            let peer = peers.entry(key(owner)).or_insert_with(|| desired_peer(BTreeSet::new()));
            peer.allowed_ips.insert(address(number));
        }
        for (owner, (endpoint, keepalive, preshared)) in (0..).zip(settings) {
            if let Some(peer) = peers.get_mut(&key(owner)) {
                peer.endpoint = endpoint.map(|last| SocketAddr::from(([192, 0, 2, last], 51820)));
                peer.keepalive = keepalive;
                peer.preshared = preshared;
            }
        }
        peers
    })
}

fn any_shared() -> impl Strategy<Value = Option<SharedKey>> {
    (0..3_u8).prop_map(|byte| SharedKey::new([byte; 32]))
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let addresses = btree_set((0..4_u32).prop_map(address), 1..3);
    let routes = btree_set((50..54_u32).prop_map(address), 0..3);
    (any_peers(), addresses, routes, 1280..1284_u32, 1..3_u16).prop_map(
        |(peers, addresses, routes, mtu, port)| Desired {
            addresses,
            routes,
            mtu,
            listen_port: Port::new(port).unwrap(),
            ..desired(peers)
        },
    )
}

/// Whatever an earlier Codex and somebody's hand left behind.
fn any_observed() -> impl Strategy<Value = Observed> {
    let drift = btree_map(0..8_u32, (any_shared(), 0..3_u16, any::<Option<u8>>()), 0..8);
    (proptest::option::of(any_desired()), drift, any::<bool>()).prop_map(|(earlier, drift, up)| {
        let mut observed = Observed::default();
        let Some(earlier) = earlier else { return observed };
        apply(&plan(&earlier, &observed), &mut observed);
        for (number, (preshared, keepalive, roamed)) in drift {
            if let Some(peer) = observed.peers.get_mut(&key(number)) {
                peer.preshared = preshared;
                peer.keepalive = keepalive;
                peer.endpoint = roamed.map(|last| SocketAddr::from(([198, 51, 100, last], 4000)));
            }
        }
        observed.link.as_mut().unwrap().up = up;
        observed
    })
}

proptest! {
    #[test]
    fn a_plan_that_was_applied_leaves_nothing_to_do(desired in any_desired(), mut observed in any_observed()) {
        apply(&plan(&desired, &observed), &mut observed);
        prop_assert_eq!(plan(&desired, &observed), Plan::default());
        let held: Vec<_> = observed.peers.iter().map(|(key, peer)| (*key, peer.allowed_ips.clone())).collect();
        let asked: Vec<_> = desired.peers.iter().map(|(key, peer)| (*key, peer.allowed_ips.clone())).collect();
        prop_assert_eq!(held, asked);
        prop_assert_eq!(desired.peers_digest(), observed.peers_digest(&desired.overlaps));
    }

    #[test]
    fn every_step_names_something_that_differs(desired in any_desired(), observed in any_observed()) {
        let mut touched = BTreeSet::new();
        for step in plan(&desired, &observed).steps {
            let key = match step {
                Step::AddPeer(key, _) => { prop_assert!(!observed.peers.contains_key(&key)); key }
                Step::RemovePeer(key) => { prop_assert!(!desired.peers.contains_key(&key)); key }
                Step::UpdatePeer(key, _) => {
                    let (wanted, held) = (&desired.peers[&key], &observed.peers[&key]);
                    prop_assert!(wanted.allowed_ips != held.allowed_ips || wanted.keepalive != held.keepalive
                        || wanted.preshared != held.preshared || (wanted.endpoint.is_some() && wanted.endpoint != held.dialled));
                    key
                }
                _ => continue,
            };
            prop_assert!(touched.insert(key), "a peer appears twice");
        }
    }

    #[test]
    fn one_changed_peer_is_one_step(mut desired in any_desired(), number in 0..8_u32, address_number in 60..90_u32) {
        let mut observed = Observed::default();
        apply(&plan(&desired, &observed), &mut observed);
        let known = desired.peers.contains_key(&key(number));
        desired.peers.entry(key(number)).or_insert_with(|| desired_peer(BTreeSet::new()))
            .allowed_ips.insert(address(address_number));
        let steps = plan(&desired, &observed).steps;
        prop_assert_eq!(steps.len(), 1);
        match &steps[0] {
            Step::UpdatePeer(changed, change) => {
                prop_assert!(known && *changed == key(number));
                prop_assert!(change.endpoint.is_none() && change.keepalive.is_none() && change.preshared.is_none());
            }
            step => prop_assert!(!known && matches!(step, Step::AddPeer(added, _) if *added == key(number))),
        }
        desired.peers.remove(&key(number));
        let expected = if known { vec![Step::RemovePeer(key(number))] } else { vec![] };
        prop_assert_eq!(plan(&desired, &observed).steps, expected);
    }

    #[test]
    fn an_unrelated_peer_does_not_change_the_plan_of_the_others(desired in any_desired(), observed in any_observed()) {
        let other = key(1000);
        let steps = plan(&desired, &observed).steps;
        let mut with_other = desired.clone();
        with_other.peers.insert(other, desired_peer(BTreeSet::from([address(1000)])));
        let mut held = observed.clone();
        held.peers.insert(other, ObservedPeer { allowed_ips: BTreeSet::from([address(1000)]), ..ObservedPeer::default() });
        prop_assert_eq!(&plan(&with_other, &held).steps, &steps);
        let mut added = plan(&with_other, &observed).steps;
        added.retain(|step| !matches!(step, Step::AddPeer(key, _) if *key == other));
        prop_assert_eq!(&added, &steps);
        let mut removed = plan(&desired, &held).steps;
        removed.retain(|step| *step != Step::RemovePeer(other));
        prop_assert_eq!(&removed, &steps);
    }
}

#[test]
fn a_peer_that_roamed_is_left_where_it_is_until_another_endpoint_is_asked_for() {
    let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 51820));
    let mut peer = desired_peer(BTreeSet::from([address(2)]));
    peer.endpoint = Some(at(1));
    let mut wanted = desired(BTreeMap::from([(key(1), peer)]));
    let mut observed = Observed::default();
    apply(&plan(&wanted, &observed), &mut observed);
    observed.peers.get_mut(&key(1)).unwrap().endpoint = Some(at(99));
    assert!(plan(&wanted, &observed).is_empty());
    wanted.peers.get_mut(&key(1)).unwrap().endpoint = Some(at(2));
    let plan = plan(&wanted, &observed);
    assert!(matches!(&plan.steps[..], [Step::UpdatePeer(_, change)] if change.endpoint == Some(at(2))));
}

#[test]
fn a_new_key_of_a_peer_removes_the_old_one_before_it_adds_the_new_one() {
    let peers = |number| BTreeMap::from([(key(number), desired_peer(BTreeSet::from([address(2)])))]);
    let mut observed = Observed::default();
    apply(&plan(&desired(peers(2)), &observed), &mut observed);
    let steps = plan(&desired(peers(1)), &observed).steps;
    assert!(
        matches!(&steps[..], [Step::RemovePeer(old), Step::AddPeer(new, _)] if *old == key(2) && *new == key(1))
    );
}

#[test]
fn one_of_ten_thousand_peers_is_one_step() {
    let peers = (0..10_000)
        .map(|number| (key(number), desired_peer(BTreeSet::from([address(number + 2)]))))
        .collect();
    let mut wanted = desired(peers);
    let mut observed = Observed::default();
    let first = plan(&wanted, &observed);
    assert_eq!(first.steps.iter().filter(|step| matches!(step, Step::AddPeer(..))).count(), 10_000);
    for (key, peer) in &wanted.peers {
        let held = ObservedPeer { allowed_ips: peer.allowed_ips.clone(), ..ObservedPeer::default() };
        observed.peers.insert(*key, held);
    }
    wanted.peers.remove(&key(5000));
    let second = plan(&wanted, &observed);
    assert_eq!(second.steps.iter().filter(|step| matches!(step, Step::RemovePeer(_))).count(), 1);
}

#[test]
fn the_plan_reads_as_a_dry_run() {
    let mut peer = desired_peer(BTreeSet::from([address(2)]));
    peer.keepalive = 25;
    let mut observed = Observed::default();
    let wanted = desired(BTreeMap::from([(key(1), peer)]));
    let first = plan(&wanted, &observed);
    let text = format!(
        "+ link\n+ mtu 1420\n+ address 10.88.16.1/20\n~ private key of {}\n\
         + peer phone {} allowed ips 10.88.16.2/32, keepalive 25 s\n~ listen port 51820\n~ up\n",
        key(u32::MAX),
        key(1)
    );
    assert_eq!(first.to_string(), text);
    apply(&first, &mut observed);
    assert_eq!(plan(&wanted, &observed).to_string(), "");
}

#[test]
fn a_peer_that_nobody_can_be_is_cut_off() {
    let stray = PublicKey::held([0; 32]).unwrap_err();
    let mut observed = Observed { strays: [stray].into(), ..Observed::default() };
    let first = plan(&desired(BTreeMap::new()), &observed);
    assert_eq!(first.clone().cuts().steps, [Step::RemoveStray(stray)]);
    apply(&first, &mut observed);
    assert!(observed.strays.is_empty() && plan(&desired(BTreeMap::new()), &observed).is_empty());
}
