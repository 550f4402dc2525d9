//! Reading an image back: what is in it, and whether its parts prove each other.

use std::fs::File;
use std::io;

use serde::Serialize;

use super::disk::{self, Placed, Role};
use super::manifest::{self, Manifest};
use super::window::{ReadAt, Window};
use super::{esp, identity, uki, verity};
use crate::tree::Sha256Digest;

/// What is in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Size in bytes.
    pub size: u64,
    /// Digest of the whole image.
    pub sha256: String,
    /// Partitions with their digests.
    pub partitions: Vec<manifest::Partition>,
    /// Unified kernel images.
    pub kernels: Vec<Kernel>,
}

/// A unified kernel image on the EFI partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kernel {
    /// File name in `EFI/Linux`.
    pub file: String,
    /// Kernel release.
    pub uname: Option<String>,
    /// Kernel command line.
    pub cmdline: Option<String>,
    /// Verity root hash of the command line.
    pub root_hash: Option<String>,
    /// Sections of the file.
    pub sections: Vec<Section>,
}

/// A section of a unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Name, e.g. `.initrd`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content.
    pub sha256: String,
}

/// Why an image cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The partition table.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The EFI partition.
    #[error(transparent)]
    Esp(#[from] esp::Error),
    /// A unified kernel image.
    #[error("EFI/Linux/{file} is not a unified kernel image")]
    Kernel {
        /// File name.
        file: String,
        /// What is wrong with it.
        source: uki::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the image")]
    Read(#[from] io::Error),
}

/// Something that an image promises and does not keep.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// Not one partition of a role.
    #[error("the image has {count} partitions for {role}, one is needed")]
    Partition {
        /// Role.
        role: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Not one kernel.
    #[error("the EFI system partition has {0} unified kernel images, one is needed")]
    Kernels(usize),
    /// A command line without a root hash.
    #[error("EFI/Linux/{0}: the command line has no valid roothash=")]
    RootHash(String),
    /// A partition's GUID does not follow from the root hash.
    #[error("the {role} partition's UUID is {found}, the root hash of the command line stands for {wanted}")]
    Uuid {
        /// Role.
        role: &'static str,
        /// As on the disk.
        found: uuid::Uuid,
        /// As the root hash says.
        wanted: uuid::Uuid,
    },
    /// The labels do not belong together.
    #[error("the verity partition is labelled {verity:?}, which does not belong to {root:?}")]
    Label {
        /// Root's label.
        root: String,
        /// Verity's label.
        verity: String,
    },
    /// The file system is not what the root hash stands for.
    #[error("the root partition is not what the root hash stands for: {0}")]
    Verity(verity::Error),
    /// Bytes after the sealed content.
    #[error("the {role} partition is not zero at byte {offset}, after its sealed content")]
    Tail {
        /// Role.
        role: &'static str,
        /// Offset in the partition, rounded down to 4096.
        offset: u64,
    },
    /// The manifest tells of another image.
    #[error("{what} is {found}, the manifest says {wanted}")]
    Manifest {
        /// What differs.
        what: String,
        /// In the image.
        found: String,
        /// In the manifest.
        wanted: String,
    },
}

/// Reads what is in an image, and hashes it.
pub fn inspect(image: &File) -> Result<Report, Error> {
    let placed = disk::read(image)?;
    let mut kernels = Vec::new();
    for partition in placed.iter().filter(|one| one.role == Some(Role::Esp)) {
        for (file, bytes) in esp::read(Window::new(image, partition.offset, partition.size))? {
            kernels.push(kernel(file, &bytes)?);
        }
    }
    Ok(Report {
        size: image.size()?,
        sha256: disk::digest(image)?.to_string(),
        partitions: manifest::partitions(image, &placed)?,
        kernels,
    })
}

fn kernel(file: String, bytes: &[u8]) -> Result<Kernel, Error> {
    let sections = match uki::sections(bytes) {
        Ok(sections) => sections,
        Err(source) => return Err(Error::Kernel { file, source }),
    };
    let text = |name| uki::text(&sections, name).map(str::to_owned);
    let cmdline = text(".cmdline");
    let root_hash = cmdline.as_deref().and_then(root_hash).map(|digest| digest.to_string());
    let section = |one: &uki::Section<'_>| Section {
        name: one.name.clone(),
        size: one.data.len() as u64,
        sha256: Sha256Digest::of(one.data).to_string(),
    };
    Ok(Kernel {
        file,
        uname: text(".uname"),
        cmdline,
        root_hash,
        sections: sections.iter().map(section).collect(),
    })
}

/// The root hash that a kernel command line names; the last one counts, as for systemd.
pub fn root_hash(cmdline: &str) -> Option<Sha256Digest> {
    let value = |word: &'_ str| word.strip_prefix("roothash=").map(str::to_owned);
    cmdline.split_ascii_whitespace().filter_map(value).next_back()?.parse().ok()
}

/// Checks that the parts of an image prove each other, and that they are what `manifest` says; every mismatch is told.
pub fn verify(
    image: &File,
    report: &Report,
    manifest: Option<&Manifest>,
    threads: usize,
) -> Result<Vec<Mismatch>, Error> {
    let placed = disk::read(image)?;
    let mut mismatches = Vec::new();
    let [_, root, verity] = Role::ALL.map(|role| {
        let found: Vec<&Placed> = placed.iter().filter(|one| one.role == Some(role)).collect();
        if found.len() != 1 {
            mismatches.push(Mismatch::Partition { role: role.name(), count: found.len() });
        }
        found.first().copied()
    });
    let [kernel] = report.kernels.as_slice() else {
        mismatches.push(Mismatch::Kernels(report.kernels.len()));
        return Ok(mismatches);
    };
    let root_hash = kernel.root_hash.as_ref().and_then(|digest| digest.parse().ok());
    match (root_hash, root, verity) {
        (None, ..) => mismatches.push(Mismatch::RootHash(kernel.file.clone())),
        (Some(hash), Some(root), Some(verity)) => {
            sealed(image, root, verity, hash, threads, &mut mismatches)?;
        }
        (Some(_), ..) => {}
    }
    if let Some(manifest) = manifest {
        compare(report, kernel, manifest, &mut mismatches);
    }
    Ok(mismatches)
}

/// Root and verity partition against the root hash.
fn sealed(
    image: &File,
    root: &Placed,
    verity: &Placed,
    hash: Sha256Digest,
    threads: usize,
    mismatches: &mut Vec<Mismatch>,
) -> Result<(), Error> {
    let (root_uuid, verity_uuid) = identity::partitions(hash);
    for (role, found, wanted) in [("root", root.uuid, root_uuid), ("verity", verity.uuid, verity_uuid)] {
        if found != wanted {
            mismatches.push(Mismatch::Uuid { role, found, wanted });
        }
    }
    if verity.label != format!("{}_verity", root.label) {
        mismatches.push(Mismatch::Label { root: root.label.clone(), verity: verity.label.clone() });
    }
    let data = Window::new(image, root.offset, root.size);
    let tree = Window::new(image, verity.offset, verity.size);
    let sealed = verity::verify(&data, &tree, hash, threads);
    let header = match sealed.and_then(|_| verity::header(&tree)) {
        Ok(header) => header,
        Err(error) => {
            mismatches.push(Mismatch::Verity(error));
            return Ok(());
        }
    };
    let block = verity::BLOCK as u64;
    let ends = [("root", data, header.data_blocks * block), ("verity", tree, header.blocks() * block)];
    for (role, window, end) in ends {
        if let Some(offset) = first_byte(&window, end)? {
            mismatches.push(Mismatch::Tail { role, offset });
        }
    }
    Ok(())
}

/// The first block from `start` on that is not zero.
fn first_byte(window: &Window<'_>, start: u64) -> io::Result<Option<u64>> {
    let size = window.size()?;
    let mut block = [0; verity::BLOCK];
    let mut offset = start;
    while offset < size {
        let count = usize::try_from(size - offset).unwrap_or(block.len()).min(block.len());
        window.fill(&mut block[..count], offset)?;
        if block[..count].iter().any(|byte| *byte != 0) {
            return Ok(Some(offset));
        }
        offset += count as u64;
    }
    Ok(None)
}

fn compare(report: &Report, kernel: &Kernel, manifest: &Manifest, mismatches: &mut Vec<Mismatch>) {
    let mut check = |what: &str, found: &str, wanted: &str| {
        if found != wanted {
            let (what, found, wanted) = (what.to_owned(), found.to_owned(), wanted.to_owned());
            mismatches.push(Mismatch::Manifest { what, found, wanted });
        }
    };
    check("the image's size", &report.size.to_string(), &manifest.size.to_string());
    check("the image's SHA-256", &report.sha256, &manifest.sha256);
    check("the root hash", kernel.root_hash.as_deref().unwrap_or("none"), &manifest.root_hash);
    check("the command line", kernel.cmdline.as_deref().unwrap_or("none"), &manifest.cmdline);
    let roles = |partitions: &[manifest::Partition]| {
        partitions.iter().map(|one| one.role.as_str()).collect::<Vec<_>>().join(", ")
    };
    check("the list of partitions", &roles(&report.partitions), &roles(&manifest.partitions));
    for (found, wanted) in report.partitions.iter().zip(&manifest.partitions) {
        let role = &found.role;
        check(&format!("the {role} partition's label"), &found.label, &wanted.label);
        check(&format!("the {role} partition's UUID"), &found.uuid, &wanted.uuid);
        check(&format!("the {role} partition's SHA-256"), &found.sha256, &wanted.sha256);
        let place = |one: &manifest::Partition| format!("{} bytes at {}", one.size, one.offset);
        check(&format!("the {role} partition's place"), &place(found), &place(wanted));
    }
}

#[cfg(test)]
mod tests;
