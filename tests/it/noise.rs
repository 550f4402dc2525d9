//! Whatever is in the files, parsing ends with a Codex or with mistakes that can be laid out.

use proptest::prelude::*;

use sepulcher::codex::{Codex, Sources, render_all};

use crate::support::repository;

fn example() -> Vec<(String, String)> {
    let sources = sepulcher::sys::codex::load(&[&repository("examples/lychd")]);
    sources.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// Parses, and lays out what is wrong; returns whether the Codex is valid.
fn survives(files: Vec<(String, String)>) -> bool {
    let sources: Sources = files.into_iter().collect();
    match Codex::parse(&sources) {
        Ok(_) => true,
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(mistakes.is_sorted_by(|a, b| a.order() <= b.order()));
            let report = render_all(&mistakes, &sources, true);
            assert!(!report.is_empty());
            false
        }
    }
}

/// One way to spoil a text.
#[derive(Debug, Clone)]
enum Edit {
    Delete(usize, usize),
    Insert(usize, String),
    Replace(usize, char),
    SwapLines(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let token = prop_oneof![
        Just("\n".to_owned()),
        Just("[[port]]\n".to_owned()),
        Just("[tether]\n".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("0".to_owned()),
        Just("{".to_owned()),
        Just("= [".to_owned()),
        Just("\u{0}".to_owned()),
        Just("é\u{202e}".to_owned()),
        ".{0,8}",
    ];
    prop_oneof![
        (any::<usize>(), 0..40_usize).prop_map(|(at, count)| Edit::Delete(at, count)),
        (any::<usize>(), token).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<usize>(), any::<char>()).prop_map(|(at, with)| Edit::Replace(at, with)),
        (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Edit::SwapLines(one, other)),
    ]
}

fn apply(text: &str, edit: Edit) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let length = chars.len();
    match edit {
        Edit::Delete(at, count) => {
            let at = at % (length + 1);
            chars.drain(at..(at + count).min(length));
        }
        Edit::Insert(at, text) => {
            let at = at % (length + 1);
            chars.splice(at..at, text.chars());
        }
        Edit::Replace(at, with) if length > 0 => chars[at % length] = with,
        Edit::Replace(..) => {}
        Edit::SwapLines(one, other) => {
            let mut lines: Vec<&str> = text.split('\n').collect();
            let count = lines.len();
            lines.swap(one % count, other % count);
            return lines.join("\n");
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(law in ".{0,200}", service in "(?s).{0,200}", peer in "[\\[\\]a-z=\"\n0-9.{},#' -]{0,200}") {
        let named = [("lychd.toml", law), ("services/a.toml", service), ("peers/b.toml", peer)];
        survives(named.into_iter().map(|(name, text)| (name.to_owned(), text)).collect());
    }

    #[test]
    fn a_spoiled_example_never_panics(edits in prop::collection::vec((any::<usize>(), edit()), 1..6)) {
        let mut files = example();
        let count = files.len();
        for (file, edit) in edits {
            let text = &mut files[file % count].1;
            *text = apply(text, edit);
        }
        survives(files);
    }

    #[test]
    fn any_file_name_never_panics(name in "(services|peers|)/?.{0,12}(\\.toml)?") {
        let mut files = example();
        files.push((name, "description = \"x\"".into()));
        survives(files);
    }
}

#[test]
fn the_unspoiled_example_survives_as_valid() {
    assert!(survives(example()));
}

#[test]
fn deep_nesting_is_a_mistake_and_no_overflow() {
    for open in ["[", "{a=", "a."] {
        let mut files = example();
        files.push(("services/deep.toml".into(), format!("x = {}", open.repeat(200_000))));
        assert!(!survives(files));
    }
    let mut files = example();
    files.push(("services/deep.toml".into(), format!("{}b = 1", "a.".repeat(200_000))));
    assert!(!survives(files));
}

#[test]
fn ten_thousand_peers_with_a_mistake_each_are_reported() {
    let mut files = example();
    for index in 0..10_000 {
        let key = format!("{index:05}{}E=", "A".repeat(37));
        let text =
            format!("public-key = \"{key}\"\naddress = \"192.0.2.{}\"\ngrants = [\"x\"]\n", index % 256);
        files.push((format!("peers/p{index}.toml"), text));
    }
    let mistakes = Codex::parse(&files.into_iter().collect()).unwrap_err();
    assert!(mistakes.len() >= 20_000, "{}", mistakes.len());
}

/// Files of a quarter of a mebibyte whose parts have to do with one another; every one was slow once.
fn large() -> Vec<(&'static str, String)> {
    const SIZE: usize = 256 << 10;
    let service = "description = \"x\"\nrootfs = \"stand-in\"\n";
    let repeat = |unit: &str| unit.repeat(SIZE / unit.len());
    let count = |length: usize| 0..SIZE / length;
    let addresses: String = count(18)
        .map(|index| format!("\"10.{}.{}.{}/32\",", 1 + (index >> 16), (index >> 8) & 255, index & 255))
        .collect();
    let routes = |tier: &str| -> String {
        let one = |index| format!("[[route]]\npath = \"/t/{index}\"\ntier = \"{tier}\"\nport = 1000\n");
        count(60).map(one).collect()
    };
    let ports: String =
        count(70).map(|index| format!("[[port]]\nnumber = {}\ntier = \"tether\"\n", 1000 + index)).collect();
    let pinned = "[[route]]\npath = \"/t\"\ntier = \"tether\"\nport = 1000\n";
    let peer = "public-key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\naddress = \"10.88.16.9\"\n";
    vec![
        ("peers/large.toml", format!("{peer}grants = [{}]", repeat("1,"))),
        ("peers/large.toml", format!("{peer}grants = [{}]", repeat("\"oculus\","))),
        ("peers/large.toml", format!("{peer}kind = \"lych\"\nroutes = [{addresses}]")),
        ("peers/large.toml", format!("{peer}kind = \"lych\"\nroutes = [{}]", repeat("\"10.9.0.0/24\","))),
        ("services/large.toml", format!("{service}command = [{}]", repeat("1,"))),
        ("services/large.toml", format!("{service}port = [{}]", repeat("{},"))),
        ("services/large.toml", format!("{service}secrets = [{}]", repeat("\"a\","))),
        ("services/large.toml", format!("{service}{ports}{}", routes("forest"))),
        ("services/large.toml", format!("{service}{ports}{}{pinned}", routes("tether"))),
        ("services/large.toml", format!("{service}{}", routes("tether"))),
        ("lychd.toml", format!("schema = 1\n[appliance]\nname = \"x\"\n[uplink]\naddresses = [{addresses}]")),
    ]
}

#[test]
fn large_files_full_of_mistakes_are_told_in_short() {
    for (name, text) in large() {
        let mut files = example();
        files.retain(|(other, _)| other != name);
        files.push((name.to_owned(), text));
        let sources: Sources = files.into_iter().collect();
        let Err(mistakes) = Codex::parse(&sources) else { continue };
        let report = render_all(&mistakes, &sources, false);
        let beginning: String = report.chars().take(200).collect();
        assert!(mistakes.len() < 150 && report.len() < 100 << 10, "{} bytes: {beginning}", report.len());
    }
}
