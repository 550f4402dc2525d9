//! What containers send to a site goes through the tunnel or nowhere.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sepulcher::codex::time::Timestamp;

use crate::gateway::{Device, Gateway};
use crate::lab::{Machine, can_run, scratch, until};
use crate::packets::within;

/// Network behind the site, and somebody there.
const NETWORK: &str = "10.99.7.0/24";
const THERE: &str = "10.99.7.9:9";

/// What a machine has heard for the site's network on one interface.
struct Ear<'a>(&'a Machine);

impl<'a> Ear<'a> {
    fn on(machine: &'a Machine, interface: &str) -> Self {
        let rule = format!("iifname {interface} ip daddr {NETWORK} counter");
        machine.sh(&format!(
            "nft 'table ip ear {{ chain in {{ type filter hook prerouting priority raw; {rule}; }}; }}'"
        ));
        Self(machine)
    }

    fn heard(&self) -> u64 {
        self.0.counted("chain ip ear in", NETWORK)
    }
}

/// Sends to the site, whichever way that is, until the sender is dropped.
fn stream(gateway: &Gateway) -> mpsc::Sender<()> {
    let (end, ended) = mpsc::channel::<()>();
    let socket = within(&gateway.machine.network(), || UdpSocket::bind("0.0.0.0:0").unwrap());
    thread::spawn(move || {
        while ended.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // The pod's ruleset tells its containers when it stops them.
            let _ = socket.send_to(b"in confidence", THERE);
        }
    });
    end
}

#[test]
fn what_is_sent_to_a_site_never_leaves_in_clear_when_its_bond_ends() {
    if !can_run("what_is_sent_to_a_site_never_leaves_in_clear_when_its_bond_ends") {
        return;
    }
    for ends in ["state = \"revoked\"\n", "expires"] {
        let (_scratch, folder) = scratch();
        let gateway = Gateway::new(&folder);
        // The first device is what lies behind the pod's default route, too.
        let (outside, site) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
        gateway.machine.sh("ip route add default via 192.0.2.2 dev up0");
        let lych = format!("kind = \"lych\"\nroutes = [\"{NETWORK}\"]\n");
        gateway.bond("crypt", &site.file(&lych));
        let _running = gateway.running(60);
        assert!(site.page().contains("caller"));
        let (clear, tunnel) = (Ear::on(&outside.machine, "eth0"), Ear::on(&site.machine, "wg0"));
        let _stream = stream(&gateway);
        until("the site hears", || (tunnel.heard() > 10).then_some(()));
        let more = match ends {
            "expires" => format!("expires = {}\n", in_two_seconds()),
            state => state.to_owned(),
        };
        gateway.bond("crypt", &site.file(&format!("{lych}{more}")));
        until("the route is gone", || {
            gateway.machine.sh(&format!("ip route show {NETWORK}")).is_empty().then_some(())
        });
        let stopped = || gateway.machine.counted("chain inet sepulcher gone", "drop");
        let before = stopped();
        until("the stream goes on, and is stopped", || (stopped() > before + 20).then_some(()));
        assert_eq!(clear.heard(), 0, "{ends}: nothing left in clear");
        gateway.machine.sh("nft flush chain inet sepulcher gone");
        until("it would leave in clear without the rule", || (clear.heard() > 0).then_some(()));
    }
}

fn in_two_seconds() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_epoch(now.as_secs() + 2)
}
