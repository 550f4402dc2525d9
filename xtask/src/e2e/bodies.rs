//! Updates for the machine under test: whole ones, damaged ones, and whole ones of bodies that are not healthy.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sepulcher::cli::progress::Shown;
use sepulcher::cli::store::StoreArgs;
use sepulcher::codex::{Codex, Sources, is_law};
use sepulcher::image::build::{self, Body, Request};
use sepulcher::rebirth::bundle::write;
use sepulcher::rebirth::publisher::SigningKey;
use sepulcher::rebirth::version::Version;
use sepulcher::sys;
use sepulcher::sys::cmd::Command;
use sepulcher::tree::Tree;

use super::site::Site;
use crate::Result;
use crate::image;

/// The files of a law: path → text.
pub type Law = BTreeMap<String, String>;

/// What is done to a body before it is sealed and signed, by a publisher who errs.
pub struct Defect {
    /// The law, by file.
    pub law: fn(&mut Law),
    /// What was rendered.
    pub tree: fn(&mut Tree),
    /// The sealed root, whose hash tree stays as it was.
    pub root: fn(&mut Vec<u8>),
}

/// None at all.
pub const SOUND: Defect = Defect { law: |_| {}, tree: |_| {}, root: |_| {} };

/// An update, as a tar archive, and the disk image of the same body.
pub struct Made {
    /// The folder.
    pub folder: PathBuf,
    /// The archive.
    pub archive: PathBuf,
    /// The disk image.
    pub image: PathBuf,
}

/// Builds and signs a body of the site's Codex.
pub fn build(site: &Site, version: &str, defect: &Defect) -> Result<Made> {
    let folder = site.folder.path();
    let sources = changed(&site.codex(), defect.law);
    let codex =
        Codex::parse(&sources).map_err(|mistakes| format!("the changed law holds mistakes: {mistakes:?}"))?;
    let mut tree = build::tree(&codex, &sources)?;
    (defect.tree)(&mut tree);
    let out = folder.join(format!("body-{version}.raw"));
    let built = sealed(&codex, tree, version, &out)?;
    let body = Body { root: flawed(folder, &built.body.root, defect.root)?, ..built.body };
    built.staged.commit(0o644)?;
    let update = folder.join(format!("lychd_{version}.update"));
    let title = (&codex.appliance.name, &version.parse::<Version>()?);
    write::write(&update, title, &sources, &body, Some(&site.publisher))?.commit()?;
    let archive = packed(&update)?;
    Ok(Made { folder: update, archive, image: out })
}

/// The site's law and bonds, with a change of the law.
fn changed(codex: &Path, change: fn(&mut Law)) -> Sources {
    let sources = sys::codex::load(&[codex]);
    let mut law: Law = sources
        .iter()
        .filter(|(path, _)| is_law(path))
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .collect();
    change(&mut law);
    // Nobody is bonded in a law that is published.
    law.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

fn sealed(codex: &Codex, tree: Tree, version: &str, out: &Path) -> Result<build::Built> {
    let (shown, args) = (Shown::default(), StoreArgs::default());
    let store = args.store(&shown).map_err(|failure| failure.to_string())?;
    let images = args.images_of(&store, codex).map_err(|failure| failure.to_string())?;
    let program = fs::read(image::program()?)?;
    let request = Request { codex, tree, images, program, version, epoch: build::EPOCH, out };
    Ok(build::build(&store, &args.definitions(), &request)?)
}

/// The root as the publisher's machine had it when the update was made.
fn flawed(folder: &Path, root: &fs::File, change: fn(&mut Vec<u8>)) -> Result<fs::File> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; usize::try_from(root.metadata()?.len())?];
    root.read_exact_at(&mut bytes, 0)?;
    change(&mut bytes);
    let path = folder.join("flawed");
    fs::write(&path, bytes)?;
    let file = fs::File::open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// The folder as one file.
pub fn packed(update: &Path) -> Result<PathBuf> {
    let archive = update.with_extension("tar");
    Command::new("tar").arg("-C").arg(update).arg("-cf").arg(&archive).arg(".").read()?;
    Ok(archive)
}

/// A copy of an update with something done to its folder, as an archive.
pub fn damaged(made: &Made, name: &str, damage: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let copy = made.folder.with_file_name(format!("{name}.update"));
    crate::copy_folder(&made.folder, &copy)?;
    damage(&copy)?;
    packed(&copy)
}

/// Signs an update's checksums anew.
pub fn sign(folder: &Path, key: &SigningKey, title: &str) -> Result<()> {
    let sums = fs::read(folder.join("SHA256SUMS"))?;
    Ok(fs::write(folder.join("SHA256SUMS.minisig"), key.sign(&sums, title)?)?)
}
