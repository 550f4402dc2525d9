//! `sepulcher peer list` and `show` on a workstation, where no agent runs.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{copy, repository, sepulcher};

const NO_AGENT: [&str; 6] = ["held", "last_handshake", "endpoint", "received", "sent", "denied"];

/// A copy of the golden case with peers of every kind.
fn bonds() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    copy(&repository("tests/golden/lych/codex"), scratch.path());
    scratch
}

fn listed(folder: &Path, more: &[&str]) -> String {
    let run =
        sepulcher().args(["peer", "list", "--codex"]).arg(folder).args(more).assert().success().stderr("");
    String::from_utf8(run.get_output().stdout.clone()).unwrap()
}

#[test]
fn a_list_tells_what_the_bonds_say_and_nothing_of_the_kernel() {
    let bonds = bonds();
    let table = listed(bonds.path(), &[]);
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "ADDRESS", "KIND", "GRANTS", "STATE"]);
    assert_eq!(words[1], ["gone", "172.30.8.4", "device", "*", "revoked"]);
    assert_eq!(words.len(), 4, "{table}");
    let told: serde_json::Value = serde_json::from_str(&listed(bonds.path(), &["--json"])).unwrap();
    assert_eq!(told["observed"], false);
    for peer in told["peers"].as_array().unwrap() {
        for unknown in NO_AGENT {
            assert_eq!(peer.get(unknown), Some(&serde_json::Value::Null), "{unknown} of {peer}");
        }
    }
}

#[test]
fn an_expired_peer_is_shown_as_such() {
    let bonds = bonds();
    let file = bonds.path().join("peers/site.toml");
    let site = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("expires = 2001-09-09T01:46:40Z\n{site}")).unwrap();
    assert!(
        listed(bonds.path(), &[])
            .lines()
            .any(|line| line.starts_with("site ") && line.ends_with("  expired"))
    );
    let show = sepulcher().args(["peer", "show", "site", "--codex"]).arg(bonds.path()).assert().success();
    let shown = String::from_utf8(show.get_output().stdout.clone()).unwrap();
    let told = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(told.into_iter().any(|words| words == ["expires", "2001-09-09T01:46:40Z"]), "{shown}");
}

#[test]
fn showing_a_peer_that_is_not_there_is_an_error_with_a_remedy() {
    let bonds = bonds();
    let run =
        sepulcher().args(["peer", "show", "nobody", "--codex"]).arg(bonds.path()).assert().code(1).stdout("");
    let said = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(said.contains("there is no peer `nobody`") && said.contains("hint: "), "{said}");
}

#[test]
fn a_watch_tells_changes_and_ends_with_its_reader() {
    let bonds = bonds();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_sepulcher"))
        .args(["peer", "list", "--watch=1", "--codex"])
        .arg(bonds.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("silent ")));
    std::fs::remove_file(bonds.path().join("peers/silent.toml")).unwrap();
    // By name, the removed one stood between these two.
    let mut before = String::new();
    assert!(
        lines
            .any(|line| std::mem::replace(&mut before, line).starts_with("gone ")
                && before.starts_with("site "))
    );
    drop(lines);
    // The next look finds nobody: it ends, and that is no failure.
    assert!(watch.wait().unwrap().success());
}
