//! What peers reach of each other through real tunnels: IPv4, IPv6, and networks behind them.

use std::fs;

use crate::gateway::{Device, Gateway, SEPULCHER};
use crate::lab::{Daemon, can_run, scratch, until};

/// The laptop's addresses, and one in the network behind it.
const LAPTOP: [&str; 3] = ["10.88.16.3", "fd88::3", "10.99.1.1"];
const PHONE: [&str; 2] = ["10.88.16.2", "fd88::2"];

/// A device with addresses of both families, and a page of its own.
fn device(gateway: &Gateway, number: u8) -> (Device, Daemon) {
    let device = Device::new(gateway, number);
    device.machine.sh(&format!(
        "ip address add fd88::{}/64 dev wg0 nodad && wg set wg0 peer {} allowed-ips 10.88.16.0/20,fd88::/64,10.99.1.0/24",
        number + 2,
        gateway.key
    ));
    let mut command = device.machine.command(SEPULCHER);
    command.args(["stand-in", "page", "8080"]);
    let page = Daemon::start(command, &gateway.folder.join(format!("page{number}.log")));
    until("a device has a page", || device.machine.get("127.0.0.1", 8080, "/"));
    (device, page)
}

/// The addresses whose page a device gets.
fn reached<'a>(by: &Device, addresses: &[&'a str]) -> Vec<&'a str> {
    addresses.iter().copied().filter(|address| by.machine.get(address, 8080, "/").is_some()).collect()
}

#[test]
fn peers_reach_each_other_in_both_families_and_what_is_behind_only_when_granted() {
    if !can_run("peers_reach_each_other_in_both_families_and_what_is_behind_only_when_granted") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let law = folder.join("law/lychd.toml");
    let six = fs::read_to_string(&law).unwrap() + "network6 = \"fd88::/64\"\n";
    fs::write(&law, six).unwrap();
    // It would hand on everything: what keeps it from that is the ruleset alone.
    gateway.machine.sh("cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding");
    let ((phone, _phones), (laptop, _laptops)) = (device(&gateway, 0), device(&gateway, 1));
    phone.machine.sh("ip route add 10.99.1.0/24 dev wg0");
    laptop.machine.sh("ip address add 10.99.1.1/32 dev lo");
    let without = phone.file("address6 = \"fd88::2\"\n");
    gateway.bond("phone", &without);
    let site = "address6 = \"fd88::3\"\nkind = \"lych\"\nroutes = [\"10.99.1.0/24\"]\n";
    gateway.bond("laptop", &laptop.file(site));
    let _running = gateway.running(1);
    phone.page();
    laptop.page();
    assert_eq!(reached(&phone, &LAPTOP), [""; 0], "nobody granted it");

    gateway.bond("phone", &without.replace("[\"oculus\"]", "[\"oculus\", \"peer:laptop\"]"));
    for address in LAPTOP {
        let told = until("the laptop's page is there", || phone.machine.get(address, 8080, "/"));
        let caller = PHONE[usize::from(address.contains(':'))];
        assert!(told.contains(&format!("caller {caller}")), "{address}: {told}");
    }
    assert_eq!(reached(&laptop, &PHONE), [""; 0], "in one direction alone");

    gateway.bond("phone", &without);
    for set in ["between", "between6"] {
        until("the grant is gone", || {
            let listed = gateway.machine.sh(&format!("nft list set inet sepulcher {set}"));
            (!listed.contains("elements")).then_some(())
        });
    }
    assert_eq!(reached(&phone, &LAPTOP), [""; 0], "the grant is gone");
}
