//! From a Codex to a disk image: the one place where the parts of the builder meet.
//!
//! ```text
//! locks ─▶ packages ─▶ base root + initrd + kernel            cached by the digest of all that decides them
//! base + rendered tree + Codex + program ─▶ root ─▶ verity ─▶ UKI ─▶ ESP ─▶ disk
//! ```
#![expect(clippy::disallowed_methods, reason = "temporary files of the build")]

mod base;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use super::definition::{self, Definitions, Image};
use super::disk::{self, Partition, Role};
use super::initrd::elf::{self, Needs};
use super::layer::{Content, Kind, Layer, Node};
use super::store::{self, Store};
use super::system;
use super::toolbox;
use super::{erofs, esp, identity, initrd, manifest, roots, uki, verity};
use crate::codex::{Codex, Source, Sources};
use crate::render::manifest::{PROGRAM, codex_digest};
use crate::render::units::{ROOT_SLOT_MIB, VERITY_SLOT_MIB};
use crate::render::{RenderError, render};
use crate::sys::stage::Staged;
use crate::sys::{cmd, fs};
use crate::tree::{Sha256Digest, Tree};
pub use base::module_index;
use base::{Base, Inputs};

/// Where the files of the Codex lie in an image.
pub const SEALED: &str = "usr/share/sepulcher/codex/";
/// Time of every file unless SOURCE_DATE_EPOCH says otherwise: 2026-01-01 00:00 UTC.
pub const EPOCH: u32 = 1_767_225_600;
/// Size of the EFI system partition: three kernel images, for two slots and one being staged.
const ESP_MIB: u64 = 72;
/// Threads that hash.
const THREADS: usize = 2;
/// How unfinished work in the cache is named.
const LITTER: &str = ".building-";
/// Where the trees of containers lie in the root.
const ROOTS: &str = "usr/lib/sepulcher/roots";

/// What an image is made of, besides packages.
pub struct Request<'a> {
    /// The valid Codex.
    pub codex: &'a Codex,
    /// What follows from it: all that was rendered, and its own files.
    pub tree: Tree,
    /// The images that [`sealed`] names, and [`TOOLS`], with their locks.
    pub images: BTreeMap<String, Image>,
    /// This program, statically linked.
    pub program: Vec<u8>,
    /// Version of the image, e.g. `1`.
    pub version: &'a str,
    /// Time of every file, in seconds since 1970.
    pub epoch: u32,
    /// Where the disk image goes.
    pub out: &'a Path,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// Partitions in the order on the disk.
    pub partitions: Vec<manifest::Partition>,
    /// Root hash of the sealed root.
    pub root_hash: Sha256Digest,
    /// Kernel command line.
    pub cmdline: String,
    /// Digest of the whole disk image.
    pub disk: Sha256Digest,
    /// The disk image, to be put in place.
    pub staged: Staged,
    /// What an update consists of.
    pub body: Body,
}

/// The parts of a body: what an update of one consists of.
#[derive(Debug)]
pub struct Body {
    /// The root file system: all of the file.
    pub root: File,
    /// Its hash tree.
    pub verity: Vec<u8>,
    /// The kernel image.
    pub kernel: Vec<u8>,
    /// Root hash of the root.
    pub root_hash: Sha256Digest,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition or a lock.
    #[error(transparent)]
    Definition(#[from] definition::Error),
    /// An image that is needed was not given.
    #[error("the image {0} was not given to the builder")]
    NotGiven(&'static str),
    /// The image definition lacks a file.
    #[error("the image definition system has no {0}")]
    Incomplete(&'static str),
    /// Packages cannot be had.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The helper programs cannot be had.
    #[error(transparent)]
    Toolbox(#[from] toolbox::Error),
    /// Packages and data do not make a root.
    #[error(transparent)]
    System(#[from] system::Error),
    /// `depmod` failed.
    #[error("cannot index the kernel's modules")]
    Depmod(#[source] cmd::Error),
    /// No initrd.
    #[error(transparent)]
    Initrd(#[from] initrd::Error),
    /// No root file system.
    #[error(transparent)]
    Erofs(#[from] erofs::Error),
    /// The root does not fit its slot.
    #[error("the root takes {} MiB, more than its slot of {ROOT_SLOT_MIB} MiB", .0 >> 20)]
    TooBig(u64),
    /// No hash tree.
    #[error(transparent)]
    Verity(#[from] verity::Error),
    /// No kernel image.
    #[error(transparent)]
    Uki(#[from] uki::Error),
    /// No EFI partition.
    #[error(transparent)]
    Esp(#[from] esp::Error),
    /// No disk.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The program is not what an image needs.
    #[error("the program to seal in is not a statically linked 64-bit ELF file")]
    NotStatic,
    /// A file of a package cannot be read from the cache.
    #[error("cannot read {0} of the packages")]
    Missing(&'static str),
    /// Reading or writing failed.
    #[error(transparent)]
    File(#[from] fs::Error),
}

/// Builds the image; the caller puts it in place.
pub fn build(store: &Store<'_>, definitions: &Definitions, request: &Request<'_>) -> Result<Built, Error> {
    if !is_static(&request.program) {
        return Err(Error::NotStatic);
    }
    let inputs = Inputs::new(store, definitions, request)?;
    let base = Base::get(&inputs)?;
    let work = fs::Scratch::new(&store.cache, LITTER)?;
    let mkfs = inputs.tools.command("mkfs.erofs")?;
    let os_release = os_release(&base.os_release, request.codex, request.version);
    let (root, seed) = append(&mkfs, &base, work.path(), request, &os_release)?;
    let sealed = verity::format(&root, seed, THREADS)?;
    let cmdline = format!("roothash={} {}", sealed.root_hash, base.cmdline.join(" "));
    let kernel_image = uki::build(&uki::Parts {
        stub: &base.stub,
        os_release: &os_release,
        cmdline: &cmdline,
        uname: &base.release,
        kernel: &base.kernel,
        initrd: &base.initrd,
    })?;
    let name = request.codex.appliance.name.as_str();
    let entry = esp::entry(name, request.version);
    let origin = esp::origin(PROGRAM, &codex_digest(request.codex).to_string());
    let esp = esp_partition(
        work.path(),
        &esp::Parts {
            boot_loader: &base.boot_loader,
            entry: &entry,
            kernel_image: &kernel_image,
            origin: &origin,
            seed: sealed.root_hash,
        },
    )?;
    let (root_uuid, verity_uuid) = identity::partitions(sealed.root_hash);
    let label = format!("{name}_{}", request.version);
    let partition = |role, label: String, uuid, mebibytes: u64, content| Partition {
        role,
        label,
        uuid,
        size: mebibytes << 20,
        content,
    };
    let partitions = [
        partition(
            Role::Esp,
            format!("{name}_esp"),
            identity::uuid(sealed.root_hash, "esp"),
            ESP_MIB,
            disk::Content::File(&esp),
        ),
        partition(Role::Root, label.clone(), root_uuid, ROOT_SLOT_MIB, disk::Content::File(&root)),
        partition(
            Role::Verity,
            format!("{label}_verity"),
            verity_uuid,
            VERITY_SLOT_MIB,
            disk::Content::Bytes(&sealed.bytes),
        ),
    ];
    let (staged, placed) = disk::stage(request.out, identity::uuid(sealed.root_hash, "disk"), &partitions)?;
    let file = staged.file();
    let partitions = fs::context(manifest::partitions(file, &placed), "read", request.out)?;
    let disk = fs::context(disk::digest(file), "read", request.out)?;
    let root_hash = sealed.root_hash;
    let body = Body { root, verity: sealed.bytes, kernel: kernel_image, root_hash };
    Ok(Built { partitions, root_hash, cmdline, disk, staged, body })
}

/// What is sealed in of a Codex: all that it renders to, and its own files as they were written.
///
/// # Errors
/// It cannot be rendered, or two of these have one path.
pub fn tree(codex: &Codex, sources: &Sources) -> Result<Tree, RenderError> {
    let mut tree = render(codex)?;
    for (path, text) in sources.iter() {
        tree.file(format!("{SEALED}{path}"), text)?;
    }
    Ok(tree)
}

/// Names of the images that go into an appliance of `codex`: the system, the agent's root, those of the services.
pub fn sealed(codex: &Codex) -> BTreeSet<String> {
    let roots = codex.services.values().filter_map(|service| match &service.source {
        Source::Rootfs(root) => Some(root.to_string()),
        Source::Image(_) => None,
    });
    ["system", "tether"].map(str::to_owned).into_iter().chain(roots).collect()
}

/// The helper programs of the builder.
pub const TOOLS: &str = "tools-build";

/// os-release(5) of Debian, with the image's own name and version behind it.
fn os_release(debian: &str, codex: &Codex, version: &str) -> String {
    let name = &codex.appliance.name;
    format!("{}\nIMAGE_ID={name}\nIMAGE_VERSION={version}\n", debian.trim_end())
}

/// Writes the layer as a tar and returns its digest.
fn write_tar(layer: &Layer, path: &Path, time: u64) -> Result<Sha256Digest, Error> {
    let write = || {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        layer.write_tar(&mut out, time)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)
    };
    fs::context(write(), "write", path)?;
    let tar = fs::open(path)?;
    Ok(fs::context(disk::digest(&tar), "read", path)?)
}

/// Lays what follows from the Codex over the base; returns the root and what its identities follow from.
fn append(
    mkfs: &cmd::Command,
    base: &Base,
    work: &Path,
    request: &Request<'_>,
    os_release: &str,
) -> Result<(File, Sha256Digest), Error> {
    let file =
        |bytes: &[u8], mode| Node { mode, uid: 0, gid: 0, kind: Kind::File(Content::Bytes(bytes.into())) };
    let mut layer = Layer::from(request.tree.clone());
    layer.0.insert("usr/lib/os-release".to_owned(), file(os_release.as_bytes(), 0o644));
    let program = file(&request.program, 0o755);
    layer.0.insert("usr/bin/sepulcher".to_owned(), program.clone());
    for root in roots::WITH_PROGRAM {
        layer.0.insert(format!("{ROOTS}/{root}/usr/bin/sepulcher"), program.clone());
    }
    let tar = work.join("codex.tar");
    let seed = write_tar(&layer, &tar, u64::from(request.epoch))?;
    let stamp = erofs::Stamp { uuid: identity::uuid(seed, "root"), time: u64::from(request.epoch) };
    let image = work.join("root.erofs");
    erofs::append(mkfs, &base.root, &tar, &image, stamp)?;
    let root = fs::open(&image)?;
    let size = fs::context(root.metadata(), "read", &image)?.len();
    if size > ROOT_SLOT_MIB << 20 { Err(Error::TooBig(size)) } else { Ok((root, seed)) }
}

fn esp_partition(work: &Path, parts: &esp::Parts<'_>) -> Result<File, Error> {
    let path = work.join("esp");
    let create = || {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.set_len(ESP_MIB << 20)?;
        Ok(file)
    };
    let file = fs::context(create(), "create", &path)?;
    esp::build(&file, ESP_MIB << 20, parts)?;
    Ok(file)
}

/// Whether this is an ELF program for the image's machine that asks for no loader.
pub fn is_static(program: &[u8]) -> bool {
    elf::is_program(program) && elf::needs(program).is_ok_and(|needs| needs == Needs::default())
}
