#![expect(clippy::disallowed_methods, reason = "tests damage files")]

use std::fs as files;

use super::*;
use crate::image::manifest::checksums;
use crate::image::uki::tests::tiny_pe;
use crate::rebirth::publisher::SigningKey;

/// A small update, written and signed by `key`; `change` may lie in its description.
pub fn update(folder: &Path, key: &SigningKey, change: impl FnOnce(&mut serde_json::Value)) {
    let root_hash = Sha256Digest::of(b"root hash");
    let (name, version) = ("lychd".parse().unwrap(), "2".parse().unwrap());
    let names = Names::new(&name, &version, root_hash);
    let kernel = uki::build(&uki::Parts {
        stub: &tiny_pe(true, 4096),
        os_release: "ID=debian\nIMAGE_ID=lychd\nIMAGE_VERSION=2\n",
        cmdline: &format!("roothash={root_hash} quiet"),
        uname: "6.12",
        kernel: &tiny_pe(true, 4096),
        initrd: b"initrd",
    });
    let kernel = kernel.unwrap();
    let part = |file: &str, bytes: &[u8]| Part { file: file.to_owned(), size: bytes.len() as u64 };
    let description = Description {
        schema: SCHEMA,
        name,
        version,
        root_hash,
        program: "0.1.0".into(),
        codex_schema: 1,
        root: part(&names.root, b"root"),
        verity: part(&names.verity, b"tree"),
        kernel: part(&names.kernel, &kernel),
        law: BTreeMap::from([(LAW.to_owned(), "schema = 1\n".to_owned())]),
    };
    let mut value = serde_json::to_value(&description).unwrap();
    change(&mut value);
    let json = value.to_string().into_bytes();
    let parts = [
        (&names.root, b"root".to_vec()),
        (&names.verity, b"tree".to_vec()),
        (&names.kernel, kernel),
        (&names.description, json),
    ];
    let mut sums = BTreeMap::new();
    for (file, bytes) in parts {
        files::write(folder.join(file), &bytes).unwrap();
        sums.insert(file.clone(), Sha256Digest::of(&bytes));
    }
    sign(folder, key, &Sums::new(sums).to_text(), "lychd 2");
}

fn sign(folder: &Path, key: &SigningKey, sums: &str, title: &str) {
    files::write(folder.join(SUMS), sums).unwrap();
    files::write(folder.join(SIGNATURE), key.sign(sums.as_bytes(), title).unwrap()).unwrap();
}

fn refusal(folder: &Path, key: &SigningKey) -> String {
    open(folder, &key.public()).unwrap_err().to_string()
}

#[test]
fn a_whole_update_opens_and_its_digest_is_that_of_its_checksums() {
    let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
    update(folder.path(), &key, |_| ());
    let bundle = open(folder.path(), &key.public()).unwrap();
    assert_eq!(bundle.digest, Sha256Digest::of(&files::read(folder.path().join(SUMS)).unwrap()));
    assert_eq!(bundle.description.title(), "lychd 2");
    assert_eq!(bundle.files.len(), 4);
    assert_eq!(bundle.files[&bundle.description.root.file], (4, Sha256Digest::of(b"root")));
    assert_eq!(bundle.description.law().text(LAW), Some("schema = 1\n"));
}

#[test]
fn another_key_or_another_signature_is_refused() {
    let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
    update(folder.path(), &key, |_| ());
    let other = SigningKey::generate().unwrap();
    assert!(refusal(folder.path(), &other).contains("signed by somebody else"));
    // One that claims the publisher's number.
    let signature = files::read_to_string(folder.path().join(SIGNATURE)).unwrap();
    let claimed = PublisherKey::new(*key.public().number(), [7; 32]);
    assert!(
        open(folder.path(), &claimed).unwrap_err().to_string().contains("is not the publisher's signature")
    );
    for (from, to, told) in [
        ("trusted comment: lychd 2", "trusted comment: lychd 3", "is not the publisher's signature"),
        ("\ntrusted comment: ", "\n", "is no signature"),
        (signature.as_str(), "", "is no signature"),
        (signature.as_str(), "untrusted comment: x\nRUQ=\ntrusted comment: x\nRUQ=\n", "is no signature"),
    ] {
        files::write(folder.path().join(SIGNATURE), signature.replacen(from, to, 1)).unwrap();
        let refusal = refusal(folder.path(), &key);
        assert!(refusal.contains(told), "{from:?} {to:?}: {refusal}");
    }
}

#[test]
fn a_changed_byte_a_missing_end_and_a_missing_or_extra_file_are_refused() {
    let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
    update(folder.path(), &key, |_| ());
    let whole = open(folder.path(), &key.public()).unwrap();
    for path in fs::list(folder.path()).unwrap() {
        let bytes = files::read(&path).unwrap();
        let mut changed = bytes.clone();
        // In a signature the first line is a comment that nobody signs.
        let last = changed.len() - 3;
        changed[last] ^= 1;
        for damaged in [&changed[..], &bytes[..bytes.len() - 2], &[]] {
            files::write(&path, damaged).unwrap();
            assert!(open(folder.path(), &key.public()).is_err(), "{}", path.display());
        }
        files::remove_file(&path).unwrap();
        assert!(open(folder.path(), &key.public()).is_err(), "{}", path.display());
        files::write(&path, &bytes).unwrap();
    }
    assert_eq!(open(folder.path(), &key.public()).unwrap(), whole);
    let extra = folder.path().join("extra");
    files::write(&extra, "").unwrap();
    assert!(refusal(folder.path(), &key).contains("`extra` does not belong to it"));
    files::remove_file(&extra).unwrap();
    files::create_dir(&extra).unwrap();
    assert!(refusal(folder.path(), &key).contains("`extra` is not a file"));
    files::remove_dir(&extra).unwrap();
    let root = folder.path().join(&whole.description.root.file);
    files::rename(&root, folder.path().with_extension("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.path().with_extension("elsewhere"), &root).unwrap();
    assert!(refusal(folder.path(), &key).contains("is not a file"));
    files::remove_file(folder.path().with_extension("elsewhere")).unwrap();
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused_although_they_are_signed() {
    let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
    update(folder.path(), &key, |_| ());
    let names = ["../a", "b", "c", "d"].map(|name| (name, Sha256Digest::of(b"")));
    sign(folder.path(), &key, &checksums(&names), "lychd 2");
    assert!(refusal(folder.path(), &key).contains("SHA256SUMS names `../a`"));
}

#[test]
fn a_description_that_lies_or_is_of_the_future_is_refused_although_it_is_signed() {
    type Lie = fn(&mut serde_json::Value);
    let lies: [(Lie, &str); 14] = [
        (|value| value["name"] = "other".into(), "the description of other 2 is in lychd_2.json"),
        (|value| value["version"] = "3".into(), "the description of lychd 3 is in lychd_2.json"),
        (|value| value["version"] = "../3".into(), "is no description"),
        (|value| value["root"]["size"] = 5.into(), "has 4 bytes, its description says 5"),
        (|value| value["kernel"]["size"] = 0.into(), "its description says 0"),
        (|value| value["verity"]["file"] = "../x".into(), "the description says that the verity is `../x`"),
        (
            |value| value["root-hash"] = Sha256Digest::of(b"x").to_string().into(),
            "by name, version and root hash",
        ),
        (|value| value["schema"] = 2.into(), "the update is of schema 2, this program knows 1"),
        (|value| value["schema"] = 0.into(), "schemas are counted from 1"),
        (|value| value["law"]["peers/phone.toml"] = "".into(), "holds `peers/phone.toml`"),
        (|value| value["law"]["services/../x.toml"] = "".into(), "holds `services/../x.toml`"),
        (|value| value["law"] = serde_json::json!({}), "holds no lychd.toml"),
        (|value| value["more"] = 1.into(), "unknown field `more`"),
        (|value| *value = "x".into(), "is no description"),
    ];
    for (lie, told) in lies {
        let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
        update(folder.path(), &key, lie);
        let refusal = refusal(folder.path(), &key);
        assert!(refusal.contains(told), "{told}: {refusal}");
    }
}

#[test]
fn a_signature_for_another_update_and_a_kernel_that_starts_another_root_are_refused() {
    let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
    update(folder.path(), &key, |_| ());
    let sums = files::read_to_string(folder.path().join(SUMS)).unwrap();
    sign(folder.path(), &key, &sums, "lychd 3");
    assert!(refusal(folder.path(), &key).contains("the signature is for `lychd 3`, the update is `lychd 2`"));
    for (from, to, told) in [
        ("IMAGE_VERSION=2", "IMAGE_VERSION=1", "does not say IMAGE_VERSION=2"),
        ("roothash=", "roothush=", "does not start the root"),
        ("MZ", "ZM", "is no kernel image"),
    ] {
        update(folder.path(), &key, |_| ());
        let path = folder.path().join("lychd_2.efi");
        let kernel = files::read(&path).unwrap();
        let at = kernel.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        let changed = [&kernel[..at], to.as_bytes(), &kernel[at + to.len()..]].concat();
        files::write(&path, &changed).unwrap();
        let (old, new) = (Sha256Digest::of(&kernel), Sha256Digest::of(&changed));
        sign(folder.path(), &key, &sums.replace(&old.to_string(), &new.to_string()), "lychd 2");
        assert!(refusal(folder.path(), &key).contains(told), "{told}: {}", refusal(folder.path(), &key));
    }
}

#[test]
fn an_update_that_is_signed_later_is_the_same_and_a_damaged_one_is_not_signed() {
    let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
    update(folder.path(), &key, |_| ());
    let signature = folder.path().join(SIGNATURE);
    let signed = files::read(&signature).unwrap();
    files::remove_file(&signature).unwrap();
    assert!(refusal(folder.path(), &key).contains("holds no SHA256SUMS.minisig"));
    let unsigned = open_unsigned(folder.path()).unwrap();
    assert_eq!(write::sign(folder.path(), &key).unwrap(), unsigned);
    assert_eq!(files::read(&signature).unwrap(), signed);
    assert_eq!(open(folder.path(), &key.public()).unwrap(), unsigned);
    let other = SigningKey::generate().unwrap();
    write::sign(folder.path(), &other).unwrap();
    assert!(refusal(folder.path(), &key).contains("signed by somebody else"));

    let (root, before) =
        (folder.path().join(&unsigned.description.root.file), files::read(&signature).unwrap());
    files::write(root, "boot").unwrap();
    let told = write::sign(folder.path(), &key).unwrap_err().to_string();
    assert!(told.contains("has another digest than SHA256SUMS says"), "{told}");
    assert_eq!(files::read(&signature).unwrap(), before);
}
