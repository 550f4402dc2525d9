//! `sepulcher health`: waits until this body is healthy, and says so or why not. Boot-complete asks it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Failure, Kind, rebirth};
use crate::codex::Codex;
use crate::sys::nft::{Nft, fingerprint};
use crate::sys::{self, cmd};
use crate::tether::fit::{ReadKeys, fit};
use crate::tether::health::{Check, Facts, judge, units};
use crate::tether::{explain, source, status};
use crate::tree::Sha256Digest;

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Arguments of `sepulcher health`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait for things to come up, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    timeout: Duration,
    /// Folder of the law
    #[arg(long, value_name = "DIR", default_value = "/usr/share/sepulcher/codex")]
    law: PathBuf,
    /// Folder of the bonds
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sepulcher/codex")]
    bonds: PathBuf,
    /// Folder of secrets, with the preshared keys in `peers/`
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sepulcher/secrets")]
    secrets: PathBuf,
    /// Where the agent writes its status
    #[arg(long, value_name = "FILE", default_value = status::PATH)]
    status: PathBuf,
    /// Where the host's public key is
    #[arg(long, value_name = "FILE", default_value = "/run/sepulcher/tether.pub")]
    public_key: PathBuf,
    /// The host's ruleset as it was sealed
    #[arg(long, value_name = "FILE", default_value = "/usr/share/sepulcher/nftables/host.nft")]
    ruleset: PathBuf,
    /// The nft program
    #[arg(long, value_name = "PATH", default_value = "nft")]
    nft: OsString,
    /// Load the ruleset into this network namespace, which must be a fresh one, and print its fingerprint
    #[arg(long, hide = true)]
    fingerprint: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().map(Duration::from_secs).map_err(|_| "a number of seconds, e.g. 120".to_owned())
}

/// Prints one line a check and a verdict; fails when the time is up and something is still wrong.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.fingerprint {
        return print_fingerprint(args);
    }
    let deadline = Instant::now() + args.timeout;
    let expected = expected_host(args);
    let checks = loop {
        let checks = look(args, &expected);
        if checks.iter().all(|check| check.result.is_ok()) || Instant::now() >= deadline {
            break checks;
        }
        std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
    };
    for Check { subject, result } in &checks {
        match result {
            Ok(good) => println!("ok    {subject}: {good}"),
            Err(bad) => println!("FAIL  {subject}: {bad}"),
        }
    }
    note(&checks);
    let bad: Vec<_> =
        checks.iter().filter(|check| check.result.is_err()).map(|check| check.subject).collect();
    if bad.is_empty() {
        println!("sepulcher: health ok");
        return Ok(());
    }
    let bad = bad.join(", ");
    println!("sepulcher: health FAILED: {bad}");
    Err(Failure::new(Kind::Input, format!("this body is not healthy: {bad}"))
        .hint("`journalctl -b -u '*-vpn.service'` tells what the agent did"))
}

/// Has the verdict remembered. What keeps that from happening does not change it.
fn note(checks: &[Check]) {
    let failed = |check: &Check| Some(format!("{}: {}", check.subject, check.result.as_ref().err()?));
    if let Err(failure) = rebirth::note_health(Path::new("/"), checks.iter().filter_map(failed).collect()) {
        eprint!("{failure}");
    }
}

fn look(args: &Args, expected: &Result<Sha256Digest, String>) -> Vec<Check> {
    let codex = match source::in_force(&args.law, &args.bonds) {
        Ok(codex) => codex,
        Err(error) => return vec![Check { subject: "codex", result: Err(told(&error)) }],
    };
    let facts = facts(args, &codex, expected);
    let own = facts.public_key.as_ref().ok().and_then(|text| text.parse().ok());
    let now = sys::clock::now();
    let held = fit(&codex, now, own, &args.secrets, &mut ReadKeys::new());
    let ruleset = match source::ruleset(&held.codex) {
        Ok(text) => Sha256Digest::of(text.as_bytes()),
        Err(error) => return vec![Check { subject: "codex", result: Err(told(&error)) }],
    };
    judge(&held, ruleset, &facts)
}

fn facts(args: &Args, codex: &Codex, expected: &Result<Sha256Digest, String>) -> Facts {
    let units = units(codex);
    Facts {
        status: sys::fs::read_bounded(&args.status, 1 << 24)
            .map_err(|error| told(&error))
            .and_then(|text| serde_json::from_slice(&text).map_err(|error| told(&error))),
        now: sys::clock::since_boot(),
        public_key: sys::fs::read_bounded(&args.public_key, 4096)
            .map(|text| String::from_utf8_lossy(&text).trim_end().to_owned())
            .map_err(|error| told(&error)),
        host_table: Nft::new(&args.nft)
            .table()
            .map(|table| table.map(fingerprint))
            .map_err(|error| told(&error)),
        host_expected: expected.clone(),
        states: states(&units),
        failed: failed(),
    }
}

/// Unit → state, in one question; units that are not active make `systemctl` fail, which is an answer too.
fn states(units: &[String]) -> Result<BTreeMap<String, String>, String> {
    let asked = cmd::Command::new("systemctl").arg("is-active").arg("--").args(units);
    let output = asked.output().map_err(|error| told(&error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let states: Vec<_> = text.lines().map(str::to_owned).collect();
    if states.len() == units.len() {
        Ok(units.iter().cloned().zip(states).collect())
    } else {
        Err(format!("systemctl told {} of {} states", states.len(), units.len()))
    }
}

fn failed() -> Result<Vec<String>, String> {
    let asked = cmd::Command::new("systemctl").args([
        "list-units",
        "--failed",
        "--plain",
        "--no-legend",
        "--no-pager",
    ]);
    let text = asked.read().map_err(|error| told(&error))?;
    let units = String::from_utf8_lossy(&text);
    Ok(units.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// What the sealed ruleset looks like once it is loaded: tried in a network namespace of its own.
fn expected_host(args: &Args) -> Result<Sha256Digest, String> {
    let ourselves = std::env::current_exe().map_err(|error| told(&error))?;
    let tried = cmd::Command::new("unshare")
        .arg("--net")
        .arg(ourselves)
        .args(["health", "--fingerprint", "--ruleset"])
        .arg(&args.ruleset)
        .arg("--nft")
        .arg(&args.nft);
    let text = tried.read().map_err(|error| told(&error))?;
    String::from_utf8_lossy(&text).trim_end().parse().map_err(|error| told(&error))
}

fn print_fingerprint(args: &Args) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from_error(Kind::Unavailable, error);
    let nft = Nft::new(&args.nft);
    let others = sys::link::names().map_err(|error| failed(&error))?.iter().any(|name| name != "lo");
    if others || nft.table().map_err(|error| failed(&error))?.is_some() {
        return Err(Failure::new(Kind::Input, "this network namespace is in use")
            .hint("`unshare --net` makes a fresh one"));
    }
    let text = sys::fs::read_bounded(&args.ruleset, 1 << 24)?;
    nft.load(&String::from_utf8_lossy(&text)).map_err(|error| failed(&error))?;
    let table = nft.table().map_err(|error| failed(&error))?;
    let table = table.ok_or_else(|| Failure::new(Kind::Input, "the ruleset makes no table of ours"))?;
    println!("{}", fingerprint(table));
    Ok(())
}

/// An error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    explain(error).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_seconds_with_or_without_their_sign() {
        assert_eq!(seconds("250"), Ok(Duration::from_secs(250)));
        assert_eq!(seconds("250s"), Ok(Duration::from_secs(250)));
        for text in ["", "s", "2m", "-1", "1.5"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }
}
