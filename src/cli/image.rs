//! `sepulcher image`: builds disk images and reads them back.

mod build;
mod rendered;
mod roots;
mod sign;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::output::{json, print};
use super::store::StoreArgs;
use super::{Failure, Kind};
use crate::image::disk::{self, Role};
use crate::image::inspect::{self, Report};
use crate::image::manifest::{self, Manifest};
use crate::sys::fs;

/// Build disk images and read them back
#[derive(Debug, Subcommand)]
pub enum Verb {
    Build(build::Args),
    Roots(roots::Args),
    Inspect(InspectArgs),
    Verify(VerifyArgs),
}

/// Show what is in an image: partitions, kernel, command line, packages
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image, e.g. lychd.raw
    image: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Check that an image is whole
///
/// Recomputes the hash tree and compares it with the root hash on the kernel's command line, and everything with
/// the manifest beside the image (lychd.raw, lychd.manifest.json); with --codex also the files in the root with what
/// that Codex renders. Exit code 1 when something does not match.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The image, e.g. lychd.raw
    image: PathBuf,
    /// Folder of the Codex that the image should hold
    #[arg(long, value_name = "DIR")]
    codex: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs a verb.
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Build(args) => build::run(args),
        Verb::Roots(args) => roots::run(args),
        Verb::Inspect(args) => show(args),
        Verb::Verify(args) => verify(args),
    }
}

fn show(args: &InspectArgs) -> Result<(), Failure> {
    let report = inspect::inspect(&fs::open(&args.image)?)?;
    let manifest = load(&args.image)?;
    let text = if args.json {
        let packages = manifest.as_ref().map(|manifest| &manifest.sbom.components);
        let value = serde_json::json!({ "image": report, "packages": packages });
        json(&value)?
    } else {
        lines(&report, manifest.as_ref())
    };
    print(&text)
}

fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let image = fs::open(&args.image)?;
    let report = inspect::inspect(&image)?;
    let manifest = load(&args.image)?;
    if manifest.is_none() {
        let beside = manifest::beside(&args.image);
        eprintln!("note: there is no {}: the image is checked against itself alone", beside.display());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut mismatches: Vec<String> = inspect::verify(&image, &report, manifest.as_ref(), threads)?
        .iter()
        .map(ToString::to_string)
        .collect();
    if let (Some(dir), true) = (&args.codex, mismatches.is_empty()) {
        let placed = disk::read(&image).map_err(|error| Failure::from_error(Kind::Input, &error))?;
        let root = placed.iter().find(|placed| placed.role == Some(Role::Root));
        let root = root.ok_or_else(|| Failure::new(Kind::Input, "there is no root partition"))?;
        let difference = rendered::difference(&args.image, root, dir, &args.store)?;
        if !difference.is_empty() {
            mismatches.push(format!("the root is not what {} renders:\n{difference}", dir.display()));
        }
    }
    if mismatches.is_empty() {
        return print(&format!("{}: {}\n", args.image.display(), proven(&report, manifest.is_some())));
    }
    let list: String = mismatches.iter().flat_map(|one| ["  ", one.as_str(), "\n"]).collect();
    let sentence = format!("{} is not what it should be:\n{}", args.image.display(), list.trim_end());
    Err(Failure::new(Kind::Input, sentence).hint("build or download it again"))
}

/// What a verification without a mismatch has shown. The root hash speaks for the root alone: boot loader and
/// kernel, which name it, are vouched for by the manifest.
fn proven(report: &Report, with_manifest: bool) -> String {
    let root_hash = report.kernels.iter().find_map(|kernel| kernel.root_hash.as_deref()).unwrap_or_default();
    if with_manifest {
        format!("whole, root hash {root_hash}")
    } else {
        format!("root sealed as {root_hash}; boot files not checked without the manifest")
    }
}

fn load(image: &Path) -> Result<Option<Manifest>, Failure> {
    Manifest::load(&manifest::beside(image)).map_err(|error| match error {
        manifest::Error::File(error) => error.into(),
        error => Failure::from_error(Kind::Input, &error),
    })
}

/// The report for people.
fn lines(report: &Report, manifest: Option<&Manifest>) -> String {
    let mut text = format!("size     {} bytes\nsha256   {}\n\npartitions\n", report.size, report.sha256);
    // Writing to a string cannot fail.
    for one in &report.partitions {
        let _ =
            writeln!(text, "  {:8} {:24} {:>12} bytes at {:>12}", one.role, one.label, one.size, one.offset);
        let _ = writeln!(text, "           uuid {}  sha256 {}", one.uuid, one.sha256);
    }
    for kernel in &report.kernels {
        let _ = writeln!(text, "\nkernel   EFI/Linux/{}", kernel.file);
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let _ = writeln!(text, "  release   {}", known(&kernel.uname));
        let _ = writeln!(text, "  cmdline   {}", known(&kernel.cmdline));
        let _ = writeln!(text, "  root hash {}", known(&kernel.root_hash));
        for section in &kernel.sections {
            let _ =
                writeln!(text, "  {:9} {:>10} bytes  sha256 {}", section.name, section.size, section.sha256);
        }
    }
    match manifest {
        Some(manifest) => {
            let _ = writeln!(text, "\npackages {}", manifest.sbom.components.len());
            for one in &manifest.sbom.components {
                let _ = writeln!(text, "  {} {}", one.name, one.version);
            }
        }
        None => text.push_str("\npackages unknown: there is no manifest beside the image\n"),
    }
    text
}

impl From<inspect::Error> for Failure {
    fn from(error: inspect::Error) -> Self {
        let kind = if matches!(error, inspect::Error::Read(_)) { Kind::Io } else { Kind::Input };
        Self::from_error(kind, &error).hint("is it a disk image made by `sepulcher image build`?")
    }
}
