//! The fuzzer's corpus, fed again: what once made a parser stumble, and what it starts from.
//!
//! Packages whose names begin with `seed-` are made here; `BLESS=1 cargo test corpus` writes them anew.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use crate::support::{blessing, repository};

#[path = "../../fuzz/src/lib.rs"]
mod feed;

/// Files of a target's corpus.
fn corpus(target: &str) -> Vec<PathBuf> {
    sepulcher::sys::fs::list(&repository("fuzz/corpus").join(target)).unwrap()
}

/// An archive of one entry of each kind that a package may hold, and then `more`.
fn data(more: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    use tar::EntryType as Type;
    let long = format!("usr/share/{}x", "deep/".repeat(30));
    let usual = [
        (Type::Directory, "./", ""),
        (Type::Directory, "./usr/bin/", ""),
        (Type::Regular, "./usr/bin/one", "first"),
        (Type::Link, "./usr/bin/two", "./usr/bin/one"),
        (Type::Symlink, "./lib/three", "/usr/bin/one"),
        (Type::Regular, long.as_str(), "deep"),
    ];
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, text) in usual.iter().chain(more) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        if matches!(kind, Type::Link | Type::Symlink) {
            builder.append_link(&mut header, path, text).unwrap();
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// An archive with a pax record that gives a path.
fn pax() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("path", &b"usr/by/record"[..]), ("size", b"3")]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    builder.append_data(&mut header, "short", &b"abc"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn deb(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ar::Builder::new(Vec::new());
    for (name, bytes) in members {
        builder.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Small packages, each with something of its own: name, bytes.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use tar::EntryType as Type;
    const VERSION: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let (plain, zst) = (data(&[]), |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap());
    let mut control = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let text = b"Package: demo\nVersion: 1\nDescription: one\n two\n";
    header.set_size(text.len() as u64);
    control.append_data(&mut header, "./control", &text[..]).unwrap();
    let control = control.into_inner().unwrap();
    let of = |data: &[u8]| deb(&[VERSION, ("control.tar", &control), ("data.tar", data)]);
    let with = |more: &[(Type, &str, &str)]| of(&data(more));
    vec![
        ("plain", of(&plain)),
        ("pax", of(&pax())),
        ("xz", deb(&[VERSION, ("control.tar.xz", &xz(&control)), ("data.tar.xz", &xz(&plain))])),
        ("gz", deb(&[VERSION, ("control.tar.gz", &gz(&control)), ("data.tar.gz", &gz(&plain))])),
        ("zst", deb(&[VERSION, ("control.tar.zst", &zst(&control)), ("data.tar.zst", &zst(&plain))])),
        ("bomb", deb(&[VERSION, ("control.tar", &control), ("data.tar.zst", &zst(&vec![0; 4 << 20]))])),
        ("bomb-in-control", deb(&[VERSION, ("control.tar.xz", &xz(&vec![0; 20 << 20]))])),
        ("extra-member", deb(&[VERSION, ("_gpg", b"x"), ("control.tar", &control), ("data.tar", &plain)])),
        ("data-first", deb(&[VERSION, ("data.tar", &plain), ("control.tar", &control)])),
        ("hard-link-to-nothing", with(&[(Type::Link, "./x", "./later")])),
        ("link-out", with(&[(Type::Symlink, "./x", "../../../etc")])),
        ("device", with(&[(Type::Char, "./dev/x", "")])),
        ("twice", with(&[(Type::Regular, "./usr/bin/one", "again")])),
        ("empty", of(&[0; 1024])),
    ]
}

#[test]
fn the_seeds_are_what_is_made_here() {
    let made: Vec<_> = seeds().into_iter().map(|(name, bytes)| (format!("seed-{name}.deb"), bytes)).collect();
    let folder = repository("fuzz/corpus/deb");
    for (name, bytes) in &made {
        if blessing() {
            fs::write(folder.join(name), bytes).unwrap();
        }
        assert!(fs::read(folder.join(name)).unwrap() == *bytes, "{name} differs: BLESS=1 cargo test corpus");
    }
    let known = |name: &str| made.iter().any(|(made, _)| made == name);
    let stray: Vec<_> = corpus("deb")
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("seed-") && !known(name))
        .collect();
    assert!(stray.is_empty(), "nothing makes {stray:?}");
}

#[test]
fn no_file_of_the_corpus_makes_a_parser_stumble() {
    let (codices, debs) = (corpus("codex"), corpus("deb"));
    for path in &codices {
        feed::codex(&fs::read_to_string(path).unwrap());
    }
    for path in &debs {
        feed::package(&fs::read(path).unwrap());
    }
    assert!(!codices.is_empty() && !debs.is_empty());
}

#[test]
fn the_corpus_is_small() {
    let files = [corpus("codex"), corpus("deb")].concat();
    let size: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(files.len() <= 60 && size <= 200 << 10, "{} files of {size} bytes", files.len());
}
