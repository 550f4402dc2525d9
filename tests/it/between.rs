//! Grants of one peer to another, by the command line.

use std::fs;

use crate::peer::{KEY, Site};

#[test]
fn a_grant_of_a_peer_is_explained_mapped_and_taken_back() {
    let site = Site::new();
    let before = "\
no: phone does not reach laptop:22/tcp; nothing is answered, the attempt is counted
  why      `phone` does not hold the grant `peer:laptop`, which `*` does not hold either
  codex    peers/phone.toml:4: does not hold it
  rule     pod, chain between: goto refused
  remedy   sepulcher peer grant phone peer:laptop
";
    assert_eq!(site.run(&["explain", "phone", "laptop:22"]), before);
    assert!(!site.run(&["map"]).contains("peer:laptop"));
    site.run(&["peer", "grant", "phone", "peer:laptop"]);
    let after = "\
yes: phone reaches laptop:22/tcp
  why      `phone` holds the grant `peer:laptop`
  codex    peers/phone.toml:4: grants `peer:laptop`
  rule     pod, chain between: ip saddr . ip daddr @between counter accept
  element  10.88.16.2 . 10.88.16.3
";
    assert_eq!(site.run(&["explain", "phone", "laptop:22"]), after);
    assert!(site.run(&["explain", "laptop", "phone:22"]).starts_with("no: "), "one direction");
    let map = site.run(&["map"]);
    let row: Vec<_> =
        map.lines().find(|line| line.contains("peer:laptop")).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        ["(tether)", "peer:laptop", "tether", "-", "-", "yes", "-", "yes"],
        "forest, host, pod, laptop, phone"
    );
    site.run(&["map", "--svg", "map.svg"]);
    assert!(site.beside("map.svg").contains(">peer:laptop</text>"));
    site.run(&["peer", "ungrant", "phone", "peer:laptop"]);
    assert_eq!(site.run(&["explain", "phone", "laptop:22"]), before);
}

#[test]
fn networks_behind_a_granted_peer_are_in_the_configuration_made_next() {
    let site = Site::new();
    let lych = ["--kind", "lych", "--route", "10.99.7.0/24", "--no-config", "--grant", "oculus"];
    site.run(&[&["peer", "bond", "crypt", "--public-key", KEY], &lych[..]].concat());
    let allowed =
        |shown: &str| shown.lines().find(|line| line.starts_with("AllowedIPs = ")).unwrap().to_owned();
    let own = allowed(&site.run(&["peer", "bond", "wraith", "--grant", "oculus"]));
    assert!(!own.contains("10.99.7.0/24"), "{own}");
    site.refuses(
        &["peer", "bond", "ghoul", "--grant", "peer:kript"],
        1,
        &["there is no peer `kript`", "did you mean `crypt`?"],
    );
    let with = allowed(&site.run(&["peer", "bond", "ghoul", "--grant", "peer:crypt"]));
    assert_eq!(with, own.clone() + ", 10.99.7.0/24");
    let told = site.command(&["peer", "grant", "wraith", "peer:crypt"]).assert().success();
    let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(told.contains("~ 10.99.7.0/24 belongs into the AllowedIPs of wraith"), "{told}");
    assert_eq!(allowed(&site.run(&["peer", "rotate", "wraith"])), with);
    assert!(site.run(&["explain", "wraith", "10.99.7.5:80"]).contains("10.88.16.5 . 10.99.7.0/24"));
}

#[test]
fn a_revoked_peer_leaves_the_grants_of_others_valid_and_one_that_is_not_there_can_be_taken_back() {
    let site = Site::new();
    site.run(&["peer", "grant", "phone", "peer:laptop"]);
    site.run(&["peer", "revoke", "laptop"]);
    site.load();
    assert!(site.run(&["explain", "phone", "10.88.16.3:22"]).contains("no bond in force has this address"));
    site.refuses(&["peer", "bond", "wraith", "--grant", "peer:laptop"], 1, &["`laptop` is revoked"]);
    // A file that somebody took away by hand.
    fs::remove_file(site.codex().join("peers/laptop.toml")).unwrap();
    site.refuses(
        &["peer", "grant", "phone", "worker"],
        1,
        &["there is no peer `laptop` to grant", "peers/phone.toml:4"],
    );
    site.run(&["peer", "ungrant", "phone", "peer:laptop"]);
    assert!(site.load().peers[&"phone".parse().unwrap()].grants.peers.is_empty());
}
