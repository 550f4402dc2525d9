//! Grants of single routes: the agent's passes, and the real Caddy that looks at them.

use std::collections::BTreeSet;
use std::fs;

use sepulcher::codex::time::Timestamp;
use sepulcher::render::caddy::caddyfile;
use sepulcher::tether::source;

use crate::gateway::{Device, Gateway, SEPULCHER};
use crate::lab::{Daemon, can_run, scratch, until, until_equal};

/// A gateway whose Intercom and Chat pin a route each, and the Veil before them.
struct Scene {
    gateway: Gateway,
    agent: Option<Daemon>,
    _services: [Daemon; 3],
}

impl Scene {
    fn new(gateway: Gateway) -> Self {
        let about = "description = \"x\"\nrootfs = \"stand-in\"\n";
        let law = gateway.folder.join("law/services");
        fs::write(
            law.join("veil.toml"),
            format!("{about}veil = true\n[[port]]\nnumber = 80\ntier = \"forest\"\n"),
        )
        .unwrap();
        let pins = [("intercom", 7140, "/a2a/smith"), ("chat", 7150, "/chat")];
        let mut services = Vec::new();
        for (name, port, path) in pins {
            let port_and_route = format!(
                "[[port]]\nnumber = {port}\ntier = \"pod\"\n\
                 [[route]]\npath = \"{path}\"\ntier = \"tether\"\nport = {port}\n"
            );
            fs::write(law.join(format!("{name}.toml")), format!("{about}{port_and_route}")).unwrap();
            let mut command = gateway.machine.command(SEPULCHER);
            command.args(["stand-in", name, &port.to_string(), "--path", path]);
            services.push(Daemon::start(command, &gateway.folder.join(format!("{name}.log"))));
        }
        gateway.machine.wireguard();
        let agent = Some(start_agent(&gateway));
        gateway.ready();
        let codex = source::in_force(&gateway.folder.join("law"), &gateway.folder.join("bonds")).unwrap();
        let file = gateway.folder.join("Caddyfile");
        fs::write(&file, caddyfile(&codex).unwrap().unwrap()).unwrap();
        // As its container has it: that folder, and not whatever comes to lie in its place.
        let passes = gateway.folder.join("veil");
        gateway.machine.sh(&format!(
            "mkdir -p /run/sepulcher/veil && mount --bind -o ro {} /run/sepulcher/veil",
            passes.display()
        ));
        let mut command = gateway.machine.command("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file).env("HOME", &gateway.folder);
        services.push(Daemon::start(command, &gateway.folder.join("veil.log")));
        let services = services.try_into().unwrap_or_else(|_| unreachable!());
        Self { gateway, agent, _services: services }
    }

    /// Ends the agent without a word: the daemon is what only moved it into the namespaces.
    fn kill_agent(&mut self) {
        let mut daemon = self.agent.take().unwrap();
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.0.id())).unwrap();
        let agent = children.split_whitespace().next().unwrap();
        assert!(std::process::Command::new("kill").args(["-KILL", agent]).status().unwrap().success());
        daemon.0.wait().unwrap();
    }

    fn bond(&self, name: &str, device: &Device, grants: &[&str], more: &str) {
        let (key, address) = (device.key, &device.address);
        let file = format!("public-key = \"{key}\"\naddress = \"{address}\"\ngrants = {grants:?}\n{more}");
        self.gateway.bond(name, &file);
    }

    /// The passes of peers, once they are the expected ones: the pod's own are always there.
    fn until_passes(&self, expected: &[(&str, &Device)]) {
        let own = ["intercom", "chat"].map(|owner| format!("{owner}/10.88.16.1"));
        let of_peers = expected.iter().map(|(owner, device)| format!("{owner}/{}", device.address));
        let expected: BTreeSet<String> = own.into_iter().chain(of_peers).collect();
        until_equal("the passes", &expected, || {
            let folder = self.gateway.folder.join("veil");
            let owners = fs::read_dir(&folder).unwrap().map(|owner| owner.unwrap().path());
            let passes =
                owners.flat_map(|owner| fs::read_dir(owner).unwrap()).map(|pass| pass.unwrap().path());
            passes.map(|pass| pass.strip_prefix(&folder).unwrap().display().to_string()).collect()
        });
    }
}

/// An agent that looks every second, whose nft refuses everything while there is a file `refuse`.
fn start_agent(gateway: &Gateway) -> Daemon {
    let (nft, refuse) = (gateway.folder.join("nft").display().to_string(), gateway.folder.join("refuse"));
    let script = format!("#!/bin/bash\n[ ! -e {} ] && exec nft \"$@\"\n", refuse.display());
    // Written by a process of its own: what another test's child holds open for writing cannot be executed.
    gateway.machine.sh(&format!("cat > {nft} <<'END'\n{script}END\nchmod 755 {nft}"));
    let mut command = gateway.agent_command(1);
    command.arg("--nft").arg(nft);
    gateway.agent_with(command)
}

/// What a device is answered, without its date; `None` when nothing comes.
fn page(device: &Device, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 10.88.16.1\r\nConnection: close\r\n\r\n");
    let answer = device.machine.say("10.88.16.1", 80, &request)?;
    Some(answer.lines().filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>().join("\n"))
}

fn is_served(device: &Device, path: &str, by: &str) {
    let page = until("the page comes through the tunnel", || page(device, path));
    assert!(page.contains(&format!("stand-in {by} port")), "{page}");
    assert!(page.contains(&format!("forwarded-for {}", device.address)), "{page}");
}

fn is_unknown(device: &Device, path: &str) {
    let unknown = until("an answer comes through the tunnel", || page(device, "/nobody/knows"));
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    assert_eq!(page(device, path), Some(unknown));
}

#[test]
fn a_peer_reaches_the_pinned_routes_that_it_was_granted_and_no_other() {
    if !can_run("a_peer_reaches_the_pinned_routes_that_it_was_granted_and_no_other") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (phone, laptop) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    let mut scene = Scene::new(gateway);
    scene.until_passes(&[]);
    scene.bond("phone", &phone, &["intercom"], "");
    scene.bond("laptop", &laptop, &["oculus"], "");
    scene.until_passes(&[("intercom", &phone)]);
    is_served(&phone, "/a2a/smith", "intercom");
    is_unknown(&phone, "/chat");
    assert_eq!(page(&laptop, "/a2a/smith"), None, "it holds nothing that opens the Veil's port");

    scene.bond("laptop", &laptop, &["oculus", "chat"], "");
    scene.until_passes(&[("intercom", &phone), ("chat", &laptop)]);
    is_served(&laptop, "/chat", "chat");
    is_unknown(&laptop, "/a2a/smith");
    scene.bond("phone", &phone, &["*"], "");
    scene.until_passes(&[("intercom", &phone), ("chat", &phone), ("chat", &laptop)]);
    is_served(&phone, "/chat", "chat");
    scene.bond("phone", &phone, &["chat"], "");
    scene.until_passes(&[("chat", &phone), ("chat", &laptop)]);
    is_unknown(&phone, "/a2a/smith");
    assert_eq!(scene.gateway.status().unwrap().drift, 0, "{}", scene.gateway.log());

    what_is_done_by_hand_is_put_right(&scene, &phone, &laptop);
    time_and_revocation_take_passes_away(&scene, &phone, &laptop);
    passes_outlive_the_agent_and_the_next_one_takes_them_away(&mut scene, &phone);
}

#[test]
fn passes_go_before_the_elements_of_the_ruleset_and_come_after_them() {
    if !can_run("passes_go_before_the_elements_of_the_ruleset_and_come_after_them") {
        return;
    }
    let (_scratch, folder) = scratch();
    let gateway = Gateway::new(&folder);
    let (phone, laptop) = (Device::new(&gateway, 0), Device::new(&gateway, 1));
    let scene = Scene::new(gateway);
    let granted = || scene.gateway.machine.sh("nft list set inet sepulcher grants");
    scene.bond("phone", &phone, &["intercom"], "");
    scene.bond("laptop", &laptop, &[], "");
    scene.until_passes(&[("intercom", &phone)]);
    is_served(&phone, "/a2a/smith", "intercom");
    let refuse = folder.join("refuse");
    fs::write(&refuse, "").unwrap();
    scene.bond("laptop", &laptop, &["chat"], "");
    scene.bond("phone", &phone, &[], "");
    scene.until_passes(&[]);
    is_unknown(&phone, "/a2a/smith");
    assert!(granted().contains(&phone.address), "the element is still there, and opens nothing");
    until("the agent says that it is not in step", || scene.gateway.status().filter(|status| !status.ready));
    scene.until_passes(&[]);
    fs::remove_file(refuse).unwrap();
    scene.until_passes(&[("chat", &laptop)]);
    assert!(granted().contains(&laptop.address) && !granted().contains(&phone.address));
    is_served(&laptop, "/chat", "chat");
}

fn what_is_done_by_hand_is_put_right(scene: &Scene, phone: &Device, laptop: &Device) {
    let drift = || scene.gateway.status().unwrap().drift;
    let folder = scene.gateway.folder.join("veil");
    fs::write(folder.join("intercom").join(&laptop.address), "").unwrap();
    until_equal("repaired drifts", &1, drift);
    scene.until_passes(&[("chat", phone), ("chat", laptop)]);
    fs::remove_file(folder.join("chat").join(&phone.address)).unwrap();
    until_equal("repaired drifts", &2, drift);
    scene.until_passes(&[("chat", phone), ("chat", laptop)]);
    is_served(phone, "/chat", "chat");
}

fn time_and_revocation_take_passes_away(scene: &Scene, phone: &Device, laptop: &Device) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    scene.bond("laptop", laptop, &["chat"], &format!("expires = {}\n", Timestamp::from_epoch(now + 3)));
    scene.until_passes(&[("chat", phone)]);
    // The pass goes first; until the tunnel does too, it is told of an unknown path.
    until("who has expired has no tunnel either", || page(laptop, "/chat").is_none().then_some(()));
    scene.bond("laptop", laptop, &["chat", "intercom"], "");
    scene.until_passes(&[("chat", phone), ("chat", laptop), ("intercom", laptop)]);
    is_served(laptop, "/a2a/smith", "intercom");
    scene.bond("laptop", laptop, &["chat", "intercom"], "state = \"revoked\"\n");
    scene.until_passes(&[("chat", phone)]);
    assert_eq!(scene.gateway.status().unwrap().drift, 2, "{}", scene.gateway.log());
}

fn passes_outlive_the_agent_and_the_next_one_takes_them_away(scene: &mut Scene, phone: &Device) {
    scene.kill_agent();
    is_served(phone, "/chat", "chat");
    scene.bond("phone", phone, &["intercom"], "");
    scene.agent = Some(start_agent(&scene.gateway));
    scene.until_passes(&[("intercom", phone)]);
    is_served(phone, "/a2a/smith", "intercom");
    is_unknown(phone, "/chat");
    until_equal("drifts that the new agent found", &0, || {
        scene.gateway.status().map_or(9, |status| status.drift)
    });
}
