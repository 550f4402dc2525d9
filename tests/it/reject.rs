//! Every folder in `tests/reject` is a Codex that must be refused, with `stderr.txt` as the whole report.
//!
//! A case is laid over `tests/reject/base`, so that it holds only what is wrong about it; an empty file takes a
//! file of the base away. `BLESS=1 cargo test reject` rewrites the reports: read the difference.

use std::fs;
use std::path::Path;

use sepulcher::codex::Codex;

use crate::support::{blessing, copy, folders, repository, sepulcher};

const BASE: &str = "tests/reject/base";

/// The report of `check` over a case laid over the base.
fn report(case: &Path) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let codex = scratch.path().join("codex");
    copy(&repository(BASE), &codex);
    copy(case, &codex);
    fs::remove_file(codex.join("stderr.txt")).unwrap_or_default();
    remove_empty(&codex);
    let run = sepulcher().current_dir(scratch.path()).args(["check", "codex"]).assert().code(1);
    assert!(run.get_output().stdout.is_empty(), "{}: an error wrote to standard output", case.display());
    String::from_utf8(run.get_output().stderr.clone()).unwrap()
}

fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            remove_empty(&entry.path());
        } else if metadata.len() == 0 {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn the_base_of_the_cases_is_valid() {
    Codex::parse(&sepulcher::sys::codex::load(&[&repository(BASE)])).unwrap();
}

#[test]
fn every_case_is_refused_with_its_report() {
    let cases: Vec<_> =
        folders(&repository("tests/reject")).into_iter().filter(|case| !case.ends_with("base")).collect();
    assert!(cases.len() >= 30, "only {} cases were found", cases.len());
    let mut differing = Vec::new();
    for case in cases {
        let (expected, found) = (case.join("stderr.txt"), report(&case));
        if blessing() {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            differing.push(format!("--- {} now says:\n{found}", case.display()));
        }
        assert!(found.contains("help: ") || found.contains("TOML syntax"), "{}: no remedy", case.display());
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
