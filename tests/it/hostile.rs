//! Hostile texts through the whole line: TOML, check, render, Podman's generator, systemd's words.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sepulcher::codex::{Codex, Sources};
use sepulcher::render::render;

use crate::cases::{QUADLETS, on_disk};
use crate::judge::{generate, program};

/// Texts of what the syntaxes on the way give a meaning to, and of anything else.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "\"", "'", "\\", "\\\\", "%", "%n", "$", "${HOME}", "$$", ";", "#", " ", "\n", "\r", "\t", "{{ x }}",
            "{% x %}", "{#", "[Service]", "ExecStart=/bin/false", "-v", "--", "\\x0a", "\u{85}", "\u{a0}", "\u{2028}", "À", "墓",
        ])
        .prop_map(str::to_owned),
        1 => "[^\\x00\u{fdd0}-\u{fdef}\u{fffe}\u{ffff}\u{1fffe}-\u{1ffff}\u{2fffe}-\u{2ffff}]{0,3}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// One service of a drawn Codex.
#[derive(Debug)]
struct Drawn {
    description: String,
    command: Vec<String>,
    value: String,
}

const SERVICES: usize = 150;

fn drawn() -> Vec<Drawn> {
    let line = hostile().prop_map(|text| text.chars().filter(|letter| !letter.is_control()).collect());
    let service = (line, prop::collection::vec(hostile(), 0..5), hostile());
    let service = service.prop_map(|(description, command, value)| Drawn { description, command, value });
    let mut runner = TestRunner::deterministic();
    prop::collection::vec(service, SERVICES).new_tree(&mut runner).unwrap().current()
}

fn sources(services: &[Drawn]) -> Sources {
    let mut sources = Sources::default();
    sources.insert("lychd.toml", "schema = 1\n[appliance]\nname = \"x\"\n");
    for (index, Drawn { description, command, value }) in services.iter().enumerate() {
        let command: Vec<_> = ["/bin/x".to_owned()].iter().chain(command).map(|word| quoted(word)).collect();
        let text = format!(
            "description = {}\nrootfs = \"stand-in\"\ncommand = [{}]\nenvironment = {{ V = {} }}\n",
            quoted(description),
            command.join(", "),
            quoted(value),
        );
        sources.insert(format!("services/s{index}.toml"), text);
    }
    sources
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let escaped: Vec<_> = text.chars().map(|letter| format!("\\U{:08x}", u32::from(letter))).collect();
    let escaped = escaped.concat();
    format!("\"{escaped}\"")
}

#[test]
fn hostile_texts_reach_the_container_unchanged_and_nothing_else() {
    let Some(quadlet) = program("hostile_texts_reach_the_container_unchanged_and_nothing_else", "quadlet")
    else {
        return;
    };
    let services = drawn();
    let codex = Codex::parse(&sources(&services)).unwrap();
    let (_guard, root) = on_disk(&render(&codex).unwrap());
    let units = generate(&quadlet, &root.join(QUADLETS)).unwrap();
    let unit = |index: usize| {
        let name = format!("x-s{index}.service");
        &units.iter().find(|(unit, _)| *unit == name).unwrap().1
    };
    let benign = keys(unit(services.iter().position(|service| plain(&service.command)).unwrap()));
    for (index, Drawn { description, command, value }) in services.iter().enumerate() {
        let unit = unit(index);
        let own = |key: &&String| !key.contains("Environment=");
        assert!(keys(unit).iter().filter(own).eq(benign.iter().filter(own)), "{index}: {unit}");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words = words(start);
        let at = words.iter().position(|word| word.starts_with("/usr/lib/sepulcher/roots/")).unwrap();
        assert_eq!(words[at + 1], "/bin/x");
        let given: Vec<_> = words[at + 2..].iter().map(|word| expanded(word)).collect();
        assert_eq!(&given, command, "{start}");
        let variable = words.iter().position(|word| word == "--env").unwrap() + 1;
        assert_eq!(expanded(&words[variable]), format!("V={value}"), "{start}");
        let shown = unit.lines().find_map(|line| line.strip_prefix("Description=")).unwrap();
        let expected = match description.trim() {
            "" => format!("s{index}"),
            text => format!("{text} (s{index})"),
        };
        assert_eq!(shown.replace("%%", "%"), expected);
    }
}

fn plain(command: &[String]) -> bool {
    !command.iter().any(|word| word.is_empty() || word == ";")
}

/// Sections and keys of a unit in order: what a text that broke out would change.
fn keys(unit: &str) -> Vec<String> {
    let key = |line: &str| line.split_once('=').map_or_else(|| line.to_owned(), |(key, _)| format!("{key}="));
    unit.lines().filter(|line| !line.is_empty()).map(key).collect()
}

/// Words of a command line as systemd makes them: quotes, C escapes, specifiers, variables (systemd.service(5)).
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, behind) = word(rest);
        let text = String::from_utf8(word).unwrap();
        assert_ne!(text, ";", "a second command: {line}");
        words.push(text);
        rest = behind.trim_start_matches([' ', '\t']);
    }
    words
}

/// A word of ours with its specifiers and variables expanded.
fn expanded(word: &str) -> String {
    match word {
        "${EMPTY}" => String::new(),
        "${SEMICOLON}" => ";".to_owned(),
        word => doubled(&doubled(word, '%'), '$'),
    }
}

/// `sign` only ever doubled, and then one of the two.
fn doubled(text: &str, sign: char) -> String {
    let pair = format!("{sign}{sign}");
    assert!(!text.replace(&pair, "").contains(sign), "a lone {sign} in {text:?}");
    text.replace(&pair, &sign.to_string())
}

fn word(text: &str) -> (Vec<u8>, &str) {
    let mut bytes = Vec::new();
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            ' ' | '\t' if quote.is_none() => return (bytes, &text[at..]),
            '"' | '\'' if quote.is_none() => quote = Some(letter),
            _ if quote == Some(letter) => quote = None,
            '\\' => match letters.next().unwrap().1 {
                'a' => bytes.push(7),
                'b' => bytes.push(8),
                'f' => bytes.push(12),
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                'v' => bytes.push(11),
                's' => bytes.push(b' '),
                'x' => {
                    let digits: String = letters.by_ref().take(2).map(|(_, digit)| digit).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                other => bytes.extend(other.to_string().bytes()),
            },
            _ => bytes.extend(letter.to_string().bytes()),
        }
    }
    assert_eq!(quote, None, "an open quote: {text}");
    (bytes, "")
}
