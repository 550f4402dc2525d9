//! The life of a bond against real packets: preshared keys, expiry, two keys at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sepulcher::codex::key::SharedKey;
use sepulcher::codex::time::Timestamp;

use crate::gateway::{Device, Gateway};
use crate::lab::{can_run, scratch, until, until_equal};

fn shared(byte: u8) -> SharedKey {
    SharedKey::new([byte; 32]).unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn in_seconds(seconds: u64) -> Timestamp {
    Timestamp::from_epoch(now() + seconds)
}

#[test]
fn a_preshared_key_lets_in_who_has_it_and_nobody_else() {
    if !can_run("a_preshared_key_lets_in_who_has_it_and_nobody_else") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (mut phone, mut laptop, plain) =
        (Device::new(&gateway, 0), Device::new(&gateway, 1), Device::new(&gateway, 2));
    gateway.share("phone", 1, &shared(7));
    gateway.share("laptop", 1, &shared(8));
    phone.share(&gateway, &shared(7));
    laptop.share(&gateway, &shared(9));
    gateway.bond("phone", &phone.file("preshared = true\n"));
    gateway.bond("laptop", &laptop.file("preshared = true\n"));
    gateway.bond("plain", &plain.file(""));
    // Long enough that what follows is the watching, not the looking.
    let _running = gateway.running(60);
    assert!(phone.page().contains("caller"));
    assert_eq!(laptop.try_page(), None, "a wrong preshared key gets nothing");
    let before = gateway.session(&phone);
    gateway.share("laptop", 1, &shared(9));
    assert!(laptop.page().contains("caller"), "the right one does, once the host has it");

    std::fs::remove_file(folder.join("secrets/peers/laptop.1.psk")).unwrap();
    let told = until("the missing key is told", || gateway.status()?.broken.pop());
    assert_eq!(told.file, "peers/laptop.toml");
    assert!(told.reason.contains("sepulcher peer rotate laptop"), "{}", told.reason);
    until_equal("the number of peers", &2, || gateway.held());
    assert_eq!(laptop.try_page(), None);
    assert!(plain.page().contains("caller"), "the others go on");
    gateway.assert_untouched(&phone, &before);
    assert!(!gateway.log().contains(shared(7).to_text().as_str()), "no key in the log");
}

#[test]
fn an_expired_peer_is_cut_at_its_second() {
    if !can_run("an_expired_peer_is_cut_at_its_second") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (guest, phone) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    gateway.bond("guest", &guest.file(""));
    gateway.bond("phone", &phone.file(""));
    let _running = gateway.running(60);
    assert!(guest.page().contains("caller") && phone.page().contains("caller"));
    let before = gateway.session(&phone);
    let end = in_seconds(4);
    gateway.bond("guest", &guest.file(&format!("expires = {end}\n")));
    until("the guest is cut", || (gateway.held() == 1).then_some(()));
    let cut = now();
    assert!((end.epoch()..=end.epoch() + 2).contains(&cut), "cut at {cut}, expired at {}", end.epoch());
    assert!(!gateway.machine.sh("nft list set inet sepulcher grants").contains(&guest.address));
    assert_eq!(guest.try_page(), None);
    gateway.assert_untouched(&phone, &before);
    assert_eq!(gateway.status().unwrap().drift, 0, "{}", gateway.log());
    gateway.bond("guest", &guest.file(&format!("expires = {}\n", in_seconds(3600))));
    assert!(guest.page().contains("caller"), "who is extended is back");
}

#[test]
fn two_keys_of_a_peer_work_in_turn_until_the_overlap_is_over() {
    if !can_run("two_keys_of_a_peer_work_in_turn_until_the_overlap_is_over") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (old, other) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    let mut new = Device::at(&gateway, 2, &old.address);
    gateway.bond("phone", &old.file(""));
    gateway.bond("laptop", &other.file(""));
    let _running = gateway.running(60);
    assert!(old.page().contains("caller") && other.page().contains("caller"));
    let before = gateway.session(&other);

    let end = in_seconds(30);
    let overlap = format!("generation = 2\n[overlap]\npublic-key = \"{}\"\nuntil = {end}\n", old.key);
    gateway.share("phone", 2, &shared(2));
    new.share(&gateway, &shared(2));
    gateway.bond("phone", &new.file(&format!("preshared = true\n{overlap}")));
    until_equal("the number of keys", &3, || gateway.held());
    assert!(old.page().contains("caller"), "the old key holds the address until the new one is used");
    assert!(new.page().contains("caller"), "the new one takes it over by its handshake");
    // Only one of them is in use: the other one's timers would take the address back.
    new.disconnect();
    std::thread::sleep(Duration::from_secs(1));
    old.reconnect();
    assert!(old.page().contains("caller"), "and the old one back by its own");
    assert!(now() < end.epoch(), "all of that within the overlap: make it longer on a slow machine");
    until_equal("the number of keys", &2, || gateway.held());
    assert!(now() >= end.epoch());
    new.reconnect();
    assert!(new.page().contains("caller"));
    assert_eq!(old.try_page(), None, "the old key is over");
    gateway.assert_untouched(&other, &before);
    assert_eq!(gateway.status().unwrap().drift, 0, "{}", gateway.log());
}

#[test]
fn a_new_key_and_a_new_agent_leave_every_other_tunnel_alone() {
    if !can_run("a_new_key_and_a_new_agent_leave_every_other_tunnel_alone") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (old, other) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    let new = Device::at(&gateway, 2, &old.address);
    gateway.bond("phone", &old.file(""));
    gateway.bond("laptop", &other.file(""));
    let [_oculus, agent] = gateway.running(1);
    assert!(old.page().contains("caller") && other.page().contains("caller"));
    let before = gateway.session(&other);
    gateway.bond("phone", &new.file("generation = 2\n"));
    assert!(new.page().contains("caller"));
    assert_eq!(old.try_page(), None);
    drop(agent);
    gateway.bond("phone", &old.file("generation = 3\n"));
    assert_eq!(old.try_page(), None);
    let peers = gateway.machine.sh("wg show wg0 peers");
    assert!(!peers.contains(&old.key.to_string()), "nobody looks meanwhile");
    let _agent = gateway.agent();
    assert!(old.page().contains("caller"), "what changed meanwhile is in force");
    assert_eq!(new.try_page(), None);
    gateway.assert_untouched(&other, &before);
}

#[test]
fn a_bond_that_broke_while_no_agent_ran_keeps_its_tunnel_and_its_grants() {
    if !can_run("a_bond_that_broke_while_no_agent_ran_keeps_its_tunnel_and_its_grants") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (phone, laptop) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    gateway.bond("phone", &phone.file(""));
    gateway.bond("laptop", &laptop.file(""));
    let [_oculus, agent] = gateway.running(1);
    assert!(phone.page().contains("caller") && laptop.page().contains("caller"));
    let kept = folder.join("last-good/peers/laptop.toml");
    until("the bonds are kept", || kept.exists().then_some(()));
    drop(agent);
    std::fs::remove_file(folder.join("tether.json")).unwrap();
    gateway.bond("phone", "public-key = 7\n");
    gateway.bond("laptop", &laptop.file("state = \"revoked\"\nslip\n"));
    let before = gateway.peer(phone.key)["received_bytes"].as_u64().unwrap();
    let _agent = gateway.agent();
    gateway.ready();
    let broken = gateway.status().unwrap().broken;
    let told: Vec<_> = broken.iter().map(|one| (one.file.as_str(), one.last_good)).collect();
    assert_eq!(told, [("peers/laptop.toml", false), ("peers/phone.toml", true)]);
    assert_eq!(gateway.held(), 1);
    assert!(phone.page().contains("caller"), "a broken file does not cut its peer off");
    assert_eq!(laptop.try_page(), None, "what is kept brings nobody back");
    assert!(gateway.peer(phone.key)["received_bytes"].as_u64().unwrap() > before, "it is the peer of before");
    assert!(!gateway.log().contains(&phone.key.to_string()), "and nothing was done to it");
    until("who is revoked is forgotten", || (!kept.exists()).then_some(()));
}
