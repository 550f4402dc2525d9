//! The real readers of what the image builder writes: `fsck.erofs`, `veritysetup`, `bootctl`, `fsck.fat`, `sfdisk`.

use std::fs::File;
use std::path::Path;

use sepulcher::cli::store::MirrorArgs;
use sepulcher::image::definition::Definitions;
use sepulcher::image::disk::{self, Content as Bytes, Partition, Role};
use sepulcher::image::erofs::{self, Stamp};
use sepulcher::image::fetch::Quiet;
use sepulcher::image::layer::{Content, Kind, Layer, Node};
use sepulcher::image::toolbox::Toolbox;
use sepulcher::image::window::ReadAt as _;
use sepulcher::image::{deb, esp, identity, uki, verity};
use sepulcher::sys::cmd::Command;
use sepulcher::sys::fs;
use sepulcher::tree::Sha256Digest;

const TIME: u64 = 1_750_000_000;

/// A program of a toolbox, or a loud line that says why this test is skipped; in CI that is a failure.
pub fn program(test: &str, toolbox: &str, name: &str) -> Option<Command> {
    let open = || {
        let image = Definitions::Embedded.image(toolbox).map_err(|error| error.to_string())?;
        let store = MirrorArgs::default().store(&Quiet).map_err(|failure| failure.to_string())?;
        Toolbox::open(&store, &image)
            .map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))
    };
    had(test, open()).map(|toolbox| toolbox.command(name).unwrap())
}

fn had<T>(test: &str, result: Result<T, String>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(reason) if std::env::var_os("CI").is_some() => panic!("no judge for {test}: {reason}"),
        Err(reason) => {
            eprintln!("SKIPPED {test}: {reason}");
            None
        }
    }
}

/// systemd's stub and boot loader, from the locked package.
pub fn boot_programs(test: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let read = || {
        let store = MirrorArgs::default().store(&Quiet).map_err(|failure| failure.to_string())?;
        let image = Definitions::Embedded.image("system").map_err(|error| error.to_string())?;
        let package = image.lock.get("systemd-boot-efi").unwrap().clone();
        let packages = std::slice::from_ref(&package);
        store.fetch(packages).map_err(|error| error.to_string())?;
        deb::unpack(&store, packages).map_err(|error| error.to_string())?;
        let layer =
            deb::layer(&store.data(&package), &package, &|_| true).map_err(|error| error.to_string())?;
        let bytes = |name: &str| match &layer.0[&format!("usr/lib/systemd/boot/efi/{name}")].kind {
            Kind::File(content) => content.read().unwrap(),
            _ => panic!("{name} is no file"),
        };
        Ok((bytes("linuxx64.efi.stub"), bytes("systemd-bootx64.efi")))
    };
    had(test, read())
}

fn file(mode: u32, bytes: &[u8]) -> Node {
    Node { mode, uid: 0, gid: 0, kind: Kind::File(Content::Bytes(bytes.into())) }
}

fn tar(path: &Path, nodes: Vec<(&str, Node)>) {
    let layer = Layer(nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect());
    layer.write_tar(&mut File::create(path).unwrap(), TIME).unwrap();
}

/// Text that compresses, but not to nothing.
fn words(count: usize) -> Vec<u8> {
    (0..count).flat_map(|index| format!("line {} of many\n", index * 7919 % 1000).into_bytes()).collect()
}

fn stamp(name: &str) -> Stamp {
    Stamp { uuid: identity::uuid(Sha256Digest::of(name.as_bytes()), "root"), time: TIME }
}

/// What `fsck.erofs` extracts, path by path.
fn extracted(fsck: &Command, image: &Path, to: &Path) {
    let extract = format!("--extract={}", to.display());
    fsck.clone().arg(extract).args(["--no-preserve-owner", "--overwrite"]).arg(image).read().unwrap();
}

#[test]
fn an_appended_root_is_sound_merges_folders_replaces_files_and_is_the_same_twice() {
    let test = "an_appended_root_is_sound_merges_folders_replaces_files_and_is_the_same_twice";
    let Some(mkfs) = program(test, "tools-build", "mkfs.erofs") else { return };
    let Some(fsck) = program(test, "tools-judge", "fsck.erofs") else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let link = Node { mode: 0o777, uid: 0, gid: 0, kind: Kind::Link("old".into()) };
    tar(
        &at("base.tar"),
        vec![
            ("etc/kept", file(0o640, b"kept")),
            ("etc/replaced", file(0o644, b"old")),
            ("usr/bin/big", file(0o4755, &words(40_000))),
            ("usr/link", link),
        ],
    );
    tar(
        &at("upper.tar"),
        vec![
            ("etc/new/deep", file(0o600, b"deep")),
            ("etc/replaced", file(0o755, &words(9_000))),
            ("usr/link", file(0o644, b"no link")),
        ],
    );
    for name in ["1", "2"] {
        let base = at(&format!("base{name}"));
        erofs::build(&mkfs, &at("base.tar"), &base, stamp("base")).unwrap();
        erofs::append(&mkfs, &base, &at("upper.tar"), &at(&format!("root{name}")), stamp("root")).unwrap();
    }
    assert!(fs::read(&at("root1")).unwrap() == fs::read(&at("root2")).unwrap());
    assert!(fs::read(&at("base1")).unwrap() == fs::read(&at("base2")).unwrap());
    assert_eq!(fs::open(&at("root1")).unwrap().size().unwrap() % erofs::BLOCK, 0);
    extracted(&fsck, &at("root1"), &at("tree"));
    let read = |path: &str| fs::read(&at("tree").join(path)).unwrap();
    assert_eq!(read("etc/kept"), b"kept");
    assert_eq!(read("etc/new/deep"), b"deep");
    assert_eq!(read("etc/replaced"), words(9_000));
    assert_eq!(read("usr/bin/big"), words(40_000));
    assert_eq!(read("usr/link"), b"no link");
}

#[test]
fn veritysetup_accepts_our_hash_tree_and_refuses_a_changed_block() {
    let test = "veritysetup_accepts_our_hash_tree_and_refuses_a_changed_block";
    let Some(veritysetup) = program(test, "tools-judge", "veritysetup") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (data, hash) = (folder.path().join("data"), folder.path().join("hash"));
    for blocks in [1, 2, 128, 129, 20_000] {
        let mut bytes = words(blocks * verity::BLOCK / 8);
        bytes.truncate(blocks * verity::BLOCK);
        let made = verity::format(bytes.as_slice(), Sha256Digest::of(b"seed"), 2).unwrap();
        fs::write_atomic(&data, 0o644, &bytes).unwrap();
        fs::write_atomic(&hash, 0o644, &made.bytes).unwrap();
        let verify = veritysetup.clone().arg("verify").args([&data, &hash]).arg(made.root_hash.to_string());
        verify.read().unwrap_or_else(|error| panic!("{blocks} blocks: {error}"));
        *bytes.last_mut().unwrap() ^= 1;
        fs::write_atomic(&data, 0o644, &bytes).unwrap();
        assert!(!verify.output().unwrap().status.success(), "{blocks} blocks");
    }
    let dump = String::from_utf8(veritysetup.arg("dump").arg(&hash).read().unwrap()).unwrap();
    let line =
        |key: &str| dump.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap().to_owned();
    assert_eq!(line("Data blocks:"), "20000");
    assert_eq!(line("UUID:"), identity::uuid(Sha256Digest::of(b"seed"), "verity").to_string());
}

#[test]
fn bootctl_reads_our_kernel_image() {
    let test = "bootctl_reads_our_kernel_image";
    let Some(bootctl) = program(test, "tools-judge", "bootctl") else { return };
    let Some((stub, loader)) = boot_programs(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uki.efi");
    // Any PE file will do for a kernel that nobody boots.
    let parts = uki::Parts {
        stub: &stub,
        os_release: "ID=lychd\nPRETTY_NAME=\"Lych\"\n",
        cmdline: "quiet roothash=0",
        uname: "6.12.1-test",
        kernel: &loader,
        initrd: &words(100_000),
    };
    fs::write_atomic(&path, 0o644, &uki::build(&parts).unwrap()).unwrap();
    let said = |verb: &str| String::from_utf8(bootctl.clone().arg(verb).arg(&path).read().unwrap()).unwrap();
    assert_eq!(said("kernel-identify").trim(), "uki");
    let inspected = said("kernel-inspect");
    for expected in ["Cmdline: quiet roothash=0", "Version: 6.12.1-test", "OS: Lych"] {
        assert!(inspected.contains(expected), "{inspected}");
    }
}

#[test]
fn fsck_and_sfdisk_find_nothing_wrong_with_a_disk_of_ours() {
    let test = "fsck_and_sfdisk_find_nothing_wrong_with_a_disk_of_ours";
    let Some(fsck) = program(test, "tools-judge", "fsck.fat") else { return };
    let Some(sfdisk) = program(test, "tools-judge", "sfdisk") else { return };
    let folder = tempfile::tempdir().unwrap();
    let seed = Sha256Digest::of(b"seed");
    // One size for each size of cluster that is used.
    for size in [40u64 << 20, 96 << 20, 200 << 20] {
        let path = folder.path().join("esp");
        let volume = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        volume.set_len(size).unwrap();
        let entry = esp::entry("lychd", "1");
        let kernel = words(1_000_000);
        let parts =
            esp::Parts { boot_loader: b"loader", entry: &entry, kernel_image: &kernel, origin: "", seed };
        esp::build(&volume, size, &parts).unwrap();
        let said = fsck.clone().args(["-n", "-v"]).arg(&path).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
        // A credential of more than one cluster, then a shorter one in its place.
        for credential in [words(100_000).as_slice(), b"short"] {
            esp::provision(&volume, credential, || volume.sync_all()).unwrap();
            let said = fsck.clone().args(["-n", "-v"]).arg(&path).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
        }
        let disk = folder.path().join("disk.raw");
        let partition = |role, label: &str, content| Partition {
            role,
            label: label.to_owned(),
            uuid: identity::uuid(seed, label),
            size: 0,
            content,
        };
        let partitions = [
            partition(Role::Esp, "esp", Bytes::File(&volume)),
            partition(Role::Root, "lychd_1", Bytes::Bytes(&[1; 4096])),
            partition(Role::Verity, "lychd_1_verity", Bytes::Bytes(&[2; 4096])),
        ];
        disk::write(&disk, identity::uuid(seed, "disk"), &partitions).unwrap();
        let said = String::from_utf8(sfdisk.clone().arg("--verify").arg(&disk).read().unwrap()).unwrap();
        assert!(said.contains("No errors detected"), "{said}");
        let dump = String::from_utf8(sfdisk.clone().arg("--dump").arg(&disk).read().unwrap()).unwrap();
        for expected in [
            "name=\"lychd_1_verity\", attrs=\"GUID:60\"",
            "type=2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5",
            "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
            "type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        ] {
            assert!(dump.contains(expected), "{dump}");
        }
    }
}
