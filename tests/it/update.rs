//! Updates from the publisher's side: `keygen`, `rebirth verify`, `rebirth preview`; judged by Debian's minisign,
//! sha256sum and systemd-analyze.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sepulcher::codex::{LAW, PublisherKey, Sources};
use sepulcher::image::build::Body;
use sepulcher::image::uki;
use sepulcher::rebirth::bundle::write;
use sepulcher::rebirth::publisher::SigningKey;
use sepulcher::rebirth::version::Version;
use sepulcher::tree::Sha256Digest;

use crate::judge;
use crate::judge_disk::boot_programs;
use crate::support::{copy, repository, sepulcher};

/// Exit code and both outputs.
fn run(words: &[&str], input: &str) -> (i32, String, String) {
    let output = sepulcher().args(words).write_stdin(input).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a key pair; returns its file and the public key.
fn keygen(folder: &Path) -> (PathBuf, PublisherKey) {
    let file = folder.join("key");
    let (code, shown, said) = run(&["keygen", "--out", text(&file)], "");
    assert_eq!(code, 0, "{said}");
    let key = shown.strip_prefix("publisher = \"").and_then(|rest| rest.strip_suffix("\"\n")).unwrap();
    (file, key.parse().unwrap())
}

fn opened(file: &Path, passphrase: Option<&str>) -> SigningKey {
    SigningKey::parse(&fs::read_to_string(file).unwrap(), passphrase).unwrap()
}

/// An update of a body that no machine could boot, but that is right in every other way; `None` without a stub.
fn update(test: &str, folder: &Path, key: &SigningKey) -> Option<PathBuf> {
    let (stub, loader) = boot_programs(test)?;
    let root_hash = Sha256Digest::of(b"root");
    let kernel = uki::build(&uki::Parts {
        stub: &stub,
        os_release: "ID=debian\nIMAGE_ID=lychd\nIMAGE_VERSION=2~rc1\n",
        cmdline: &format!("roothash={root_hash} quiet"),
        uname: "6.12",
        kernel: &loader,
        initrd: b"x",
    });
    let root = folder.join("root");
    fs::write(&root, vec![7; 1 << 20]).unwrap();
    let root = fs::File::open(root).unwrap();
    let body = Body { root, verity: vec![8; 4096], kernel: kernel.unwrap(), root_hash };
    let law: Sources = [(LAW, "schema = 1\n[appliance]\nname = \"lychd\"\n")].into_iter().collect();
    let (name, version) = ("lychd".parse().unwrap(), "2~rc1".parse().unwrap());
    let place = write::beside(&folder.join("lychd.raw"), &name, &version);
    let ready = write::write(&place, (&name, &version), &law, &body, Some(key)).unwrap();
    assert!(!place.exists());
    Some(ready.commit().unwrap().folder)
}

#[test]
fn a_key_pair_is_private_from_the_start_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = keygen(folder.path());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let public = folder.path().join("key.pub");
    assert_eq!((mode(&file), mode(&public)), (0o600, 0o644));
    assert_eq!(opened(&file, None).public(), key);
    assert!(fs::read_to_string(&public).unwrap().ends_with(&format!("\n{key}\n")));
    let before = fs::read(&file).unwrap();
    for missing in [None, Some(&file)] {
        if let Some(missing) = missing {
            fs::remove_file(missing).unwrap();
        }
        let (code, shown, said) = run(&["keygen", "--out", text(&file)], "");
        assert_eq!((code, shown.as_str()), (1, ""));
        assert!(said.contains("is there already\nhint: "), "{said}");
        assert!(missing.is_some() || fs::read(&file).unwrap() == before);
    }
}

#[test]
fn a_passphrase_locks_the_key_and_an_empty_one_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    for (typed, told) in [("", "there is no passphrase"), ("\n", "there is no passphrase")] {
        let (code, _, said) = run(&["keygen", "--passphrase", "--out", text(&file)], typed);
        assert!(code == 1 && said.contains(told) && !file.exists(), "{said}");
    }
    let (code, _, said) = run(&["keygen", "--passphrase", "--out", text(&file)], "correct horse\nmore");
    assert_eq!(code, 0, "{said}");
    let locked = fs::read_to_string(&file).unwrap();
    assert_eq!(SigningKey::is_locked(&locked), Ok(true));
    assert!(SigningKey::parse(&locked, Some("correct horse")).is_ok());
}

#[test]
fn an_image_is_signed_for_the_publisher_of_its_codex_alone() {
    let folder = tempfile::tempdir().unwrap();
    let codex = folder.path().join("codex");
    copy(&repository("examples/lychd"), &codex);
    let (file, key) = keygen(folder.path());
    let out = folder.path().join("lychd.raw");
    let build = |key: &Path| {
        let words =
            ["image", "build", text(&codex), "--out", text(&out), "--offline", "--version", "2", "--sign"];
        run(&[&words[..], &[text(key)]].concat(), "")
    };
    let (code, _, said) = build(&file);
    assert!(code == 1 && said.contains("the Codex names no publisher"), "{said}");
    let law = codex.join(LAW);
    let before = fs::read_to_string(&law).unwrap();
    let other = SigningKey::generate().unwrap();
    fs::write(&law, format!("{before}\n[rebirth]\npublisher = \"{}\"\n", other.public())).unwrap();
    let (code, _, said) = build(&file);
    let told = format!("is the key {}, the Codex takes updates of {}", key.id(), other.public().id());
    assert!(code == 1 && said.contains(&told), "{said}");
    fs::write(&law, format!("{before}\n[rebirth]\npublisher = \"{key}\"\n")).unwrap();
    for (wrong, told) in [("key.pub", "this is no secret key"), ("nothing", "cannot read")] {
        let (code, _, said) = build(&folder.path().join(wrong));
        assert!(code == 1 && said.contains(told), "{said}");
    }
    let place = folder.path().join("lychd_2.update");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("thesis.txt"), "years of work").unwrap();
    let (code, _, said) = build(&file);
    assert!(code == 1 && said.contains("it holds `thesis.txt`"), "{said}");
    assert!(place.join("thesis.txt").exists() && !out.exists());
}

#[test]
fn verify_takes_a_whole_update_and_names_what_is_wrong_with_another() {
    let test = "verify_takes_a_whole_update_and_names_what_is_wrong_with_another";
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = keygen(folder.path());
    let Some(place) = update(test, folder.path(), &opened(&file, None)) else { return };
    let verify =
        |key: &PublisherKey| run(&["rebirth", "verify", text(&place), "--publisher", &key.to_string()], "");
    let (code, shown, said) = verify(&key);
    let digest = Sha256Digest::of(&fs::read(place.join("SHA256SUMS")).unwrap());
    assert_eq!(code, 0, "{said}");
    assert!(shown.starts_with("lychd 2~rc1, ") && shown.contains(&format!("\ndigest {digest}\n")), "{shown}");
    let (code, _, said) = verify(&SigningKey::generate().unwrap().public());
    assert!(code == 1 && said.contains("signed by somebody else"), "{said}");
    let changed = |file: &str, change: &dyn Fn(&mut Vec<u8>), told: &str| {
        let path = place.join(file);
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let (code, shown, said) = verify(&key);
        assert!(
            code == 1 && shown.is_empty() && said.contains(told) && said.contains("\nhint: "),
            "{file}: {said}"
        );
        fs::write(&path, before).unwrap();
    };
    let names: Vec<String> =
        fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 6);
    for name in &names {
        let told = if name.starts_with("SHA256SUMS") {
            "signature"
        } else {
            "has another digest than SHA256SUMS says"
        };
        let flip = |bytes: &mut Vec<u8>| {
            let last = bytes.len() - 10;
            bytes[last] ^= 1;
        };
        changed(name, &flip, told);
        changed(name, &|bytes| bytes.truncate(bytes.len() - 9), told);
        let aside = folder.path().join("aside");
        fs::rename(place.join(name), &aside).unwrap();
        let (code, _, said) = verify(&key);
        assert!(code == 1 && (said.contains("is missing") || said.contains("holds no SHA256SUMS")), "{said}");
        fs::rename(&aside, place.join(name)).unwrap();
    }
    fs::write(place.join("extra"), "").unwrap();
    let (code, _, said) = verify(&key);
    assert!(code == 1 && said.contains("`extra` does not belong to it"), "{said}");
    fs::remove_file(place.join("extra")).unwrap();
    assert_eq!(verify(&key).0, 0);
    let (code, _, said) = run(&["rebirth", "verify", "/nonexistent", "--publisher", &key.to_string()], "");
    assert!(code == 1 && said.contains("cannot list /nonexistent"), "{said}");
}

#[test]
fn an_update_is_signed_where_the_key_is_and_may_hand_over_to_another_publisher() {
    let test = "an_update_is_signed_where_the_key_is_and_may_hand_over_to_another_publisher";
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = keygen(folder.path());
    let Some(place) = update(test, folder.path(), &SigningKey::generate().unwrap()) else { return };
    let sign = |file: &Path| run(&["rebirth", "sign", text(&place), "--key", text(file)], "");
    let (code, shown, said) = sign(&file);
    let digest = Sha256Digest::of(&fs::read(place.join("SHA256SUMS")).unwrap());
    assert_eq!((code, shown), (0, format!("{digest}\n")), "{said}");
    assert!(said.contains("take no update any more: its law names no publisher"), "{said}");
    let (code, _, said) = run(&["rebirth", "verify", text(&place), "--publisher", &key.to_string()], "");
    assert_eq!(code, 0, "{said}");
    let signature = place.join("SHA256SUMS.minisig");
    let before = fs::read(&signature).unwrap();
    let (code, shown, said) = sign(&folder.path().join("key.pub"));
    assert!(code == 1 && shown.is_empty() && said.contains("this is no secret key"), "{said}");
    let (code, _, said) = run(&["rebirth", "sign", text(folder.path()), "--key", text(&file)], "");
    assert!(code == 1 && said.contains("\nhint: "), "{said}");
    assert_eq!(fs::read(&signature).unwrap(), before);
    let (code, _, said) =
        run(&["image", "build", "examples/lychd", "--out", "x", "--update", "--sign", text(&file)], "");
    assert!(code == 2 && said.contains("--sign"), "{said}");
}

#[test]
fn debians_minisign_takes_our_keys_and_signatures_and_we_take_its() {
    let test = "debians_minisign_takes_our_keys_and_signatures_and_we_take_its";
    let Some(minisign) = judge::program(test, "minisign") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = keygen(folder.path());
    let Some(place) = update(test, folder.path(), &opened(&file, None)) else { return };
    let judged = |words: &[&str], input: &str| {
        let output = minisign.clone().args(words.to_vec()).stdin(input).output().unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), told)
    };
    let sums = place.join("SHA256SUMS");
    let key_text = key.to_string();
    let (right, said) = judged(&["-V", "-m", text(&sums), "-P", &key_text], "");
    assert!(right && said.contains("Trusted comment: lychd 2~rc1"), "{said}");
    let public = folder.path().join("key.pub");
    assert!(judged(&["-V", "-m", text(&sums), "-p", text(&public)], "").0);
    // The twin: another file, the same signature.
    let other = folder.path().join("other");
    fs::write(&other, "x").unwrap();
    let signature = place.join("SHA256SUMS.minisig");
    assert!(!judged(&["-V", "-m", text(&other), "-x", text(&signature), "-P", &key_text], "").0);

    // Ours, locked, in its hands.
    let locked = folder.path().join("locked");
    let (code, _, said) = run(&["keygen", "--passphrase", "--out", text(&locked)], "correct horse\n");
    assert_eq!(code, 0, "{said}");
    let (right, said) = judged(&["-S", "-s", text(&locked), "-m", text(&other)], "correct horse\n");
    assert!(right, "{said}");
    assert!(judged(&["-V", "-m", text(&other), "-p", text(&folder.path().join("locked.pub"))], "").0);
    // Ours, open, in its hands too.
    assert!(judged(&["-S", "-W", "-s", text(&file), "-m", text(&other)], "").0);
    assert!(judged(&["-V", "-m", text(&other), "-P", &key_text], "").0);
    // Its own, in ours.
    let (theirs, public) = (folder.path().join("theirs"), folder.path().join("theirs.pub"));
    let (right, said) = judged(&["-G", "-W", "-s", text(&theirs), "-p", text(&public)], "");
    assert!(right, "{said}");
    let key = opened(&theirs, None);
    assert!(fs::read_to_string(&public).unwrap().contains(&key.public().to_string()));
    fs::write(folder.path().join("other.minisig"), key.sign(b"x", "by us").unwrap()).unwrap();
    assert!(judged(&["-V", "-m", text(&other), "-p", text(&public)], "").0);
}

#[test]
fn sha256sum_takes_the_checksums() {
    let test = "sha256sum_takes_the_checksums";
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = keygen(folder.path());
    let Some(place) = update(test, folder.path(), &opened(&file, None)) else { return };
    let mut command = std::process::Command::new("sha256sum");
    let status = command.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&place).status();
    assert!(status.unwrap().success());
}

#[test]
fn versions_are_ordered_as_systemd_orders_them() {
    let test = "versions_are_ordered_as_systemd_orders_them";
    let Some(analyze) = judge::program(test, "systemd-analyze") else { return };
    let strategy = ("[0-2a-b.~^-]{1,7}", "[0-2a-b.~^-]{1,7}");
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let judged = runner.run(&strategy, |(left, right)| {
        let command = analyze.clone().args(["compare-versions", "--"]);
        let output = command.args([left.as_str(), right.as_str()]).output().unwrap();
        let [ours, theirs] = [&left, &right].map(|text| text.parse::<Version>().unwrap());
        // 0, 11 and 12 are equal, newer and older.
        let expected = match ours.cmp(&theirs) {
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 11,
            std::cmp::Ordering::Less => 12,
        };
        prop_assert_eq!(output.status.code(), Some(expected), "{} {}", left, right);
        Ok(())
    });
    judged.unwrap();
}

#[test]
fn a_preview_tells_what_a_new_law_changes_on_a_running_body() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (repository("examples/lychd"), folder.path().join("codex"));
    copy(&old, &new);
    let preview = |body: &Path| run(&["rebirth", "preview", text(&new), "--body", text(body)], "");
    assert_eq!(preview(&old), (0, "nothing changes\n".into(), String::new()));
    let law = new.join(LAW);
    let text_of = fs::read_to_string(&law).unwrap();
    fs::write(&law, format!("{text_of}\n[[host]]\nname = \"ssh\"\nport = 22\n")).unwrap();
    let (code, shown, said) = preview(&old);
    assert_eq!(code, 0, "{said}");
    assert!(shown.contains("\n  + 22/tcp of the host of ssh: tether, peers that hold it\n"), "{shown}");
    assert!(shown.starts_with("--- a/") && !shown.contains("manifest.json"), "{shown}");
    let (code, _, said) = preview(folder.path());
    assert!(code == 1 && said.contains("holds neither lychd.toml nor the one description"), "{said}");
    fs::write(folder.path().join("x.json"), "{\"schema\": 9}").unwrap();
    let (code, _, said) = preview(&folder.path().join("x.json"));
    assert!(code == 1 && said.contains("the update is of schema 9, this program knows 1"), "{said}");
    fs::write(&law, "schema = 1\n").unwrap();
    let (code, _, said) = preview(&old);
    assert!(code == 1 && said.contains("`name` is missing"), "{said}");
}
