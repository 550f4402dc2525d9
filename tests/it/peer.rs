//! `sepulcher peer` and `sepulcher audit` on a workstation's Codex: what they write, what they refuse.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sepulcher::codex::{Codex, PeerState};
use sepulcher::sys::wireguard::SecretKey;

use crate::cases::load;
use crate::support::{copy, repository, sepulcher};

/// The appliance's secret key, and its public half.
const HOST_SECRET: &str = "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=\n";
const HOST: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";
/// Public keys of peers that nobody has yet.
pub const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
pub const OTHER: &str = "h0k+J2y+CHaMWvKS7Bg+xf+lzQMRrpRsJoMUs2p4DG8=";

/// The example's Codex, with its peers `laptop` and `phone` and the appliance's key.
pub struct Site(tempfile::TempDir);

impl Site {
    pub fn new() -> Self {
        let site = Self(tempfile::Builder::new().prefix("sepulcher-peer-").tempdir().unwrap());
        copy(&repository("examples/lychd"), &site.codex());
        fs::create_dir_all(site.codex().join("secrets/peers")).unwrap();
        fs::write(site.codex().join("secrets/tether.key"), HOST_SECRET).unwrap();
        site
    }

    pub fn codex(&self) -> PathBuf {
        self.0.path().join("codex")
    }

    pub fn text(&self, file: &str) -> String {
        fs::read_to_string(self.codex().join(file)).unwrap_or_default()
    }

    /// A file beside the Codex.
    pub fn beside(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap()
    }

    pub fn load(&self) -> Codex {
        load(&self.codex())
    }

    /// `sepulcher VERB… --codex codex`, run beside the folder `codex`.
    pub fn command(&self, words: &[&str]) -> assert_cmd::Command {
        let mut command = sepulcher();
        command.current_dir(self.0.path()).args(words).args(["--codex", "codex"]);
        command
    }

    /// Runs a command that must succeed, and returns standard output.
    pub fn run(&self, words: &[&str]) -> String {
        let run = self.command(words).assert().success();
        String::from_utf8(run.get_output().stdout.clone()).unwrap()
    }

    /// Runs a command that must end with `code`, say all of `parts`, and change nothing.
    pub fn refuses(&self, words: &[&str], code: i32, parts: &[&str]) {
        let before = files(self.0.path());
        let run = self.command(words).assert().code(code);
        let said = String::from_utf8_lossy(&run.get_output().stderr);
        for part in ["error: "].iter().chain(parts) {
            assert!(said.contains(part), "{words:?}: {part:?} is missing from:\n{said}");
        }
        let remedy = said.contains("hint: ") || said.contains("help: ");
        assert!(code == 2 || remedy, "{words:?}: no remedy in:\n{said}");
        assert!(run.get_output().stdout.is_empty(), "{words:?}: an error wrote to standard output");
        same(&before, &files(self.0.path()), words);
    }
}

/// Permission bits and content by path.
type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Every file below a folder with its permission bits; the lock's file says nothing.
fn files(folder: &Path) -> Files {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != ".lock" {
            found.insert(path.clone(), (mode(&path), fs::read(&path).unwrap()));
        }
    }
    found
}

/// Asserts that nothing differs, and names what does.
fn same(before: &Files, now: &Files, words: &[&str]) {
    let differs = |path: &&PathBuf| before.get(*path) != now.get(*path);
    let differing: Vec<_> = before.keys().chain(now.keys()).filter(differs).collect();
    assert!(differing.is_empty(), "{words:?} changed {differing:?}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The value of a key of a client configuration.
fn value<'a>(configuration: &'a str, key: &str) -> &'a str {
    let mut values = configuration.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    values.next().unwrap_or_else(|| panic!("no {key} in:\n{configuration}"))
}

#[test]
fn a_bond_is_a_file_a_preshared_key_a_record_and_one_showing() {
    let site = Site::new();
    let shown = site.run(&["peer", "bond", "wraith", "--grant", "oculus", "bonds", "--expires", "30d"]);
    let codex = site.load();
    let peer = &codex.peers[&"wraith".parse().unwrap()];
    let private = value(&shown, "PrivateKey");
    assert_eq!(SecretKey::parse(private.as_bytes()).unwrap().public(), peer.public_key);
    assert_eq!(value(&shown, "PublicKey"), HOST);
    assert_eq!(value(&shown, "Address"), "10.88.16.4/32");
    assert_eq!(value(&shown, "Endpoint"), "lychd.example:51820");
    let preshared = site.codex().join("secrets/peers/wraith.1.psk");
    assert_eq!(format!("{}\n", value(&shown, "PresharedKey")), fs::read_to_string(&preshared).unwrap());
    assert_eq!(mode(&preshared), 0o600);
    assert_eq!(mode(&site.codex().join("audit.jsonl")), 0o600);
    let created = peer.created.unwrap().epoch();
    assert_eq!(peer.expires.unwrap().epoch() - created, 30 * 86400);
    for (path, (_, bytes)) in files(&site.codex()) {
        assert!(
            !String::from_utf8_lossy(&bytes).contains(private),
            "the private key is in {}",
            path.display()
        );
    }
    let record: serde_json::Value = serde_json::from_str(site.text("audit.jsonl").trim()).unwrap();
    let uid = rustix::process::getuid().as_raw();
    assert_eq!((&record["verb"], &record["peer"]), (&"bond".into(), &"wraith".into()));
    assert_eq!(record["who"], format!("uid {uid}"));
}

#[test]
fn a_peer_that_keeps_its_private_key_gets_a_configuration_with_its_place() {
    let site = Site::new();
    let shown = site.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-preshared"]);
    assert_eq!(value(&shown, "PrivateKey"), "PRIVATE-KEY-OF-THIS-DEVICE");
    assert!(!shown.contains("PresharedKey"));
    assert_eq!(site.load().peers[&"wraith".parse().unwrap()].public_key.to_string(), KEY);
    assert_eq!(site.run(&["peer", "bond", "ghoul", "--public-key", OTHER, "--no-config"]), "");
}

#[test]
fn what_the_configuration_needs_is_known_before_anything_is_written() {
    let site = Site::new();
    fs::remove_file(site.codex().join("secrets/tether.key")).unwrap();
    site.refuses(&["peer", "bond", "wraith"], 1, &["the appliance's public key is not known", "--host-key"]);
    let law = site.text("lychd.toml").replace("endpoint", "# endpoint");
    fs::write(site.codex().join("lychd.toml"), law).unwrap();
    let bond = ["peer", "bond", "wraith", "--host-key", HOST];
    site.refuses(&bond, 1, &["what `wraith` dials", "--endpoint HOST"]);
    for (host, why) in [("a b", "a DNS name"), ("127.0.0.1", "127.0.0.1"), ("10.88.16.9", "10.88.16.9")] {
        site.refuses(&[&bond[..], &["--endpoint", host]].concat(), 1, &["cannot dial", why]);
    }
    let shown = site.run(&[&bond[..], &["--endpoint", "192.0.2.1"]].concat());
    assert_eq!((value(&shown, "Endpoint"), value(&shown, "PublicKey")), ("192.0.2.1:51820", HOST));
}

#[test]
fn files_of_the_configuration_are_for_their_owner_and_replace_nothing() {
    let site = Site::new();
    let outputs = ["--conf", "w.conf", "--png", "w.png", "--svg", "w.svg"];
    assert_eq!(site.run(&[&["peer", "bond", "wraith"], &outputs[..]].concat()), "");
    let read = |name: &str| fs::read(site.0.path().join(name)).unwrap();
    for name in ["w.conf", "w.png", "w.svg"] {
        assert_eq!(mode(&site.0.path().join(name)), 0o600, "{name}");
    }
    assert!(String::from_utf8(read("w.conf")).unwrap().contains("PresharedKey = "));
    assert!(read("w.png").starts_with(b"\x89PNG") && read("w.svg").starts_with(b"<?xml"));
    site.refuses(&["peer", "bond", "ghoul", "--png", "g.png", "--conf", "w.conf"], 1, &["w.conf exists"]);
    // A bond that is refused leaves no empty file behind.
    site.refuses(&["peer", "bond", "phone", "--conf", "g.conf"], 1, &["`phone` is taken"]);
}

#[test]
fn json_holds_the_plan_the_peer_and_the_one_showing() {
    let site = Site::new();
    let told = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&site.run(&[words, &["--json"]].concat())).unwrap()
    };
    let bond = told(&["peer", "bond", "wraith"]);
    assert_eq!((&bond["schema"], &bond["peer"]["state"]), (&1.into(), &"active".into()));
    assert!(bond["client"].as_str().unwrap().contains("PrivateKey = "));
    let rotated = told(&["peer", "rotate", "wraith", "--conf", "w.conf"]);
    assert_eq!((&rotated["client"], &rotated["peer"]["generation"]), (&serde_json::Value::Null, &2.into()));
    assert_eq!(told(&["peer", "revoke", "wraith", "--reason", "lost"])["peer"]["reason"], "lost");
    let list = told(&["peer", "list"]);
    assert_eq!(list["peers"].as_array().unwrap().len(), 3);
    assert_eq!(told(&["audit", "verify"])["records"], 3);
    assert_eq!(told(&["audit", "show"]).as_array().unwrap().len(), 3);
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let site = Site::new();
    let before = files(&site.codex());
    for (words, line) in [
        (&["bond", "wraith", "--public-key", KEY][..], "+ peer wraith 10.88.16.4"),
        (&["rotate", "phone", "--public-key", KEY], "~ peer phone key FkF+e"),
        (&["revoke", "phone"], "- peer phone 10.88.16.2"),
        (&["grant", "phone", "metrics"], "+ grant phone metrics"),
        (&["ungrant", "phone", "echo"], "- grant phone echo"),
        (&["extend", "phone", "--expires", "1d"], "~ phone expires never -> 20"),
    ] {
        let told = site.run(&[&["peer"], words, &["--dry-run"]].concat());
        assert!(told.starts_with(line), "{words:?} told:\n{told}");
        assert!(!site.codex().join(".lock").exists());
    }
    same(&before, &files(&site.codex()), &["--dry-run"]);
}

#[test]
fn a_revoked_peer_is_a_tombstone_whose_name_key_and_address_stay_away() {
    let site = Site::new();
    site.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config"]);
    site.run(&["peer", "revoke", "wraith", "--reason", "lost \"it\""]);
    let tombstone = &site.load().peers[&"wraith".parse().unwrap()];
    assert_eq!(tombstone.state, PeerState::Revoked);
    assert_eq!(tombstone.revocation.reason.as_deref(), Some("lost \"it\""));
    assert!(site.text("revoked").starts_with(&format!("{KEY} wraith 1 ")));
    assert!(!site.codex().join("secrets/peers/wraith.1.psk").exists());
    let bond = |name, key| ["peer", "bond", name, "--public-key", key, "--no-config"];
    site.refuses(&bond("wraith", OTHER), 1, &["`wraith` is a revoked peer's"]);
    site.refuses(&bond("ghoul", KEY), 1, &["was `wraith`'s and never comes back"]);
    site.refuses(&[&bond("ghoul", OTHER)[..], &["--address", "10.88.16.4"]].concat(), 1, &["rests until"]);
    // The key stays away when the tombstone is gone, too.
    fs::remove_file(site.codex().join("peers/wraith.toml")).unwrap();
    site.refuses(&bond("ghoul", KEY), 1, &["was revoked and never comes back"]);
}

#[test]
fn a_rotation_buries_the_old_key_at_once_or_after_the_overlap_that_was_asked_for() {
    let site = Site::new();
    site.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config"]);
    site.run(&["peer", "rotate", "wraith", "--public-key", OTHER, "--no-config", "--overlap", "10m"]);
    let peer = || site.load().peers[&"wraith".parse().unwrap()].clone();
    assert_eq!(peer().overlap.as_ref().unwrap().public_key.to_string(), KEY);
    assert_eq!(site.text("revoked"), "", "the old key is still in use");
    let keys = |generations: &[u32]| {
        let there =
            |generation: &u32| site.codex().join(format!("secrets/peers/wraith.{generation}.psk")).exists();
        assert!(generations.iter().all(there), "{generations:?}");
        assert_eq!(fs::read_dir(site.codex().join("secrets/peers")).unwrap().count(), generations.len());
    };
    keys(&[1, 2]);
    site.run(&["peer", "rotate", "wraith"]);
    keys(&[3]);
    let revoked = site.text("revoked");
    assert!(revoked.contains(KEY) && revoked.contains(OTHER), "{revoked}");
    assert_eq!((peer().generation, &peer().overlap), (3, &None));
}

#[test]
fn an_overlap_that_is_over_leaves_the_codex_valid_and_its_key_dead() {
    let site = Site::new();
    site.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config"]);
    site.run(&["peer", "rotate", "wraith", "--public-key", OTHER, "--no-config", "--overlap", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let ended = |site: &Site| {
        assert!(site.text("revoked").starts_with(&format!("{KEY} wraith 1 ")), "{}", site.text("revoked"));
        assert!(!site.text("peers/wraith.toml").contains("[overlap]"));
        assert!(!site.codex().join("secrets/peers/wraith.1.psk").exists());
        assert_eq!(site.load().peers[&"wraith".parse().unwrap()].replaced.len(), 1);
        let bond = ["peer", "bond", "ghoul", "--public-key", KEY, "--no-config"];
        site.refuses(&bond, 1, &["was `wraith`'s and never comes back"]);
    };
    let other = Site::new();
    fs::remove_dir_all(other.codex()).unwrap();
    copy(&site.codex(), &other.codex());
    // The next change of any peer ends it, and the next change of that peer.
    site.run(&["peer", "grant", "phone", "metrics"]);
    ended(&site);
    assert!(site.run(&["audit", "show"]).contains(" end "));
    other.run(&["peer", "grant", "wraith", "metrics"]);
    ended(&other);
}

#[test]
fn what_a_person_wrote_in_a_file_stays() {
    let site = Site::new();
    let written = "# Mine.\naddress   = \"10.88.16.2\"  # the old one\n\n\npublic-key = \"FkF+e/8sl5ijuqf9MmWbOZGswIU1TD9qHw828ACGpRQ=\"\ngrants = [ \"oculus\" ]\n";
    fs::write(site.codex().join("peers/phone.toml"), written).unwrap();
    site.run(&["peer", "grant", "phone", "echo"]);
    site.run(&["peer", "ungrant", "phone", "echo"]);
    assert_eq!(site.text("peers/phone.toml"), written);
}

#[test]
fn an_export_is_imported_elsewhere_whole_or_not_at_all_and_twice_is_once() {
    let (from, to) = (Site::new(), Site::new());
    for site in [&from, &to] {
        let law = site.text("lychd.toml") + "network6 = \"fd88:0:0:16::/64\"\n";
        fs::write(site.codex().join("lychd.toml"), law).unwrap();
    }
    let lych =
        ["--kind", "lych", "--remote", "lych.example:51820", "--keepalive", "15", "--route", "10.99.0.0/24"];
    from.run(&[&["peer", "bond", "site", "--public-key", KEY, "--no-config"], &lych[..]].concat());
    let far = ["--expires", "30d", "--address", "10.88.16.77", "--address6", "fd88:0:0:16::77"];
    from.run(&[&["peer", "bond", "wraith", "--public-key", OTHER, "--no-config"], &far[..]].concat());
    // Each of the other, and one of somebody who does not travel.
    from.run(&["peer", "grant", "site", "peer:wraith"]);
    from.run(&["peer", "grant", "wraith", "peer:site", "peer:phone"]);
    let export = from.run(&["peer", "export"]);
    let secret = fs::read_to_string(from.codex().join("secrets/peers/wraith.1.psk")).unwrap();
    assert!(!export.contains(secret.trim()), "a preshared key is exported");
    let bundle = to.0.path().join("bundle.toml");
    fs::write(&bundle, &export).unwrap();
    to.run(&["peer", "import", "bundle.toml"]);
    let (there, here) = (to.load(), from.load());
    for (name, peer) in &here.peers {
        let other = &there.peers[name];
        let identity = |peer: &sepulcher::codex::Peer| (peer.public_key, peer.address, peer.address6);
        assert_eq!(identity(other), identity(peer));
        assert_eq!((&other.kind, &other.grants, other.expires), (&peer.kind, &peer.grants, peer.expires));
    }
    let before = files(&to.codex());
    to.run(&["peer", "import", "bundle.toml"]);
    same(&before, &files(&to.codex()), &["import"]);
    // The last of them is revoked: none of the others is bonded either.
    to.run(&["peer", "revoke", "wraith"]);
    fs::remove_file(to.codex().join("peers/site.toml")).unwrap();
    to.refuses(&["peer", "import", "bundle.toml"], 1, &["`wraith` is a revoked peer's"]);
    fs::write(&bundle, "schema = 2\n").unwrap();
    to.refuses(&["peer", "import", "bundle.toml"], 1, &["schema 2"]);
    fs::write(&bundle, export.replace("grants", "grant")).unwrap();
    to.refuses(&["peer", "import", "bundle.toml"], 1, &["no export of bonds", "unknown field"]);
    from.refuses(&["peer", "export", "nobody"], 1, &["there is no peer `nobody`"]);
}

#[test]
fn whose_time_is_over_is_exported_only_when_it_has_more() {
    let (from, to) = (Site::new(), Site::new());
    from.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config"]);
    from.run(&["peer", "bond", "ghoul", "--public-key", OTHER, "--no-config", "--grant", "peer:wraith"]);
    let expired = from.text("peers/wraith.toml") + "expires = 2020-01-01T00:00:00Z\n";
    fs::write(from.codex().join("peers/wraith.toml"), expired).unwrap();
    let run = from.command(&["peer", "export"]).assert().success();
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains("wraith is left out") && said.contains("peer extend wraith"), "{said}");
    fs::write(to.0.path().join("bundle.toml"), &run.get_output().stdout).unwrap();
    to.run(&["peer", "import", "bundle.toml"]);
    let names: Vec<_> = to.load().peers.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["ghoul", "laptop", "phone"]);
    from.refuses(&["peer", "export", "wraith"], 1, &["the time of `wraith` is over", "peer extend wraith"]);
    from.run(&["peer", "extend", "wraith", "--expires", "1d"]);
    assert!(from.run(&["peer", "export", "wraith"]).contains(KEY));
}

#[test]
fn an_import_answers_with_one_list_of_json() {
    let (from, to) = (Site::new(), Site::new());
    from.run(&["peer", "bond", "wraith", "--public-key", KEY, "--no-config"]);
    from.run(&["peer", "bond", "ghoul", "--public-key", OTHER, "--no-config"]);
    fs::write(to.0.path().join("bundle.toml"), from.run(&["peer", "export"])).unwrap();
    let answered = |more: &[&str]| -> Vec<serde_json::Value> {
        let words = [&["peer", "import", "bundle.toml", "--json"], more].concat();
        serde_json::from_str(&to.run(&words)).unwrap()
    };
    for more in [&["--dry-run"][..], &[]] {
        let names: Vec<_> = answered(more).iter().map(|reply| reply["peer"]["name"].clone()).collect();
        assert_eq!(names, ["ghoul", "wraith"], "{more:?}");
    }
    assert!(answered(&[]).is_empty(), "all of them are bonded");
}

#[test]
fn bonds_that_cannot_be_are_refused_with_a_remedy_and_nothing_changes() {
    let site = Site::new();
    let laptop = "4CKf3Grh+ot3G/k/W2rXBf17+VSE1LPBsq9m4Ly1zik=";
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let one = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let bond = |name| ["peer", "bond", name, "--public-key", KEY, "--no-config"];
    let with = |more: &[&'static str]| [&bond("wraith")[..], more].concat();
    let long = "w".repeat(33);
    for name in ["", "Wraith", "wr aith", "../wraith", "wraith.toml", &long] {
        site.refuses(&bond(name), 2, &["a name"]);
    }
    let disguised = "4CKf3Grh+ot3G/k/W2rXBf17+VSE1LPBsq9m4Ly1zqk=";
    for (key, why) in
        [("x", "44 characters"), (zeros, "low-order"), (one, "low-order"), (disguised, "in disguise")]
    {
        site.refuses(&["peer", "bond", "wraith", "--public-key", key], 2, &[why]);
    }
    site.refuses(&bond("phone"), 1, &["the name `phone` is taken", "rotate phone"]);
    for (key, why) in [(laptop, "is `laptop`'s"), (HOST, "is the appliance's own")] {
        site.refuses(&["peer", "bond", "wraith", "--public-key", key], 1, &[why, "wg genkey"]);
    }
    for (more, why) in [
        (&["--address", "10.88.16.2"][..], "10.88.16.2 is taken"),
        (&["--address", "10.88.16.1"], "10.88.16.1"),
        (&["--address6", "fd88::2"], "fd88::2"),
        (&["--address", "192.0.2.7"], "192.0.2.7"),
        (&["--grant", "nothing"], "no service `nothing`"),
        (&["--grant", "phylactery"], "phylactery"),
        (&["--grant", "oculus", "--grant", "oculus"], "twice"),
        (&["--expires", "2020-01-01T00:00:00Z"], "is past"),
        (&["--route", "10.99.0.0/24"], "--kind lych"),
        (&["--kind", "lych", "--route", "10.88.0.0/24"], "10.88.0.0/24"),
        (&["--kind", "lych", "--remote", "nowhere"], "nowhere"),
    ] {
        site.refuses(&with(more), 1, &[why]);
    }
    site.refuses(&with(&["--expires", "soon"]), 2, &["30d"]);
    site.refuses(&["peer", "bond", "wraith", "--no-config"], 2, &["--public-key"]);
}

#[test]
fn changes_that_cannot_be_are_refused_with_a_remedy_and_nothing_changes() {
    let site = Site::new();
    for verb in [&["revoke"][..], &["rotate"], &["grant"], &["ungrant"], &["extend"]] {
        let more: &[&str] = match verb[0] {
            "grant" | "ungrant" => &["phnoe", "oculus"],
            "extend" => &["phnoe", "--expires", "never"],
            _ => &["phnoe"],
        };
        site.refuses(&[&["peer"], verb, more].concat(), 1, &["no peer `phnoe`", "did you mean `phone`?"]);
    }
    site.refuses(&["peer", "show", "nobody"], 1, &["no peer `nobody`"]);
    site.refuses(&["peer", "grant", "phone", "oculus"], 1, &["already"]);
    site.refuses(&["peer", "grant", "phone", "nothing"], 1, &["no service `nothing`"]);
    site.refuses(&["peer", "ungrant", "phone", "worker"], 1, &["has no grant `worker`"]);
    site.refuses(&["peer", "ungrant", "laptop", "worker"], 1, &["holds `*`"]);
    site.refuses(&["peer", "extend", "phone", "--expires", "2020-01-01T00:00:00Z"], 1, &["is past"]);
    site.run(&["peer", "revoke", "phone"]);
    for words in [&["rotate", "phone"][..], &["revoke", "phone"], &["grant", "phone", "worker"]] {
        site.refuses(&[&["peer"], words].concat(), 1, &["`phone` is revoked", "never returns"]);
    }
}

#[test]
fn a_network_without_room_is_told_with_when_there_is_room_again() {
    let site = Site::new();
    let law = site.text("lychd.toml") + "network = \"10.88.16.0/29\"\n";
    fs::write(site.codex().join("lychd.toml"), law).unwrap();
    for name in ["a", "b", "c"] {
        site.run(&["peer", "bond", name]);
    }
    site.refuses(&["peer", "bond", "d"], 1, &["every address of 10.88.16.0/29 is taken", "`network`"]);
    site.run(&["peer", "revoke", "a"]);
    site.refuses(&["peer", "bond", "d"], 1, &["every address", "wait until 20"]);
}

#[test]
fn places_that_are_none_are_named_with_a_remedy() {
    let site = Site::new();
    let nowhere = |words: &[&str], parts: &[&str]| {
        let run = sepulcher().current_dir(site.0.path()).args(words).assert().code(1);
        let said = String::from_utf8_lossy(&run.get_output().stderr);
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    };
    nowhere(&["peer", "bond", "wraith"], &["this machine is no appliance", "--codex DIR"]);
    nowhere(&["peer", "bond", "wraith", "--codex", "gone"], &["gone", "sepulcher init"]);
    assert!(!site.0.path().join("gone").exists());
    fs::write(site.codex().join("peers/phone.toml"), "x = 1\n").unwrap();
    // Nothing of it can be read: whoever came now could be given what is the phone's.
    let parts = ["peers/phone.toml:1:1", "peers/phone.toml is broken", "peer revoke phone"];
    site.refuses(&["peer", "bond", "wraith"], 1, &parts);
}

#[test]
fn the_log_tells_tampering_a_cut_and_edits_by_hand() {
    let site = Site::new();
    for word in ["worker", "intercom", "metrics"] {
        site.run(&["peer", "grant", "phone", word]);
    }
    let whole = site.run(&["audit", "verify"]);
    let head = whole.lines().find_map(|line| line.strip_prefix("head ")).unwrap();
    assert!(whole.starts_with("3 records, the chain is whole\n"), "{whole}");
    let log = site.text("audit.jsonl");
    let path = site.codex().join("audit.jsonl");
    fs::write(&path, log.replacen("grant", "extend", 1)).unwrap();
    site.refuses(&["audit", "verify"], 1, &["line 2 of the log does not follow"]);
    let two: String = log.split_inclusive('\n').take(2).collect();
    fs::write(&path, two).unwrap();
    site.run(&["audit", "verify"]);
    site.refuses(&["audit", "verify", "--head", head], 1, &["no longer holds"]);
    fs::write(&path, &log).unwrap();
    let edited = site.text("peers/phone.toml") + "# mine\n";
    fs::write(site.codex().join("peers/phone.toml"), edited).unwrap();
    assert!(site.run(&["audit", "verify", "--head", head]).contains("note: peers/phone.toml is not as"));
    site.run(&["peer", "grant", "laptop", "metrics"]);
    let told = site.run(&["audit", "show"]);
    let verbs: Vec<_> = told.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4)).collect();
    assert_eq!(verbs, ["grant", "grant", "grant", "found", "grant"]);
}

#[test]
fn two_writers_at_once_take_no_address_twice_and_lose_nothing() {
    let site = Site::new();
    std::thread::scope(|scope| {
        for writer in ["a", "b"] {
            let site = &site;
            scope.spawn(move || {
                for index in 0..20 {
                    site.run(&["peer", "bond", &format!("{writer}{index}")]);
                }
            });
        }
    });
    // Parsing it is the claim that no address and no key is there twice.
    assert_eq!(site.load().peers.len(), 42);
    assert!(site.run(&["audit", "verify"]).starts_with("40 records, the chain is whole\n"));
}
