use super::*;

fn key(number: u8) -> PublicKey {
    PublicKey::try_from([number; 32]).unwrap()
}

#[test]
fn a_plan_without_wireguard_steps_sends_nothing() {
    let plan = Plan { steps: vec![Step::CreateLink, Step::BringUp] };
    assert_eq!(update(&plan, &SecretKey::generate()), None);
}

#[test]
fn a_changed_keepalive_leaves_allowed_ips_and_endpoint_out_of_the_update() {
    let change = PeerChange {
        name: "phone".parse().unwrap(),
        allowed_ips: None,
        endpoint: None,
        keepalive: Some(25),
        preshared: None,
    };
    let plan = Plan { steps: vec![Step::UpdatePeer(key(9), change)] };
    let expected = DeviceUpdate::new()
        .add_peer(PeerConfigBuilder::new(&Key([9; 32])).set_persistent_keepalive_interval(25));
    assert_eq!(update(&plan, &SecretKey::generate()), Some(expected));
}

#[test]
fn new_allowed_ips_replace_the_old_ones() {
    let peer = DesiredPeer {
        name: "phone".parse().unwrap(),
        allowed_ips: BTreeSet::from([Prefix::host([10, 88, 16, 2])]),
        endpoint: None,
        named: None,
        keepalive: 0,
        preshared: None,
    };
    let plan = Plan { steps: vec![Step::RemovePeer(key(8)), Step::AddPeer(key(9), peer)] };
    let expected = DeviceUpdate::new().remove_peer_by_key(&Key([8; 32])).add_peer(
        PeerConfigBuilder::new(&Key([9; 32]))
            .replace_allowed_ips()
            .add_allowed_ip([10, 88, 16, 2].into(), 32),
    );
    assert_eq!(update(&plan, &SecretKey::generate()), Some(expected));
}

#[test]
fn the_private_key_is_sent_when_the_plan_sets_it() {
    let secret = SecretKey::generate();
    let plan = Plan { steps: vec![Step::SetKey(secret.public())] };
    let expected = DeviceUpdate::new().set_private_key(secret.to_control());
    assert_eq!(update(&plan, &secret), Some(expected));
}

#[test]
fn a_peer_that_is_told_in_parts_is_one_peer() {
    let part = |last: u8, received| {
        let mut part = PeerInfo::from_public_key(Key([9; 32]));
        part.config.allowed_ips =
            vec![wireguard_control::AllowedIp { address: [10, 88, 16, last].into(), cidr: 32 }];
        part.stats.rx_bytes = received;
        part
    };
    let (peers, _) = collect(&[part(2, 7), part(3, 0)]);
    let allowed_ips = [2, 3].map(|last| Prefix::host([10, 88, 16, last]));
    assert_eq!(peers[&key(9)].allowed_ips, allowed_ips.into());
    assert_eq!((peers.len(), peers[&key(9)].traffic.received), (1, 7));
}

#[test]
fn a_peer_whose_key_is_nobodys_is_seen_and_removed() {
    let mut twin = [9; 32];
    twin[31] |= 0x80;
    let (peers, strays) =
        collect(&[[0; 32], [9; 32], twin].map(|bytes| PeerInfo::from_public_key(Key(bytes))));
    assert_eq!(peers.keys().collect::<Vec<_>>(), [&key(9)]);
    let plan = Plan { steps: strays.into_iter().map(Step::RemoveStray).collect() };
    let told = "- peer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=, a key of low order\n\
                - peer CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCYk=, a key in disguise\n";
    assert_eq!(plan.to_string(), told);
    let expected = DeviceUpdate::new().remove_peer_by_key(&Key([0; 32])).remove_peer_by_key(&Key(twin));
    assert_eq!(update(&plan, &SecretKey::generate()), Some(expected));
}

#[test]
fn a_preshared_key_of_zeros_is_none() {
    let mut peer = PeerInfo::from_public_key(Key([9; 32]));
    assert_eq!(observed(&peer).preshared, None);
    peer.config.preshared_key = Some(Key([0; 32]));
    assert_eq!(observed(&peer).preshared, None);
    peer.config.preshared_key = Some(Key([7; 32]));
    assert_eq!(observed(&peer).preshared, SharedKey::new([7; 32]));
}

#[test]
fn a_preshared_key_is_set_and_removed_in_place() {
    let sent = |preshared| {
        let name = "phone".parse().unwrap();
        let change = PeerChange {
            name,
            allowed_ips: None,
            endpoint: None,
            keepalive: None,
            preshared: Some(preshared),
        };
        update(&Plan { steps: vec![Step::UpdatePeer(key(9), change)] }, &SecretKey::generate()).unwrap()
    };
    let builder = || PeerConfigBuilder::new(&Key([9; 32]));
    let shared = PresharedChange::Set(SharedKey::new([7; 32]).unwrap());
    assert_eq!(sent(shared), DeviceUpdate::new().add_peer(builder().set_preshared_key(Key([7; 32]))));
    assert_eq!(sent(PresharedChange::Remove), DeviceUpdate::new().add_peer(builder().unset_preshared_key()));
}

#[test]
fn one_of_ten_thousand_peers_is_one_in_the_update_and_all_of_them_are_encoded_once() {
    let secret = SecretKey::generate();
    let peers = (0..10_000_u32).map(|number| {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let wanted = DesiredPeer {
            name: "phone".parse().unwrap(),
            allowed_ips: BTreeSet::from([Prefix::host(std::net::Ipv4Addr::from_bits(0x0a58_1002 + number))]),
            endpoint: None,
            named: None,
            keepalive: 0,
            preshared: SharedKey::new(bytes),
        };
        (PublicKey::try_from(bytes).unwrap(), wanted)
    });
    let desired = crate::sync::Desired {
        public_key: secret.public(),
        listen_port: Port::new(51820).unwrap(),
        mtu: 1420,
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        peers: peers.collect(),
        overlaps: BTreeMap::new(),
    };
    let whole = desired
        .peers
        .iter()
        .fold(DeviceUpdate::new().set_private_key(secret.to_control()), |update, (key, peer)| {
            update.add_peer(added(key, peer))
        });
    let first = crate::sync::plan(&desired, &crate::sync::Observed::default());
    assert_eq!(update(&first, &secret), Some(whole.set_listen_port(51820)));
    let mut observed = crate::sync::Observed {
        link: Some(crate::sync::ObservedLink { up: true, mtu: 1420, ..Default::default() }),
        public_key: Some(secret.public()),
        listen_port: Some(desired.listen_port),
        ..Default::default()
    };
    for (key, peer) in &desired.peers {
        let (allowed_ips, preshared) = (peer.allowed_ips.clone(), peer.preshared.clone());
        observed.peers.insert(*key, ObservedPeer { allowed_ips, preshared, ..ObservedPeer::default() });
    }
    let (key, _) = observed.peers.pop_first().unwrap();
    let second = crate::sync::plan(&desired, &observed);
    let expected = DeviceUpdate::new().add_peer(added(&key, &desired.peers[&key]));
    assert_eq!(update(&second, &secret), Some(expected));
}

#[test]
fn an_obstacle_names_its_remedy() {
    let read = |kind: io::ErrorKind| Error::Read { name: "wg0".into(), source: kind.into() };
    assert!(read(io::ErrorKind::PermissionDenied).remedy().unwrap().contains("CAP_NET_ADMIN"));
    assert!(read(io::ErrorKind::NotFound).remedy().unwrap().contains("wireguard-go"));
    assert_eq!(read(io::ErrorKind::Other).remedy(), None);
}
