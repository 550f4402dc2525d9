//! Client configurations on an interface: what wg-quick and wg make of them is what was meant.

use std::fs;
use std::path::Path;

use sepulcher::codex::key::SharedKey;
use sepulcher::codex::{Codex, Endpoint, Peer};
use sepulcher::qr::compact;
use sepulcher::render::wireguard::{ClientKeys, client};
use sepulcher::sys;
use sepulcher::sys::wireguard::SecretKey;

use crate::lab::{Machine, can_run, scratch};

/// What the names in the golden cases stand for here: there is no name server.
const DIALLED: &str = "192.0.2.1";

/// Every golden case, with preshared keys for all.
fn cases() -> Vec<Codex> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let open = |folder: &Path| {
        let mut codex = Codex::parse(&sys::codex::load(&[&folder.join("codex")])).unwrap();
        codex.peers.values_mut().for_each(|peer| std::sync::Arc::make_mut(peer).preshared = true);
        if let Some(Endpoint::Dns(_)) = codex.tether.endpoint {
            codex.tether.endpoint = Some(Endpoint::Ip(DIALLED.parse().unwrap()));
        }
        codex
    };
    sys::fs::list(&golden).unwrap().iter().map(|folder| open(folder)).collect()
}

/// The line of `wg show dump` that the appliance must have on the peer's interface: key, preshared key, endpoint, allowed IPs,
/// and the keepalive.
fn expected(codex: &Codex, peer: &Peer, host: &SecretKey, preshared: &SharedKey) -> Vec<String> {
    let tether = &codex.tether;
    let endpoint = match tether.endpoint {
        Some(Endpoint::Ip(address)) => std::net::SocketAddr::new(address, tether.port.get()).to_string(),
        _ => "(none)".to_owned(),
    };
    let six = tether.network6.map(|(network, _)| network.to_string());
    let four = [tether.network.to_string(), codex.pod.network.to_string()];
    let granted = codex.active().filter(|(name, _)| peer.grants.peers.contains(*name));
    let behind = granted.flat_map(|(_, granted)| granted.routes()).map(ToString::to_string);
    let mut allowed: Vec<_> = four.into_iter().chain(six).chain(behind).collect();
    allowed.sort();
    let keepalive = if tether.keepalive == 0 { "off".to_owned() } else { tether.keepalive.to_string() };
    let keys = [host.public().to_string(), preshared.to_text().to_string()];
    keys.into_iter().chain([endpoint, allowed.join(","), keepalive]).collect()
}

#[test]
fn an_interface_holds_what_a_client_configuration_says() {
    if !can_run("an_interface_holds_what_a_client_configuration_says") {
        return;
    }
    let (_guard, folder) = scratch();
    let machine = Machine::new();
    machine.wireguard();
    let host = SecretKey::generate();
    let preshared = SharedKey::new([0xfb; 32]).unwrap();
    let mut seen = 0;
    for codex in cases() {
        for (name, peer) in codex.active().collect::<Vec<(_, &Peer)>>() {
            let private = SecretKey::generate();
            let text = private.to_file();
            let public = host.public();
            let keys = ClientKeys {
                host: Some(&public),
                private: Some(text.trim_end()),
                preshared: Some(&preshared),
            };
            let full = client(&codex, name, keys).unwrap().unwrap();
            for configuration in [compact(&full), full] {
                let told = on_interface(&machine, &folder, &configuration);
                assert_eq!(
                    told[0][..2],
                    [text.trim_end().to_owned(), private.public().to_string()],
                    "{configuration}"
                );
                assert_eq!(told[1], expected(&codex, peer, &host, &preshared), "{configuration}");
                assert_eq!(told.len(), 2, "{configuration}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 16, "golden cases lost their peers: {seen} seen");
}

/// Sets `wg0` by a configuration, and tells what it holds then: first the interface, then its peer, with allowed IPs in order
/// and without what changes by itself.
fn on_interface(machine: &Machine, folder: &Path, configuration: &str) -> Vec<Vec<String>> {
    // wg-quick takes the interface's name from the file's.
    let file = folder.join("wg0.conf");
    fs::write(&file, configuration).unwrap();
    let (file, stripped) = (file.display(), folder.join("stripped").display().to_string());
    // A script of the toolbox, beside its programs.
    let quick = "$(dirname \"$(command -v wg)\")/../usr/bin/wg-quick";
    machine.sh(&format!("bash \"{quick}\" strip {file} > {stripped} && wg setconf wg0 {stripped}"));
    let dump = machine.sh("wg show wg0 dump");
    let words = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let peer = |words: Vec<String>| -> Vec<String> {
        let mut allowed: Vec<_> = words[3].split(',').collect();
        allowed.sort_unstable();
        vec![words[0].clone(), words[1].clone(), words[2].clone(), allowed.join(","), words[7].clone()]
    };
    let mut lines = dump.lines().map(words);
    let interface = lines.next().unwrap();
    [interface].into_iter().chain(lines.map(peer)).collect()
}
