use std::io::{Read as _, Seek as _, SeekFrom};

use super::*;
use crate::image::disk::{self, Content, Partition, Role};
use crate::image::esp;
use crate::image::window::Window;
use crate::render::manifest::{PROGRAM, codex_digest};
use crate::sys::fs;
use crate::tree::Sha256Digest;

const LAW: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nendpoint = \"lychd.example\"\n";
const ESP: u64 = 40 << 20;

/// A Codex and an image that says it was built from it; `extra` partitions come behind.
pub fn site(extra: usize) -> (tempfile::TempDir, Args) {
    site_of("", extra)
}

/// The same of a Codex with a ledger.
pub fn site_of(revoked: &str, extra: usize) -> (tempfile::TempDir, Args) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("codex");
    fs::create_dir_all(&dir).unwrap();
    fs::write(&dir.join("lychd.toml"), 0o644, LAW.as_bytes()).unwrap();
    fs::write(&dir.join("revoked"), 0o644, revoked.as_bytes()).unwrap();
    let (_, codex) = law(&dir).unwrap();
    let seed = Sha256Digest::of(b"seed");
    let parts = esp::Parts {
        boot_loader: b"loader",
        entry: "lychd_1+3-0.efi",
        kernel_image: b"kernel",
        origin: &esp::origin(PROGRAM, &codex_digest(&codex).to_string()),
        seed,
    };
    let volume = tempfile::tempfile().unwrap();
    volume.set_len(ESP).unwrap();
    esp::build(&volume, ESP, &parts).unwrap();
    let partition = |role, label: &str, content| Partition {
        role,
        label: label.to_owned(),
        uuid: crate::image::identity::uuid(Sha256Digest::of(label.as_bytes()), "test"),
        size: 1 << 20,
        content,
    };
    let mut partitions = vec![
        partition(Role::Esp, "lychd_esp", Content::File(&volume)),
        partition(Role::Root, "lychd_1", Content::Bytes(b"root")),
        partition(Role::Verity, "lychd_1_verity", Content::Bytes(b"hash")),
    ];
    for at in 0..extra {
        partitions.push(partition(Role::Root, &"x".repeat(20 + at), Content::Bytes(b"")));
    }
    let disk = folder.path().join("lychd.raw");
    disk::write(&disk, uuid::Uuid::from_bytes([1; 16]), &partitions).unwrap();
    let conf = folder.path().join("phone.conf");
    let args = Args {
        disk,
        codex: dir,
        bond: Some("phone".parse().unwrap()),
        grants: Vec::new(),
        endpoint: None,
        public_key: None,
        no_preshared: false,
        snapshot: None,
        identity: None,
        secrets: Vec::new(),
        again: false,
        to: Outputs::conf(conf),
    };
    (folder, args)
}

/// The bytes of the ESP.
fn esp_of(args: &Args) -> Vec<u8> {
    let mut file = fs::open(&args.disk).unwrap();
    let placed = disk::read(&file).unwrap();
    file.seek(SeekFrom::Start(placed[0].offset)).unwrap();
    let mut bytes = Vec::new();
    file.take(placed[0].size).read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn credential(args: &Args) -> Credential {
    let bytes = esp_of(args);
    let start = bytes.windows(20).position(|window| window == b"sepulcher provision ").unwrap();
    let end = start + bytes[start..].iter().position(|byte| *byte == 0).unwrap_or(0);
    Credential::parse(&bytes[start..end]).unwrap()
}

#[test]
fn an_image_gets_an_identity_and_a_bond_and_the_device_its_configuration() {
    let (folder, args) = site(0);
    run(&args).unwrap();
    let credential = credential(&args);
    let conf = String::from_utf8(fs::read(&folder.path().join("phone.conf")).unwrap()).unwrap();
    let value = |key: &str| conf.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    assert_eq!(value("PublicKey = "), credential.host.public().to_string());
    let bond = &credential.bonds[args.bond.as_ref().unwrap()];
    let public = SecretKey::parse(value("PrivateKey = ").as_bytes()).unwrap().public();
    assert!(
        bond.file.contains(&public.to_string()) && bond.file.contains("[\"*\", \"bonds\"]"),
        "{}",
        bond.file
    );
    assert_eq!(value("PresharedKey = "), *bond.preshared.as_ref().unwrap().to_text());
    assert_eq!(value("Endpoint = "), "lychd.example:51820");
    // The device's private key is nowhere on the disk, and the sealed parts are as they were.
    assert!(!String::from_utf8_lossy(&esp_of(&args)).contains(&value("PrivateKey = ")));
    let file = fs::open(&args.disk).unwrap();
    let images = esp::read(Window::new(&file, 1 << 20, ESP)).unwrap();
    assert_eq!(images, [("lychd_1+3-0.efi".to_owned(), b"kernel".to_vec())]);
}

#[test]
fn a_provisioned_image_is_only_provisioned_again_when_asked_for() {
    let (folder, mut args) = site(0);
    run(&args).unwrap();
    let first = credential(&args).host.public();
    args.to = Outputs::conf(folder.path().join("second.conf"));
    let failure = run(&args).unwrap_err();
    assert!(failure.to_string().contains("provisioned already") && failure.to_string().contains("--again"));
    assert_eq!(credential(&args).host.public(), first);
    args.again = true;
    run(&args).unwrap();
    assert_ne!(credential(&args).host.public(), first);
}

#[test]
fn a_refusal_changes_nothing_and_says_what_to_do() {
    type Spoil = fn(&mut Args);
    let cases: [(&str, &str, Kind, Spoil); 9] = [
        ("cannot look at", "", Kind::Input, |args| args.disk = "/nonexistent".into()),
        ("is not a file", "then write it to a disk", Kind::Input, |args| args.disk = "/dev/null".into()),
        ("cannot be provisioned", "image build", Kind::Input, |args| {
            args.disk = args.codex.join("lychd.toml");
        }),
        ("was not built from", "build the image anew", Kind::Input, |args| {
            let text = format!("{LAW}keepalive = 7\n");
            fs::write(&args.codex.join("lychd.toml"), 0o644, text.as_bytes()).unwrap();
        }),
        ("the other other", "--codex DIR", Kind::Input, |args| {
            let text = LAW.replace("\"lychd\"", "\"other\"");
            fs::write(&args.codex.join("lychd.toml"), 0o644, text.as_bytes()).unwrap();
        }),
        ("nobody", "", Kind::Input, |args| args.grants = vec!["nobody".into()]),
        ("cannot dial", "", Kind::Input, |args| args.endpoint = Some("a b".into())),
        ("exists", "another file", Kind::Input, |args| {
            fs::write(&args.codex.with_file_name("phone.conf"), 0o600, b"").unwrap();
        }),
        ("cannot read the partition table", "before it is written", Kind::Input, |args| {
            fs::open_alone(&args.disk).unwrap().set_len(128 << 20).unwrap();
        }),
    ];
    for (why, remedy, kind, spoil) in cases {
        let (folder, mut args) = site(0);
        spoil(&mut args);
        let disk = folder.path().join("lychd.raw");
        let before = Sha256Digest::of(&fs::read(&disk).unwrap());
        let failure = run(&args).unwrap_err();
        let told = failure.to_string();
        assert!(told.contains(why) && told.contains(remedy) && failure.kind == kind, "{why}: {told}");
        assert!(Sha256Digest::of(&fs::read(&disk).unwrap()) == before, "{why}");
        let conf = folder.path().join("phone.conf");
        assert!(why == "exists" || !conf.exists(), "{why}");
    }
}

#[test]
fn a_disk_that_has_booted_is_refused() {
    let (_folder, args) = site(2);
    let failure = run(&args).unwrap_err();
    assert!(failure.to_string().contains("has booted already"), "{failure}");
}

#[test]
fn an_image_that_somebody_else_changes_is_left_alone() {
    let (_folder, args) = site(0);
    let _held = fs::open_alone(&args.disk).unwrap();
    assert_eq!(run(&args).unwrap_err().kind, Kind::Io);
}
