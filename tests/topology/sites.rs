//! A second site: a router with a network behind it.

use crate::device::Device;
use crate::host::{Rights, until};
use crate::lab::{Gateway, World};

#[test]
fn site_to_site_route_carries() {
    let Some(world) = World::new("site_to_site_route_carries") else { return };
    let gateway = Gateway::new(&world, "gateway", "10.88.16.0/20");
    let site = Device::new(&world, "crypt");
    // It does not know where the gateway is: the gateway dials.
    site.host.sh(&format!(
        "wg set wg0 private-key /run/key listen-port 51820 peer {} allowed-ips 10.88.16.0/20 && \
         ip address add 10.88.16.2/20 dev wg0 && ip link set wg0 mtu 1420 up && ip address add 10.99.7.1/32 dev lo",
        gateway.key
    ));
    let archive = ["sepulcher", "stand-in", "archive", "8080"];
    let _archive = world.beside(&site.host, "archive", &archive, Rights::default());
    let remote = format!("{}:51820", site.host.outside().0);
    let lych = ["--kind", "lych", "--remote", &remote, "--keepalive", "5", "--route", "10.99.7.0/24"];
    let preshared = gateway.bond_with(&site, &lych);
    site.use_key(&gateway, preshared.as_deref());
    let page =
        until("the gateway reaches what is behind the site", || gateway.pod.get("http://10.99.7.1:8080/"));
    assert_eq!(page, "stand-in archive port 8080 path / caller 10.88.16.1\n");
    assert!(site.talks().contains("caller 10.88.16.2"), "the site itself reaches what it was granted");
    gateway.revoke(&site);
    until("the route is gone", || gateway.pod.sh("ip route show 10.99.7.0/24").is_empty().then_some(()));
    assert_eq!(gateway.pod.get("http://10.99.7.1:8080/"), None, "nothing is sent there any more");
}
