//! One agent takes the place of another, and bonds are put back: devices that nobody touched notice nothing.

use age::secrecy::ExposeSecret as _;

use crate::device::Device;
use crate::engine;
use crate::host::until;
use crate::lab::{Gateway, World};
use crate::pause::Watch;

const TETHER: &str = "10.88.16.0/20";
const ADDRESSES: [&str; 4] = ["10.88.16.2", "10.88.16.3", "10.88.16.4", "10.88.16.5"];

/// Bonds devices in this order, so that they get these addresses, and waits until each has a page.
fn bonded<'a>(gateway: &Gateway, devices: impl IntoIterator<Item = (&'a Device, &'static str)>) {
    for (device, address) in devices {
        let preshared = gateway.bond(device);
        device.dial(gateway, address, preshared.as_deref());
        device.talks();
    }
}

fn left(gateway: &Gateway, device: &Device) {
    until("it has left the kernel", || gateway.traffic(device).is_none().then_some(()));
}

#[test]
fn agent_of_another_image_goes_on_where_the_last_one_ended() {
    let Some(world) = World::alone("agent_of_another_image_goes_on_where_the_last_one_ended") else { return };
    let gateway = Gateway::new(&world, "gateway", TETHER);
    let [phone, laptop, tablet, stylus] =
        ["phone", "laptop", "tablet", "stylus"].map(|name| Device::new(&world, name));
    let (next, before) = (engine::next(), gateway.agent.try_sh("cat /usr/share/release"));
    assert!(before.is_err(), "the first image is the next one already: {before:?}");
    bonded(&gateway, [&phone, &laptop, &tablet].into_iter().zip(ADDRESSES));
    let watch = Watch::of(&gateway, [&laptop, &tablet]);

    // What is changed while there is no agent is in force once there is one again.
    let mut preshared = None;
    let gateway = gateway.replace_agent(&world, next, |gateway| {
        gateway.revoke(&phone);
        preshared = gateway.bond(&stylus);
    });
    assert_eq!(gateway.agent.sh("cat /usr/share/release"), "2\n");
    left(&gateway, &phone);
    assert_eq!(phone.page(), None, "who was revoked in between gets nothing");
    stylus.dial(&gateway, ADDRESSES[3], preshared.as_deref());
    stylus.talks();
    watch.saw_no_pause(&gateway);
}

#[test]
fn restored_bonds_are_followed_and_untouched_peers_stream_on() {
    let Some(world) = World::alone("restored_bonds_are_followed_and_untouched_peers_stream_on") else {
        return;
    };
    let gateway = Gateway::new(&world, "gateway", TETHER);
    let [phone, laptop, tablet, stylus] =
        ["phone", "laptop", "tablet", "stylus"].map(|name| Device::new(&world, name));
    bonded(&gateway, [&phone, &laptop, &tablet].into_iter().zip(ADDRESSES));
    let watch = Watch::of(&gateway, [&laptop, &tablet]);

    gateway.snapshot(&["create"]);
    gateway.peer(&["ungrant", "tablet", "oculus"]);
    gateway.revoke(&phone);
    bonded(&gateway, [(&stylus, ADDRESSES[3])]);
    until("the tablet is denied", || tablet.page().is_none().then_some(()));
    gateway.snapshot(&["restore"]);
    left(&gateway, &stylus);
    assert_eq!(stylus.page(), None, "who was bonded later is out");
    left(&gateway, &phone);
    assert_eq!(phone.page(), None, "who was revoked later stays out");
    tablet.talks();
    watch.saw_no_pause(&gateway);
    gateway.audit();
}

#[test]
fn another_machine_takes_bonds_and_key_and_devices_change_nothing() {
    let Some(world) = World::new("another_machine_takes_bonds_and_key_and_devices_change_nothing") else {
        return;
    };
    let lost = Gateway::new(&world, "gateway", TETHER);
    let (phone, stranger) = (Device::new(&world, "phone"), Device::new(&world, "stranger"));
    bonded(&lost, [(&phone, ADDRESSES[0])]);
    let identity = age::x25519::Identity::generate();
    let travel = world.folder("travel");
    let [file, key] = ["bonds.age", "key"].map(|name| travel.join(name));
    std::fs::write(&key, identity.to_string().expose_secret()).unwrap();
    let [file, key] = [file, key].map(|path| path.display().to_string());
    let recipient = identity.to_public().to_string();
    lost.snapshot(&["create", "--with-identity"]);
    lost.snapshot(&["export", &file, "--with-identity", "--recipient", &recipient]);
    lost.agent.kill();
    // It keeps its address on the network, so that the other one gets its own back when it starts again.
    lost.pod.sh("ip link set eth0 down");

    let mut gateway = Gateway::new(&world, "another", TETHER);
    bonded(&gateway, [(&stranger, ADDRESSES[0])]);
    gateway.snapshot(&["import", &file, "--identity", &key]);
    gateway.snapshot(&["restore", "--with-identity"]);
    gateway.reboot();
    gateway.key = lost.key;
    // What the name of the endpoint stands for is all that has changed.
    phone.host.sh(&format!("wg set wg0 peer {} endpoint {}:51820", lost.key, gateway.outside));
    assert_eq!(gateway.pod.sh("wg show wg0 public-key").trim(), lost.key.to_string());
    let page = phone.talks();
    assert!(page.contains(ADDRESSES[0]), "the same address: {page}");
    assert_eq!(stranger.page(), None, "whom the other machine knew before is not in the snapshot");
}
