//! `sepulcher lock`: renews, checks and explains the package locks.
#![expect(clippy::disallowed_methods, reason = "the clock is read at this edge")]

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::progress::Shown;
use super::renew::tools;
use super::store::MirrorArgs;
use super::{Failure, Kind};
use crate::image::definition::Definitions;
use crate::image::lock::Lock;
use crate::image::resolve::{Tools, Universe};
use crate::sys::fs;

/// Resolve image definitions to exact packages
///
/// Reads images/NAME/packages.toml, resolves it against the archive's signed indices with apt's solver, and
/// writes images/NAME/packages.lock. Prints what changed: `+` new, `-` gone, `~` another version.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Definitions to resolve [default: all]
    names: Vec<String>,
    #[command(flatten)]
    mirror: MirrorArgs,
    /// Folder of image definitions, read and written
    #[arg(long, value_name = "DIR", default_value = "images")]
    images: PathBuf,
    /// Change nothing; exit with 1 when a lock differs from what would be written
    #[arg(long)]
    check: bool,
    /// Change nothing; print why PACKAGE is in the lock
    #[arg(long, value_name = "PACKAGE", conflicts_with = "check")]
    explain: Option<String>,
    /// Accept indices that have expired, as those of a snapshot have
    #[arg(long)]
    allow_expired: bool,
    /// Use this machine's apt-get, gpgv and archive keyring instead of the locked ones
    #[arg(long)]
    host_tools: bool,
}

/// Runs the verb.
pub fn run(args: &LockArgs) -> Result<(), Failure> {
    let progress = Shown::default();
    let store = args.mirror.store(&progress)?;
    let definitions = Definitions::Folder(args.images.clone());
    let names = if args.names.is_empty() { definitions.names()? } else { args.names.clone() };
    // All are read before anything is fetched: a typing mistake costs no time.
    let wanted = names
        .into_iter()
        .map(|name| Ok((definitions.definition(&name)?, definitions.lock(&name), name)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let tools = if args.host_tools { Tools::of_host() } else { tools(&store, &definitions)? };
    let now = (!args.allow_expired).then(SystemTime::now);
    let mut universe: Option<(String, Universe)> = None;
    let mut differs = Vec::new();
    let mut explained = false;
    for (definition, old, name) in wanted {
        if universe.as_ref().is_none_or(|(release, _)| *release != definition.release) {
            let fetched = Universe::fetch(&store, &tools, &definition.release, now)?;
            universe = Some((definition.release.clone(), fetched));
        }
        let Some((_, universe)) = &mut universe else { continue };
        let lock = universe.resolve(&tools, &definition)?;
        if let Some(package) = &args.explain {
            if let Some(lines) = universe.explain(&definition, &lock, package) {
                println!("{name}:\n  {}", lines.join("\n  "));
                explained = true;
            }
            continue;
        }
        // A lock that cannot be read is one to replace.
        let old = old.ok().flatten();
        if old.as_ref() == Some(&lock) {
            eprintln!("{name}: up to date, {}", sum(&lock));
            continue;
        }
        report(&name, old.as_ref(), &lock);
        if args.check {
            differs.push(name);
        } else {
            let path = args.images.join(&name).join("packages.lock");
            fs::write_atomic(&path, 0o644, lock.to_string().as_bytes())?;
        }
    }
    finish(args, explained, &differs)
}

fn finish(args: &LockArgs, explained: bool, differs: &[String]) -> Result<(), Failure> {
    if let (Some(package), false) = (&args.explain, explained) {
        return Err(Failure::new(Kind::Input, format!("no lock asked about holds the package {package}")));
    }
    if differs.is_empty() {
        return Ok(());
    }
    let names = differs.join(" ");
    Err(Failure::new(Kind::Input, format!("not what the archive resolves to now: {names}"))
        .hint(format!("renew with `sepulcher lock {names}`")))
}

fn report(name: &str, old: Option<&Lock>, new: &Lock) {
    println!("{name}: {}", sum(new));
    for line in old.map(|old| old.changes(new)).unwrap_or_default() {
        println!("  {line}");
    }
}

fn sum(lock: &Lock) -> String {
    format!("{} packages, {}", lock.packages().len(), indicatif::HumanBytes(lock.size()))
}
