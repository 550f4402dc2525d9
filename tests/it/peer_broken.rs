//! A broken bond: the others go on, and it can be ended.

use std::fs;

use sepulcher::codex::PeerState;

use crate::peer::{KEY, OTHER, Site};

const PHONE: &str = "FkF+e/8sl5ijuqf9MmWbOZGswIU1TD9qHw828ACGpRQ=";
const LAPTOP: &str = "4CKf3Grh+ot3G/k/W2rXBf17+VSE1LPBsq9m4Ly1zik=";

/// The example's Codex with a slip in the phone's file, of which key and address can be read.
fn slipped() -> Site {
    let site = Site::new();
    write(&site, &(site.text("peers/phone.toml") + "grants again\n"));
    site
}

fn write(site: &Site, phone: &str) {
    fs::write(site.codex().join("peers/phone.toml"), phone).unwrap();
}

#[test]
fn list_and_show_tell_the_others_and_mark_the_broken_one() {
    let site = slipped();
    let list = site.run(&["peer", "list"]);
    let state = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(
        state("laptop ").contains(" active") && state("phone ").contains("broken: TOML syntax"),
        "{list}"
    );
    let json: serde_json::Value = serde_json::from_str(&site.run(&["peer", "list", "--json"])).unwrap();
    assert_eq!(
        (json["peers"].as_array().unwrap().len(), &json["broken"][0]["file"]),
        (1, &"peers/phone.toml".into())
    );
    assert_eq!(json["broken"][0]["public_keys"][0], PHONE);
    assert!(site.run(&["peer", "show", "laptop"]).contains(LAPTOP));
    let phone = site.run(&["peer", "show", "phone"]);
    assert!(phone.contains("broken") && phone.contains("sepulcher peer revoke phone"), "{phone}");
    site.refuses(&["peer", "show", "nobody"], 1, &["no peer `nobody`"]);
    // A broken law is another matter.
    fs::write(site.codex().join("lychd.toml"), "schema = 99\n").unwrap();
    site.refuses(&["peer", "list"], 1, &["lychd.toml:1:", "schema 99"]);
}

#[test]
fn others_are_changed_and_what_is_the_broken_ones_is_given_to_nobody() {
    let site = slipped();
    site.run(&["peer", "grant", "laptop", "metrics"]);
    site.run(&["peer", "extend", "laptop", "--expires", "30d"]);
    site.run(&["peer", "rotate", "laptop"]);
    let bond = |name, key| ["peer", "bond", name, "--public-key", key, "--no-config"];
    site.refuses(&bond("phone", KEY), 1, &["the name `phone` is taken", "peers/phone.toml is broken"]);
    site.refuses(&bond("wraith", PHONE), 1, &["is somebody else's", "peer revoke phone"]);
    site.refuses(&["peer", "rotate", "laptop", "--public-key", PHONE], 1, &["is somebody else's"]);
    site.refuses(
        &[&bond("wraith", KEY)[..], &["--address", "10.88.16.2"]].concat(),
        1,
        &["10.88.16.2 is taken"],
    );
    let lych = ["--kind", "lych", "--route", "10.99.0.0/24"];
    site.refuses(&[&bond("wraith", KEY)[..], &lych].concat(), 1, &["no network is given out"]);
    site.refuses(&["peer", "grant", "laptop", "peer:phone"], 1, &["`phone` cannot be read"]);
    for verb in [&["rotate"][..], &["grant"], &["ungrant"], &["extend"]] {
        let more: &[&str] = match verb[0] {
            "rotate" => &[],
            "extend" => &["--expires", "never"],
            _ => &["echo"],
        };
        site.refuses(
            &[&["peer"], verb, &["phone"], more].concat(),
            1,
            &["`phone` cannot be read", "peer revoke phone"],
        );
    }
    site.run(&bond("wraith", KEY));
    assert!(site.text("peers/wraith.toml").contains("\"10.88.16.4\""), "2 is the phone's, 3 the laptop's");
    // Mended, all of them are bonded side by side.
    write(&site, &site.text("peers/phone.toml").replace("grants again\n", ""));
    assert_eq!(site.load().active().count(), 3);
}

#[test]
fn nothing_is_given_out_while_it_is_not_known_what_a_broken_one_has() {
    let site = slipped();
    let bond = ["peer", "bond", "wraith", "--public-key", KEY, "--no-config"];
    let whole = site.text("peers/phone.toml");
    write(&site, &whole.replace("10.88.16.2", "10.88.16.x"));
    site.refuses(&bond, 1, &["no address is given out", "peer revoke phone"]);
    site.run(&["peer", "rotate", "laptop"]);
    write(&site, &whole.replace(PHONE, "gone"));
    for words in [&bond[..], &["peer", "rotate", "laptop"]] {
        site.refuses(words, 1, &["no key is given out", "peer revoke phone"]);
    }
    site.run(&["peer", "revoke", "phone"]);
    site.run(&bond);
}

#[test]
fn a_broken_bond_is_revoked_and_every_key_that_is_in_it_is_dead() {
    for (text, dead) in [
        (
            format!("public-key = \"{PHONE}\"\naddress = \"10.88.16.2\"\nreplaced = [\"{KEY}\"\n"),
            &[PHONE, KEY][..],
        ),
        (format!("public-key = \"{PHONE}\"\naddress = \"10.88.16.2\"\ngrants = [\"*\", \"*\"]\n"), &[PHONE]),
        (format!("\u{0}{PHONE}"), &[PHONE]),
        // Another one's key and address are that one's still; what speaks of a secret is passed over.
        (format!("public-key = \"{LAPTOP}\"\naddress = \"10.88.16.3\"\nPrivateKey = {KEY}\n"), &[]),
        (String::new(), &[]),
    ] {
        let site = Site::new();
        write(&site, &text);
        let told = site.run(&["peer", "revoke", "phone", "--dry-run"]);
        assert!(told.starts_with("- peer phone, whose file is broken\n"), "{told}");
        site.run(&["peer", "revoke", "phone"]);
        let codex = site.load();
        let phone = codex.peer(&"phone".parse().unwrap()).unwrap();
        assert_eq!(phone.state, PeerState::Revoked, "{text:?}");
        assert!(phone.revocation.reason.as_ref().unwrap().contains("peers/phone.toml is broken"), "{text:?}");
        assert_eq!(codex.active().count(), 1, "{text:?}");
        for key in [PHONE, KEY] {
            assert_eq!(site.text("revoked").contains(key), dead.contains(&key), "{text:?}: {key}");
        }
        assert!(!site.text("peers/phone.toml").contains("PrivateKey"));
        assert!(site.run(&["audit", "verify"]).starts_with("1 record, the chain is whole\n"));
        let bond = ["peer", "bond", "wraith", "--public-key", PHONE, "--no-config"];
        if dead.contains(&PHONE) {
            site.refuses(&bond, 1, &["never comes back"]);
        }
        let address = site.text("peers/phone.toml").contains("\"10.88.16.2\"");
        assert_eq!(address, text.contains("10.88.16.2"), "its address rests behind the fence");
        site.run(&["peer", "bond", "wraith", "--public-key", OTHER, "--no-config"]);
    }
}

#[test]
fn a_file_that_is_no_text_is_looked_through_all_the_same() {
    let site = Site::new();
    let bytes = [site.text("peers/phone.toml").as_bytes(), b"# \xff\n"].concat();
    fs::write(site.codex().join("peers/phone.toml"), bytes).unwrap();
    site.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config"]);
    assert!(site.text("peers/wraith.toml").contains("\"10.88.16.4\""));
    site.run(&["peer", "revoke", "phone"]);
    assert!(site.text("revoked").contains(PHONE));
}

#[test]
fn nobody_is_bonded_into_what_was_granted_to_somebody_who_is_gone() {
    let site = Site::new();
    site.run(&["peer", "grant", "laptop", "peer:phone"]);
    fs::remove_file(site.codex().join("peers/phone.toml")).unwrap();
    site.run(&["peer", "list"]);
    let bond = |name| ["peer", "bond", name, "--public-key", KEY, "--no-config"];
    site.refuses(
        &bond("phone"),
        1,
        &["`laptop` is granted a `phone` that is gone", "peer ungrant laptop peer:phone"],
    );
    site.run(&bond("wraith"));
    site.run(&["peer", "ungrant", "laptop", "peer:phone"]);
    assert_eq!(site.load().active().count(), 2);
}
