//! What an image holds whatever its Codex says: packages, initrd, kernel. Cached by the digest of all that decides it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Error, LITTER, ROOTS, Request, TOOLS, write_tar};
use crate::image::definition::{Definitions, Image};
use crate::image::layer::{Content, Kind, Layer, Node};
use crate::image::store::Store;
use crate::image::system::{self, System};
use crate::image::toolbox::Toolbox;
use crate::image::{disk, erofs, identity, initrd, manifest, roots};
use crate::sys::fs;
use crate::tree::Sha256Digest;

/// Digest of the builder's own sources that decide a base; see the crate's `build.rs`.
const BASE_FORMAT: &str = env!("SEPULCHER_BASE_FORMAT");

/// What a base is made from.
pub struct Inputs<'a> {
    store: &'a Store<'a>,
    definitions: &'a Definitions,
    /// Images that go into the root, by name.
    images: &'a BTreeMap<String, Image>,
    /// Programs of the builder.
    pub tools: Toolbox,
    /// Time of every file: the base's own stay as they are when the rest is laid over it.
    epoch: u32,
}

impl<'a> Inputs<'a> {
    /// Opens the toolbox; everything else is taken from `request`.
    pub fn new(
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

/// What does not depend on the Codex but on the names of the roots that it uses.
pub struct Base {
    /// The root file system, without what follows from a Codex.
    pub root: PathBuf,
    /// The initrd.
    pub initrd: Vec<u8>,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// systemd's EFI stub.
    pub stub: Vec<u8>,
    /// systemd-boot.
    pub boot_loader: Vec<u8>,
    /// Release of the kernel.
    pub release: String,
    /// os-release(5) of the packages.
    pub os_release: String,
    /// Words of the kernel command line, without the root hash.
    pub cmdline: Vec<String>,
}

/// Files of a base in the cache besides `root.erofs`.
const BASE_FILES: [&str; 6] = ["initrd", "kernel", "stub", "boot-loader", "release", "os-release"];

impl Base {
    /// Takes the base from the cache, or makes it: also when it is no longer what it was made as.
    pub fn get(inputs: &Inputs<'_>) -> Result<Self, Error> {
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
            root.merge(roots::bare(store, definitions, image)?.below(&format!("{ROOTS}/{name}")));
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
    let Some(made) = fs::if_there(fs::read(&folder.join(SUMS)))? else { return Ok(false) };
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

/// `modules.dep` and its siblings, by the depmod of `tools` over a copy of the modules of `root` in the folder `work`.
/// Fails when a module cannot be read, the folder not be written, or depmod fails.
pub fn module_index(tools: &Toolbox, root: &Layer, release: &str, work: &Path) -> Result<Layer, Error> {
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
