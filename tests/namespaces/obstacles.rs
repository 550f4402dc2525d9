//! What keeps the agent from starting: told with a remedy, and left as it is.

use std::process::Command;

use crate::gateway::Gateway;
use crate::lab::{can_run, cannot_run, scratch};

/// Runs the agent to its end; exit code and what it said.
fn ended(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    if !can_run("an_interface_of_somebody_else_is_left_alone") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    gateway.machine.wireguard();
    let other = sepulcher::sys::wireguard::SecretKey::generate();
    std::fs::write(folder.join("other.key"), other.to_file().as_bytes()).unwrap();
    let peer = sepulcher::sys::wireguard::SecretKey::generate().public();
    let key = folder.join("other.key");
    gateway
        .machine
        .sh(&format!("wg set wg0 private-key {} peer {peer} allowed-ips 10.0.0.2/32", key.display()));
    let before = gateway.machine.sh("wg showconf wg0; ip -o address show dev wg0; nft list ruleset");
    let (code, said) = ended(gateway.agent_command(1));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("wg0 exists and is not ours: it holds the key of {}", other.public())),
        "{said}"
    );
    assert!(said.contains("hint: `ip link delete` removes it"), "{said}");
    assert_eq!(gateway.machine.sh("wg showconf wg0; ip -o address show dev wg0; nft list ruleset"), before);
}

#[test]
fn a_device_of_another_kind_is_left_alone() {
    if !can_run("a_device_of_another_kind_is_left_alone") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    gateway.machine.sh("ip link add wg0 type veth peer name veth0");
    let (code, said) = ended(gateway.agent_command(1));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("wg0 exists and is of kind `veth`"), "{said}");
    assert!(said.contains("hint: remove that link"), "{said}");
    assert_eq!(gateway.machine.sh("nft list ruleset"), "", "nothing was loaded");
    gateway.machine.sh("ip link delete wg0 && ip tuntap add wg0 mode tun");
    let (code, said) = ended(gateway.agent_command(1));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("wg0 exists, and no WireGuard answers behind it"), "{said}");
    gateway.machine.sh("ip link show wg0");
}

#[test]
fn without_the_capability_the_remedy_names_it() {
    if !can_run("without_the_capability_the_remedy_names_it") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let agent = gateway.agent_command(1);
    let inside: Vec<_> = agent.get_args().map(std::ffi::OsStr::to_owned).collect();
    let program = inside.iter().position(|arg| arg == crate::gateway::SEPULCHER).unwrap();
    let mut command = Command::new(agent.get_program());
    command.args(&inside[..program]).args(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    command.args(&inside[program..]).envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (code, said) = ended(command);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    assert!(gateway.machine.try_sh("ip link show wg0").is_err(), "nothing was made");
}

/// The ruleset stays in the pod: it is loaded before any interface is made, and while it is there alone nothing gets in.
/// Taking it away again would open what it closes until the next try.
#[test]
fn a_kernel_without_wireguard_is_told_with_its_remedy_and_leaves_the_pod_closed() {
    const TEST: &str = "a_kernel_without_wireguard_is_told_with_its_remedy_and_leaves_the_pod_closed";
    if !can_run(TEST) {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    if gateway.machine.try_sh("ip link add probe type wireguard && ip link delete probe").is_ok() {
        cannot_run(TEST, "this kernel has WireGuard");
        return;
    }
    let phone = sepulcher::sys::wireguard::SecretKey::generate().public();
    gateway.bond("phone", &format!("public-key = \"{phone}\"\naddress = \"10.88.16.2\"\ngrants = [\"*\"]\n"));
    let mut command = gateway.agent_command(1);
    command.args(["--backend", "kernel"]);
    let (code, said) = ended(command);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("cannot create wg0: the kernel has no WireGuard"), "{said}");
    assert!(said.contains("hint: load the kernel module `wireguard`"), "{said}");
    assert!(said.contains("`backend = \"userspace\"`"), "{said}");
    assert!(gateway.machine.try_sh("ip link show wg0").is_err(), "nothing was made");
    assert!(!gateway.status().unwrap().ready);
    assert!(gateway.machine.sh("nft list tables").contains("inet sepulcher"), "the pod stays closed");
}
