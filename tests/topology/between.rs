//! What peers can reach of each other: nothing, and what they are granted in the direction in which they are.

use std::thread::sleep;
use std::time::Duration;

use crate::device::Device;
use crate::ear::Ear;
use crate::host::{Host, Rights, until, within};
use crate::scene::{LAPTOP, PHONE, Scene, Verdict, answers, prove, silent};

/// How soon a grant is in force, and out of it.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A device's page, which is there once this returns.
fn page(scene: &Scene, device: &Device, address: &str) -> Host {
    let words = ["sepulcher", "stand-in", "page", "8080"];
    let page =
        scene.world.beside(&device.host, &format!("{}-page", device.host.name), &words, Rights::default());
    until("a device has a page", || device.host.get(&url(address)));
    page
}

fn url(address: &str) -> String {
    format!("http://{address}:8080/")
}

#[test]
fn peers_cannot_reach_each_other_unless_granted() {
    let claim = |scene: &Scene| {
        let _page = page(scene, &scene.laptop, LAPTOP);
        // Through the tunnel nothing comes at all, from whomever.
        let ear = Ear::on("wg0", &scene.world, &scene.phone.host, &format!("dst {PHONE}"));
        silent("the laptop's page", scene.phone.host.get(&url(LAPTOP)))?;
        scene.phone.host.sh(&format!(
            "ping -c 2 -i 0.2 -W 1 {LAPTOP}; ping -c 1 -W 1 -t 1 {LAPTOP}; \
             echo hello > /dev/udp/{LAPTOP}/8080; ping -c 1 -W 1 10.88.16.77; true"
        ));
        match ear.heard() {
            heard if heard.is_empty() => Ok(()),
            heard => Err(heard),
        }
    };
    prove(
        "peers_cannot_reach_each_other_unless_granted",
        claim,
        &[
            ("the pod tells what it knows of ways", "ICMP time exceeded", |scene| {
                scene.pod("nft flush chain inet sepulcher output");
            }),
            ("somebody is granted what nobody declared", "the laptop's page answered: stand-in", |scene| {
                scene.pod(
                    "nft add rule inet sepulcher output icmp type { redirect, time-exceeded } drop && \
                     nft add element inet sepulcher between { 10.88.16.2 . 10.88.16.3 }",
                );
            }),
            ("the pod hands packets on", "the laptop's page answered: stand-in", |scene| {
                scene.pod(
                    "nft delete element inet sepulcher between { 10.88.16.2 . 10.88.16.3 } && \
                     nft insert rule inet sepulcher forward accept",
                );
            }),
        ],
    );
}

/// How much of an endless page the phone has.
fn streamed(scene: &Scene) -> usize {
    scene.phone.host.sh("wc -c < /run/lines").trim().parse().unwrap()
}

/// Whether the set holds that pair.
fn holds(scene: &Scene, from: &str, to: &str) -> bool {
    scene.appliance.gateway.pod.sh("nft list set inet sepulcher between").contains(&format!("{from} . {to}"))
}

#[test]
fn granted_peer_reaches_the_other_one_way_until_the_grant_goes() {
    let claim = |scene: &Scene| -> Verdict {
        let (phone, laptop) = (&scene.phone.host, &scene.laptop.host);
        let _pages = [page(scene, &scene.laptop, LAPTOP), page(scene, &scene.phone, PHONE)];
        silent("the laptop's page", phone.get(&url(LAPTOP)))?;
        scene.appliance.gateway.peer(&["grant", "phone", "peer:laptop"]);
        within(AT_ONCE, "the pair is in the set", || holds(scene, PHONE, LAPTOP).then_some(()));
        let checked = (|| {
            answers("the laptop's page", phone.get(&url(LAPTOP)), &format!("caller {PHONE}"))?;
            phone.try_sh(&format!("ping -c 1 -W 2 {LAPTOP}"))?;
            silent("the phone's page", laptop.get(&url(PHONE)))?;
            silent("the phone", laptop.try_sh(&format!("ping -c 1 -W 1 {PHONE}")).ok())
        })();
        phone.sh(&format!(
            "curl --silent --no-buffer '{}?lines' > /run/lines 2> /run/curl & sleep 1",
            url(LAPTOP)
        ));
        let flowing = streamed(scene);
        scene.appliance.gateway.peer(&["ungrant", "phone", "peer:laptop"]);
        within(AT_ONCE, "the pair is gone", || (!holds(scene, PHONE, LAPTOP)).then_some(()));
        // What was on its way when the grant went.
        sleep(Duration::from_millis(500));
        let then = streamed(scene);
        sleep(Duration::from_secs(2));
        let later = streamed(scene);
        checked?;
        match (flowing > 0, then == later) {
            (true, true) => silent("the laptop's page, afterwards,", phone.get(&url(LAPTOP))),
            (flows, _) => Err(format!("the stream flowed: {flows}; it had {then} bytes, and has {later}")),
        }
    };
    prove(
        "granted_peer_reaches_the_other_one_way_until_the_grant_goes",
        claim,
        &[("the laptop is granted the phone, too", "the phone's page answered: stand-in", |scene| {
            scene.appliance.gateway.peer(&["grant", "laptop", "peer:phone"]);
            within(AT_ONCE, "the pair is in the set", || holds(scene, LAPTOP, PHONE).then_some(()));
        })],
    );
}
