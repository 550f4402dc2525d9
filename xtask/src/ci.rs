//! `cargo xtask ci`: every check that this machine allows; what was skipped is said, with its reason.

use std::path::Path;

use xshell::{Shell, cmd};

use crate::{Result, e2e, image, licences, reproduce, root};

/// Steps that did not run, with the reason.
type Skipped = Vec<(&'static str, &'static str)>;

/// Runs everything; the first failure ends it.
pub fn run() -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(root());
    let mut skipped = Skipped::new();
    step("format", || Ok(cmd!(shell, "cargo fmt --all --check").run()?))?;
    step("lints", || {
        Ok(cmd!(shell, "cargo clippy --locked --workspace --all-targets -- -D warnings").run()?)
    })?;
    step("licences and sources", licences::run)?;
    tests(&shell, &mut skipped)?;
    skipped.push(("ring 3: topologies in containers", "they are not written yet"));
    step("the image, reproducibly", reproduce::run)?;
    match missing_for_e2e() {
        None => step("ring 4: the image booted", e2e::run)?,
        Some(reason) if std::env::var_os("CI").is_some() => {
            return Err(format!("ring 4 cannot be skipped in CI: {reason}").into());
        }
        Some(reason) => skipped.push(("ring 4: the image booted", reason)),
    }
    for (what, reason) in &skipped {
        println!("skipped: {what}: {reason}");
    }
    Ok(())
}

/// Rings 1 and 2. Where the toolboxes can be had, no test may skip: `CI` makes a skip a failure.
fn tests(shell: &Shell, skipped: &mut Skipped) -> Result<()> {
    let toolboxes = ["tools-build", "tools-judge", "tools-boot"].map(|name| image::toolbox(name).map(drop));
    let complete = toolboxes.iter().all(Result::is_ok);
    for error in toolboxes.into_iter().filter_map(Result::err) {
        eprintln!("ci: {error}");
    }
    let strict = complete && reproduce::is_root();
    if !complete {
        skipped.push(("ring 2: judges", "a toolbox cannot be had, see above"));
    }
    if !reproduce::is_root() {
        skipped.push(("the agent in network namespaces", "it needs root"));
    }
    step("tests, rings 1 and 2", || {
        let tests = cmd!(shell, "cargo test --locked --workspace");
        Ok(if strict { tests.env("CI", "true") } else { tests }.run()?)
    })
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("\nci: {name}");
    let start = std::time::Instant::now();
    run().map_err(|error| format!("{name}: {error}"))?;
    eprintln!("ci: {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn missing_for_e2e() -> Option<&'static str> {
    if !reproduce::is_root() {
        Some("network namespaces and a tap device need root: run it as root")
    } else if !Path::new("/dev/net/tun").exists() {
        Some("/dev/net/tun does not exist: modprobe tun")
    } else {
        None
    }
}
