//! Peers that are dialled by a host name.

use std::fs;

use sepulcher::sys::wireguard::SecretKey;

use crate::gateway::{Device, Gateway};
use crate::lab::{can_run, scratch, until, until_equal};

/// A gateway that knows host names from a file of its own.
fn gateway(folder: &std::path::Path) -> Gateway {
    let gateway = Gateway::new(folder);
    let hosts = folder.join("hosts");
    fs::write(&hosts, "").unwrap();
    gateway.machine.sh(&format!("mount --bind {} /etc/hosts", hosts.display()));
    gateway
}

/// Lets the name stand for that address.
fn name(gateway: &Gateway, address: &str) {
    fs::write(gateway.folder.join("hosts"), format!("{address} crypt.example\n")).unwrap();
}

/// Waits until the agent has looked a few times more.
fn several_looks(gateway: &Gateway) {
    let written = || gateway.status().map_or(0, |status| status.written_ms);
    for _ in 0..4 {
        let before = written();
        until("the agent looks", || (written() > before).then_some(()));
    }
}

#[test]
fn another_address_of_a_name_is_dialled_when_the_session_is_gone_and_moves_no_living_one() {
    if !can_run("another_address_of_a_name_is_dialled_when_the_session_is_gone_and_moves_no_living_one") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = gateway(&folder);
    let crypt = Device::new(&gateway, 0);
    crypt.machine.sh("wg set wg0 listen-port 51820 && ip address add 198.51.100.7/32 dev eth0");
    gateway.machine.sh("ip route add 198.51.100.7/32 via 192.0.2.2 src 10.88.0.10");
    name(&gateway, "192.0.2.2");
    let lych = "kind = \"lych\"\nendpoint = \"crypt.example:51820\"\nkeepalive = 1\n";
    gateway.bond("crypt", &crypt.file(lych));
    let _running = gateway.running(1);
    let endpoint = || {
        let shown = gateway.machine.sh("wg show wg0 endpoints");
        shown.lines().find_map(|line| line.strip_prefix(&format!("{}\t", crypt.key)).map(str::to_owned))
    };
    until_equal("the endpoint", &Some("192.0.2.2:51820".to_owned()), endpoint);
    until("it was reached", || gateway.peer(crypt.key)["last_handshake"].as_u64());
    until("it has sent something", || {
        gateway.peer(crypt.key)["received_bytes"].as_u64().filter(|sum| *sum > 0)
    });
    let before = gateway.session(&crypt);
    name(&gateway, "198.51.100.7");
    several_looks(&gateway);
    assert_eq!(endpoint().unwrap(), "192.0.2.2:51820", "{}", gateway.log());
    gateway.assert_untouched(&crypt, &before);

    // It is there no more and its session goes; what the agent repairs is a peer that has none.
    let mute = "table ip mute { chain in { type filter hook input priority 0; ip daddr 192.0.2.2 udp dport 51820 drop; }; }";
    crypt.machine.sh(&format!("nft '{mute}'"));
    crypt.machine.sh("ip route replace 10.88.0.10 via 192.0.2.1 src 198.51.100.7");
    crypt.disconnect();
    crypt.machine.sh(&format!("wg set wg0 peer {} allowed-ips 10.88.16.0/20", gateway.key));
    gateway.machine.sh(&format!("wg set wg0 peer {} remove", crypt.key));
    until_equal("the endpoint", &Some("198.51.100.7:51820".to_owned()), endpoint);
    until("it is reached there", || gateway.peer(crypt.key)["last_handshake"].as_u64());
    assert_eq!(endpoint().unwrap(), "198.51.100.7:51820");
    assert_eq!(gateway.status().unwrap().drift, 1, "{}", gateway.log());
}

#[test]
fn a_name_that_nobody_knows_holds_nobody_up() {
    if !can_run("a_name_that_nobody_knows_holds_nobody_up") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = gateway(&folder);
    let phone = Device::new(&gateway, 0);
    gateway.bond("phone", &phone.file(""));
    let lost = SecretKey::generate().public();
    let lych = "kind = \"lych\"\nendpoint = \"nowhere.invalid:51820\"\nkeepalive = 25\n";
    gateway.bond("lost", &format!("public-key = \"{lost}\"\naddress = \"10.88.16.9\"\ngrants = []\n{lych}"));
    let _running = gateway.running(1);
    assert!(phone.page().contains("caller"));
    assert_eq!(gateway.held(), 2);
    assert!(gateway.peer(lost)["endpoint"].is_null(), "it is bonded, and may dial us");
    let before = gateway.session(&phone);
    several_looks(&gateway);
    gateway.assert_untouched(&phone, &before);
}
