//! `sepulcher image inspect` and `image verify`, as a person runs them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use sepulcher::image::disk::{self, Content, Partition, Role};
use sepulcher::image::manifest::{self, Manifest};
use sepulcher::image::window::ReadAt as _;
use sepulcher::image::{esp, identity, sbom, uki, verity};
use sepulcher::sys::cmd::Command;
use sepulcher::sys::fs;
use sepulcher::tree::Sha256Digest;

use crate::judge_disk::boot_programs;

/// Exit code, standard output, standard error.
fn run(verb: &str, image: &Path, options: &[&str]) -> (i32, String, String) {
    let command =
        Command::new(env!("CARGO_BIN_EXE_sepulcher")).args(["image", verb]).args(options).arg(image);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// An image with a real boot loader and a root of 1 MiB that is no file system.
fn image(folder: &Path, stub: &[u8], loader: &[u8]) -> (PathBuf, Manifest) {
    let seed = Sha256Digest::of(b"seed");
    let root = vec![7; 1 << 20];
    let sealed = verity::format(root.as_slice(), seed, 1).unwrap();
    let cmdline = format!("quiet roothash={}", sealed.root_hash);
    let parts = uki::Parts {
        stub,
        os_release: "ID=x\n",
        cmdline: &cmdline,
        uname: "6.12",
        kernel: loader,
        initrd: b"x",
    };
    let kernel_image = uki::build(&parts).unwrap();
    let volume = tempfile::tempfile().unwrap();
    volume.set_len(40 << 20).unwrap();
    let entry = esp::entry("lychd", "7");
    let parts =
        esp::Parts { boot_loader: loader, entry: &entry, kernel_image: &kernel_image, origin: "", seed };
    esp::build(&volume, 40 << 20, &parts).unwrap();
    let (root_uuid, verity_uuid) = identity::partitions(sealed.root_hash);
    let part =
        |role, label: &str, uuid, content| Partition { role, label: label.into(), uuid, size: 0, content };
    let partitions = [
        part(Role::Esp, "esp", identity::uuid(seed, "esp"), Content::File(&volume)),
        part(Role::Root, "lychd_7", root_uuid, Content::Bytes(&root)),
        part(Role::Verity, "lychd_7_verity", verity_uuid, Content::Bytes(&sealed.bytes)),
    ];
    let path = folder.join("lychd.raw");
    let placed = disk::write(&path, identity::uuid(seed, "disk"), &partitions).unwrap();
    let file = fs::open(&path).unwrap();
    let package = sbom::Package {
        name: "podman".into(),
        version: "5.4.2+ds1-2".into(),
        architecture: "amd64".into(),
        sha256: seed,
    };
    let manifest = Manifest {
        schema: manifest::SCHEMA,
        name: "lychd".into(),
        version: "7".into(),
        image: "lychd.raw".into(),
        size: file.size().unwrap(),
        sha256: disk::digest(&file).unwrap().to_string(),
        root_hash: sealed.root_hash.to_string(),
        cmdline,
        partitions: manifest::partitions(&file, &placed).unwrap(),
        program: seed.to_string(),
        locks: std::collections::BTreeMap::new(),
        sbom: sbom::build("lychd", "7", &[package], &sbom::Program { version: "1".into(), sha256: seed }),
    };
    fs::write_atomic(&manifest::beside(&path), 0o644, manifest.to_json().unwrap().as_bytes()).unwrap();
    (path, manifest)
}

#[test]
fn a_sound_image_is_told_from_a_changed_one_and_its_content_is_shown() {
    let test = "a_sound_image_is_told_from_a_changed_one_and_its_content_is_shown";
    let Some((stub, loader)) = boot_programs(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, manifest) = image(folder.path(), &stub, &loader);
    let (code, out, err) = run("verify", &path, &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.ends_with(&format!("lychd.raw: whole, root hash {}\n", manifest.root_hash)), "{out}");
    let (code, out, _) = run("inspect", &path, &[]);
    assert_eq!(code, 0);
    for expected in
        ["lychd_7_verity", "EFI/Linux/lychd_7+3-0.efi", ".cmdline", "podman 5.4.2+ds1-2", &manifest.sha256]
    {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    let (_, out, _) = run("inspect", &path, &["--json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["image"]["kernels"][0]["root-hash"], manifest.root_hash);
    assert_eq!(value["packages"][0]["name"], "podman");

    let aside = folder.path().join("aside.json");
    std::fs::rename(manifest::beside(&path), &aside).unwrap();
    let (code, out, _) = run("verify", &path, &[]);
    let told =
        format!("root sealed as {}; boot files not checked without the manifest\n", manifest.root_hash);
    assert!(code == 0 && out.ends_with(&told), "{out}");
    std::fs::rename(&aside, manifest::beside(&path)).unwrap();

    let disk = File::options().write(true).open(&path).unwrap();
    disk.write_all_at(b"x", manifest.partitions[1].offset + 5 * 4096).unwrap();
    let (code, out, err) = run("verify", &path, &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    for expected in
        ["block 5 of the data does not match", "the root partition's SHA-256 is", "the image's SHA-256 is"]
    {
        assert!(err.contains(expected), "{expected}: {err}");
    }
}

#[test]
fn what_is_no_image_ends_in_one_sentence_and_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let noise = folder.path().join("noise.raw");
    fs::write_atomic(&noise, 0o644, &vec![0xa5; 3 << 20]).unwrap();
    for path in [noise, folder.path().join("absent.raw"), folder.path().to_owned()] {
        for verb in ["inspect", "verify"] {
            let (code, out, err) = run(verb, &path, &[]);
            assert_eq!((code, out.as_str()), (1, ""), "{err}");
            assert!(err.starts_with("error: cannot "), "{err}");
        }
    }
}

/// The roots of a Codex's containers, from definitions without packages.
#[test]
fn roots_are_written_with_the_program_and_never_over_anything() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    for name in ["tether", "stand-in"] {
        let definition = images.join(name);
        fs::create_dir_all(&definition).unwrap();
        fs::write(&definition.join("packages.toml"), 0o644, b"packages = []\n").unwrap();
        fs::write(&definition.join("packages.lock"), 0o644, b"schema = 1\nrelease = \"trixie\"\n").unwrap();
    }
    let out = folder.path().join("roots");
    let codex = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flake/codex");
    let roots = || {
        let command = Command::new(env!("CARGO_BIN_EXE_sepulcher")).args(["image", "roots"]).arg(&codex);
        let command = command.arg("--out").arg(&out).arg("--images").arg(&images).arg("--offline");
        let output = command.env("SEPULCHER_CACHE", folder.path().join("cache")).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(roots(), (0, String::new()));
    let program = fs::read(Path::new(env!("CARGO_BIN_EXE_sepulcher"))).unwrap();
    let names: Vec<_> =
        fs::list(&out).unwrap().into_iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["stand-in", "tether"]);
    for name in names {
        assert!(fs::read(&out.join(name).join("usr/bin/sepulcher")).unwrap() == program);
    }
    let (code, told) = roots();
    assert!(code == 1 && told.contains("it exists") && told.contains("hint: name a new folder"), "{told}");
}
