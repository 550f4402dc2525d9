//! The order of the library's modules, as `src/lib.rs` tells it: each uses only what stands above it.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may use what stands below, and how that begins.
const EXCEPTIONS: [(&str, &str); 1] = [("snapshot", "crate::rebirth::version")];

/// The modules in the order of the list in `src/lib.rs`.
fn order() -> Vec<String> {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    let listed = text.lines().filter(|line| line.starts_with("//! ") && line.contains(". [`"));
    let names = |line: &str| {
        line.split("[`").skip(1).map(|rest| rest.split('`').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let order: Vec<String> = listed.flat_map(names).collect();
    let mut declared: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut sorted: Vec<_> = order.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    declared.sort_unstable();
    assert_eq!(sorted, declared, "the list and the modules of src/lib.rs differ");
    order
}

/// A module's files, without those that hold only tests.
fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.is_file()
        && !path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"))
    {
        found.push(path.to_owned());
    }
}

/// What the program part of a file names of other modules: `crate::` and the path behind it.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.match_indices("crate::").map(|(at, _)| &line[at..]))
}

#[test]
fn a_module_uses_only_what_stands_above_it() {
    let order = order();
    let place = |module: &str| order.iter().position(|other| other == module);
    let mut looked_at = 0;
    for (own, module) in order.iter().enumerate() {
        let mut files = Vec::new();
        sources(Path::new(&format!("src/{module}.rs")), &mut files);
        sources(Path::new(&format!("src/{module}")), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for path in named(&text) {
                let rest = &path["crate::".len()..];
                let other =
                    rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
                let Some(at) = place(other) else { continue };
                looked_at += 1;
                let excepted = EXCEPTIONS.iter().any(|(who, what)| who == module && path.starts_with(what));
                assert!(
                    at <= own || excepted,
                    "{}: `{module}` stands above `{other}`: {path}",
                    file.display()
                );
            }
        }
    }
    assert!(looked_at > 500, "only {looked_at} uses were found");
}
