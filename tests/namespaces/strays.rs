//! Peers that somebody adds by hand with a key that is nobody's.

use sepulcher::sys::wireguard::SecretKey;

use crate::gateway::{Device, Gateway};
use crate::lab::{can_run, scratch, until, until_equal};
use crate::low_order::LOW_ORDER;

/// The base point of Curve25519, 9, with the top bit set.
const DISGUISED: &str = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA=";

#[test]
fn a_key_of_low_order_is_sent_nothing_and_removed() {
    if !can_run("a_key_of_low_order_is_sent_nothing_and_removed") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let phone = Device::new(&gateway, 0);
    gateway.bond("phone", &phone.file(""));
    let _running = gateway.running(1);
    assert!(phone.page().contains("caller"));
    let ear = "table ip ear { chain in { type filter hook input priority 0; udp dport 7777 counter; }; }";
    phone.machine.sh(&format!("nft '{ear}'"));
    let heard = || phone.machine.counted("chain ip ear in", "udp dport 7777");
    let drift = || gateway.status().unwrap().drift;
    // It takes the phone's address, and is to be dialled and kept alive at once.
    let add = |key: &str| {
        let at = format!("endpoint 192.0.2.2:7777 allowed-ips {}/32 persistent-keepalive 1", phone.address);
        gateway.machine.sh(&format!("wg set wg0 peer {key} {at}"));
    };
    for (number, key) in (1..).zip(LOW_ORDER) {
        add(key);
        until_equal("repaired drifts", &number, drift);
        let peers = gateway.machine.sh("wg show wg0 peers");
        assert_eq!(peers.trim(), phone.key.to_string(), "{key} is gone, the phone is not");
        assert!(gateway.log().contains(&format!("- peer {key}, a key of low order")), "{}", gateway.log());
        assert!(phone.page().contains("caller"), "the phone has its address back");
    }
    assert_eq!(heard(), 0, "nothing was sent to any of them");
    // Somebody's key in the same place is sent a handshake: the ear hears.
    add(&SecretKey::generate().public().to_string());
    until("the ear hears", || (heard() > 0).then_some(()));
    until_equal("repaired drifts", &8, drift);
    // One that is another key written differently is somebody's, and goes as well.
    add(DISGUISED);
    until_equal("repaired drifts", &9, drift);
    assert_eq!(gateway.machine.sh("wg show wg0 peers").trim(), phone.key.to_string());
    assert!(gateway.log().contains(&format!("- peer {DISGUISED}, a key in disguise")), "{}", gateway.log());
}
