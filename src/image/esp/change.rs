//! The one change that an ESP sees outside of the machine: the credential that a first boot takes over.
//!
//! It is made in memory first and reaches the disk in an order that a power loss cannot hurt: content and tables, sync,
//! then the folder's entry, which is one sector.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{FileSystem, FsOptions};

use super::read::Volume;
use super::{EPOCH, Error};

/// The folder that the builder makes for it, and the names in it.
const FOLDER: [&str; 2] = ["EFI", "sepulcher"];
const CREDENTIAL: &str = "provision.cred";
const ORIGIN: &str = "origin";
const SECTOR: u64 = 512;
const SECTOR_BYTES: usize = 512;
/// The longest file that is read here, in bytes: the longest export over the tether is a credential of 7 MiB.
pub const LIMIT: u64 = 8 << 20;

/// What of an ESP concerns provisioning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// What the image was made from, see [`origin`].
    pub origin: String,
    /// Whether a credential waits for the first boot.
    pub is_provisioned: bool,
}

/// Looks at an ESP; `None` when it has no place for a credential.
pub fn provisioned(volume: impl Read + Seek) -> Result<Option<Provision>, Error> {
    look(volume).map_err(Error::Read)
}

fn look(volume: impl Read + Seek) -> io::Result<Option<Provision>> {
    let mut volume = Volume::open(volume)?;
    let items = match volume.folder(&FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        items => items?,
    };
    let named = |name: &str| items.iter().find(|item| item.name.eq_ignore_ascii_case(name));
    let origin = match named(ORIGIN) {
        Some(item) => volume.read_bounded(item, LIMIT)?,
        None => return Ok(None),
    };
    // Its clusters are followed by a library that trusts them when it is replaced.
    if let Some(item) = named(CREDENTIAL) {
        volume.read_bounded(item, LIMIT)?;
    }
    let origin = String::from_utf8_lossy(&origin).into_owned();
    Ok(Some(Provision { origin, is_provisioned: named(CREDENTIAL).is_some() }))
}

/// What an image says of its making: the program, and the digest of the Codex as that program counts it.
pub fn origin(program: &str, codex: &str) -> String {
    format!("{program} {codex}\n")
}

/// Puts the credential into an ESP that [`provisioned`] has looked at; one that is there is overwritten with zeroes
/// first. `sync` makes durable what was written.
pub fn provision(
    mut volume: impl Read + Write + Seek,
    credential: &[u8],
    mut sync: impl FnMut() -> io::Result<()>,
) -> Result<(), Error> {
    let mut write = || {
        let mut reader = Volume::open(&mut volume)?;
        let (folders, cluster) = (reader.places(&FOLDER)?, reader.cluster());
        let is_folder = |at: u64| folders.iter().any(|start| (*start..start + cluster).contains(&at));
        let mut shadow = Shadow { base: &mut volume, changed: BTreeMap::new(), position: 0 };
        replace(&mut shadow, credential)?;
        let changed = shadow.changed;
        for last in [false, true] {
            for (at, bytes) in changed.iter().filter(|(at, _)| is_folder(**at) == last) {
                volume.seek(SeekFrom::Start(*at))?;
                volume.write_all(bytes)?;
            }
            sync()?;
        }
        Ok(())
    };
    write().map_err(Error::Write)
}

fn replace(volume: &mut (impl Read + Write + Seek), credential: &[u8]) -> io::Result<()> {
    let system = FileSystem::new(volume, FsOptions::new().time_provider(&EPOCH))?;
    {
        let folder = system.root_dir().open_dir(&FOLDER.join("/"))?;
        let has_old = folder.iter().filter_map(Result::ok).any(|item| item.file_name() == CREDENTIAL);
        if has_old {
            let mut old = folder.open_file(CREDENTIAL)?;
            let size = old.seek(SeekFrom::End(0))?;
            old.rewind()?;
            io::copy(&mut io::repeat(0).take(size), &mut old)?;
            old.flush()?;
            drop(old);
            folder.remove(CREDENTIAL)?;
        }
        let mut file = folder.create_file(CREDENTIAL)?;
        file.write_all(credential)?;
        file.flush()?;
    }
    system.unmount()
}

/// A volume whose changes stay in memory, sector by sector.
struct Shadow<'a, V> {
    base: &'a mut V,
    changed: BTreeMap<u64, [u8; SECTOR_BYTES]>,
    position: u64,
}

impl<V: Read + Seek> Shadow<'_, V> {
    /// The sector of the position as it is now, where it starts, and where in it the position is.
    fn sector(&mut self) -> io::Result<(u64, usize, [u8; SECTOR_BYTES])> {
        let start = self.position / SECTOR * SECTOR;
        let within = usize::try_from(self.position - start).map_err(io::Error::other)?;
        if let Some(bytes) = self.changed.get(&start) {
            return Ok((start, within, *bytes));
        }
        let mut bytes = [0; SECTOR_BYTES];
        self.base.seek(SeekFrom::Start(start))?;
        self.base.read_exact(&mut bytes)?;
        Ok((start, within, bytes))
    }
}

impl<V: Read + Seek> Read for Shadow<'_, V> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (_, within, bytes) = self.sector()?;
        let count = buffer.len().min(SECTOR_BYTES - within);
        buffer[..count].copy_from_slice(&bytes[within..within + count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl<V: Read + Seek> Write for Shadow<'_, V> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let (start, within, mut bytes) = self.sector()?;
        let count = buffer.len().min(SECTOR_BYTES - within);
        bytes[within..within + count].copy_from_slice(&buffer[..count]);
        self.changed.insert(start, bytes);
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<V: Seek> Seek for Shadow<'_, V> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
            SeekFrom::End(delta) => self.base.seek(SeekFrom::End(0))?.checked_add_signed(delta),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::{Parts, build, read};
    use super::*;
    use crate::tree::Sha256Digest;

    const SIZE: usize = 40 << 20;

    fn volume() -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        let parts = Parts {
            boot_loader: b"loader",
            entry: "lychd_1+3-0.efi",
            kernel_image: &[7; 5000],
            origin: "sepulcher 1 digest\n",
            seed: Sha256Digest::of(b"seed"),
        };
        build(Cursor::new(&mut bytes), SIZE as u64, &parts).unwrap();
        bytes
    }

    fn held(volume: &[u8]) -> Option<Vec<u8>> {
        let mut volume = Volume::open(Cursor::new(volume)).unwrap();
        let items = volume.folder(&FOLDER).unwrap();
        let item = items.iter().find(|item| item.name == CREDENTIAL)?;
        Some(volume.read(item).unwrap())
    }

    #[test]
    fn a_credential_is_put_beside_what_is_there() {
        let mut bytes = volume();
        let before = provisioned(Cursor::new(&bytes)).unwrap().unwrap();
        assert_eq!(before, Provision { origin: "sepulcher 1 digest\n".to_owned(), is_provisioned: false });
        provision(Cursor::new(&mut bytes), b"secret", || Ok(())).unwrap();
        assert!(provisioned(Cursor::new(&bytes)).unwrap().unwrap().is_provisioned);
        assert_eq!(held(&bytes).unwrap(), b"secret");
        assert_eq!(read(Cursor::new(&bytes)).unwrap(), [("lychd_1+3-0.efi".to_owned(), vec![7; 5000])]);
    }

    #[test]
    fn another_credential_leaves_no_byte_of_the_first() {
        let mut bytes = volume();
        provision(Cursor::new(&mut bytes), &b"first secret ".repeat(500), || Ok(())).unwrap();
        provision(Cursor::new(&mut bytes), b"second", || Ok(())).unwrap();
        assert_eq!(held(&bytes).unwrap(), b"second");
        assert!(!bytes.windows(12).any(|window| window == b"first secret"));
    }

    #[test]
    fn a_power_loss_leaves_no_credential_or_all_of_it() {
        let whole = volume();
        let credential = b"secret ".repeat(300);
        let mut after = whole.clone();
        provision(Cursor::new(&mut after), &credential, || Ok(())).unwrap();
        for limit in 0.. {
            let mut bytes = whole.clone();
            let mut failing = Failing { volume: Cursor::new(&mut bytes), left: limit };
            let done = provision(&mut failing, &credential, || Ok(()));
            assert!(held(&bytes).is_none() || bytes == after, "after {limit} writes");
            assert_eq!(read(Cursor::new(&bytes)).unwrap().len(), 1);
            if done.is_ok() {
                assert!(limit > 5 && bytes == after);
                return;
            }
        }
    }

    /// A volume that takes so many writes and no more.
    struct Failing<'a> {
        volume: Cursor<&'a mut Vec<u8>>,
        left: usize,
    }

    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.volume.read(buffer)
        }
    }

    impl Seek for Failing<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.volume.seek(to)
        }
    }

    impl Write for Failing<'_> {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            self.volume.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_damaged_partition_is_an_error_and_stays_as_it_is() {
        let volume = volume();
        let number = |at: usize| usize::from(u16::from_le_bytes([volume[at], volume[at + 1]]));
        let table = number(14) * 512;
        // A chain that leads outside, a circle, and no table at all.
        for patch in [[0xff, 0xff, 0x0f, 0x05], [2, 0, 0, 0], [0; 4]] {
            let mut bytes = volume.clone();
            for cluster in 2..40 {
                bytes[table + cluster * 4..table + cluster * 4 + 4].copy_from_slice(&patch);
            }
            let before = bytes.clone();
            assert!(provisioned(Cursor::new(&bytes)).is_err());
            assert!(provision(Cursor::new(&mut bytes), b"secret", || Ok(())).is_err());
            assert!(bytes == before);
        }
    }
}
