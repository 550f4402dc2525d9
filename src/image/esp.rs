//! The EFI system partition: FAT32 with systemd-boot and the unified kernel image, the same bytes every time.
//!
//! Sources: the UAPI group's Boot Loader Specification, loader.conf(5), systemd-boot(7) on boot counting (`+3-0`).

mod change;
mod read;

use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use super::identity;
use crate::tree::Sha256Digest;
pub use change::{LIMIT, Provision, origin, provision, provisioned};

/// No menu, no editor: whoever is at the console cannot change the command line.
const LOADER_CONF: &str = "timeout 0\neditor no\n";
/// FAT32 begins at 65,525 clusters; a few more keep every reader in agreement.
const MIN_CLUSTERS: u64 = 66_000;
/// Bytes of a folder's entry, its attribute for a folder, and the first byte of a deleted one.
const ENTRY: usize = 32;
const FOLDER: u8 = 0x10;
const DELETED: u8 = 0xe5;
const VOLUME_LABEL: [u8; 11] = *b"ESP        ";

/// What goes on the partition.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// systemd-boot: `usr/lib/systemd/boot/efi/systemd-bootx64.efi` of the package systemd-boot-efi.
    pub boot_loader: &'a [u8],
    /// File name in `EFI/Linux`, see [`entry`].
    pub entry: &'a str,
    /// The unified kernel image.
    pub kernel_image: &'a [u8],
    /// What the image was made from, see [`origin`].
    pub origin: &'a str,
    /// What the volume number follows from.
    pub seed: Sha256Digest,
}

/// Why there is no partition, or why one cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too small for FAT32, or for its content.
    #[error("an EFI system partition of {size} bytes is too small for {wanted} bytes of content")]
    Size {
        /// Size of the partition.
        size: u64,
        /// Bytes that must fit, for FAT32 itself at least 33 MiB.
        wanted: u64,
    },
    /// Writing failed.
    #[error("cannot make the EFI system partition")]
    Write(#[source] io::Error),
    /// Reading failed.
    #[error("cannot read the EFI system partition")]
    Read(#[source] io::Error),
}

/// File name of a boot entry of which three attempts to boot are left.
pub fn entry(name: &str, version: &str) -> String {
    format!("{name}_{version}+3-0.efi")
}

/// Writes the file system to `volume`, which must read as `size` zero bytes.
pub fn build(mut volume: impl Read + Write + Seek, size: u64, parts: &Parts<'_>) -> Result<(), Error> {
    let content = 2 * parts.boot_loader.len() as u64 + parts.kernel_image.len() as u64;
    // Both copies of the FAT, folders and slack stay below a sixteenth at every cluster size used here.
    let wanted = (content + content / 16 + (1 << 20)).max(MIN_CLUSTERS * 512);
    if size < wanted {
        return Err(Error::Size { size, wanted });
    }
    fill(&mut volume, size, parts).map_err(Error::Write)
}

fn fill(volume: &mut (impl Read + Write + Seek), size: u64, parts: &Parts<'_>) -> io::Result<()> {
    let mut cluster: u32 = 512;
    while cluster < 32_768 && size / (2 * u64::from(cluster)) >= MIN_CLUSTERS {
        cluster *= 2;
    }
    let seed = identity::derive(parts.seed, "esp");
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(cluster)
        .volume_id(u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]))
        .volume_label(VOLUME_LABEL);
    volume.rewind()?;
    fatfs::format_volume(&mut *volume, options)?;
    volume.rewind()?;
    let system = FileSystem::new(&mut *volume, FsOptions::new().time_provider(&EPOCH))?;
    {
        let root = system.root_dir();
        for folder in ["EFI", "EFI/BOOT", "EFI/systemd", "EFI/Linux", "EFI/sepulcher", "loader"] {
            root.create_dir(folder)?;
        }
        let entry = format!("EFI/Linux/{}", parts.entry);
        let files: [(&str, &[u8]); 6] = [
            ("EFI/BOOT/BOOTX64.EFI", parts.boot_loader),
            ("EFI/systemd/systemd-bootx64.efi", parts.boot_loader),
            ("loader/loader.conf", LOADER_CONF.as_bytes()),
            // Says that entries are of the Boot Loader Specification's type, as kernel-install writes it.
            ("loader/entries.srel", b"type1\n"),
            ("EFI/sepulcher/origin", parts.origin.as_bytes()),
            (&entry, parts.kernel_image),
        ];
        for (path, bytes) in files {
            let mut file = root.create_file(path)?;
            file.write_all(bytes)?;
            file.flush()?;
        }
    }
    system.unmount()?;
    mend(volume)
}

/// Puts `.` and `..` of every folder where the specification wants them: first, alone, and with cluster 0 for the
/// root. The fatfs crate gives them long names, which firmware reads over and `fsck.fat` reports.
///
/// Every folder here fits into one cluster, so no chain is followed. Source: Microsoft's "FAT32 File System
/// Specification", version 1.03.
fn mend(volume: &mut (impl Read + Write + Seek)) -> io::Result<()> {
    let mut boot = [0; 512];
    volume.rewind()?;
    volume.read_exact(&mut boot)?;
    let number = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let fat = u64::from(u32::from_le_bytes([boot[36], boot[37], boot[38], boot[39]]));
    let (sector, cluster) = (number(11), number(11) * u64::from(boot[13]));
    let data = (number(14) + u64::from(boot[16]) * fat) * sector;
    let mut open = vec![(2, 2)];
    while let Some((folder, parent)) = open.pop() {
        let at = SeekFrom::Start(data + (folder - 2) * cluster);
        let mut entries = vec![0; usize::try_from(cluster).map_err(io::Error::other)?];
        volume.seek(at)?;
        volume.read_exact(&mut entries)?;
        if folder != 2 {
            let up = if parent == 2 { 0 } else { parent };
            let [own, above] = [dots(&entries, b".          ", folder), dots(&entries, b"..         ", up)];
            // Two long names and two short ones become two short ones and two deleted entries.
            entries[..ENTRY].copy_from_slice(&own);
            entries[ENTRY..2 * ENTRY].copy_from_slice(&above);
            entries[2 * ENTRY..4 * ENTRY].fill(0);
            entries[2 * ENTRY] = DELETED;
            entries[3 * ENTRY] = DELETED;
            volume.seek(at)?;
            volume.write_all(&entries)?;
        }
        let folders = entries.chunks(ENTRY).filter(|entry| entry[11] == FOLDER && entry[0] != b'.');
        open.extend(folders.map(|entry| (first_cluster(entry), folder)));
    }
    volume.flush()
}

/// The entry of that short name, with its first cluster.
fn dots(entries: &[u8], name: &[u8; 11], cluster: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    if let Some(found) = entries.chunks(ENTRY).find(|entry| entry.starts_with(name)) {
        entry.copy_from_slice(found);
    }
    let cluster = cluster.to_le_bytes();
    entry[20..22].copy_from_slice(&cluster[2..4]);
    entry[26..28].copy_from_slice(&cluster[..2]);
    entry
}

fn first_cluster(entry: &[u8]) -> u64 {
    u64::from(u32::from_le_bytes([entry[26], entry[27], entry[20], entry[21]]))
}

/// The unified kernel images on a partition: file name and content, in the folder's order. A damaged partition is an
/// error, however it is damaged.
pub fn read(volume: impl Read + Seek) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let read = || {
        let mut volume = read::Volume::open(volume)?;
        let items = volume.folder(&["EFI", "Linux"])?;
        let files = items.into_iter().filter(|item| !item.is_folder);
        files.map(|item| Ok((item.name.clone(), volume.read(&item)?))).collect::<io::Result<_>>()
    };
    read().map_err(Error::Read)
}

/// FAT's first moment, whatever the clock says.
#[derive(Debug)]
struct Epoch;

static EPOCH: Epoch = Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SIZE: u64 = 40 << 20;

    fn parts(kernel_image: &[u8]) -> Parts<'_> {
        Parts {
            boot_loader: b"loader",
            entry: "lychd_1+3-0.efi",
            kernel_image,
            origin: "sepulcher 1 digest\n",
            seed: Sha256Digest::of(b"seed"),
        }
    }

    fn volume(kernel_image: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
        build(Cursor::new(&mut bytes), SIZE, &parts(kernel_image)).unwrap();
        bytes
    }

    #[test]
    fn kernel_images_come_back_as_they_were_given() {
        let image = vec![7; 100_000];
        let images = read(Cursor::new(volume(&image))).unwrap();
        assert_eq!(images, [("lychd_1+3-0.efi".to_owned(), image)]);
    }

    #[test]
    fn the_same_content_is_the_same_bytes_and_another_seed_another_volume() {
        assert!(volume(b"kernel") == volume(b"kernel"));
        let mut other = vec![0; usize::try_from(SIZE).unwrap()];
        let parts = Parts { seed: Sha256Digest::of(b"other"), ..parts(b"kernel") };
        build(Cursor::new(&mut other), SIZE, &parts).unwrap();
        assert!(other != volume(b"kernel"));
    }

    #[test]
    fn content_that_does_not_fit_is_refused_before_anything_is_written() {
        let mut bytes = vec![0; 40 << 20];
        let kernel = vec![0; 40 << 20];
        let error = build(Cursor::new(&mut bytes), SIZE, &parts(&kernel)).unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
        assert!(bytes.iter().all(|byte| *byte == 0));
        let error = build(Cursor::new(&mut bytes), 1 << 20, &parts(b"")).unwrap_err();
        assert!(matches!(error, Error::Size { .. }));
    }

    #[test]
    fn noise_is_not_a_partition() {
        assert!(read(Cursor::new(vec![0x5a; 1 << 20])).is_err());
        assert!(read(Cursor::new(vec![])).is_err());
    }

    /// A volume with other bytes in some places, without a copy.
    struct Patched<'a> {
        volume: Cursor<&'a [u8]>,
        patches: Vec<(u64, u8)>,
    }

    impl Read for Patched<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let start = self.volume.position();
            let count = self.volume.read(buffer)?;
            for (at, value) in &self.patches {
                if let Some(at) = at.checked_sub(start).and_then(|at| usize::try_from(at).ok())
                    && at < count
                {
                    buffer[at] = *value;
                }
            }
            Ok(count)
        }
    }

    impl Seek for Patched<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.volume.seek(to)
        }
    }

    #[test]
    fn a_damaged_partition_is_an_error_or_read_and_never_a_panic_or_a_hang() {
        let volume = volume(&[7; 5000]);
        let number = |at: usize| usize::from(u16::from_le_bytes([volume[at], volume[at + 1]]));
        let fat = number(14) * 512;
        let data = fat + 2 * number(36) * 512;
        // Every byte of the boot sector's numbers, of the FAT's beginning and of the first folders.
        let places = (0..90).chain(fat..fat + 80).chain(data..data + 3 * 512);
        for place in places {
            for value in [0, 1, 2, 0x10, 0x7f, 0x80, 0xff, volume[place] ^ 1] {
                let patches = vec![(place as u64, value)];
                match read(Patched { volume: Cursor::new(&volume), patches }) {
                    Ok(images) => assert!(images.iter().all(|(_, bytes)| bytes.len() < volume.len())),
                    Err(error) => assert!(matches!(error, Error::Read(_))),
                }
            }
        }
    }
}
