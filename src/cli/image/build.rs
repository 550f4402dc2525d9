//! `sepulcher image build`.
#![expect(clippy::disallowed_methods, reason = "the environment is read at this edge")]

use std::path::{Path, PathBuf};

use crate::cli::store::StoreArgs;
use crate::cli::{Failure, Kind, codex, progress};
use crate::codex::Codex;
use crate::image::build::{Built, Error, Request};
use crate::render::render;
use crate::sys::{self, fs};

/// Time of every file unless SOURCE_DATE_EPOCH says otherwise: 2026-01-01 00:00 UTC.
const EPOCH: u32 = 1_767_225_600;

/// Build the sealed disk image of a Codex
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that holds lychd.toml
    dir: PathBuf,
    /// Disk image to write; its manifest and SHA256SUMS go beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Version of the image
    #[arg(long = "version", value_name = "N", default_value = "1")]
    version: String,
    /// Statically linked program to seal in as the agent [default: this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { dir, out, version, program, store } = args;
    check_version(version)?;
    let sources = sys::codex::load(&[dir]);
    let codex = Codex::parse(&sources).map_err(|mistakes| codex::refused(&mistakes, &sources))?;
    let tree = render(&codex).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let program = program_bytes(program.as_deref())?;
    let shown = progress::Shown::default();
    let definitions = store.definitions();
    let store = store.store(&shown)?;
    fs::create_dir_all(&store.cache)?;
    let request = Request {
        codex: &codex,
        sources: &sources.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect(),
        tree,
        program,
        version,
        epoch: epoch()?,
        out,
    };
    let built = crate::image::build::build(&store, &definitions, request).map_err(failure)?;
    report(out, &built);
    Ok(())
}

/// A version is part of labels and file names, where `_` and `+` separate.
fn check_version(version: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-~^".contains(&byte);
    if version.is_empty() || version.len() > 16 || !version.bytes().all(plain) {
        return Err(Failure::new(Kind::Input, format!("`{version}` is not a version"))
            .hint("a version has 1 to 16 letters, digits and `.-~^`, e.g. --version 2"));
    }
    Ok(())
}

fn program_bytes(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().map_err(|error| {
            Failure::from_error(Kind::Io, &error).hint("name the program: --program FILE")
        })?,
    };
    Ok(fs::read(&path)?)
}

fn epoch() -> Result<u32, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| {
            Failure::new(
                Kind::Input,
                format!("SOURCE_DATE_EPOCH={text} is not a number of seconds since 1970"),
            )
        }),
        Err(_) => Ok(EPOCH),
    }
}

fn failure(error: Error) -> Failure {
    let told = Failure::from_error(Kind::Internal, &error);
    match error {
        Error::NotStatic => told
            .of(Kind::Input)
            .hint("build with the repository's .cargo/config.toml (crt-static), or name one: --program FILE"),
        Error::UnknownRoot { .. } => told
            .of(Kind::Input)
            .hint("add images/<root>/packages.toml, lock it with `sepulcher lock`, and pass --images DIR"),
        Error::Store(error) => error.into(),
        Error::Definition(error) => error.into(),
        Error::File(_) | Error::Disk(_) | Error::Erofs(_) => told.of(Kind::Io),
        _ => told,
    }
}

fn report(out: &Path, built: &Built) {
    let Built { partitions, root_hash, .. } = built;
    eprintln!("{}: sealed as {root_hash}", out.display());
    for (partition, digest) in partitions {
        eprintln!("  {:<16} {:>5} MiB  sha256 {digest}", partition.label, partition.size >> 20);
    }
}
