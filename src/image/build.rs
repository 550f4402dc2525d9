//! From a Codex to a disk image: the one place where the parts of the builder meet.
//!
//! ```text
//! locks ─▶ packages ─▶ base root + initrd + kernel            cached by the digest of all that decides them
//! base + rendered tree + Codex + program ─▶ root ─▶ verity ─▶ UKI ─▶ ESP ─▶ disk
//! ```
#![expect(clippy::disallowed_methods, reason = "temporary files of the build")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::definition::{self, Definitions, Image};
use super::disk::{self, Partition, Role};
use super::initrd::elf::{self, Needs};
use super::layer::{Content, Kind, Layer, Node};
use super::store::{self, Store};
use super::system::{self, System};
use super::toolbox::{self, Toolbox};
use super::{erofs, esp, identity, initrd, manifest, uki, verity};
use crate::codex::{Codex, Source};
use crate::render::units::{ROOT_SLOT_MIB, VERITY_SLOT_MIB};
use crate::sys::stage::Staged;
use crate::sys::{cmd, fs};
use crate::tree::{Sha256Digest, Tree};

/// Digest of the builder's own sources that decide a base; see the crate's `build.rs`.
const BASE_FORMAT: &str = env!("SEPULCHER_BASE_FORMAT");
/// Size of the EFI system partition: three kernel images, for two slots and one being staged.
const ESP_MIB: u64 = 72;
/// Threads that hash.
const THREADS: usize = 2;
/// How unfinished work in the cache is named.
const LITTER: &str = ".building-";
/// Where the trees of containers lie in the root.
const ROOTS: &str = "usr/lib/sepulcher/roots";
/// Roots that hold our program.
const WITH_PROGRAM: [&str; 2] = ["tether", "stand-in"];

/// What an image is made of, besides packages.
pub struct Request<'a> {
    /// The valid Codex.
    pub codex: &'a Codex,
    /// What follows from it: all that was rendered, and its own files.
    pub tree: Tree,
    /// The images that [`needed`] names, with their locks.
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
    let esp = esp_partition(work.path(), &base, &kernel_image, name, request.version, sealed.root_hash)?;
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
    Ok(Built { partitions, root_hash: sealed.root_hash, cmdline, disk, staged })
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

/// What a base is made from.
struct Inputs<'a> {
    store: &'a Store<'a>,
    definitions: &'a Definitions,
    /// Images that go into the root, by name.
    images: &'a BTreeMap<String, Image>,
    tools: Toolbox,
    /// Time of every file: the base's own stay as they are when the rest is laid over it.
    epoch: u32,
}

impl<'a> Inputs<'a> {
    fn new(
        store: &'a Store<'a>,
        definitions: &'a Definitions,
        request: &'a Request<'_>,
    ) -> Result<Self, Error> {
        let Request { images, epoch, .. } = request;
        let tools = Toolbox::open(store, images.get(TOOLS).ok_or(Error::NotGiven(TOOLS))?)?;
        Ok(Self { store, definitions, images, tools, epoch: *epoch })
    }

    fn system(&self) -> Result<&Image, Error> {
        self.images.get("system").ok_or(Error::NotGiven("system"))
    }

    /// Images of containers.
    fn roots(&self) -> impl Iterator<Item = (&String, &Image)> {
        self.images.iter().filter(|(name, _)| !["system", TOOLS].contains(&name.as_str()))
    }

    fn text(&self, file: &'static str) -> Result<String, Error> {
        self.definitions.text("system", file)?.ok_or(Error::Incomplete(file))
    }

    /// All that decides the bytes of the base.
    fn digest(&self) -> Result<Sha256Digest, Error> {
        let data = (self.text(SYSTEM_DATA)?, self.text(INITRD_DATA)?);
        let mut decides = format!("{BASE_FORMAT}\n{}\n{}\n{}", self.epoch, data.0, data.1);
        for (name, image) in self.images {
            decides +=
                &format!("\n{name} {} {}", image.digest(), tree_digest(&self.definitions.tree(name)?)?);
        }
        Ok(Sha256Digest::of(decides.as_bytes()))
    }
}

/// Files of the image definition `system`.
const SYSTEM_DATA: &str = "image.toml";
const INITRD_DATA: &str = "initrd.toml";

/// os-release(5) of Debian, with the image's own name and version behind it.
fn os_release(debian: &str, codex: &Codex, version: &str) -> String {
    let name = &codex.appliance.name;
    format!("{}\nIMAGE_ID={name}\nIMAGE_VERSION={version}\n", debian.trim_end())
}

/// What does not depend on the Codex but on the names of the roots that it uses.
struct Base {
    root: PathBuf,
    initrd: Vec<u8>,
    kernel: Vec<u8>,
    stub: Vec<u8>,
    boot_loader: Vec<u8>,
    release: String,
    os_release: String,
    cmdline: Vec<String>,
}

/// Files of a base in the cache besides `root.erofs`.
const BASE_FILES: [&str; 6] = ["initrd", "kernel", "stub", "boot-loader", "release", "os-release"];

impl Base {
    /// Takes the base from the cache, or makes it: also when it is no longer what it was made as.
    fn get(inputs: &Inputs<'_>) -> Result<Self, Error> {
        let bases = inputs.store.cache.join("bases");
        fs::create_dir_all(&bases)?;
        let folder = bases.join(inputs.digest()?.to_string());
        let data = System::parse(&inputs.text(SYSTEM_DATA)?)?;
        if !is_whole(&folder)? {
            let _locked = fs::lock_and_tidy(&bases, LITTER)?;
            // Another process may have made it meanwhile.
            if !is_whole(&folder)? {
                fs::remove_dir_all(&folder)?;
                Self::make(inputs, &data, &folder)?;
            }
        }
        let [initrd, kernel, stub, boot_loader, release, os_release] =
            BASE_FILES.map(|name| fs::read(&folder.join(name)));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self {
            root: folder.join("root.erofs"),
            initrd: initrd?,
            kernel: kernel?,
            stub: stub?,
            boot_loader: boot_loader?,
            release: text(release?),
            os_release: text(os_release?),
            cmdline: data.cmdline,
        })
    }

    fn make(inputs: &Inputs<'_>, data: &System, folder: &Path) -> Result<(), Error> {
        let Inputs { store, definitions, images: _, tools, epoch } = inputs;
        let parent = fs::folder_of(folder);
        let work = tempfile::Builder::new().prefix(LITTER).tempdir_in(parent);
        let work = fs::context(work, "write in", parent)?;
        let system::Base { mut root, kernel, release } =
            data.base(store.layer(inputs.system()?)?, definitions.tree("system")?)?;
        root.merge(module_index(tools, &root, &release, work.path())?);
        let read = |path: &'static str| match root.0.get(path).map(|node| &node.kind) {
            Some(Kind::File(content)) => content.read().map_err(|_| Error::Missing(path)),
            _ => Err(Error::Missing(path)),
        };
        let files = [
            initrd::build(&root, &initrd::Definition::parse(&inputs.text(INITRD_DATA)?)?, *epoch)?,
            kernel.read().map_err(|_| Error::Missing("the kernel"))?,
            read("usr/lib/systemd/boot/efi/linuxx64.efi.stub")?,
            read("usr/lib/systemd/boot/efi/systemd-bootx64.efi")?,
            release.into_bytes(),
            read("usr/lib/os-release")?,
        ];
        for (name, bytes) in BASE_FILES.iter().zip(files) {
            fs::write(&work.path().join(name), 0o644, &bytes)?;
        }
        for (name, image) in inputs.roots() {
            let container = system::container(store.layer(image)?, definitions.tree(name)?)?;
            root.merge(container.below(&format!("{ROOTS}/{name}")));
        }
        let tar = work.path().join("root.tar");
        let seed = write_tar(&root, &tar, u64::from(*epoch))?;
        let stamp = erofs::Stamp { uuid: identity::uuid(seed, "base"), time: u64::from(*epoch) };
        erofs::build(&tools.command("mkfs.erofs")?, &tar, &work.path().join("root.erofs"), stamp)?;
        fs::remove_file(&tar)?;
        let sums = sums(work.path())?;
        fs::write(&work.path().join(SUMS), 0o644, sums.as_bytes())?;
        fs::rename(work.path(), folder)?;
        // Nothing is left at the old path to clean up.
        let _ = work.keep();
        Ok(())
    }
}

/// Digests of a base's files, in the format of sha256sum(1).
const SUMS: &str = "SHA256SUMS";

fn sums(folder: &Path) -> Result<String, Error> {
    let mut text = String::new();
    for name in BASE_FILES.iter().chain(["root.erofs"].iter()) {
        let path = folder.join(name);
        let digest = fs::context(disk::digest(&fs::open(&path)?), "read", &path)?;
        text += &manifest::checksums(&[(name, digest)]);
    }
    Ok(text)
}

/// Whether a base is there as it was made: what rots in the cache must not be sealed.
fn is_whole(folder: &Path) -> Result<bool, Error> {
    let made = match fs::read(&folder.join(SUMS)) {
        Err(error) if error.is_not_found() => return Ok(false),
        read => read?,
    };
    match sums(folder) {
        Err(Error::File(error)) if error.is_not_found() => Ok(false),
        sums => Ok(sums?.as_bytes() == made),
    }
}

/// Digest of the paths and contents of an image's own files and links.
fn tree_digest(tree: &Layer) -> Result<Sha256Digest, Error> {
    let mut text = String::new();
    for (path, node) in &tree.0 {
        let content = match &node.kind {
            Kind::Dir => "folder".to_owned(),
            Kind::Link(to) => format!("-> {to}"),
            Kind::File(content) => {
                let bytes = content.read().map_err(|_| Error::Missing("a file of the image definition"))?;
                Sha256Digest::of(&bytes).to_string()
            }
        };
        text += &format!("{path} {:o} {content}\n", node.mode);
    }
    Ok(Sha256Digest::of(text.as_bytes()))
}

/// `modules.dep` and its siblings, by depmod over a copy of the modules.
fn module_index(tools: &Toolbox, root: &Layer, release: &str, work: &Path) -> Result<Layer, Error> {
    let copy = work.join("modules");
    let prefix = format!("usr/lib/modules/{release}/");
    for (path, node) in root.0.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix)) {
        if let Kind::File(content) = &node.kind {
            let target = copy.join(path);
            fs::create_dir_all(target.parent().unwrap_or(&copy))?;
            let bytes = content.read().map_err(|_| Error::Missing("a kernel module"))?;
            fs::write(&target, 0o644, &bytes)?;
        }
    }
    let lib = copy.join("lib");
    fs::context(std::os::unix::fs::symlink("usr/lib", &lib), "link", &lib)?;
    // An empty configuration: depmod would read the host's /etc/depmod.d otherwise.
    let configuration = copy.join("depmod.d");
    fs::create_dir_all(&configuration)?;
    let depmod = tools.command("depmod")?.arg("-b").arg(&copy).arg("-C").arg(&configuration);
    depmod.arg(release).read().map_err(Error::Depmod)?;
    let mut index = Layer::default();
    for file in fs::list(&copy.join(&prefix))? {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("modules.") {
            let kind = Kind::File(Content::Bytes(fs::read(&file)?.into()));
            index.0.insert(format!("{prefix}{name}"), Node { mode: 0o644, uid: 0, gid: 0, kind });
        }
    }
    fs::remove_dir_all(&copy)?;
    Ok(index)
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
    for root in WITH_PROGRAM {
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

fn esp_partition(
    work: &Path,
    base: &Base,
    kernel_image: &[u8],
    name: &str,
    version: &str,
    seed: Sha256Digest,
) -> Result<File, Error> {
    let path = work.join("esp");
    let create = || {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.set_len(ESP_MIB << 20)?;
        Ok(file)
    };
    let file = fs::context(create(), "create", &path)?;
    let entry = esp::entry(name, version);
    let parts = esp::Parts { boot_loader: &base.boot_loader, entry: &entry, kernel_image, seed };
    esp::build(&file, ESP_MIB << 20, &parts)?;
    Ok(file)
}

/// Whether this is an ELF program for the image's machine that asks for no loader.
fn is_static(program: &[u8]) -> bool {
    elf::is_program(program) && elf::needs(program).is_ok_and(|needs| needs == Needs::default())
}
