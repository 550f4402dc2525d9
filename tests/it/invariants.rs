//! What is right in every rendering, whatever was reviewed.

use std::collections::BTreeSet;

use sepulcher::codex::PeerState;
use sepulcher::reach;
use sepulcher::render::manifest::{self, Item, Manifest};
use sepulcher::render::render;
use sepulcher::tree::{Entry, Sha256Digest};

use crate::cases::{self, QUADLETS, text, texts};

#[test]
fn rendering_twice_gives_the_same_bytes() {
    for case in cases::all() {
        assert_eq!(render(&case.codex).unwrap(), case.tree, "{}", case.name);
        assert_eq!(render(&cases::load(&case.folder.join("codex"))).unwrap(), case.tree, "{}", case.name);
    }
}

#[test]
fn no_address_is_allowed_to_two_peers() {
    for case in cases::all() {
        let mut networks: Vec<(u128, u128)> = Vec::new();
        for allowed in values(text(&case.tree, "usr/share/sepulcher/wireguard/wg0.conf"), "AllowedIPs") {
            for network in allowed.split(", ").map(bounds) {
                let clash = networks.iter().find(|other| network.0 <= other.1 && other.0 <= network.1);
                assert_eq!(clash, None, "{}: {allowed}", case.name);
                networks.push(network);
            }
        }
    }
}

/// First and last address, IPv4 mapped into IPv6.
fn bounds(network: &str) -> (u128, u128) {
    let (address, prefix) = network.split_once('/').unwrap();
    let (first, bits) = match address.parse().unwrap() {
        std::net::IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 32),
        std::net::IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let host = bits - prefix.parse::<u32>().unwrap();
    (first, first | 1u128.checked_shl(host).unwrap_or(0).wrapping_sub(1))
}

fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.strip_prefix(key)?.trim_start().strip_prefix('=').map(str::trim))
}

#[test]
fn no_private_key_is_rendered_and_no_revoked_peer_is_left() {
    for case in cases::all() {
        for (path, content) in texts(&case.tree, "usr/share/sepulcher/") {
            for key in values(content, "PrivateKey") {
                assert_eq!(key, "PRIVATE-KEY-OF-THIS-DEVICE", "{}: {path}", case.name);
            }
            for key in values(content, "PresharedKey") {
                assert_eq!(key, "PRESHARED-KEY-OF-THIS-BOND", "{}: {path}", case.name);
            }
            for (name, peer) in case.codex.peers.iter().filter(|(_, peer)| peer.state == PeerState::Revoked) {
                assert!(
                    !content.contains(&peer.public_key.to_string()),
                    "{}: {path} bonds {name}",
                    case.name
                );
                // Behind the fence its address may be another one's.
                let inherited = case.codex.active().any(|(_, heir)| heir.address == peer.address);
                assert!(
                    inherited || !content.contains(&format!("{} .", peer.address)),
                    "{}: {path} grants {name}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn every_pod_network_and_volume_that_is_named_exists() {
    for case in cases::all() {
        let files: BTreeSet<_> = texts(&case.tree, QUADLETS).map(|(name, _)| name).collect();
        for (name, content) in texts(&case.tree, QUADLETS) {
            let pods = values(content, "Pod");
            let networks = values(content, "Network").map(|value| value.split_once(':').unwrap().0);
            let volumes = values(content, "Volume")
                .map(|value| value.split_once(':').unwrap().0)
                .filter(|volume| !volume.starts_with(['/', '%']));
            for named in pods.chain(networks).chain(volumes) {
                assert!(files.contains(named), "{}: {name} names {named}", case.name);
            }
        }
    }
}

#[test]
fn the_pod_publishes_what_both_rulesets_let_in_and_nothing_else() {
    for case in cases::all() {
        let published: BTreeSet<String> = reach::published(&case.codex)
            .into_iter()
            .map(|(protocol, port)| format!("{protocol} . {port}"))
            .collect();
        for ruleset in ["host", "pod"] {
            let ruleset = text(&case.tree, &format!("usr/share/sepulcher/nftables/{ruleset}.nft"));
            assert_eq!(elements(ruleset, "published"), published, "{}", case.name);
        }
        let pod = text(&case.tree, &format!("{QUADLETS}{}.pod", case.codex.appliance.name));
        let ports: BTreeSet<String> = values(pod, "PublishPort")
            .map(|value| {
                let (port, protocol) = value.split_once(':').unwrap().1.split_once('/').unwrap();
                format!("{protocol} . {port}")
            })
            .collect();
        assert_eq!(ports, published, "{}", case.name);
    }
}

#[test]
fn grants_are_the_elements_of_their_sets() {
    for case in cases::all() {
        let ruleset = text(&case.tree, "usr/share/sepulcher/nftables/pod.nft");
        let (four, six): (BTreeSet<_>, BTreeSet<_>) =
            reach::grants(&case.codex).into_iter().partition(|grant| grant.address.is_ipv4());
        assert_eq!(
            elements(ruleset, "grants"),
            four.iter().map(ToString::to_string).collect(),
            "{}",
            case.name
        );
        assert_eq!(
            elements(ruleset, "grants6"),
            six.iter().map(ToString::to_string).collect(),
            "{}",
            case.name
        );
    }
}

/// Elements of a named set in a ruleset.
fn elements(ruleset: &str, set: &str) -> BTreeSet<String> {
    let (_, block) = ruleset.split_once(&format!("\tset {set} {{")).unwrap();
    let block = &block[..block.find("\n\t}").unwrap()];
    let Some((_, list)) = block.split_once("elements = {") else { return BTreeSet::new() };
    list[..list.find('}').unwrap()].split(',').map(|element| element.trim().to_owned()).collect()
}

#[test]
fn the_manifest_names_every_path_with_its_digest() {
    for case in cases::all() {
        let manifest: Manifest = serde_json::from_str(text(&case.tree, manifest::PATH)).unwrap();
        let named: BTreeSet<_> = manifest.entries.keys().map(String::as_str).collect();
        let present: BTreeSet<_> =
            case.tree.iter().map(|(path, _)| path).filter(|path| *path != manifest::PATH).collect();
        assert_eq!(named, present, "{}", case.name);
        for (path, entry) in case.tree.iter().filter(|(path, _)| *path != manifest::PATH) {
            let item = match entry {
                Entry::File { mode, bytes } => {
                    Item::File { mode: format!("{mode:04o}"), sha256: Sha256Digest::of(bytes).to_string() }
                }
                Entry::Link { target } => Item::Link { target: target.clone() },
                Entry::Dir { mode } => Item::Dir { mode: format!("{mode:04o}") },
            };
            assert_eq!(manifest.entries[path], item, "{}: {path}", case.name);
        }
    }
}

#[test]
fn a_changed_codex_has_another_digest() {
    let cases = cases::all();
    let digests: BTreeSet<_> = cases.iter().map(|case| manifest::codex_digest(&case.codex)).collect();
    assert_eq!(digests.len(), cases.len());
}
