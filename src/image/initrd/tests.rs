//! The initrd from small roots made by hand.

use super::*;

fn file(text: &str) -> Node {
    Node { mode: 0o644, uid: 0, gid: 0, kind: Kind::File(Content::Bytes(text.as_bytes().into())) }
}

fn link(target: &str) -> Node {
    Node { mode: 0o777, uid: 0, gid: 0, kind: Kind::Link(target.to_owned()) }
}

fn layer(nodes: impl IntoIterator<Item = (&'static str, Node)>) -> Layer {
    Layer(nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect())
}

fn definition(text: &str) -> Definition {
    Definition::parse(text).unwrap()
}

fn selected(root: &Layer, text: &str) -> Vec<String> {
    select(root, &definition(text)).unwrap().0.into_keys().collect()
}

fn refused(root: &Layer, text: &str) -> String {
    select(root, &definition(text)).unwrap_err().to_string()
}

#[test]
fn links_are_followed_through_folders_that_are_links() {
    let root = layer([
        ("lib", link("usr/lib")),
        ("usr/bin/init", link("../../lib/init")),
        ("usr/lib/init", link("/lib/real")),
        ("usr/lib/real", file("")),
        ("usr/lib/other", file("")),
    ]);
    let paths = selected(&root, "files = ['usr/bin/init']");
    assert_eq!(paths, ["lib", "usr", "usr/bin", "usr/bin/init", "usr/lib", "usr/lib/init", "usr/lib/real"]);
}

#[test]
fn a_circle_of_links_and_a_missing_file_are_named() {
    let root = layer([("a", link("b")), ("b", link("a")), ("c", link("nowhere"))]);
    assert!(refused(&root, "files = ['a']").starts_with("too many links on the way to"));
    assert_eq!(refused(&root, "files = ['c']"), "the initrd wants nowhere, which the root does not have");
    assert_eq!(refused(&root, "files = ['x/*']"), "the initrd wants x/*, which the root does not have");
}

#[test]
fn globs_stay_within_a_folder_unless_they_say_otherwise() {
    let root = layer([("etc/a", file("")), ("etc/b", file("")), ("etc/d/c", file(""))]);
    assert_eq!(selected(&root, "files = ['etc/*']\nexclude = ['etc/b']"), ["etc", "etc/a"]);
    assert_eq!(selected(&root, "files = ['etc/**']"), ["etc", "etc/a", "etc/b", "etc/d", "etc/d/c"]);
}

#[test]
fn modules_come_with_what_they_need_and_with_their_index() {
    let root = layer([
        (
            "usr/lib/modules/6.1/modules.dep",
            file("k/dm-verity.ko.xz: k/dm-mod.ko.xz\nk/dm-mod.ko.xz:\nk/x.ko:\n"),
        ),
        ("usr/lib/modules/6.1/modules.softdep", file("# soft\nsoftdep dm_mod pre: x absent\n")),
        ("usr/lib/modules/6.1/modules.builtin", file("kernel/drivers/nvme.ko\n")),
        ("usr/lib/modules/6.1/k/dm-verity.ko.xz", file("")),
        ("usr/lib/modules/6.1/k/dm-mod.ko.xz", file("")),
        ("usr/lib/modules/6.1/k/x.ko", file("")),
        ("usr/lib/modules/6.1/k/y.ko", file("")),
    ]);
    let paths = selected(&root, "files = []\nmodules = ['dm-verity', 'nvme']");
    let names: Vec<&str> =
        paths.iter().filter_map(|path| path.strip_prefix("usr/lib/modules/6.1/")).collect();
    let index = ["modules.builtin", "modules.dep", "modules.softdep"];
    assert_eq!(names, [["k", "k/dm-mod.ko.xz", "k/dm-verity.ko.xz", "k/x.ko"].as_slice(), &index].concat());
    let error = refused(&root, "files = []\nmodules = ['zfs']");
    assert_eq!(error, "the initrd wants the kernel module zfs, which the kernel does not have");
}

#[test]
fn a_root_with_no_kernel_or_two_is_refused() {
    let two =
        layer([("usr/lib/modules/1/modules.dep", file("")), ("usr/lib/modules/2/modules.dep", file(""))]);
    for (root, count) in [(Layer::default(), 0), (two, 2)] {
        assert!(refused(&root, "files = []\nmodules = ['x']").starts_with(&format!("the root has {count} ")));
    }
}

#[test]
fn the_archive_has_links_texts_and_folders_with_fixed_numbers_and_times() {
    let root = layer([("usr/bin/a", Node { mode: 0o4755, uid: 7, gid: 8, ..file("program") })]);
    let text = "files = ['usr/bin/a']\nfolders = ['proc']\nlinks = { init = 'usr/bin/a' }\ntexts = { 'etc/x' = 'y' }";
    let packed = build(&root, &definition(text), 17).unwrap();
    assert_eq!(packed, build(&root, &definition(text), 17).unwrap());
    let bytes = zstd::decode_all(packed.as_slice()).unwrap();
    let mut rest = bytes.as_slice();
    let mut seen = Vec::new();
    loop {
        let reader = cpio::NewcReader::new(rest).unwrap();
        let entry = reader.entry().clone();
        if entry.is_trailer() {
            break;
        }
        assert_eq!((entry.mtime(), entry.ino() as usize), (17, seen.len() + 1));
        seen.push(format!("{} {:o} {}:{}", entry.name(), entry.mode(), entry.uid(), entry.gid()));
        rest = reader.finish().unwrap();
    }
    let expected = [
        "etc 40755 0:0",
        "etc/x 100644 0:0",
        "init 120777 0:0",
        "proc 40755 0:0",
        "usr 40755 0:0",
        "usr/bin 40755 0:0",
        "usr/bin/a 104755 7:8",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn an_unknown_key_of_the_definition_is_an_error() {
    assert!(Definition::parse("files = []\nmodule = []").is_err());
}
