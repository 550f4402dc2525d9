//! `cargo xtask licences`: every dependency against the licences and sources that `deny.toml` allows.
//!
//! `cargo deny check` does more (advisories), but takes minutes to install; this is the part that CI never skips.

use std::collections::BTreeSet;

use spdx::{Expression, ParseMode};
use xshell::{Shell, cmd};

use crate::{Result, root};

/// Where every dependency must come from, as `cargo metadata` writes it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks and prints one line; the error names every package that is not in order.
pub fn run() -> Result<()> {
    let policy: toml::Table = std::fs::read_to_string(root().join("deny.toml"))?.parse()?;
    let licences = policy.get("licenses").ok_or("deny.toml has no [licenses]")?;
    let allowed = words(licences.get("allow"));
    let exceptions = licences.get("exceptions").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let shell = Shell::new()?;
    shell.change_dir(root());
    let metadata =
        cmd!(shell, "cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu");
    let metadata: serde_json::Value = serde_json::from_str(&metadata.quiet().read()?)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let mut wrong = Vec::new();
    for package in packages {
        let (name, licence) =
            (package["name"].as_str().unwrap_or("?"), package["license"].as_str().unwrap_or(""));
        let excepted = exceptions.iter().find(|exception| exception["crate"].as_str() == Some(name));
        let more = words(excepted.and_then(|exception| exception.get("allow")));
        if !satisfied(licence, &|word| allowed.contains(word) || more.contains(word)) {
            wrong.push(format!("{name}: licence `{licence}` is not allowed by deny.toml"));
        }
        match package["source"].as_str() {
            None | Some(REGISTRY) => {}
            Some(source) => wrong.push(format!("{name} comes from {source}")),
        }
    }
    if wrong.is_empty() {
        println!("{} packages, all of allowed licences and from the registry", packages.len());
        Ok(())
    } else {
        Err(wrong.join("\n").into())
    }
}

fn words(value: Option<&toml::Value>) -> BTreeSet<String> {
    let list = value.and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with licences that `allowed` accepts.
fn satisfied(licence: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    Expression::parse_mode(licence, ParseMode::LAX)
        .is_ok_and(|expression| expression.evaluate(|requirement| allowed(&requirement.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_by_one_side_of_or_and_both_of_and() {
        let mit = |word: &str| word == "MIT";
        assert!(satisfied("MIT", &mit));
        assert!(satisfied("GPL-3.0-only OR MIT", &mit));
        assert!(satisfied("MIT/Apache-2.0", &mit));
        assert!(!satisfied("MIT AND Apache-2.0", &mit));
        assert!(!satisfied("", &mit));
        let llvm = |word: &str| word == "Apache-2.0 WITH LLVM-exception";
        assert!(satisfied("Apache-2.0 WITH LLVM-exception", &llvm));
    }
}
