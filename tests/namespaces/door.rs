//! What peers and the host may ask the agent, and what it tells its service manager.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use sepulcher::cli::peer::list;
use sepulcher::codex::time::Timestamp;
use sepulcher::peer::PeerView;
use sepulcher::tether::source;

use crate::gateway::{Device, Gateway};
use crate::lab::{can_run, scratch, until};

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn the_door_answers_who_holds_its_grant_and_is_silent_to_others() {
    if !can_run("the_door_answers_who_holds_its_grant_and_is_silent_to_others") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (laptop, phone) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    let granted = laptop.file("").replace("[\"oculus\"]", "[\"*\", \"bonds\", \"metrics\"]");
    gateway.bond("laptop", &granted);
    gateway.bond("phone", &phone.file(""));
    let _running = gateway.running(1);
    assert!(phone.page().contains("caller"));
    assert_eq!(phone.machine.get("10.88.16.1", 51821, "/metrics"), None, "the phone meets silence");

    let metrics = until("the metrics come", || laptop.machine.get("10.88.16.1", 51821, "/metrics"));
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{metrics}");
    let labels = |device: &Device, name: &str| format!("{{peer=\"{name}\",public_key=\"{}\"}}", device.key);
    let denied = format!("sepulcher_peer_denied_packets_total{} ", labels(&phone, "phone"));
    let told = metrics.lines().find_map(|line| line.strip_prefix(denied.as_str())).unwrap();
    assert!(told.parse::<u64>().unwrap() > 0, "{metrics}");
    let unharmed = format!("sepulcher_peer_denied_packets_total{} 0", labels(&laptop, "laptop"));
    assert!(metrics.contains(&unharmed), "{metrics}");
    assert!(metrics.contains("sepulcher_peers{state=\"held\"} 2\n"), "{metrics}");

    let peers = laptop.machine.get("10.88.16.1", 51821, "/v1/peers").unwrap();
    let seen: sepulcher::peer::Observed = serde_json::from_str(body(&peers)).unwrap();
    let phone_seen = seen.peers.iter().find(|peer| peer.public_key == phone.key).unwrap();
    assert!(phone_seen.last_handshake.is_some() && phone_seen.received > 0 && phone_seen.denied > 0);
    assert!(laptop.machine.get("10.88.16.1", 51821, "/").unwrap().starts_with("HTTP/1.1 404"));
    let rebound = "GET /v1/peers HTTP/1.1\r\nHost: rebound.example\r\n\r\n";
    let refused = laptop.machine.say("10.88.16.1", 51821, rebound).unwrap();
    assert!(refused.starts_with("HTTP/1.1 421 Misdirected Request"), "{refused}");
    changes_are_passed_on(&gateway, &laptop);
    one_peer_does_not_fill_the_door(&gateway, &laptop);

    // What `sepulcher peer list` shows on the appliance: a bond of these two is left out to make the other a stranger.
    let codex = source::in_force(&folder.join("law"), &folder.join("bonds")).unwrap();
    let now = Timestamp::from_epoch(sepulcher::sys::clock::epoch_seconds());
    let mut views = PeerView::all(&codex, now);
    views.retain(|view| view.name.as_str() == "phone");
    let seen = list::observe(&folder.join("door.sock")).unwrap();
    let table = list::join((views, Vec::new()), seen).table(now);
    let row =
        |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{table}"));
    assert!(row("phone ").contains("  active  ") && row("phone ").contains(" ago  "), "{table}");
    assert!(row(&laptop.key.to_string()).contains("  in the kernel, not declared  "), "{table}");
}

fn changes_are_passed_on(gateway: &Gateway, laptop: &Device) {
    let post = |body: &str| {
        let request = format!(
            "POST /v1/bonds HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        laptop.machine.say("10.88.16.1", 51821, &request).unwrap()
    };
    let list = "{\"verb\":\"list\"}";
    assert!(post(list).starts_with("HTTP/1.1 503"), "there is no host yet");
    let control = UnixListener::bind(gateway.folder.join("control.sock")).unwrap();
    let host = std::thread::spawn(move || {
        let (stream, _) = control.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(b"{\"ok\":{\"schema\":1}}\n").unwrap();
        line
    });
    let answer = post(list);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(body(&answer), "{\"ok\":{\"schema\":1}}\n");
    let line: serde_json::Value = serde_json::from_str(&host.join().unwrap()).unwrap();
    assert_eq!(line, serde_json::json!({"schema": 1, "peer": "laptop", "request": {"verb": "list"}}));
}

/// However many connections the laptop holds open without a word, somebody else is answered.
fn one_peer_does_not_fill_the_door(gateway: &Gateway, laptop: &Device) {
    let grafana = Device::new(gateway, 2);
    gateway.bond("grafana", &grafana.file("").replace("oculus", "metrics"));
    until("grafana is answered", || grafana.machine.get("10.88.16.1", 51821, "/metrics"));
    // Less than the time after which the door leaves who says nothing.
    laptop.machine.sh(
        "for _ in $(seq 30); do bash -c 'exec 3<>/dev/tcp/10.88.16.1/51821; sleep 4' & done > /dev/null 2>&1",
    );
    std::thread::sleep(Duration::from_secs(1));
    let turned_away = laptop.machine.get("10.88.16.1", 51821, "/metrics").unwrap_or_default();
    assert_eq!(turned_away, "", "the laptop has taken its places");
    let answer = grafana.machine.get("10.88.16.1", 51821, "/metrics").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn the_service_manager_is_told_that_the_agent_is_ready_and_then_that_it_is_alive() {
    if !can_run("the_service_manager_is_told_that_the_agent_is_ready_and_then_that_it_is_alive") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let manager = UnixDatagram::bind(folder.join("notify.sock")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    gateway.machine.wireguard();
    let mut command = gateway.agent_command(1);
    command.env("NOTIFY_SOCKET", folder.join("notify.sock"));
    let _agent = gateway.agent_with(command);
    let mut told = Vec::new();
    let mut buffer = [0; 4096];
    while told.iter().filter(|text: &&String| *text == "WATCHDOG=1").count() < 3 {
        let length = manager.recv(&mut buffer).unwrap();
        told.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned());
    }
    let first = |word: &str| told.iter().position(|text| text.contains(word));
    assert!(first("READY=1").unwrap() < first("WATCHDOG=1").unwrap(), "{told:?}");
}
