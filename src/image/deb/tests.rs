//! Packages good and hostile, made here.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::image::lock::Archive;

/// One tar entry: kind, path (raw bytes of the header), content or link target.
type Entry<'a> = (tar::EntryType, &'a str, &'a str);

/// One member of the outer archive: name and content.
type Member<'a> = (&'a str, &'a [u8]);

const FILE: tar::EntryType = tar::EntryType::Regular;
const FOLDER: tar::EntryType = tar::EntryType::Directory;
const LINK: tar::EntryType = tar::EntryType::Symlink;
const HARD: tar::EntryType = tar::EntryType::Link;

fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == FOLDER { 0o755 } else { 0o4644 });
        header.set_uid(3);
        header.set_gid(4);
        let bytes = if *kind == FILE { content.as_bytes() } else { b"" };
        header.set_size(bytes.len() as u64);
        if matches!(*kind, LINK | HARD) {
            header.set_link_name_literal(content).unwrap();
        }
        // Written as it is: the builder itself would refuse what a hostile package holds.
        let name = &mut header.as_old_mut().name;
        if path.len() <= name.len() {
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        } else {
            builder.append_data(&mut header, path, bytes).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn ar_of(members: &[Member<'_>]) -> Vec<u8> {
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

fn control_tar() -> Vec<u8> {
    tar_of(&[(FILE, "./control", "Package: demo\nVersion: 1\nDescription: one\n two\n")])
}

fn deb_of(data: &[u8]) -> Vec<u8> {
    ar_of(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &xz(&control_tar())), ("data.tar.xz", &xz(data))])
}

fn package(deb: &[u8]) -> Package {
    Package {
        name: "demo".to_owned(),
        version: "1".to_owned(),
        architecture: "all".to_owned(),
        archive: Archive::Debian,
        path: "pool/main/d/demo_1_all.deb".to_owned(),
        size: 1,
        sha256: Sha256Digest::of(deb),
    }
}

/// From the bytes of a `.deb` to its layer, the way the store goes.
fn read(deb: &[u8]) -> Result<Layer, Error> {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("demo.deb"), folder.path().join("demo.tar"));
    fs::write(&from, 0o644, deb).unwrap();
    let decompressed = decompress(&package(deb), &from, &to);
    assert_eq!(to.exists(), decompressed.is_ok(), "a broken package leaves nothing in the cache");
    decompressed?;
    let mut layer = layer(&to, &package(deb), &|_| true)?;
    // The folder goes with this function: keep the bytes.
    for node in layer.0.values_mut() {
        if let Kind::File(content) = &mut node.kind {
            *content = Content::Bytes(content.read().unwrap().into());
        }
    }
    Ok(layer)
}

fn told(error: &dyn std::error::Error) -> String {
    let source = error.source().map(told).unwrap_or_default();
    format!("{error}: {source}")
}

fn text(layer: &Layer, path: &str) -> String {
    match &layer.0[path].kind {
        Kind::File(content) => String::from_utf8(content.read().unwrap()).unwrap(),
        Kind::Link(target) => format!("-> {target}"),
        Kind::Dir => "folder".to_owned(),
    }
}

#[test]
fn files_links_folders_owners_and_modes_come_through() {
    let long = format!("./usr/share/{}file", "long-name/".repeat(20));
    let data = tar_of(&[
        (FOLDER, "./", ""),
        (FOLDER, "./usr/bin/", ""),
        (FILE, "./usr/bin/one", "first"),
        (HARD, "./usr/bin/two", "./usr/bin/one"),
        (LINK, "./usr/bin/three", "/etc/alternatives/three"),
        (FILE, &long, "deep"),
        (FILE, "./usr/bin/empty", ""),
    ]);
    let layer = read(&deb_of(&data)).unwrap();
    assert_eq!(text(&layer, "usr/bin"), "folder");
    assert_eq!(text(&layer, "usr/bin/one"), "first");
    assert_eq!(text(&layer, "usr/bin/two"), "first");
    assert_eq!(text(&layer, "usr/bin/three"), "-> /etc/alternatives/three");
    assert_eq!(text(&layer, "usr/bin/empty"), "");
    assert_eq!(text(&layer, long.trim_start_matches("./")), "deep");
    let node = &layer.0["usr/bin/one"];
    assert_eq!((node.mode, node.uid, node.gid), (0o4644, 3, 4));
    assert_eq!(layer.0.len(), 6, "the root is not a node");
}

#[test]
fn every_compression_gives_the_same_files() {
    let data = tar_of(&[(FILE, "./usr/x", "same")]);
    let gz = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&data).unwrap();
        encoder.finish().unwrap()
    };
    let zst = zstd::encode_all(data.as_slice(), 1).unwrap();
    for (name, bytes) in
        [("data.tar", &data), ("data.tar.gz", &gz), ("data.tar.zst", &zst), ("data.tar.xz", &xz(&data))]
    {
        let deb = ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar()), (name, bytes)]);
        assert_eq!(text(&read(&deb).unwrap(), "usr/x"), "same", "{name}");
    }
}

#[test]
fn paths_through_the_old_top_folders_are_moved_into_usr() {
    let data = tar_of(&[
        (FOLDER, "./lib/", ""),
        (FILE, "./lib/one", "1"),
        (HARD, "./sbin/two", "lib/one"),
        (LINK, "./lib64", "usr/lib64"),
        (FILE, "./libx/three", "3"),
    ]);
    let layer = read(&deb_of(&data)).unwrap();
    let paths: Vec<_> = layer.0.keys().map(String::as_str).collect();
    assert_eq!(paths, ["lib64", "libx/three", "usr/lib", "usr/lib/one", "usr/sbin/two"]);
    assert_eq!(text(&layer, "usr/sbin/two"), "1");
}

#[test]
fn hostile_entries_are_errors_that_name_the_package() {
    let cases: [(&[Entry<'_>], &str); 13] = [
        (&[(FILE, "/etc/passwd", "x")], "unusable path"),
        (&[(FILE, "./../../etc/passwd", "x")], "unusable path"),
        (&[(FILE, "usr/../../x", "x")], "unusable path"),
        (&[(HARD, "./x", "../../etc/shadow")], "unusable path"),
        (&[(HARD, "./x", "/etc/shadow")], "unusable path"),
        (&[(HARD, "./x", "./later"), (FILE, "./later", "x")], "hard link"),
        (&[(LINK, "./x", "")], "unusable path"),
        (&[(tar::EntryType::Char, "./dev/x", "")], "device node"),
        (&[(tar::EntryType::Block, "./dev/x", "")], "device node"),
        (&[(tar::EntryType::Fifo, "./x", "")], "named pipe"),
        (&[(FILE, "./x", "1"), (FILE, "x", "2")], "two different things"),
        (&[(FILE, "./lib/x", "1"), (FILE, "./usr/lib/x", "2")], "two different things"),
        (&[(LINK, "./x", "/etc"), (FOLDER, "./x/", "")], "two different things"),
    ];
    for (entries, said) in cases {
        let error = told(&read(&deb_of(&tar_of(entries))).unwrap_err());
        assert!(error.contains("package demo 1") && error.contains(said), "{error}");
    }
    let noise = deb_of(b"this is not a tar, but it is longer than nothing");
    assert!(told(&read(&noise).unwrap_err()).contains("data archive"));
}

#[test]
fn a_name_that_is_not_text_is_refused() {
    let mut data = tar_of(&[(FILE, "./usr/xyz", "1")]);
    data[8] = 0xff;
    let mut header = tar::Header::from_byte_slice(&data[..512]).clone();
    header.set_cksum();
    data[..512].copy_from_slice(header.as_bytes());
    assert!(told(&read(&deb_of(&data)).unwrap_err()).contains("unusable path"));
}

#[test]
fn missing_repeated_and_unknown_members_are_told() {
    let (control, data) = (xz(&control_tar()), xz(&tar_of(&[])));
    let version: Member<'_> = ("debian-binary", b"2.0\n");
    let cases: [(&[Member<'_>], &str); 7] = [
        (&[version, ("control.tar.xz", &control)], "no data archive"),
        (&[version, ("data.tar.xz", &data)], "no control archive"),
        (&[("control.tar.xz", &control), ("data.tar.xz", &data)], "debian-binary"),
        (
            &[version, ("control.tar.xz", &control), ("data.tar.xz", &data), ("data.tar", b"")],
            "more than one",
        ),
        (&[version, ("control.tar.xz", &control), ("control.tar.xz", &control)], "more than one"),
        (&[version, ("control.tar.rar", &control)], "unknown way"),
        (&[], "outer archive"),
    ];
    for (members, said) in cases {
        let error = told(&read(&ar_of(members)).unwrap_err());
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let bomb = xz(&vec![0; 1 << 20]);
    let mut out = Vec::new();
    let error = expand(&mut bomb.as_slice(), bomb.len() as u64, ".xz", "data archive", 1 << 16, &mut out);
    assert!(matches!(error, Err(Malformed::TooLarge(_))), "{error:?}");
    assert!(out.len() <= 1 << 16);
}

#[test]
fn a_folder_that_cannot_be_written_is_not_the_packages_fault() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = split(deb_of(&tar_of(&[(FILE, "./x", "1")])).as_slice(), DATA_LIMIT, &mut Full).unwrap_err();
    assert!(matches!(error, Malformed::Read { part: WRITING, .. }), "{error:?}");
}

#[test]
fn a_package_that_rotted_in_the_cache_is_removed_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("demo.deb"), folder.path().join("demo.tar"));
    let good = deb_of(&tar_of(&[(FILE, "./x", "1")]));
    let mut rotten = good.clone();
    rotten[good.len() / 2] ^= 1;
    for bytes in [rotten, deb_of(&tar_of(&[(FILE, "./x", "2")]))] {
        fs::write(&from, 0o644, &bytes).unwrap();
        let error = decompress(&package(&good), &from, &to).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(!from.exists() && !to.exists());
    }
}

#[test]
fn control_fields_are_read_with_their_folded_lines() {
    let fields = control("demo 1", deb_of(&tar_of(&[])).as_slice()).unwrap();
    assert_eq!(fields["Package"], "demo");
    assert_eq!(fields["Description"], "one\ntwo");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_package_cut_anywhere_is_an_error(at in 0.0..1.0f64) {
        let deb = deb_of(&tar_of(&[(FILE, "./usr/x", "some content of a file"), (FILE, "./usr/y", "more")]));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "any position will do")]
        let end = (at * (deb.len() - 4) as f64) as usize;
        prop_assert!(read(&deb[..end]).is_err());
    }

    #[test]
    fn no_bytes_in_any_place_make_the_reader_panic(
        places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        compressed in any::<bool>(),
    ) {
        let data = tar_of(&[(FILE, "./usr/x", "content"), (LINK, "./usr/y", "x"), (HARD, "./usr/z", "usr/x")]);
        let mut deb = if compressed {
            deb_of(&data)
        } else {
            ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control_tar()), ("data.tar", &data)])
        };
        for (place, byte) in places {
            let at = place.index(deb.len());
            deb[at] = byte;
        }
        let counted = check("demo 1", &deb, 1 << 20);
        prop_assert_eq!(read(&deb).map(|layer| layer.0.len()).ok(), counted.ok());
        let _ = control("demo 1", deb.as_slice());
    }
}
