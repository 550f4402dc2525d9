//! `sepulcher tether run` against real packets.

use std::fs;

use sepulcher::render::nftables;
use sepulcher::sys::nft::fingerprint;
use sepulcher::sys::wireguard::SecretKey;
use sepulcher::tether::source;
use sepulcher::tree::Sha256Digest;

use crate::gateway::{Device, Gateway, SEPULCHER};
use crate::lab::{Daemon, Machine, can_run, scratch, until, until_equal};

#[test]
fn bonds_come_and_go_while_every_other_tunnel_keeps_its_session() {
    if !can_run("bonds_come_and_go_while_every_other_tunnel_keeps_its_session") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (phone, laptop) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    gateway.bond("phone", &phone.file(""));
    let _oculus = gateway.stand_in();
    gateway.machine.wireguard();
    let mut agent = gateway.agent();
    until("the agent is ready", || gateway.status().filter(|status| status.ready));

    let page = phone.page();
    let expected = format!("stand-in oculus port 6006 path /traces caller {}\n", phone.address);
    assert!(page.ends_with(&expected), "{page}");
    let before = gateway.session(&phone);
    assert_eq!(laptop.machine.get("10.88.16.1", 6006, "/"), None, "nobody unbonded gets through");

    let granted = |gateway: &Gateway| {
        let chain = gateway.machine.sh("nft list chain inet sepulcher tether");
        let rule = chain.lines().find(|line| line.contains("@grants counter")).unwrap().to_owned();
        rule.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse::<u64>().unwrap()
    };
    let packets = granted(&gateway);
    assert!(packets > 0);
    gateway.bond("laptop", &laptop.file(""));
    until_equal("the number of peers", &2, || gateway.held());
    assert!(granted(&gateway) >= packets, "the ruleset was changed in place");
    assert_eq!(table(&gateway.machine), fresh_table(&gateway), "changing in place makes the same table");
    assert!(laptop.page().contains(&format!("caller {}", laptop.address)));
    gateway.assert_untouched(&phone, &before);

    gateway.bond("phone", "public-key = 7\n");
    until("the broken bond is told", || {
        let status = gateway.status()?;
        status.broken.iter().any(|broken| broken.file == "peers/phone.toml" && broken.last_good).then_some(())
    });
    assert!(phone.page().contains("caller"), "a broken file does not cut its peer off");

    gateway.bond("laptop", &laptop.file("state = \"revoked\"\n"));
    until_equal("the number of peers", &1, || gateway.held());
    assert_eq!(laptop.machine.get("10.88.16.1", 6006, "/"), None, "a revoked peer gets nothing");
    gateway.assert_untouched(&phone, &before);

    drift_is_repaired(&gateway, &phone);
    agent_leaves_promptly_and_quietly(&gateway, &mut agent);
}

/// The table of a machine, without what changes by itself.
fn table(machine: &Machine) -> Sha256Digest {
    let listing = machine.sh("nft -j -s list table inet sepulcher");
    fingerprint(serde_json::from_str(&listing).unwrap())
}

/// The table that the gateway's Codex makes where none was before.
fn fresh_table(gateway: &Gateway) -> Sha256Digest {
    let codex = source::in_force(&gateway.folder.join("law"), &gateway.folder.join("bonds")).unwrap();
    let file = gateway.folder.join("pod.nft");
    fs::write(&file, nftables::pod(&codex).unwrap()).unwrap();
    let machine = Machine::new();
    machine.sh(&format!("nft -f {}", file.display()));
    table(&machine)
}

fn drift_is_repaired(gateway: &Gateway, phone: &Device) {
    gateway.bond("phone", &phone.file(""));
    until_equal("the broken bonds", &0, || gateway.status().map_or(9, |status| status.broken.len()));
    let drift = || gateway.status().unwrap().drift;
    assert_eq!(drift(), 0, "{}", gateway.log());
    gateway.machine.sh(&format!("wg set wg0 peer {} remove && ip link set wg0 mtu 1300", phone.key));
    until_equal("repaired drifts", &1, drift);
    assert!(phone.page().contains("caller"));
    gateway.machine.sh("nft flush chain inet sepulcher tether");
    until_equal("repaired drifts", &2, drift);
    gateway.machine.sh("nft delete table inet sepulcher");
    until_equal("repaired drifts", &3, drift);
    assert!(phone.page().contains("caller"));
}

fn agent_leaves_promptly_and_quietly(gateway: &Gateway, agent: &mut Daemon) {
    agent.signal("TERM");
    let status = until("the agent has left", || agent.0.try_wait().unwrap());
    assert!(status.success(), "{}", gateway.log());
    assert!(gateway.machine.sh("wg show wg0 peers").lines().count() == 1, "the interface stays");
    assert!(gateway.machine.sh("nft list tables").contains("sepulcher"), "the ruleset stays");
}

/// Stands in for the service manager: every unit is in the state that the file `state` holds.
const SYSTEMCTL: &str = "#!/bin/bash\nread -r state < \"$(dirname \"$0\")/state\"\n\
    if [ \"$1\" = is-active ]; then shift 2; for _ in \"$@\"; do echo \"$state\"; done; fi\n";

#[test]
fn health_is_told_and_so_is_each_thing_that_is_wrong() {
    if !can_run("health_is_told_and_so_is_each_thing_that_is_wrong") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let device = SecretKey::generate().public();
    gateway
        .bond("phone", &format!("public-key = \"{device}\"\naddress = \"10.88.16.2\"\ngrants = [\"*\"]\n"));
    fs::write(folder.join("tether.pub"), format!("{}\n", gateway.key)).unwrap();
    let codex = source::in_force(&folder.join("law"), &folder.join("bonds")).unwrap();
    fs::write(folder.join("host.nft"), nftables::host(&codex).unwrap()).unwrap();
    fs::write(folder.join("state"), "active\n").unwrap();
    let host = Machine::new();
    // Written by a process of its own: what another test's child holds open for writing cannot be executed.
    let systemctl = folder.join("systemctl").display().to_string();
    host.sh(&format!("cat > {systemctl} <<'END'\n{SYSTEMCTL}END\nchmod 755 {systemctl}"));
    host.sh(&format!("nft -f {}", folder.join("host.nft").display()));
    let health = |seconds: u8| {
        let line = format!(
            "cd {} && PATH=.:$PATH {SEPULCHER} health --timeout {seconds} --law law --bonds bonds --status tether.json \
             --secrets secrets --public-key tether.pub --ruleset host.nft || true",
            folder.display()
        );
        host.sh(&line)
    };
    assert!(health(0).contains("FAILED: agent, host key, bonds, pod ruleset, services\n"), "{}", health(0));

    gateway.machine.wireguard();
    let _agent = gateway.agent();
    until("the agent is ready", || gateway.status().filter(|status| status.ready));
    let told = health(0);
    assert!(told.contains("FAIL  services: nobody listens on oculus tcp 6006"), "{told}");
    let oculus = gateway.stand_in();
    let told = health(40);
    assert!(told.ends_with("sepulcher: health ok\n") && !told.contains("FAIL"), "{told}");
    assert!(told.contains("ok    bonds: 1 of 1 bonds are active, and held\n"), "{told}");

    // It hangs: the kernel still takes connections in its name.
    oculus.signal("STOP");
    gateway.machine.sh("exec 3<>/dev/tcp/127.0.0.1/6006");
    let hangs = "FAIL  services: oculus tcp 6006 has a listener that does not answer";
    until("health tells of a service that hangs", || health(0).contains(hangs).then_some(()));
    oculus.signal("CONT");
    assert!(health(40).ends_with("sepulcher: health ok\n"), "{}", health(0));

    fs::write(folder.join("state"), "activating\n").unwrap();
    host.sh("nft add rule inet sepulcher input accept");
    let told = health(0);
    assert!(told.contains("FAIL  units: lab-oculus.service is activating"), "{told}");
    assert!(told.ends_with("sepulcher: health FAILED: host ruleset, units\n"), "{told}");
}

#[test]
fn the_port_is_silent_before_the_agent_has_loaded_the_ruleset_and_interface_is_whole() {
    if !can_run("the_port_is_silent_before_the_agent_has_loaded_the_ruleset_and_interface_is_whole") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    // A ruleset that nft refuses: without it nothing else may be made.
    fs::write(folder.join("bad.nft"), "table inet sepulcher { chain }\n").unwrap();
    let mut command = gateway.agent_command(1);
    command.arg("--ruleset").arg(folder.join("bad.nft"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(gateway.machine.try_sh("ip link show wg0").is_err(), "no interface without a ruleset");
    assert!(!gateway.status().unwrap().ready);
}
