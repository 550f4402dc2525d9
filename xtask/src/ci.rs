//! `cargo xtask ci`: every check that this machine allows; what was skipped is said, with its reason.

use std::path::Path;
use std::time::{Duration, Instant};

use xshell::{Shell, cmd};

use crate::docker::Engine;
use crate::{Result, e2e, image, licences, nix, reproduce, root};

/// How long what comes before may have taken when a part of ring 4 begins, which may take twenty minutes where everything is
/// emulated: CI is cut off after ninety.
const LATEST: Duration = Duration::from_secs(55 * 60);

/// Steps that did not run, with the reason.
type Skipped = Vec<(String, String)>;

/// Runs everything; the first failure ends it.
pub fn run() -> Result<()> {
    let latest = Instant::now() + LATEST;
    let shell = Shell::new()?;
    shell.change_dir(root());
    let mut skipped = Skipped::new();
    step("format", || Ok(cmd!(shell, "cargo fmt --all --check").run()?))?;
    step("lints", || {
        Ok(cmd!(shell, "cargo clippy --locked --workspace --all-targets -- -D warnings").run()?)
    })?;
    step("licences and sources", licences::run)?;
    tests(&shell, &mut skipped)?;
    step("the image, reproducibly", reproduce::run)?;
    optional("the image by Nix", nix::missing(), nix::run, &mut skipped)?;
    let mut left = Vec::new();
    let booted = || e2e::all(latest).map(|parts| left = parts);
    optional("ring 4: the image booted", missing_for_e2e(), booted, &mut skipped)?;
    skipped.extend(left.into_iter().map(|part| {
        let minutes = LATEST.as_secs() / 60;
        (format!("ring 4: {part}"), format!("{minutes} minutes were over: `cargo xtask e2e {part}`"))
    }));
    for (what, reason) in &skipped {
        println!("skipped: {what}: {reason}");
    }
    Ok(())
}

/// Rings 1 to 3. Where toolboxes and an engine can be had, no test may skip: `CI` makes a skip a failure.
fn tests(shell: &Shell, skipped: &mut Skipped) -> Result<()> {
    let names = ["tools-build", "tools-judge", "tools-boot", "tools-scan", "tools-topology"];
    let toolboxes = names.map(|name| image::toolbox(name).map(drop));
    let complete = toolboxes.iter().all(Result::is_ok);
    for error in toolboxes.into_iter().filter_map(Result::err) {
        eprintln!("ci: {error}");
    }
    let engine = Engine::ready();
    if !complete {
        skip(skipped, "ring 2: judges", "a toolbox cannot be had, see above");
    }
    if !reproduce::is_root() {
        skip(skipped, "the agent in network namespaces", "it needs root");
    }
    let mut tests = cmd!(shell, "cargo test --locked --workspace");
    match &engine {
        Ok(engine) => tests = tests.env("DOCKER_HOST", &engine.host),
        Err(error) => {
            eprintln!("ci: {error}");
            skip(skipped, "ring 3: topologies in containers", "there is no container engine, see above");
        }
    }
    if complete && engine.is_ok() && reproduce::is_root() {
        tests = tests.env("CI", "true");
    }
    step("tests, rings 1 to 3", || Ok(tests.run()?))
}

fn skip(skipped: &mut Skipped, what: &str, reason: &str) {
    skipped.push((what.to_owned(), reason.to_owned()));
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("\nci: {name}");
    let start = Instant::now();
    run().map_err(|error| format!("{name}: {error}"))?;
    eprintln!("ci: {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// A step that some machines cannot run, for the reason `missing`; CI must be one that can.
fn optional(
    name: &'static str,
    missing: Option<&'static str>,
    run: impl FnOnce() -> Result<()>,
    skipped: &mut Skipped,
) -> Result<()> {
    match missing {
        None => step(name, run),
        Some(reason) if std::env::var_os("CI").is_some() => {
            Err(format!("{name} cannot be skipped in CI: {reason}").into())
        }
        Some(reason) => {
            skip(skipped, name, reason);
            Ok(())
        }
    }
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
