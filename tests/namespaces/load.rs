//! Many handshakes from somebody who knows the host's public key and nothing else: WireGuard is under load, and would
//! answer with cookies.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sepulcher::codex::key::PublicKey;
use sepulcher::probe::dice::Dice;
use sepulcher::probe::payload::Shape;
use sepulcher::render::nftables;
use sepulcher::sys::wireguard::SecretKey;

use crate::lab::{can_run, scratch, until};
use crate::packets::within;
use crate::silence::{ADDRESS, Appliance, without};

const COOKIE: &str = "0x3000000 counter";
const KNOCKS: &str = "update @knocks";

/// So many first messages, each with a right mac1.
const MESSAGES: usize = 5000;

/// Where the flood comes from; devices have the outsider's other address.
const FLOOD: &str = "192.0.2.77";

fn load_pod(appliance: &Appliance, spoil: impl FnOnce(String) -> String) {
    let ruleset = nftables::pod(&appliance.codex).unwrap();
    appliance.load(&appliance.pod, "pod.nft", &spoil(ruleset));
}

/// Sends messages from [`FLOOD`], at least all of them once, until `enough`.
fn flood(appliance: &Appliance, key: &PublicKey, enough: impl Fn() -> bool + Sync) {
    let mut dice = Dice::new([7; 32]);
    let messages: Vec<_> = (0..MESSAGES).map(|_| Shape::GoodMac1.payload(Some(key), &mut dice)).collect();
    let enough = &enough;
    within(&appliance.outsider.network(), move || {
        let socket = UdpSocket::bind((FLOOD, 0)).unwrap();
        socket.connect((ADDRESS, 51820)).unwrap();
        loop {
            for message in &messages {
                socket.send(message).unwrap();
            }
            if enough() {
                return;
            }
        }
    });
}

/// An appliance with WireGuard and its key, and an outsider who counts what comes.
fn besieged(folder: &Path) -> (Appliance, PublicKey) {
    let appliance = Appliance::new(folder);
    let key = appliance.wireguard().parse().unwrap();
    appliance.outsider.sh(&format!("ip address add {FLOOD}/24 dev eth0"));
    let ear = format!(
        "table ip ear {{ chain in {{ type filter hook prerouting priority raw; ip daddr {FLOOD} counter; }}; }}"
    );
    appliance.load(&appliance.outsider, "ear.nft", &ear);
    (appliance, key)
}

#[test]
fn no_cookie_is_sent_to_who_knows_the_public_key_alone() {
    if !can_run("no_cookie_is_sent_to_who_knows_the_public_key_alone") {
        return;
    }
    let (_scratch, folder) = scratch();
    let (appliance, key) = besieged(&folder);
    let heard = || appliance.outsider.counted("chain ip ear in", FLOOD);
    let counted =
        |chain: &str, rule: &str| appliance.pod.counted(&format!("chain inet sepulcher {chain}"), rule);
    // All that WireGuard has taken in, it has answered by the time that its queue is empty.
    let besiege = || {
        flood(&appliance, &key, || true);
        std::thread::sleep(Duration::from_secs(1));
    };
    load_pod(&appliance, |text| text);
    besiege();
    assert_eq!(heard(), 0, "not one packet comes back");
    assert!(counted("forest", KNOCKS) > 1000, "most of it does not even reach WireGuard");
    assert_eq!(counted("output", COOKIE), 0, "which is not under load");

    load_pod(&appliance, |text| without(&text, KNOCKS));
    besiege();
    assert!(counted("output", COOKIE) > 0, "from many sources it would be under load");
    assert_eq!(heard(), 0, "and still not one packet comes back");

    load_pod(&appliance, |text| without(&without(&text, KNOCKS), "0x03000000 counter"));
    flood(&appliance, &key, || true);
    until("a cookie is found where nothing holds it back", || (heard() > 0).then_some(()));
}

#[test]
fn a_bonded_peer_gets_in_while_one_source_floods_the_port() {
    if !can_run("a_bonded_peer_gets_in_while_one_source_floods_the_port") {
        return;
    }
    let (_scratch, folder) = scratch();
    let (appliance, key) = besieged(&folder);
    let (secret, file) = (SecretKey::generate(), folder.join("phone.key"));
    fs::write(&file, secret.to_file().as_bytes()).unwrap();
    appliance.pod.sh(&format!("wg set wg0 peer {} allowed-ips 10.88.16.2/32", secret.public()));
    let phone = &appliance.outsider;
    phone.wireguard();
    phone.sh(&format!(
        "wg set wg0 private-key {} && ip address add 10.88.16.2/20 dev wg0 && ip link set wg0 up",
        file.display()
    ));
    // Without the limit every try within that time falls into the load.
    load_pod(&appliance, |text| without(&text, KNOCKS));
    assert!(!gets_in(&appliance, &key, Duration::from_secs(8)), "the flood is no flood");
    load_pod(&appliance, |text| text);
    assert!(gets_in(&appliance, &key, Duration::from_secs(40)));
}

/// Whether the phone shakes hands within a time while the port is flooded.
fn gets_in(appliance: &Appliance, key: &PublicKey, time: Duration) -> bool {
    let (phone, start, end) = (&appliance.outsider, Instant::now(), AtomicBool::new(false));
    // It ends by itself where what follows fails.
    let over = || end.load(Ordering::Relaxed) || start.elapsed() > Duration::from_secs(60);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(appliance, key, over));
        std::thread::sleep(Duration::from_millis(500));
        phone.sh(&format!(
            "wg set wg0 peer {key} remove; wg set wg0 peer {key} allowed-ips 10.88.16.0/20 \
             endpoint {ADDRESS}:51820 persistent-keepalive 1"
        ));
        let start = Instant::now();
        let mut inside = false;
        while !inside && start.elapsed() < time {
            let shown = phone.sh("wg show wg0 latest-handshakes");
            inside = shown.split_whitespace().nth(1).is_some_and(|time| time != "0");
            std::thread::sleep(Duration::from_millis(100));
        }
        end.store(true, Ordering::Relaxed);
        inside
    })
}
