//! The disk: a GPT with its partitions, written as one sparse file, and read back.
//!
//! The file ends right after the last partition; written to a larger disk, the first boot makes the rest of it into
//! slot B and state. Sources: the UEFI specification, chapter 5, and the UAPI group's Discoverable Partitions
//! Specification, which names the types.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{OperatingSystem, Type};
use gpt::{GptConfig, GptError};
use sha2::{Digest as _, Sha256};
use uuid::{Uuid, uuid};

use super::window::{ReadAt, Window};
use crate::sys::fs;
use crate::sys::stage::Staged;
use crate::tree::Sha256Digest;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;
/// Partitions begin and end at multiples of this, in bytes.
pub const ALIGNMENT: u64 = 1 << 20;
/// "Read-only" of the Discoverable Partitions Specification.
const READ_ONLY: u64 = 1 << 60;
/// UTF-16 units of a partition's label.
const LABEL: usize = 36;
/// Bytes of a table's entries: 128 of 128.
const ENTRIES: usize = 128 * 128;
const CHUNK: usize = 1 << 20;
/// The unit in which zeroes are left out.
const HOLE: usize = 1 << 16;
static ZEROES: [u8; HOLE] = [0; HOLE];

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// EFI system partition.
    Esp,
    /// Root file system for x86-64.
    Root,
    /// Its verity hash tree.
    Verity,
}

impl Role {
    /// Every role, in the order on the disk.
    pub const ALL: [Role; 3] = [Role::Esp, Role::Root, Role::Verity];

    /// The partition type's GUID.
    pub fn type_uuid(self) -> Uuid {
        match self {
            Role::Esp => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            Role::Root => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            Role::Verity => uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
        }
    }

    /// One word for people and for the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Role::Esp => "esp",
            Role::Root => "root",
            Role::Verity => "verity",
        }
    }
}

/// A partition's content.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// A whole file.
    File(&'a File),
}

/// A partition to write.
#[derive(Debug, Clone)]
pub struct Partition<'a> {
    /// What it is for.
    pub role: Role,
    /// Label, at most 36 characters.
    pub label: String,
    /// Its own GUID.
    pub uuid: Uuid,
    /// Least size in bytes: room for later versions. The content may need more.
    pub size: u64,
    /// First bytes; zeroes follow.
    pub content: Content<'a>,
}

/// A partition on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What it is for; `None` for a type that we do not write.
    pub role: Option<Role>,
    /// Label.
    pub label: String,
    /// Its own GUID.
    pub uuid: Uuid,
    /// First byte on the disk.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// Whether it is marked read-only.
    pub read_only: bool,
}

/// Why there is no disk, or why one cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A label does not fit.
    #[error("the partition label {0:?} is longer than 36 characters")]
    Label(String),
    /// Writing failed.
    #[error("cannot write the disk image {}", path.display())]
    Write {
        /// The image.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The partition table cannot be written or read.
    #[error("cannot {action} the partition table")]
    Table {
        /// `write` or `read`.
        action: &'static str,
        /// The reason.
        source: GptError,
    },
    /// The two copies of the table, or the table and the file, disagree.
    #[error("the partition table is damaged: {0}")]
    Damaged(&'static str),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] fs::Error),
}

/// Writes the disk image at `path`, whole or not at all, and says where the partitions are, in the order given.
pub fn write(path: &Path, disk: Uuid, partitions: &[Partition<'_>]) -> Result<Vec<Placed>, Error> {
    let (staged, placed) = stage(path, disk, partitions)?;
    staged.commit(0o644)?;
    Ok(placed)
}

/// Like [`write`], for a caller that puts the image in place itself.
pub fn stage(path: &Path, disk: Uuid, partitions: &[Partition<'_>]) -> Result<(Staged, Vec<Placed>), Error> {
    let placed = place(partitions).map_err(|source| Error::Write { path: path.to_owned(), source })?;
    if let Some(long) = placed.iter().find(|one| one.label.encode_utf16().count() > LABEL) {
        return Err(Error::Label(long.label.clone()));
    }
    let staged = Staged::create(path)?;
    let fill = || {
        let end = placed.last().map_or(ALIGNMENT, |last| last.offset + last.size);
        staged.file().set_len(end + ALIGNMENT)?;
        for (partition, placed) in partitions.iter().zip(&placed) {
            copy(partition.content, staged.file(), placed.offset)?;
        }
        Ok(end + ALIGNMENT)
    };
    let size = fill().map_err(|source| Error::Write { path: path.to_owned(), source })?;
    let window = Window::new(staged.file(), 0, size);
    table(window, size, disk, &placed).map_err(|source| Error::Table { action: "write", source })?;
    Ok((staged, placed))
}

/// One after the other from the first mebibyte on.
fn place(partitions: &[Partition<'_>]) -> io::Result<Vec<Placed>> {
    let mut offset = ALIGNMENT;
    let mut placed = Vec::new();
    for Partition { role, label, uuid, size, content } in partitions {
        let content = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(file) => file.size()?,
        };
        let size = content.max(*size).max(1).next_multiple_of(ALIGNMENT);
        let read_only = *role != Role::Esp;
        placed.push(Placed { role: Some(*role), label: label.clone(), uuid: *uuid, offset, size, read_only });
        offset += size;
    }
    Ok(placed)
}

/// Copies content, leaving holes where it is zero.
fn copy(content: Content<'_>, disk: &File, offset: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let size = match content {
        Content::Bytes(bytes) => bytes.size()?,
        Content::File(file) => file.size()?,
    };
    let mut done = 0;
    while done < size {
        let count = usize::try_from(size - done).unwrap_or(CHUNK).min(CHUNK);
        let chunk = &mut buffer[..count];
        match content {
            Content::Bytes(bytes) => bytes.fill(chunk, done)?,
            Content::File(file) => file.fill(chunk, done)?,
        }
        for (index, piece) in chunk.chunks(HOLE).enumerate() {
            if *piece != ZEROES[..piece.len()] {
                disk.write_all_at(piece, offset + done + (index * HOLE) as u64)?;
            }
        }
        done += count as u64;
    }
    Ok(())
}

fn table(mut disk: Window<'_>, size: u64, guid: Uuid, placed: &[Placed]) -> Result<(), GptError> {
    // The protective record counts in 32 bits; "all the rest" is what the specification says for more.
    let sectors = u32::try_from(size / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut disk).map_err(io::Error::other)?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, Some(guid))?;
    let entry = |one: &Placed| gpt::partition::Partition {
        part_type_guid: Type {
            guid: one.role.map_or(Uuid::nil(), Role::type_uuid),
            os: OperatingSystem::Linux,
        },
        part_guid: one.uuid,
        first_lba: one.offset / SECTOR,
        last_lba: (one.offset + one.size) / SECTOR - 1,
        flags: if one.read_only { READ_ONLY } else { 0 },
        name: one.label.clone(),
    };
    table.update_partitions((1..).zip(placed.iter().map(entry)).collect())?;
    table.write().map(|_| ())
}

/// Reads the partition table of a disk image; both copies must be sound, agree and lie where the file's size says.
pub fn read(disk: &File) -> Result<Vec<Placed>, Error> {
    let error = |source| Error::Table { action: "read", source };
    let size = disk.size().map_err(|source| error(source.into()))?;
    let table = GptConfig::new()
        .only_valid_headers(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .open_from_device(Window::new(disk, 0, size))
        .map_err(error)?;
    let primary = table.primary_header().map_err(|source| error(source.into()))?;
    let backup = table.backup_header().map_err(|source| error(source.into()))?;
    if Some(primary.backup_lba) != (size / SECTOR).checked_sub(1) || size % SECTOR != 0 {
        return Err(Error::Damaged("its second copy is not at the end of the disk"));
    }
    // The crate checks the first copy's entries against their CRC, not the second's.
    let (mut first, mut second) = ([0; ENTRIES], [0; ENTRIES]);
    let entries = |header: &gpt::header::Header| header.part_start.saturating_mul(SECTOR);
    disk.fill(&mut first, entries(primary)).map_err(|source| error(source.into()))?;
    disk.fill(&mut second, entries(backup)).map_err(|source| error(source.into()))?;
    if first != second || primary.disk_guid != backup.disk_guid {
        return Err(Error::Damaged("its two copies differ"));
    }
    table.partitions().values().filter(|entry| entry.is_used()).map(|entry| placed(entry, size)).collect()
}

fn placed(entry: &gpt::partition::Partition, disk: u64) -> Result<Placed, Error> {
    let outside = Error::Damaged("a partition lies outside the disk");
    let offset = entry.first_lba.checked_mul(SECTOR);
    let end = entry.last_lba.checked_add(1).and_then(|sectors| sectors.checked_mul(SECTOR));
    match (offset, end) {
        (Some(offset), Some(end)) if offset < end && end <= disk => Ok(Placed {
            role: Role::ALL.into_iter().find(|role| role.type_uuid() == entry.part_type_guid.guid),
            label: entry.name.clone(),
            uuid: entry.part_guid,
            offset,
            size: end - offset,
            read_only: entry.flags & READ_ONLY != 0,
        }),
        _ => Err(outside),
    }
}

/// Digest of everything in `data`, a mebibyte at a time.
pub fn digest(data: &(impl ReadAt + ?Sized)) -> io::Result<Sha256Digest> {
    let mut buffer = vec![0; CHUNK];
    let (mut hash, mut done, size) = (Sha256::new(), 0, data.size()?);
    while done < size {
        let count = usize::try_from(size - done).unwrap_or(CHUNK).min(CHUNK);
        data.fill(&mut buffer[..count], done)?;
        hash.update(&buffer[..count]);
        done += count as u64;
    }
    Ok(Sha256Digest(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(root: &File) -> Vec<Partition<'_>> {
        let part = |role, label: &str, content| Partition {
            role,
            label: label.to_owned(),
            uuid: super::super::identity::uuid(Sha256Digest::of(label.as_bytes()), "test"),
            size: 0,
            content,
        };
        vec![
            Partition { size: 3 << 20, ..part(Role::Esp, "esp", Content::Bytes(b"fat")) },
            part(Role::Root, "lychd_1", Content::File(root)),
            part(Role::Verity, "lychd_1_verity", Content::Bytes(&[9; 5000])),
        ]
    }

    fn written(folder: &Path) -> (PathBuf, Vec<Placed>) {
        let root = tempfile::tempfile().unwrap();
        root.write_all_at(&[7; 4096], 2 << 20).unwrap();
        let path = folder.join("disk.raw");
        let placed = write(&path, Uuid::nil(), &partitions(&root)).unwrap();
        (path, placed)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, placed) = written(folder.path());
        let disk = fs::open(&path).unwrap();
        assert_eq!(read(&disk).unwrap(), placed);
        let offsets: Vec<_> = placed.iter().map(|one| (one.offset >> 20, one.size >> 20)).collect();
        assert_eq!(offsets, [(1, 3), (4, 3), (7, 1)]);
        let mut root = [0; 4096];
        Window::new(&disk, placed[1].offset, placed[1].size).fill(&mut root, 2 << 20).unwrap();
        assert_eq!(root, [7; 4096]);
    }

    #[test]
    fn the_same_content_is_the_same_bytes() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, two] = folders.map(|folder| fs::read(&written(folder.path()).0).unwrap());
        assert!(one == two);
    }

    #[test]
    fn every_damaged_byte_of_either_table_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path()).0;
        let disk = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let end = disk.size().unwrap();
        // Signature, disk GUID, first entry's type and last sector, in both copies.
        let places =
            [512, 512 + 56, 1024, 1024 + 40, end - 512, end - 512 + 56, end - 33 * 512, end - 33 * 512 + 40];
        for place in places {
            let mut byte = [0];
            disk.fill(&mut byte, place).unwrap();
            disk.write_all_at(&[byte[0] ^ 1], place).unwrap();
            assert!(read(&disk).is_err(), "byte {place}");
            disk.write_all_at(&byte, place).unwrap();
        }
        assert!(read(&disk).is_ok());
    }

    #[test]
    fn a_truncated_or_grown_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path()).0;
        let disk = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let size = disk.size().unwrap();
        for size in [0, 511, 4096, size - 1, size - ALIGNMENT, size + 512] {
            disk.set_len(size).unwrap();
            assert!(read(&disk).is_err(), "{size} bytes");
        }
    }

    #[test]
    fn a_label_that_does_not_fit_is_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let root = tempfile::tempfile().unwrap();
        let mut partitions = partitions(&root);
        partitions[1].label = "x".repeat(37);
        let error = write(&folder.path().join("disk.raw"), Uuid::nil(), &partitions).unwrap_err();
        assert!(matches!(error, Error::Label(_)));
        assert!(fs::list(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn zeroes_take_no_space() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path()).0;
        let metadata = fs::open(&path).unwrap().metadata().unwrap();
        assert!(
            metadata.blocks() * 512 < metadata.len() / 4,
            "{} of {}",
            metadata.blocks() * 512,
            metadata.len()
        );
    }
}
