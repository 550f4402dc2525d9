//! Images made from small content, damaged in every part.

use super::*;
use crate::image::sbom;
use crate::image::uki::tests::tiny_pe;
use crate::sys::fs;
use std::os::unix::fs::FileExt as _;
use tempfile::TempDir;

const ESP: u64 = 40 << 20;

/// A whole image of a root that is no file system, and its manifest.
struct Made {
    _folder: TempDir,
    file: File,
    manifest: Manifest,
}

fn made(cmdline: impl Fn(Sha256Digest) -> String) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let seed = Sha256Digest::of(b"seed");
    let root: Vec<u8> = (0..200 * verity::BLOCK).map(|at| u8::try_from(at % 253).unwrap()).collect();
    let sealed = verity::format(root.as_slice(), seed, 1).unwrap();
    let cmdline = cmdline(sealed.root_hash);
    let pe = tiny_pe(true, 1024);
    let parts = uki::Parts {
        stub: &pe,
        os_release: "ID=x",
        cmdline: &cmdline,
        uname: "6.12",
        kernel: &pe,
        initrd: b"cpio",
    };
    let kernel = uki::build(&parts).unwrap();
    let volume = tempfile::tempfile().unwrap();
    volume.set_len(ESP).unwrap();
    let entry = esp::entry("lychd", "1");
    let parts = esp::Parts { boot_loader: b"boot", entry: &entry, kernel_image: &kernel, origin: "", seed };
    esp::build(&volume, ESP, &parts).unwrap();
    let (root_uuid, verity_uuid) = identity::partitions(sealed.root_hash);
    let part = |role, label: &str, uuid, content| disk::Partition {
        role,
        label: label.to_owned(),
        uuid,
        size: 2 << 20,
        content,
    };
    let partitions = [
        part(Role::Esp, "esp", identity::uuid(seed, "esp"), disk::Content::File(&volume)),
        part(Role::Root, "lychd_1", root_uuid, disk::Content::Bytes(&root)),
        part(Role::Verity, "lychd_1_verity", verity_uuid, disk::Content::Bytes(&sealed.bytes)),
    ];
    let path = folder.path().join("lychd.raw");
    let placed = disk::write(&path, identity::uuid(seed, "disk"), &partitions).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let manifest = Manifest {
        schema: manifest::SCHEMA,
        name: "lychd".into(),
        version: "1".into(),
        image: "lychd.raw".into(),
        size: file.size().unwrap(),
        sha256: disk::digest(&file).unwrap().to_string(),
        root_hash: sealed.root_hash.to_string(),
        cmdline,
        partitions: manifest::partitions(&file, &placed).unwrap(),
        program: seed.to_string(),
        locks: std::collections::BTreeMap::new(),
        sbom: sbom::build("lychd", "1", &[], &sbom::Program { version: "1".into(), sha256: seed }),
    };
    Made { _folder: folder, file, manifest }
}

fn sound() -> Made {
    made(|hash| format!("quiet roothash={hash}"))
}

fn flip(file: &File, offset: u64) {
    let mut byte = [0];
    file.fill(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

fn mismatches(made: &Made, manifest: bool) -> Vec<String> {
    let report = inspect(&made.file).unwrap();
    let manifest = manifest.then_some(&made.manifest);
    verify(&made.file, &report, manifest, 2).unwrap().iter().map(ToString::to_string).collect()
}

fn offset(made: &Made, role: &str) -> u64 {
    made.manifest.partitions.iter().find(|one| one.role == role).unwrap().offset
}

#[test]
fn a_sound_image_keeps_every_promise_and_is_not_changed_by_reading() {
    let made = sound();
    assert_eq!(mismatches(&made, true), Vec::<String>::new());
    assert_eq!(disk::digest(&made.file).unwrap().to_string(), made.manifest.sha256);
}

#[test]
fn an_image_tells_what_is_in_it() {
    let made = sound();
    let report = inspect(&made.file).unwrap();
    assert_eq!(report.kernels[0].file, "lychd_1+3-0.efi");
    assert_eq!(report.kernels[0].uname.as_deref(), Some("6.12"));
    assert_eq!(report.kernels[0].root_hash.as_deref(), Some(made.manifest.root_hash.as_str()));
    assert_eq!(report.partitions, made.manifest.partitions);
}

#[test]
fn a_changed_byte_is_named_by_where_it_is() {
    let cases = [
        (
            "root",
            100 * 4096,
            "the root partition is not what the root hash stands for: block 100 of the data",
        ),
        ("verity", 4096, "the root partition is not what the root hash stands for: block 1 of the hash tree"),
        (
            "verity",
            0,
            "the root partition is not what the root hash stands for: the verity superblock is damaged",
        ),
        ("root", 200 * 4096 + 7, "the root partition is not zero at byte 819200, after its sealed content"),
        ("verity", 4 * 4096, "the verity partition is not zero at byte 16384, after its sealed content"),
    ];
    for (role, at, expected) in cases {
        let made = sound();
        flip(&made.file, offset(&made, role) + at);
        let found = mismatches(&made, false);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
    }
}

#[test]
fn a_changed_kernel_is_noticed_by_the_manifest() {
    let made = sound();
    let esp = offset(&made, "esp");
    flip(&made.file, esp + ESP - 1);
    let found = mismatches(&made, true).join("\n");
    assert!(found.contains("the image's SHA-256 is"), "{found}");
    assert!(found.contains("the esp partition's SHA-256 is"), "{found}");
}

#[test]
fn a_root_hash_of_another_root_is_noticed_in_every_place() {
    let other = Sha256Digest::of(b"other");
    let found = mismatches(&made(|_| format!("roothash={other}")), false);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("the root partition's UUID is"));
    assert!(found[1].starts_with("the verity partition's UUID is"));
    assert!(found[2].starts_with("the root partition is not what the root hash stands for"));
}

#[test]
fn a_command_line_without_a_root_hash_is_refused() {
    for cmdline in ["quiet", "roothash=12", "roothash="] {
        let found = mismatches(&made(|_| cmdline.to_owned()), false);
        assert_eq!(found, ["EFI/Linux/lychd_1+3-0.efi: the command line has no valid roothash="]);
    }
}

#[test]
fn the_last_root_hash_counts() {
    let (one, two) = (Sha256Digest::of(b"1"), Sha256Digest::of(b"2"));
    assert_eq!(root_hash(&format!("roothash={one} a=b roothash={two}")), Some(two));
}

#[test]
fn noise_is_not_an_image() {
    let folder = tempfile::tempdir().unwrap();
    for noise in [vec![], vec![0; 4096], vec![0xa5; 3 << 20]] {
        let path = folder.path().join("noise");
        fs::write_atomic(&path, 0o644, &noise).unwrap();
        assert!(inspect(&fs::open(&path).unwrap()).is_err());
    }
}
