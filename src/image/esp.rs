//! The EFI system partition: FAT32 with systemd-boot and the unified kernel image, the same bytes every time.
//!
//! Sources: the UAPI group's Boot Loader Specification, loader.conf(5), systemd-boot(7) on boot counting (`+3-0`).

use std::io::{self, Read, Seek, Write};

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use super::identity;
use crate::tree::Sha256Digest;

/// No menu, no editor: whoever is at the console cannot change the command line.
const LOADER_CONF: &str = "timeout 0\neditor no\n";
/// FAT32 begins at 65,525 clusters; a few more keep every reader in agreement.
const MIN_CLUSTERS: u64 = 66_000;
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
    let system = FileSystem::new(volume, FsOptions::new().time_provider(&EPOCH))?;
    {
        let root = system.root_dir();
        for folder in ["EFI", "EFI/BOOT", "EFI/systemd", "EFI/Linux", "loader"] {
            root.create_dir(folder)?;
        }
        let entry = format!("EFI/Linux/{}", parts.entry);
        let files: [(&str, &[u8]); 5] = [
            ("EFI/BOOT/BOOTX64.EFI", parts.boot_loader),
            ("EFI/systemd/systemd-bootx64.efi", parts.boot_loader),
            ("loader/loader.conf", LOADER_CONF.as_bytes()),
            // Says that entries are of the Boot Loader Specification's type, as kernel-install writes it.
            ("loader/entries.srel", b"type1\n"),
            (&entry, parts.kernel_image),
        ];
        for (path, bytes) in files {
            let mut file = root.create_file(path)?;
            file.write_all(bytes)?;
            file.flush()?;
        }
    }
    system.unmount()
}

/// The unified kernel images on a partition: file name and content, in the folder's order.
pub fn read(volume: impl Read + Write + Seek) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let read = || {
        let system = FileSystem::new(volume, FsOptions::new().time_provider(&EPOCH))?;
        let folder = system.root_dir().open_dir("EFI/Linux")?;
        let mut images = Vec::new();
        for item in folder.iter() {
            let item = item?;
            if item.is_file() {
                let mut bytes = Vec::new();
                // A damaged length cannot ask for more than a PE file can be.
                item.to_file().take(1 << 32).read_to_end(&mut bytes)?;
                images.push((item.file_name(), bytes));
            }
        }
        Ok(images)
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
    }
}
