//! The root file system: a tar with owners and modes becomes an erofs, by `mkfs.erofs`.
//!
//! Two steps, because most of a root never changes: [`build`] makes the base from the packages (seconds, cached),
//! [`append`] lays what was rendered over a copy of it (a fraction of a second). An append merges folders, replaces
//! files, and yields the same bytes from the same base and tar. It cannot take anything away.

use std::path::Path;

use uuid::Uuid;

use crate::sys::cmd::{self, Command};
use crate::sys::{fs, stage};

/// How file content is compressed. Measured on a root of 304 MiB with 2 cores: lz4 1.1 s and 187 MiB, lz4hc 4.5 s and
/// 153 MiB, zstd level 3 as here 6.3 s and 137 MiB, level 6 19 s and 133 MiB; fragments and dedupe triple the time to
/// save 4 %. The kernel decompresses 64 KiB at a time.
const COMPRESSION: [&str; 2] = ["-zzstd,level=3", "-C65536"];

/// Bytes in a block: the kernel's page size, and verity's.
pub const BLOCK: u64 = 4096;

/// What tells one root file system from another; nothing else is taken from the machine that builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// UUID of the file system, e.g. derived from the tar's digest.
    pub uuid: Uuid,
    /// Time of every file, in seconds since 1970.
    pub time: u64,
}

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `mkfs.erofs` failed.
    #[error("cannot make the root file system {}", path.display())]
    Make {
        /// The image in the making.
        path: std::path::PathBuf,
        /// What it said.
        source: cmd::Error,
    },
    /// It failed where the disk was nearly full, of which it tells anything but that.
    #[error("cannot make the root file system {}: No space left on device, {} MiB were free", path.display(), free >> 20)]
    Full {
        /// The image in the making.
        path: std::path::PathBuf,
        /// Free bytes when it began.
        free: u64,
        /// What it said.
        source: cmd::Error,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] fs::Error),
}

/// Makes the file system `image` from the archive `tar`, whole or not at all. `mkfs` is the command of `mkfs.erofs`
/// without arguments; owners, modes, links and extended attributes are the archive's.
pub fn build(mkfs: &Command, tar: &Path, image: &Path, stamp: Stamp) -> Result<(), Error> {
    whole(image, |temporary| make(mkfs.clone().arg("--clean=data"), tar, temporary, stamp))
}

/// Makes the file system `image`: that of `base` (which stays as it is) with the archive `tar` laid over it.
pub fn append(mkfs: &Command, base: &Path, tar: &Path, image: &Path, stamp: Stamp) -> Result<(), Error> {
    whole(image, |temporary| {
        stage::copy(base, temporary)?;
        make(mkfs.clone().arg("--incremental=data"), tar, temporary, stamp)
    })
}

fn whole(image: &Path, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let temporary = fs::temporary(image);
    let done = make(&temporary).and_then(|()| Ok(fs::rename(&temporary, image)?));
    if done.is_err() {
        fs::remove_file(&temporary)?;
    }
    done
}

fn make(mkfs: Command, tar: &Path, image: &Path, stamp: Stamp) -> Result<(), Error> {
    let folder = fs::folder_of(image);
    let free = fs::free_space(folder)?;
    // It copies what it reads into temporary files, and compresses it into the image.
    let wanted = fs::size(tar).unwrap_or(0).saturating_mul(2);
    mkfs.args(["--quiet", "--tar=f", "--all-time", "-b4096"])
        .args(COMPRESSION)
        .args([format!("-T{}", stamp.time), format!("-U{}", stamp.uuid)])
        .arg(image)
        .arg(tar)
        .env("TMPDIR", folder)
        .read()
        .map(|_| ())
        .map_err(|source| {
            let path = image.to_owned();
            if free < wanted { Error::Full { path, free, source } } else { Error::Make { path, source } }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_build_leaves_the_old_image_and_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("root.erofs");
        fs::write_atomic(&image, 0o644, b"old").unwrap();
        let mkfs =
            Command::new("sh").args(["-c", "for last; do out=$prev; prev=$last; done; : >\"$out\"; exit 1"]);
        let stamp = Stamp { uuid: Uuid::nil(), time: 0 };
        let error = build(&mkfs, Path::new("in.tar"), &image, stamp).unwrap_err();
        assert!(error.to_string().starts_with("cannot make the root file system"), "{error}");
        assert_eq!(fs::read(&image).unwrap(), b"old");
        assert_eq!(fs::list(folder.path()).unwrap(), [image]);
    }

    #[test]
    fn an_append_without_its_base_names_the_base() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = Stamp { uuid: Uuid::nil(), time: 0 };
        let base = folder.path().join("base.erofs");
        let image = folder.path().join("root.erofs");
        let error = append(&Command::new("true"), &base, Path::new("in.tar"), &image, stamp).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot copy {}", base.display()));
    }
}
