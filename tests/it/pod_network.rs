//! The pod's network by Podman itself: what its unit runs at each boot, with the state of the boots before.

use sepulcher::codex::{Codex, Sources};
use sepulcher::render::render;
use sepulcher::sys::cmd::Command;

use crate::cases::{QUADLETS, on_disk};
use crate::judge::generate;
use crate::podman::machine;

/// A network called so, and its subnet.
const INSPECT: &str = "podman network inspect sepulcher --format '{{range .Subnets}}{{.Subnet}}{{end}}'";

/// An appliance of that name with that network of its pod.
fn codex(name: &str, network: &str) -> Codex {
    let mut sources = Sources::default();
    let law = format!("schema = 1\n[appliance]\nname = \"{name}\"\n[pod]\nnetwork = \"{network}\"\n");
    sources.insert("lychd.toml", law);
    Codex::parse(&sources).unwrap()
}

/// What a law's network unit runs under these keys, and then a container in the place of the pod: it is there when the power is
/// lost, as the pod is.
fn start(quadlet: &Command, codex: &Codex, keys: &[&str]) -> String {
    let (_guard, root) = on_disk(&render(codex).unwrap());
    let units = generate(quadlet, &root.join(QUADLETS)).unwrap();
    let name = format!("{}-network.service", codex.appliance.name);
    let (_, unit) = units.iter().find(|(unit, _)| *unit == name).unwrap();
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let commands: String =
        lines.filter(|(key, _)| keys.contains(key)).map(|(_, command)| format!("{command}; ")).collect();
    let network = format!("sepulcher:ip={}", codex.pod.address);
    format!("{commands}podman create --replace --name pod --network {network} --rootfs /usr true; {INSPECT}")
}

#[test]
fn the_pods_network_is_the_laws_after_a_rebirth_and_after_a_rollback() {
    let test = "the_pods_network_is_the_laws_after_a_rebirth_and_after_a_rollback";
    let Some((machine, toolbox)) = machine(test) else { return };
    let quadlet = toolbox.command("quadlet").unwrap();
    let [old, new] = ["10.88.0.0/24", "10.99.0.0/24"];
    for (name, network) in [("lychd", old), ("lychd", new), ("lychd", old), ("home", old), ("lychd", new)] {
        let line = start(&quadlet, &codex(name, network), &["ExecStartPre", "ExecStart"]);
        assert_eq!(machine.boot(&line).as_deref(), Ok(network), "{name}");
    }
    // By itself Podman says that all is well, and leaves the network as it is.
    let line = start(&quadlet, &codex("lychd", old), &["ExecStart"]);
    assert_eq!(machine.boot(&line).as_deref(), Ok(new));
}
