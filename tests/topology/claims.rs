//! What a device can do while it is bonded, and cannot do any more.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::device::Device;
use crate::ear::Ear;
use crate::host::{until, within};
use crate::lab::{Gateway, World};
use crate::scene::{Verdict, caught, silent};

/// The tunnel's address space at the gateway, and the first address that it gives away.
const TETHER: &str = "10.88.16.0/20";
const FIRST: &str = "10.88.16.2";
const SECOND: &str = "10.88.16.3";

/// How soon a change of the bonds has taken effect.
const AT_ONCE: Duration = Duration::from_secs(3);

/// What the gateway sends.
fn from(gateway: &Gateway) -> String {
    format!("ip and src {}", gateway.outside)
}

/// That a device gets nothing from the gateway by the tunnel, and not one packet that answers its tries.
fn hears_nothing(world: &World, gateway: &Gateway, device: &Device) -> Verdict {
    let ear = Ear::at(world, &device.host, &from(gateway));
    silent("the Oculus", device.page())?;
    let heard = ear.heard();
    if !heard.is_empty() {
        return Err(format!("the gateway sent: {heard}"));
    }
    // An ear that is deaf would have heard nothing either.
    gateway.pod.sh(&format!("echo hearing > /dev/udp/{}/9", device.host.outside().0));
    match ear.heard() {
        heard if heard.contains("UDP, length 8") => Ok(()),
        heard => Err(format!("the ear is deaf: {heard:?}")),
    }
}

#[test]
fn bonded_peer_talks() {
    let Some(world) = World::new("bonded_peer_talks") else { return };
    let gateway = Gateway::new(&world, "gateway", TETHER);
    let (phone, stranger) = (Device::new(&world, "phone"), Device::new(&world, "stranger"));
    let preshared = gateway.bond(&phone);
    phone.dial(&gateway, FIRST, preshared.as_deref());
    let page = phone.talks();
    assert_eq!(page, format!("stand-in oculus port 6006 path /traces caller {FIRST}\n"));
    assert_eq!(phone.host.get("http://10.88.16.1:9464/"), None, "nobody granted it the worker");

    stranger.dial(&gateway, SECOND, None);
    hears_nothing(&world, &gateway, &stranger).unwrap_or_else(|found| panic!("nobody bonded it: {found}"));
    let ear = Ear::at(&world, &stranger.host, &from(&gateway));
    let url = format!("http://{}:6006/traces", gateway.outside);
    assert_eq!(stranger.host.get(&url), None, "the service is inside the tunnel alone");
    assert_eq!(ear.heard(), "", "nor does the gateway refuse it");
    drop(ear);

    // Somebody lets it in by hand, and no agent mends that: it has no grant, but is answered.
    gateway.agent.kill();
    gateway.pod.sh(&format!("wg set wg0 peer {} allowed-ips {SECOND}/32", stranger.key));
    let found = until("the stranger is answered", || hears_nothing(&world, &gateway, &stranger).err());
    caught("a stranger is let in", Err(found), "the gateway sent: ");
}

#[test]
fn revoked_peer_falls_silent_at_once() {
    let Some(world) = World::new("revoked_peer_falls_silent_at_once") else { return };
    let gateway = Gateway::new(&world, "gateway", TETHER);
    let (phone, laptop) = (Device::new(&world, "phone"), Device::new(&world, "laptop"));
    for (device, address) in [(&phone, FIRST), (&laptop, SECOND)] {
        let preshared = gateway.bond(device);
        device.dial(&gateway, address, preshared.as_deref());
        device.talks();
    }
    // A stream that is open already ends with the bond, too.
    phone.host.sh("iperf3 --client 10.88.16.1 --bitrate 1M --time 60 > /run/stream 2>&1 &");
    within(AT_ONCE * 3, "the stream flows", || (gateway.traffic(&phone)? > 500_000).then_some(()));

    gateway.revoke(&phone);
    let start = Instant::now();
    within(AT_ONCE, "the interface has let go of the phone", || {
        gateway.traffic(&phone).is_none().then_some(())
    });
    let took = start.elapsed();
    let revoked = |device| hears_nothing(&world, &gateway, device);
    revoked(&phone).unwrap_or_else(|found| panic!("a revoked peer gets nothing: {found}"));
    assert_eq!(gateway.grants_of(FIRST), 0, "its grants are gone, too");
    laptop.talks();
    eprintln!("revoked {} ms after the file was written", took.as_millis());

    // Without an agent nobody carries a revocation out.
    gateway.agent.kill();
    gateway.revoke(&laptop);
    caught("nobody revokes", revoked(&laptop), "the Oculus answered: stand-in oculus");
    gateway.agent.restart();
    gateway.looks_again();
    revoked(&laptop).unwrap_or_else(|found| panic!("the agent makes good what it missed: {found}"));
}

#[test]
fn rotated_peer_needs_its_new_key() {
    let Some(world) = World::new("rotated_peer_needs_its_new_key") else { return };
    let gateway = Gateway::new(&world, "gateway", TETHER);
    let mut phone = Device::new(&world, "phone");
    let preshared = gateway.bond(&phone);
    phone.dial(&gateway, FIRST, preshared.as_deref());
    phone.talks();

    let old = phone.key;
    phone.renew();
    let preshared = gateway.rotate(&phone, &[]);
    within(AT_ONCE, "the interface has the new key alone", || {
        (gateway.pod.sh("wg show wg0 peers").trim() == phone.key.to_string()).then_some(())
    });
    assert_ne!(old, phone.key);
    let old_opens = |phone: &Device| silent("the Oculus", phone.page());
    old_opens(&phone).unwrap_or_else(|found| panic!("the old key opens nothing any more: {found}"));
    phone.use_key(&gateway, preshared.as_deref());
    assert!(phone.talks().contains(FIRST), "the new key opens the same address");

    // Without an agent the old key goes on.
    gateway.agent.kill();
    phone.renew();
    let preshared = gateway.rotate(&phone, &[]);
    caught("nobody rotates", old_opens(&phone), "the Oculus answered: stand-in oculus");
    gateway.agent.restart();
    gateway.looks_again();
    old_opens(&phone).unwrap_or_else(|found| panic!("the agent makes good what it missed: {found}"));
    phone.use_key(&gateway, preshared.as_deref());
    phone.talks();
}

#[test]
fn rotation_with_overlap_keeps_the_old_key_until_its_end() {
    let Some(world) = World::alone("rotation_with_overlap_keeps_the_old_key_until_its_end") else { return };
    let gateway = Gateway::new(&world, "gateway", TETHER);
    let mut phone = Device::new(&world, "phone");
    let first = gateway.bond(&phone);
    phone.dial(&gateway, FIRST, first.as_deref());
    phone.talks();

    let old = phone.key.to_string();
    phone.renew();
    let start = Instant::now();
    let second = gateway.rotate(&phone, &["--overlap", "20s"]);
    let has = |key: &str| gateway.pod.sh("wg show wg0 peers").lines().any(|line| line == key);
    within(AT_ONCE, "the interface has the new key, too", || has(&phone.key.to_string()).then_some(()));
    assert!(has(&old), "the old key stays");
    assert!(phone.talks().contains(FIRST), "the old key still opens");
    phone.use_key(&gateway, second.as_deref());
    assert!(phone.talks().contains(FIRST), "the new key opens the same address");
    assert!(start.elapsed() < Duration::from_secs(19), "too slow to tell");
    assert!(has(&old), "the old key stays until its time is over");
    within(Duration::from_secs(20), "the old key is gone", || (!has(&old)).then_some(()));
    let took = start.elapsed();
    assert!(
        took > Duration::from_secs(18) && took < Duration::from_secs(23),
        "not before and not later: {took:?}"
    );
    assert!(phone.talks().contains(FIRST), "the new key stays");
}

#[test]
fn expired_peer_is_cut_at_its_second() {
    let Some(world) = World::alone("expired_peer_is_cut_at_its_second") else { return };
    let gateway = Gateway::new(&world, "gateway", TETHER);
    let phone = Device::new(&world, "phone");
    let preshared = gateway.bond_with(&phone, &["--expires", "10s"]);
    let expires = gateway.bonds().peers[&"phone".parse().unwrap()].expires.unwrap();
    phone.dial(&gateway, FIRST, preshared.as_deref());
    phone.talks();
    let late = within(Duration::from_secs(15), "the interface has let go of the phone", || {
        let gone = gateway.traffic(&phone).is_none();
        gone.then(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis())
    });
    let due = u128::from(expires.epoch()) * 1000;
    assert!(late >= due && late < due + 1500, "cut {late}, due {due}, in milliseconds");
    assert_eq!(gateway.grants_of(FIRST), 0, "its grants are gone, too");
    let cut = |phone: &Device| hears_nothing(&world, &gateway, phone);
    cut(&phone).unwrap_or_else(|found| panic!("an expired peer gets nothing: {found}"));
    gateway.peer(&["extend", "phone", "--expires", "never"]);
    phone.talks();

    // Without an agent nobody looks at the clock.
    gateway.peer(&["extend", "phone", "--expires", "10s"]);
    let expires = gateway.bonds().peers[&"phone".parse().unwrap()].expires.unwrap();
    gateway.agent.kill();
    let over = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() > expires.epoch();
    within(Duration::from_secs(15), "its time is over", || over().then_some(()));
    caught("nobody looks at the clock", cut(&phone), "the Oculus answered: stand-in oculus");
    gateway.agent.restart();
    gateway.looks_again();
    cut(&phone).unwrap_or_else(|found| panic!("the agent makes good what it missed: {found}"));
}
