//! `sepulcher image build`.
#![expect(clippy::disallowed_methods, reason = "the environment is read at this edge")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::sign::Publication;
use crate::cli::store::StoreArgs;
use crate::cli::{Failure, Kind, codex, progress};
use crate::codex::{Codex, Service, Source, Sources};
use crate::image::build::{self, Built, EPOCH, Error, Request, TOOLS};
use crate::image::definition::{Definitions, Image};
use crate::image::manifest::{self, Manifest, SUMS};
use crate::image::{lock, sbom};
use crate::rebirth::version::Version;
use crate::sys::stage::Staged;
use crate::sys::{self, fs};
use crate::tree::{Sha256Digest, Tree};

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
    /// Secret key of the publisher: also write the signed update, in a folder beside the image
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Also write the update, which `sepulcher rebirth sign` signs wherever the key is
    #[arg(long, conflicts_with = "sign")]
    update: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { dir, out, version, program, sign, update, store } = args;
    let typed = parsed_version(version)?;
    check_out(out)?;
    let epoch = epoch()?;
    let (sources, codex, tree) = sealed_tree(dir)?;
    let publication = (*update || sign.is_some())
        .then(|| Publication::open(sign.as_deref(), (&codex, &sources), &typed, out))
        .transpose()?;
    let program = program_bytes(program.as_deref())?;
    let shown = progress::Shown::default();
    let definitions = store.definitions();
    check_roots(&codex, &definitions)?;
    let cache = store.store(&shown)?;
    fs::create_dir_all(&cache.cache)?;
    let images = store.images_of(&cache, &codex)?;
    let request = Request { codex: &codex, tree, images, program, version, epoch, out };
    let built = build::build(&cache, &definitions, &request).map_err(failure)?;
    let manifest = described(&request, &built)?;
    let update = publication.map(|publication| publication.write(&built.body)).transpose()?;
    put_in_place(out, built.staged, &manifest)?;
    if let Some(update) = update {
        let bundle = update.commit()?;
        let unsigned = if sign.is_some() { "" } else { ", not signed yet" };
        eprintln!("the update: {}, digest {}{unsigned}", bundle.folder.display(), bundle.digest);
    }
    Ok(())
}

/// The manifest of what was built.
fn described(request: &Request<'_>, built: &Built) -> Result<Manifest, Failure> {
    let Request { codex, images, program, version, out, .. } = request;
    let name = &codex.appliance.name;
    let program =
        sbom::Program { version: env!("CARGO_PKG_VERSION").to_owned(), sha256: Sha256Digest::of(program) };
    let locks = images.iter().map(|(name, image)| (name.clone(), image.lock.digest().to_string()));
    Ok(Manifest {
        schema: manifest::SCHEMA,
        name: name.to_string(),
        version: (*version).to_owned(),
        image: file_name(out),
        size: fs::context(built.staged.file().metadata(), "read", out)?.len(),
        sha256: built.disk.to_string(),
        root_hash: built.root_hash.to_string(),
        cmdline: built.cmdline.clone(),
        partitions: built.partitions.clone(),
        program: program.sha256.to_string(),
        locks: locks.collect(),
        sbom: sbom::build(name.as_str(), version, &packages(images), &program),
    })
}

/// Every root that a service wants must be defined.
pub fn check_roots(codex: &Codex, definitions: &Definitions) -> Result<(), Failure> {
    let known = definitions.names()?;
    match codex.services.iter().find(|(_, service)| {
        matches!(&service.source, Source::Rootfs(root) if !known.iter().any(|name| name == root.as_str()))
    }) {
        Some((service, Service { source: Source::Rootfs(root), .. })) => Err(Failure::new(
            Kind::Input,
            format!("the service {service} wants the root `{root}`, of which there is no definition"),
        )
        .hint(format!(
            "write images/{root}/packages.toml, lock it with `sepulcher lock {root}`, and pass --images DIR; \
             defined are {}",
            known.join(", ")
        ))),
        _ => Ok(()),
    }
}

/// Packages that are in the image; those of the builder's own tools are not.
fn packages(images: &BTreeMap<String, Image>) -> Vec<sbom::Package> {
    let sealed = images.iter().filter(|(name, _)| name.as_str() != TOOLS);
    let package = |package: &lock::Package| sbom::Package {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        sha256: package.sha256,
    };
    sealed.flat_map(|(_, image)| image.lock.packages().iter().map(package)).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Puts image, manifest and checksums in place and says what there is now. All three are on the disk before the
/// first takes the place of an old one.
fn put_in_place(out: &Path, mut image: Staged, manifest: &Manifest) -> Result<(), Failure> {
    let json = manifest.to_json().map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let beside = manifest::beside(out);
    let digest = |text: &str| text.parse().map_err(|error| Failure::from_error(Kind::Internal, &error));
    let sums = manifest::checksums(&[
        (&manifest.image, digest(&manifest.sha256)?),
        (&file_name(&beside), Sha256Digest::of(json.as_bytes())),
    ]);
    image.prepare(0o644)?;
    let others = [(beside.clone(), json), (out.with_file_name(SUMS), sums)];
    let others = others.iter().map(|(path, text)| staged(path, text)).collect::<Result<Vec<_>, _>>()?;
    for staged in [image].into_iter().chain(others) {
        staged.commit(0o644)?;
    }
    eprintln!("{}: {} MiB, sealed as {}", out.display(), manifest.size >> 20, manifest.root_hash);
    for partition in &manifest.partitions {
        eprintln!("  {:<20} {:>4} MiB  sha256 {}", partition.label, partition.size >> 20, partition.sha256);
    }
    eprintln!("beside it: {} and SHA256SUMS", file_name(&beside));
    Ok(())
}

/// The Codex in `dir` and what of it is sealed: all that is rendered, and its own files as they were written.
pub fn sealed_tree(dir: &Path) -> Result<(Sources, Codex, Tree), Failure> {
    let sources = sys::codex::load(&[dir]);
    let codex = Codex::parse(&sources).map_err(|mistakes| codex::refused(&mistakes, &sources))?;
    let tree = build::tree(&codex, &sources).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    Ok((sources, codex, tree))
}

fn staged(path: &Path, text: &str) -> Result<Staged, Failure> {
    let mut staged = Staged::create(path)?;
    fs::context(staged.file().write_all(text.as_bytes()), "write", path)?;
    staged.prepare(0o644)?;
    Ok(staged)
}

/// Whether an image can be written there: better known before minutes of work than after.
fn check_out(out: &Path) -> Result<(), Failure> {
    let wrong = |reason: &str| Failure::new(Kind::Input, format!("cannot write {}: {reason}", out.display()));
    if out.is_dir() {
        return Err(
            wrong("it is a folder").hint(format!("name a file in it: {}", out.join("lychd.raw").display()))
        );
    }
    match out.file_name() {
        None => return Err(wrong("it is not the name of a file").hint("name a file, e.g. --out lychd.raw")),
        Some(name) if name == SUMS => {
            return Err(wrong("the checksums go there").hint("choose another name, e.g. --out lychd.raw"));
        }
        Some(_) => {}
    }
    let folder = fs::folder_of(out);
    if !folder.is_dir() {
        let failure = wrong("its folder does not exist");
        return Err(failure.hint(format!("make it with `mkdir -p {}`", folder.display())));
    }
    Staged::create(out).map(drop).map_err(|error| {
        Failure::from_error(Kind::Io, &error)
            .hint("name a file in a folder that your user may write to: --out FILE")
    })
}

/// The version as typed.
fn parsed_version(text: &str) -> Result<Version, Failure> {
    text.parse().map_err(|_| {
        Failure::new(Kind::Input, format!("`{text}` is not a version"))
            .hint("a version has 1 to 16 letters, digits and `.-~^`, e.g. --version 2")
    })
}

/// The program to seal in: the named one, or this one.
pub fn program_bytes(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().map_err(|error| {
            Failure::from_error(Kind::Io, &error).hint("name the program: --program FILE")
        })?,
    };
    fs::read(&path).map_err(|error| Failure::from(error).hint("name a statically linked one: --program FILE"))
}

fn epoch() -> Result<u32, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| {
            Failure::new(
                Kind::Input,
                format!("SOURCE_DATE_EPOCH={text} is not a number of seconds from 1970 to 2106"),
            )
            .hint("unset it, or set it to what `date +%s` prints")
        }),
        Err(_) => Ok(EPOCH),
    }
}

/// What went wrong, with a remedy.
pub fn failure(error: Error) -> Failure {
    let told = Failure::from_error(Kind::Internal, &error);
    match error {
        Error::NotStatic => told
            .of(Kind::Input)
            .hint("build with the repository's .cargo/config.toml (crt-static), or name one: --program FILE"),
        Error::Store(error) => error.into(),
        Error::Toolbox(error) => error.into(),
        Error::Definition(error) => error.into(),
        Error::System(_) | Error::Initrd(_) | Error::Incomplete(_) => told
            .of(Kind::Input)
            .hint("mend the image definitions, or leave out --images to use this program's own"),
        Error::TooBig(_) => told.of(Kind::Input).hint("leave packages or roots out"),
        Error::File(_)
        | Error::Disk(_)
        | Error::Erofs(_)
        | Error::Esp(_)
        | Error::Verity(_)
        | Error::Depmod(_)
        | Error::Missing(_) => told.of(Kind::Io),
        Error::NotGiven(_) | Error::Uki(_) => told,
    }
}
