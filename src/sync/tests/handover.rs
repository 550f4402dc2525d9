//! Two keys of one peer, addresses between two peers, places of one peer.

use super::*;

/// Number of the old key of the peer with that number.
const OLD: u32 = 500;

/// Peers of which some have an old key too, and when each key shook hands last.
fn any_overlaps() -> impl Strategy<Value = (Desired, BTreeMap<u32, Option<u64>>)> {
    let both = btree_set(0..8_u32, 1..5);
    let handshakes = vec(proptest::option::of(0..4_u64), 16);
    (any_desired(), both, handshakes).prop_map(|(mut desired, both, handshakes)| {
        for number in both {
            if let Some(peer) = desired.peers.get(&key(number)).cloned() {
                desired.peers.insert(key(OLD + number), peer);
                desired.overlaps.insert(key(OLD + number), key(number));
            }
        }
        (desired, (0..8).chain(OLD..OLD + 8).zip(handshakes).collect())
    })
}

fn shake_hands(observed: &mut Observed, handshakes: &BTreeMap<u32, Option<u64>>) {
    observed.at = 4;
    for (number, at) in handshakes {
        if let Some(peer) = observed.peers.get_mut(&key(*number)) {
            peer.traffic.last_handshake = *at;
        }
    }
}

proptest! {
    #[test]
    fn of_two_keys_the_one_in_use_holds_everything_and_then_nothing_is_left_to_do(
        (desired, handshakes) in any_overlaps(),
        mut observed in any_observed(),
    ) {
        apply(&plan(&desired, &observed), &mut observed);
        shake_hands(&mut observed, &handshakes);
        let moves = plan(&desired, &observed);
        prop_assert!(!moves.repairs(&desired), "only addresses move: {}", moves);
        apply(&moves, &mut observed);
        prop_assert_eq!(plan(&desired, &observed), Plan::default());
        prop_assert_eq!(desired.peers_digest(), observed.peers_digest(&desired.overlaps));
        for (old, new) in &desired.overlaps {
            let [was, is] = [old, new].map(|key| &observed.peers[key]);
            let (holder, loser) = match (was.traffic.last_handshake, is.traffic.last_handshake) {
                (earlier, Some(later)) if Some(later) >= earlier => (is, was),
                _ => (was, is),
            };
            prop_assert_eq!(&holder.allowed_ips, &desired.peers[new].allowed_ips);
            prop_assert!(loser.allowed_ips.is_empty());
        }
        prop_assert!(contested(&desired, &observed).is_empty());
    }

    #[test]
    fn what_is_contested_is_what_a_plan_takes_away(desired in any_desired(), mut observed in any_observed()) {
        let before: BTreeMap<_, _> = observed.peers.iter().map(|(key, peer)| (*key, peer.allowed_ips.clone())).collect();
        let contested = contested(&desired, &observed);
        apply(&plan(&desired, &observed), &mut observed);
        let mut lost = BTreeSet::new();
        for (key, had) in before {
            let has = observed.peers.get(&key).map(|peer| peer.allowed_ips.clone()).unwrap_or_default();
            lost.extend(had.difference(&has).copied());
        }
        prop_assert_eq!(contested, lost);
    }
}

#[test]
fn a_new_key_takes_over_in_one_update_when_it_has_shaken_hands_and_gives_back_when_the_old_one_does() {
    let peer = desired_peer(BTreeSet::from([address(2)]));
    let (old, new) = (key(OLD), key(1));
    let mut wanted = desired(BTreeMap::from([(old, peer.clone())]));
    let mut observed = Observed::default();
    apply(&plan(&wanted, &observed), &mut observed);
    observed.peers.get_mut(&old).unwrap().traffic.last_handshake = Some(100);
    wanted.peers.insert(new, peer);
    wanted.overlaps.insert(old, new);
    let added = plan(&wanted, &observed);
    assert!(
        matches!(&added.steps[..], [Step::AddPeer(key, peer)] if *key == new && peer.allowed_ips.is_empty())
    );
    apply(&added, &mut observed);
    for (key, at, loser) in [(new, 130, old), (old, 140, new)] {
        observed.peers.get_mut(&key).unwrap().traffic.last_handshake = Some(at);
        let moved = plan(&wanted, &observed);
        let whose: Vec<_> = moved
            .steps
            .iter()
            .map(|step| match step {
                Step::UpdatePeer(key, change) => (*key, change.allowed_ips.clone().unwrap()),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(whose, [(loser, BTreeSet::new()), (key, BTreeSet::from([address(2)]))]);
        apply(&moved, &mut observed);
    }
    // The overlap is over: the old key goes, whoever held the address.
    wanted.overlaps.clear();
    wanted.peers.remove(&old);
    apply(&plan(&wanted, &observed), &mut observed);
    assert_eq!(observed.peers.keys().copied().collect::<Vec<_>>(), [new]);
    assert_eq!(observed.peers[&new].allowed_ips, BTreeSet::from([address(2)]));
}

/// Which of two keys of a peer is to hold its address at 10,000, after these handshakes: the new one?
fn taken_over(old: Option<u64>, new: Option<u64>) -> bool {
    let peer = desired_peer(BTreeSet::from([address(2)]));
    let mut wanted = desired(BTreeMap::from([(key(OLD), peer.clone()), (key(1), peer)]));
    wanted.overlaps.insert(key(OLD), key(1));
    let mut observed = Observed { at: 10_000, ..Observed::default() };
    for (number, last_handshake) in [(OLD, old), (1, new)] {
        let traffic = Traffic { last_handshake, ..Traffic::default() };
        observed.peers.insert(key(number), ObservedPeer { traffic, ..ObservedPeer::default() });
    }
    wanted.settled(&observed).peers[&key(OLD)].allowed_ips.is_empty()
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_a_new_key_from_taking_over() {
    assert!(taken_over(Some(17_200), Some(9_990)), "the old key shook hands before the clock was set back");
    assert!(!taken_over(Some(9_990), Some(17_200)), "and the new one gives back in the same way");
    assert!(taken_over(Some(17_200), Some(17_300)), "of two from before, the later one");
    assert!(!taken_over(Some(17_200), None));
    assert!(taken_over(Some(9_000), Some(17_200)), "a session that is dead proves nothing");
}

proptest! {
    #[test]
    fn the_later_handshake_decides_and_a_living_session_comes_before_one_of_the_future(
        old in proptest::option::of(9_700..10_300_u64),
        new in proptest::option::of(9_700..10_300_u64),
    ) {
        let living = |at: Option<u64>| at.is_some_and(|at| (9_821..=10_000).contains(&at));
        let expected = match (living(old), living(new)) {
            (true, false) => false,
            (false, true) => true,
            _ => new.is_some() && new >= old,
        };
        prop_assert_eq!(taken_over(old, new), expected);
        if old.max(new) <= Some(10_000) {
            prop_assert_eq!(expected, new.is_some() && new >= old, "nothing else where no clock was set back");
        }
    }
}

#[test]
fn a_preshared_key_is_changed_in_place_and_never_shown() {
    let shared = |byte| SharedKey::new([byte; 32]);
    let mut peer = desired_peer(BTreeSet::from([address(2)]));
    peer.preshared = shared(7);
    let mut wanted = desired(BTreeMap::from([(key(1), peer)]));
    let mut observed = Observed::default();
    apply(&plan(&wanted, &observed), &mut observed);
    for (to, told) in [(shared(8), ", another preshared key"), (None, ", without its preshared key")] {
        wanted.peers.get_mut(&key(1)).unwrap().preshared = to;
        let changed = plan(&wanted, &observed);
        assert_eq!(changed.to_string(), format!("~ peer phone {}{told}\n", key(1)));
        apply(&changed, &mut observed);
    }
    assert!(plan(&wanted, &observed).is_empty());
}

/// One peer with an endpoint and what is held of it.
fn dialled(keepalive: u16, last_handshake: Option<u64>) -> (Desired, Observed) {
    let mut peer = desired_peer(BTreeSet::from([address(2)]));
    peer.endpoint = Some(place(1));
    peer.keepalive = keepalive;
    let wanted = desired(BTreeMap::from([(key(1), peer)]));
    let mut observed = Observed::default();
    apply(&plan(&wanted, &observed), &mut observed);
    let held = observed.peers.get_mut(&key(1)).unwrap();
    held.endpoint = Some(place(99));
    held.traffic.last_handshake = last_handshake;
    (wanted, observed)
}

fn place(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 51820))
}

fn dials(wanted: &Desired, observed: &mut Observed, asked: Option<SocketAddr>) -> Option<SocketAddr> {
    let asked = asked.map(|endpoint| (key(1), Asked { endpoint, named: None })).into_iter().collect();
    observed.at = 1000;
    observed.note_dialled(wanted, &asked);
    match &plan(wanted, observed).steps[..] {
        [] => None,
        [Step::UpdatePeer(_, change)] => change.endpoint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_agent_that_starts_anew_leaves_a_living_peer_where_it_roamed_to() {
    let (wanted, mut observed) = dialled(25, Some(900));
    assert_eq!(dials(&wanted, &mut observed, None), None);
    // Another endpoint than the one that was asked for is dialled all the same.
    assert_eq!(dials(&wanted, &mut observed, Some(place(7))), Some(place(1)));
    let (wanted, mut observed) = dialled(25, Some(800));
    assert_eq!(dials(&wanted, &mut observed, None), Some(place(1)), "its session is dead");
}

#[test]
fn a_peer_that_is_kept_alive_and_fell_silent_is_dialled_where_the_codex_says() {
    for (keepalive, last_handshake, expected) in [
        (25, Some(800), Some(place(1))),
        (25, Some(900), None),
        (25, None, Some(place(1))),
        (0, Some(800), None),
    ] {
        let (wanted, mut observed) = dialled(keepalive, last_handshake);
        let dialled = dials(&wanted, &mut observed, Some(place(1)));
        assert_eq!(dialled, expected, "keepalive {keepalive}, handshake {last_handshake:?}");
        assert!(!plan(&wanted, &observed).repairs(&wanted), "that is nobody's doing");
    }
}

/// A peer that is dialled by a name, one look of the agent after another.
struct Named {
    wanted: Desired,
    observed: Observed,
    asked: BTreeMap<PublicKey, Asked>,
}

impl Named {
    /// Not yet dialled.
    fn new(keepalive: u16) -> Self {
        let mut peer = desired_peer(BTreeSet::from([address(2)]));
        peer.keepalive = keepalive;
        let wanted = desired(BTreeMap::from([(key(1), peer)]));
        Self { wanted, observed: Observed { at: 1000, ..Observed::default() }, asked: BTreeMap::new() }
    }

    /// A look, when the Codex names `host` and `port`, and that has this address. Tells which names it would look up.
    fn look(&mut self, host: &str, port: u16, address: Option<u8>) -> Vec<String> {
        let mut wanted = self.wanted.clone();
        let peer = wanted.peers.get_mut(&key(1)).unwrap();
        peer.named = Some((host.parse().unwrap(), Port::new(port).unwrap()));
        peer.endpoint = address.map(|last| SocketAddr::from(([192, 0, 2, last], port)));
        wanted.hold_living(&self.observed, &self.asked);
        self.observed.note_dialled(&wanted, &self.asked);
        apply(&plan(&wanted, &self.observed), &mut self.observed);
        self.asked = wanted.asked(&self.asked);
        wanted.stale_names(&self.observed).iter().map(ToString::to_string).collect()
    }

    /// Its last handshake, and the place where it is since, if that is another.
    fn meet(&mut self, at: u64, place: Option<u8>) {
        let held = self.observed.peers.get_mut(&key(1)).unwrap();
        held.traffic.last_handshake = Some(at);
        held.endpoint = place.map(|last| SocketAddr::from(([192, 0, 2, last], 4000))).or(held.endpoint);
    }

    fn endpoint(&self) -> Option<String> {
        self.observed.peers[&key(1)].endpoint.map(|endpoint| endpoint.to_string())
    }
}

#[test]
fn another_address_of_a_name_is_dialled_when_the_session_is_dead_and_not_before() {
    for keepalive in [25, 0] {
        let mut peer = Named::new(keepalive);
        assert_eq!(peer.look("lych.example", 51820, None), ["lych.example"], "it has no address");
        assert_eq!(peer.endpoint(), None);
        assert_eq!(peer.look("lych.example", 51820, Some(1)), ["lych.example"], "it has no session");
        assert_eq!(peer.endpoint().unwrap(), "192.0.2.1:51820");
        peer.meet(990, None);
        for _ in 0..2 {
            assert!(peer.look("lych.example", 51820, Some(7)).is_empty(), "nothing to ask");
            assert_eq!(peer.endpoint().unwrap(), "192.0.2.1:51820", "it is left where it is");
        }
        peer.observed.at = 990 + 180;
        assert_eq!(peer.look("lych.example", 51820, Some(7)), ["lych.example"]);
        assert_eq!(peer.endpoint().unwrap(), "192.0.2.7:51820", "keepalive {keepalive}");
    }
}

#[test]
fn another_name_or_port_in_the_codex_is_dialled_at_once() {
    let mut peer = Named::new(25);
    peer.look("lych.example", 51820, Some(1));
    peer.meet(990, None);
    peer.look("lych.example", 4000, Some(1));
    assert_eq!(peer.endpoint().unwrap(), "192.0.2.1:4000");
    assert_eq!(peer.look("other.example", 4000, None), ["other.example"], "its address is not known");
    assert_eq!(peer.endpoint().unwrap(), "192.0.2.1:4000");
    assert!(peer.look("other.example", 4000, Some(3)).is_empty());
    assert_eq!(peer.endpoint().unwrap(), "192.0.2.3:4000");
}

#[test]
fn an_agent_that_starts_anew_dials_a_name_when_the_session_is_dead() {
    for keepalive in [25, 0] {
        let mut peer = Named::new(keepalive);
        peer.look("lych.example", 51820, Some(1));
        peer.meet(990, Some(99));
        peer.asked.clear();
        for address in [None, Some(7), Some(7)] {
            peer.look("lych.example", 51820, address);
            assert_eq!(peer.endpoint().unwrap(), "192.0.2.99:4000", "it roamed there");
        }
        peer.observed.at = 990 + 180;
        peer.look("lych.example", 51820, Some(7));
        assert_eq!(peer.endpoint().unwrap(), "192.0.2.7:51820", "keepalive {keepalive}");
    }
}

#[test]
fn a_prefix_contains_its_own_addresses() {
    let prefix = |text: &str, length| Prefix { address: text.parse().unwrap(), length };
    let contains = |prefix: Prefix, text: &str| prefix.contains(text.parse().unwrap());
    assert!(
        contains(prefix("10.88.16.0", 20), "10.88.31.255")
            && !contains(prefix("10.88.16.0", 20), "10.88.32.0")
    );
    assert!(contains(prefix("0.0.0.0", 0), "192.0.2.1") && !contains(prefix("0.0.0.0", 0), "::1"));
    assert!(contains(prefix("fd88::", 64), "fd88::9") && !contains(prefix("fd88::", 64), "fd88:0:0:1::"));
    assert!(
        contains(prefix("10.88.16.2", 32), "10.88.16.2") && !contains(prefix("10.88.16.2", 32), "10.88.16.3")
    );
}
