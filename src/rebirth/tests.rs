//! A machine in a folder: what its programs would say is in files, and its boot partition is a folder, too.

use std::path::PathBuf;

use super::machine::Machine;
use super::record::{Activated, End, Outcome, Part, SCHEMA, Staged};
use super::store::{self, Wish};
use super::{attempt, kept, rollback, status};
use crate::codex::time::Timestamp;
use crate::image::disk::Role;
use crate::image::identity;
use crate::peer::store::Place;
use crate::sys::{fs, record};
use crate::tree::Sha256Digest;

const ROOT: &[u8] = b"the root of body 2";
const VERITY: &[u8] = b"its hash tree";
const KERNEL: &[u8] = b"its kernel image";

struct Fake {
    folder: tempfile::TempDir,
    machine: Machine,
}

impl Fake {
    /// A machine on which body `running` runs, with these files on its boot partition.
    fn new(running: &str, entries: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::new(folder.path());
        let fake = Self { folder, machine };
        let place = Place::appliance(fake.folder.path());
        for folder in [&place.law, &place.bonds.join("peers"), &place.secrets] {
            fs::create_dir_all(folder).unwrap();
        }
        fake.write("usr/share/sepulcher/codex/lychd.toml", b"schema = 1\n[appliance]\nname = \"lychd\"\n");
        fake.write("proc/sys/kernel/random/boot_id", b"a boot\n");
        fake.write("run/sepulcher/x", b"");
        fake.runs(running);
        for entry in entries {
            fake.write(&format!("efi/EFI/Linux/{entry}"), b"x");
        }
        fake.program("usr/bin/lsblk", "cat \"$0.json\"");
        fake.program("usr/bin/udevadm", "");
        fake.program("usr/lib/systemd/systemd-sysupdate", "echo \"$@\" >> \"$0.log\"");
        fake.slots("lychd_2");
        fake
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, 0o644, bytes).unwrap();
    }

    fn program(&self, path: &str, script: &str) {
        self.write(path, format!("#!/bin/sh\n{script}\n").as_bytes());
        fs::set_mode(&self.path(path), 0o755).unwrap();
    }

    fn runs(&self, version: &str) {
        let release = format!("IMAGE_ID=lychd\nIMAGE_VERSION={version}\n");
        self.write("usr/lib/os-release", release.as_bytes());
        let cmdline = format!("roothash={} quiet\n", Sha256Digest::of(version.as_bytes()));
        self.write("proc/cmdline", cmdline.as_bytes());
    }

    /// The slots of body 1, and of body 2 with this label.
    fn slots(&self, label: &str) {
        let mut devices = Vec::new();
        for (name, version) in [("lychd_1", "1"), (label, "2")] {
            let (root, verity) = identity::partitions(Sha256Digest::of(version.as_bytes()));
            for (role, uuid, suffix) in [(Role::Root, root, ""), (Role::Verity, verity, "_verity")] {
                devices.push(serde_json::json!({
                    "path": format!("/dev/{version}{suffix}"), "partlabel": format!("{name}{suffix}"),
                    "parttype": role.type_uuid().to_string(), "partuuid": uuid.to_string(), "size": 4096,
                    "kname": format!("{version}{suffix}"), "pkname": "vda",
                }));
            }
        }
        for under in ["1", "1_verity"] {
            devices.push(serde_json::json!({
                "path": "/dev/mapper/root", "partlabel": null, "parttype": null, "partuuid": null, "size": 4096,
                "kname": "dm-0", "pkname": under,
            }));
        }
        // The stick that the image came from, which is found first.
        let stick = |device: &serde_json::Value| {
            let mut device = device.clone();
            let name = |key: &str| format!("stick-{}", device[key].as_str().unwrap_or_default());
            let (kname, path) = (name("kname"), name("path"));
            device["pkname"] = "sda".into();
            device["kname"] = kname.into();
            device["path"] = path.into();
            device
        };
        let stick: Vec<_> = devices[..2].iter().map(stick).collect();
        devices.splice(0..0, stick);
        let listing = serde_json::json!({ "blockdevices": devices });
        self.write("usr/bin/lsblk.json", listing.to_string().as_bytes());
        self.write("dev/2", ROOT);
        self.write("dev/2_verity", VERITY);
    }

    /// Keeps body 2 as one that is staged.
    fn staged(&self) -> Staged {
        let part = |bytes: &[u8]| Part { size: bytes.len() as u64, sha256: Sha256Digest::of(bytes) };
        let law = [("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n")];
        let staged = Staged {
            schema: SCHEMA,
            version: "2".parse().unwrap(),
            digest: Sha256Digest::of(b"2"),
            root_hash: Sha256Digest::of(b"2"),
            codex_schema: 1,
            at: Timestamp::from_epoch(0),
            root: part(ROOT),
            verity: part(VERITY),
            kernel: part(KERNEL),
            law: law.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect(),
            takes: Vec::new(),
        };
        self.write("var/lib/sepulcher/rebirth/staged/kernel.efi", KERNEL);
        record::write(&self.path("var/lib/sepulcher/rebirth/staged/staged.json"), &staged).unwrap();
        staged
    }

    fn activated(&self, version: &str, from: &str, outcome: Option<End>) {
        let activated = Activated {
            schema: SCHEMA,
            version: version.parse().unwrap(),
            digest: Sha256Digest::of(b"2"),
            from: from.parse().unwrap(),
            at: Timestamp::from_epoch(0),
            snapshot: None,
            tries: Vec::new(),
            outcome: outcome.map(|end| Outcome { end, at: Timestamp::from_epoch(1) }),
        };
        let _lock = kept::locked(&self.machine).unwrap();
        kept::write_activated(&self.machine, &activated).unwrap();
    }

    /// How the last Rebirth stands, in a word.
    fn outcome(&self) -> String {
        let Some(activated) = kept::activated(&self.machine).unwrap() else { return "none".to_owned() };
        activated.outcome.map_or_else(|| "pending".to_owned(), |outcome| format!("{:?}", outcome.end))
    }

    fn entries(&self) -> Vec<String> {
        let files = fs::list(&self.machine.entries_folder()).unwrap();
        files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    fn sysupdate(&self) -> String {
        let log = fs::read(&self.path("usr/lib/systemd/systemd-sysupdate.log")).unwrap_or_default();
        String::from_utf8(log).unwrap()
    }
}

const RECORD: &str = "var/lib/sepulcher/rebirth/activated.json";

#[test]
fn a_record_that_was_overwritten_is_told_and_in_nobodys_way() {
    let fake = Fake::new("1", &["lychd_1.efi"]);
    fake.write(RECORD, &[0; 400]);
    fake.write("var/lib/sepulcher/rebirth/staged/staged.json", &[0; 400]);
    assert!(status::look(&fake.machine).is_err());
    let mut told = Vec::new();
    let running = fake.machine.running().unwrap();
    store::make_way(&fake.machine, &running, &mut |line| told.push(line.to_owned())).unwrap();
    assert!(told.len() == 1 && told[0].contains("activated.json is damaged"), "{told:?}");
    fake.write(RECORD, &[0; 400]);
    fake.write("var/lib/sepulcher/rebirth/staged/staged.json", &[0; 400]);
    let told = attempt::begin(&fake.machine).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("staged.json is damaged") && told[1].contains("activated.json is damaged"));
    assert_eq!(attempt::begin(&fake.machine).unwrap(), [""; 0]);
    let seen = status::look(&fake.machine).unwrap();
    assert!(seen.rebirth.is_none() && seen.staged.is_none());
}

#[test]
fn the_status_tells_that_a_snapshot_was_put_back_and_not_who_is_in_it() {
    let fake = Fake::new("1", &["lychd_1.efi"]);
    let line = r#"{"at":"2026-11-29T16:00:00Z","file":"0123456789abcdef.json","peer":"laptop","state":"done","reason":null,"outcome":{"restored":{"name":"2026-11-29T150000Z","plan":["- peer phone"],"before":null}}}"#;
    fake.write("var/lib/sepulcher/rebirth/intents.jsonl", format!("{line}\n").as_bytes());
    assert!(super::inbox::records(fake.machine.root()).unwrap()[0].outcome.is_some());
    let seen = status::look(&fake.machine).unwrap();
    assert_eq!((seen.asked.len(), seen.asked[0].outcome.as_ref()), (1, None));
}

#[test]
fn what_a_power_loss_left_is_gone_with_the_next_boot() {
    let others = ["lychd_1.efi", "other_2+3-0.efi", ".other_2+3-0.efi.7.tmp", ".lychd.swp", "loader.7.tmp"];
    let fake = Fake::new("1", &others);
    fake.write("efi/EFI/Linux/.lychd_2+3-0.efi.7.tmp", b"half a kernel image");
    fake.write("efi/EFI/Linux/lychd_2+3-0.efi", b"");
    fake.write("efi/EFI/Linux/empty", b"");
    fake.write("var/lib/sepulcher/rebirth/incoming/lychd_2.efi", b"x");
    fake.write("var/lib/sepulcher/rebirth/staging/kernel.efi", b"x");
    fake.write("var/lib/sepulcher/intents/.a.json.7.tmp", b"x");
    assert_eq!(attempt::begin(&fake.machine).unwrap(), [""; 0]);
    let mut left = others.to_vec();
    left.push("empty");
    left.sort_unstable();
    assert_eq!(fake.entries(), left);
    assert_eq!(fs::list(&fake.path("var/lib/sepulcher/intents")).unwrap(), [""; 0].map(PathBuf::from));
    let state = fs::list_named(&fake.machine.state(), |name| !name.starts_with('.')).unwrap();
    assert_eq!(state, [""; 0].map(PathBuf::from));
}

/// What a boot makes of a record and the boot entries.
struct Boot<'a> {
    runs: &'a str,
    activated: (&'a str, &'a str, Option<End>),
    entries: &'a [&'a str],
    says: &'a str,
    outcome: &'a str,
    left: &'a [&'a str],
}

#[test]
fn a_boot_ends_what_was_cut_off_and_tells_how_it_went() {
    let (healthy, fell, back) = (Some(End::Healthy), Some(End::FellBack), Some(End::RolledBack));
    let boots = [
        // Attempts, and the fall behind them.
        ("2", ("2", "1", None), &["lychd_1.efi", "lychd_2+2-1.efi"][..], "attempt 1 of 3", "pending", None),
        ("1", ("2", "1", None), &["lychd_1.efi", "lychd_2+0-3.efi"], "and 1 is back", "FellBack", None),
        ("1", ("2", "1", fell), &["lychd_1.efi", "lychd_2+0-3.efi"], "", "FellBack", None),
        // It was healthy, and nobody told the boot loader.
        ("2", ("2", "1", healthy), &["lychd_1.efi", "lychd_2+1-2.efi"], "attempt 1 of 3", "pending", None),
        ("1", ("2", "1", healthy), &["lychd_1.efi", "lychd_2+0-3.efi"], "and 1 is back", "FellBack", None),
        ("2", ("2", "1", healthy), &["lychd_1.efi", "lychd_2.efi"], "", "Healthy", None),
        ("1", ("2", "1", healthy), &["lychd_1.efi", "lychd_2.efi"], "", "Healthy", None),
        // Rolled back, or nearly so.
        ("1", ("2", "1", back), &["lychd_1.efi", "lychd_2+0-0.efi"], "", "RolledBack", None),
        ("2", ("2", "1", back), &["lychd_1.efi", "lychd_2.efi"], "was cut off", "pending", None),
        // An older body: the one before steps back, and has its name again behind a fall.
        (
            "2",
            ("1", "2", None),
            &["lychd_1+3-0.efi", "lychd_2.efi"],
            "with the next boot",
            "pending",
            Some(&["lychd_1+3-0.efi", "lychd_2+0-0.efi"][..]),
        ),
        (
            "2",
            ("1", "2", None),
            &["lychd_1+0-3.efi", "lychd_2+0-1.efi"],
            "and 2 is back",
            "FellBack",
            Some(&["lychd_1+0-3.efi", "lychd_2.efi"]),
        ),
        (
            "2",
            ("1", "2", fell),
            &["lychd_1+0-3.efi", "lychd_2+0-2.efi"],
            "",
            "FellBack",
            Some(&["lychd_1+0-3.efi", "lychd_2.efi"]),
        ),
        // There was no entry yet.
        ("1", ("2", "1", None), &["lychd_1.efi"], "nothing has changed", "none", None),
    ];
    for (runs, activated, entries, says, outcome, left) in boots {
        let left = left.unwrap_or(entries);
        begins(&Boot { runs, activated, entries, says, outcome, left });
    }
}

fn begins(Boot { runs, activated, entries, says, outcome, left }: &Boot<'_>) {
    let fake = Fake::new(runs, entries);
    let (version, from, before) = *activated;
    fake.activated(version, from, before);
    let told = attempt::begin(&fake.machine).unwrap().join("\n");
    let case = format!("{runs} runs, {activated:?}, {entries:?}: {told}");
    assert!(told.contains(says) && told.is_empty() == says.is_empty(), "{case}");
    assert_eq!(fake.outcome(), *outcome, "{case}");
    assert_eq!(fake.entries(), *left, "{case}");
}

#[test]
fn a_healthy_body_that_was_never_blessed_is_told_of_as_such() {
    let fake = Fake::new("2", &["lychd_1.efi", "lychd_2+0-3.efi"]);
    fake.activated("2", "1", None);
    attempt::found(&fake.machine, Vec::new()).unwrap();
    assert_eq!(fake.outcome(), "Healthy");
    fake.runs("1");
    let told = attempt::begin(&fake.machine).unwrap();
    assert_eq!(told[1], "  attempt 1: it was healthy, but was never blessed");
    assert_eq!(fake.outcome(), "FellBack");
}

#[test]
fn a_boot_ends_only_for_something_that_is_left_to_try() {
    for (runs, entries, ends) in [
        ("2", &["lychd_1.efi", "lychd_2+2-1.efi"][..], true),
        ("2", &["lychd_1.efi", "lychd_2+0-3.efi"], true),
        ("2", &["lychd_1+0-3.efi", "lychd_2+1-2.efi"], true),
        // An older body on its last attempt: the one that stepped back comes.
        ("1", &["lychd_1+0-3.efi", "lychd_2+0-0.efi"], true),
        // Proven, alone, or nothing is left.
        ("1", &["lychd_1.efi", "lychd_2+0-3.efi"], false),
        ("1", &["lychd_1+2-1.efi"], false),
        ("2", &["lychd_1+0-3.efi", "lychd_2+0-1.efi"], false),
        ("3", &["lychd_1.efi", "lychd_2+0-1.efi"], false),
    ] {
        let fake = Fake::new(runs, entries);
        assert_eq!(attempt::should_end(&fake.machine).unwrap(), ends, "{runs} runs, {entries:?}");
    }
}

#[test]
fn where_the_entries_cannot_be_looked_at_the_boot_loader_is_believed() {
    let fake = Fake::new("2", &[]);
    assert!(attempt::should_end(&fake.machine).is_err());
    let variable = "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    fake.write(&format!("sys/firmware/efi/efivars/{variable}"), b"x");
    assert!(attempt::should_end(&fake.machine).unwrap());
}

#[test]
fn a_verdict_does_not_wait_for_a_body_that_is_being_staged() {
    let fake = Fake::new("2", &["lychd_1.efi", "lychd_2+0-3.efi"]);
    fake.activated("2", "1", None);
    let _staging = kept::locked(&fake.machine).unwrap();
    let start = std::time::Instant::now();
    let long = "x".repeat(10_000);
    attempt::found(&fake.machine, vec![long]).unwrap();
    assert!(start.elapsed() < crate::peer::store::PATIENCE);
    let verdict = kept::activated(&fake.machine).unwrap().unwrap().tries.pop().unwrap().verdict.unwrap();
    assert!((2048..2100).contains(&verdict.failed[0].len()));
}

#[test]
fn nothing_is_fetched_for_a_body_that_may_not_be_written_yet() {
    let fake = Fake::new("2", &["lychd_1.efi", "lychd_2+0-3.efi"]);
    let wish = Wish { source: "/nowhere", downgrade: false };
    let refused = store::stage(&fake.machine, wish, &mut |line| panic!("{line}")).unwrap_err();
    assert_eq!(refused.to_string(), "body 2 has not proven healthy yet");
}

#[test]
fn the_tether_is_where_the_agent_runs() {
    let fake = Fake::new("1", &["lychd_1.efi"]);
    let appliance = || {
        let law = fs::read(&fake.path("usr/share/sepulcher/codex/lychd.toml")).unwrap();
        let law = String::from_utf8(law).unwrap();
        crate::codex::Codex::parse(&[("lychd.toml", law)].into_iter().collect()).unwrap().appliance
    };
    for (told, process) in [
        ("systemd-lychd-oculus 4711\nsystemd-lychd-vpn 4712\na-pod-infra 4713", Some("4712")),
        ("systemd-other-vpn 4712\nlychd-vpn 4713\nsystemd-lychd-vpn-2 4714", None),
        ("systemd-lychd-vpn ", None),
    ] {
        fake.program("usr/bin/podman", &format!("cat <<'END'\n{told}\nEND"));
        let tether = fake.machine.tether(&appliance());
        match process {
            Some(process) => assert_eq!(tether.unwrap(), fake.path(&format!("proc/{process}/ns/net"))),
            None => assert!(tether.unwrap_err().to_string().contains("its agent does not run"), "{told}"),
        }
    }
}

#[test]
fn a_staged_body_that_rotted_is_staged_again_into_a_slot_that_is_emptied() {
    let fake = Fake::new("1", &["lychd_1.efi"]);
    let staged = fake.staged();
    let running = fake.machine.running().unwrap();
    let suits = || store::suits(&fake.machine, &running, "lychd", &staged, false);
    let disown = || store::disown(&fake.machine, &running, &staged, &mut |_| {}).unwrap();
    assert_eq!(suits().unwrap_err().to_string(), "body 2 is staged already");
    disown();
    assert_eq!(fake.sysupdate(), "");
    fake.write("dev/2", b"the root of body !");
    suits().unwrap();
    disown();
    assert_eq!(fake.sysupdate(), "--instances-max=1 vacuum\n");
    // An empty slot is none that claims anything.
    fake.slots("_empty");
    disown();
    assert_eq!(fake.sysupdate().lines().count(), 1);
    fake.slots("lychd_2");
    fake.write("var/lib/sepulcher/rebirth/staged/kernel.efi", b"rotten");
    suits().unwrap();
}

#[test]
fn what_does_not_fit_is_refused_before_anything_changes() {
    let fake = Fake::new("1", &["lychd_1.efi", "lychd_2.efi"]);
    let before = fake.staged();
    let running = fake.machine.running().unwrap();
    let next = Staged { version: "3".parse().unwrap(), ..before.clone() };
    let refused = |staged: &Staged, downgrade: bool| {
        let refused = store::suits(&fake.machine, &running, "lychd", staged, downgrade).unwrap_err();
        assert_eq!((fake.entries().len(), fake.sysupdate().as_str()), (2, ""));
        refused.to_string()
    };
    store::suits(&fake.machine, &running, "lychd", &next, false).unwrap();
    let large = |part: &Part, size: u64| Part { size, ..part.clone() };
    let root = large(&next.root, 5000);
    assert_eq!(
        refused(&Staged { root, ..next.clone() }, false),
        "the root takes 0 MiB, more than the slot has"
    );
    let kernel = large(&next.kernel, 1 << 50);
    assert!(refused(&Staged { kernel, ..next.clone() }, false).starts_with("the boot partition has "));
    let older = Staged { version: "0.9".parse().unwrap(), ..next.clone() };
    assert_eq!(refused(&older, false), "body 0.9 is older than 1, which runs");
    store::suits(&fake.machine, &running, "lychd", &older, true).unwrap();
    let path = "usr/bin/lsblk.json";
    let mut listing: serde_json::Value =
        serde_json::from_slice(&fs::read(&fake.path(path)).unwrap()).unwrap();
    listing["blockdevices"].as_array_mut().unwrap().retain(|device| device["path"] != "/dev/2");
    fake.write(path, listing.to_string().as_bytes());
    assert_eq!(refused(&next, false), "this disk does not have two slots");
}

#[test]
fn an_activation_that_fails_leaves_nothing_pending() {
    let fake = Fake::new("1", &["lychd_1.efi"]);
    let staged = fake.staged();
    // No entry can take this place.
    fake.write("efi/EFI/Linux/lychd_2+3-0.efi/x", b"x");
    store::activate(&fake.machine, staged.digest).unwrap_err();
    assert_eq!(fake.outcome(), "none");
    fs::remove_dir_all(&fake.path("efi/EFI/Linux/lychd_2+3-0.efi")).unwrap();
    fake.write("efi/EFI/Linux/.lychd_2+3-0.efi.7.tmp", b"half a kernel image");
    store::activate(&fake.machine, staged.digest).unwrap();
    assert_eq!(fake.outcome(), "pending");
    assert_eq!(fake.entries(), ["lychd_1.efi", "lychd_2+3-0.efi"]);
    // Once more is the same.
    store::activate(&fake.machine, staged.digest).unwrap();
    assert_eq!(fake.entries(), ["lychd_1.efi", "lychd_2+3-0.efi"]);
}

#[test]
fn bonds_of_a_law_that_has_more_are_no_obstacle_to_its_body() {
    let fake = Fake::new("1", &["lychd_1.efi"]);
    let key = crate::sys::wireguard::SecretKey::generate().public();
    let bond = format!("public-key = \"{key}\"\naddress = \"10.88.16.2\"\ngrants = [\"oculus\"]\n");
    fake.write("var/lib/sepulcher/codex/peers/phone.toml", bond.as_bytes());
    let mut staged = fake.staged();
    let refused = store::activate(&fake.machine, staged.digest).unwrap_err().to_string();
    assert!(refused.contains("the new law does not hold the living bonds"), "{refused}");
    let oculus = "description = \"O\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"tether\"\n";
    staged.law.insert("services/oculus.toml".to_owned(), oculus.to_owned());
    record::write(&fake.path("var/lib/sepulcher/rebirth/staged/staged.json"), &staged).unwrap();
    store::activate(&fake.machine, staged.digest).unwrap();
    assert_eq!(fake.entries(), ["lychd_1.efi", "lychd_2+3-0.efi"]);
}

#[test]
fn what_a_newer_body_writes_into_a_record_is_no_damage() {
    let fake = Fake::new("2", &["lychd_1.efi", "lychd_2.efi"]);
    fake.activated("2", "1", Some(End::Healthy));
    let mut record: serde_json::Value =
        serde_json::from_slice(&fs::read(&fake.path(RECORD)).unwrap()).unwrap();
    record["mood"] = "good".into();
    record["outcome"]["mood"] = "good".into();
    fake.write(RECORD, record.to_string().as_bytes());
    assert_eq!(fake.outcome(), "Healthy");
}

#[test]
fn a_body_that_runs_is_not_activated_once_more() {
    let entries = ["lychd_1.efi", "lychd_2.efi"];
    let fake = Fake::new("2", &entries);
    // What a Rebirth leaves.
    let staged = fake.staged();
    fake.activated("2", "1", Some(End::Healthy));
    let refused = store::activate(&fake.machine, staged.digest).unwrap_err();
    assert_eq!(refused.to_string(), "body 2 runs already");
    assert_eq!((fake.entries(), fake.outcome()), (entries.map(str::to_owned).to_vec(), "Healthy".to_owned()));
    let refused = store::activate(&fake.machine, Sha256Digest::of(b"3")).unwrap_err().to_string();
    assert!(refused.starts_with("another body is staged: 2"), "{refused}");
}

#[test]
fn who_rolls_back_from_afar_names_the_body_that_is_to_be_left() {
    let fake = Fake::new("2", &["lychd_1.efi", "lychd_2.efi"]);
    fake.activated("2", "1", Some(End::Healthy));
    let leave = |version: &str| rollback::rollback(&fake.machine, Some(&version.parse().unwrap()));
    assert_eq!(leave("1").unwrap_err().to_string(), "body 2 runs, and not 1");
    assert_eq!(fake.entries(), ["lychd_1.efi", "lychd_2.efi"]);
    let (_, needs_restart) = leave("2").unwrap();
    assert!(needs_restart);
    assert_eq!(fake.outcome(), "RolledBack");
    assert_eq!(fake.entries(), ["lychd_1.efi", "lychd_2+0-0.efi"]);
}

#[test]
fn an_older_body_that_was_not_tried_yet_is_taken_back_without_a_restart() {
    let fake = Fake::new("2", &["lychd_1+3-0.efi", "lychd_2+0-0.efi"]);
    fake.activated("1", "2", None);
    let (_, needs_restart) = rollback::rollback(&fake.machine, None).unwrap();
    assert!(!needs_restart);
    assert_eq!(fake.entries(), ["lychd_2.efi"]);
    let again = rollback::rollback(&fake.machine, None).unwrap_err().to_string();
    assert!(again.starts_with("there is nothing to go back from"), "{again}");
    // Whoever wants something else of it meanwhile is told what is in the way.
    let fake = Fake::new("2", &["lychd_1+3-0.efi", "lychd_2+0-0.efi"]);
    fake.activated("1", "2", None);
    let refused = store::proven(&fake.machine, &fake.machine.running().unwrap()).unwrap_err().to_string();
    assert_eq!(refused, "body 1 is to take the place of 2 with the next boot");
}
