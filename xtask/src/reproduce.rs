//! `cargo xtask reproduce`: the same image from different circumstances, compared byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sepulcher::image::disk::Role;
use sepulcher::tree::Sha256Digest;

use crate::{Result, image, root};

/// What may differ between two people who build the same image.
struct Circumstances {
    name: &'static str,
    umask: &'static str,
    time_zone: &'static str,
    locale: &'static str,
    /// An unprivileged user, when this program runs as root.
    user: Option<u32>,
    /// Whether results of an earlier build may be reused, or only the downloaded packages are there.
    warm: bool,
}

const BUILDS: [Circumstances; 3] = [
    Circumstances { name: "first", umask: "022", time_zone: "UTC", locale: "C", user: None, warm: false },
    Circumstances {
        name: "second-elsewhere",
        umask: "077",
        time_zone: "Asia/Kathmandu",
        locale: "tr_TR.UTF-8",
        user: Some(65_534),
        warm: false,
    },
    Circumstances {
        name: "third",
        umask: "002",
        time_zone: "America/St_Johns",
        locale: "C.UTF-8",
        user: None,
        warm: true,
    },
];

/// Builds three times and compares.
pub fn run() -> Result<()> {
    let program = image::program()?;
    if !is_root() {
        println!("skipped: a build as another user: only root can start one");
    }
    let folder = tempfile::Builder::new().prefix("sepulcher-reproduce-").tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let cache = image::cache()?;
    // Fetches what is not there yet and renews locks that the mirror has outlived.
    image::build(&root().join("examples/lychd"), &folder.path().join("fetched.raw"))?;
    let mut images = Vec::new();
    for circumstances in &BUILDS {
        eprintln!("reproduce: {} build", circumstances.name);
        images.push(build(&program, &cache, folder.path(), circumstances)?);
    }
    let (first, others) = images.split_first().ok_or("nothing was built")?;
    for other in others {
        for suffix in ["raw", "manifest.json"] {
            same(&first.with_extension(suffix), &other.with_extension(suffix))?;
        }
    }
    let digest = sepulcher::image::disk::digest(&File::open(first)?)?;
    println!("{} builds, the same bytes: sha256 {digest}", images.len());
    Ok(())
}

/// One build in a folder of its own, below `parent`, which all users may enter.
fn build(program: &Path, cache: &Path, parent: &Path, circumstances: &Circumstances) -> Result<PathBuf> {
    let Circumstances { name, umask, time_zone, locale, user, warm } = circumstances;
    let folder = parent.join(name);
    fs::create_dir(&folder)?;
    let own_cache = if *warm { cache.to_owned() } else { downloads_only(cache, &folder.join("cache"))? };
    // A place and a copy of its own: neither the program's path nor the Codex's may matter.
    let (own_program, codex) = (folder.join("program"), folder.join("codex"));
    fs::copy(program, &own_program)?;
    fs::set_permissions(&own_program, Permissions::from_mode(0o755))?;
    crate::copy_folder(&root().join("examples/lychd"), &codex)?;
    let user = user.filter(|_| is_root());
    if let Some(user) = user {
        hand_over(&folder, user)?;
    }
    let out = folder.join("image.raw");
    let mut command = Command::new("sh");
    // Only a shell can set the umask of what it starts without unsafe code.
    command.args(["-c", r#"umask "$1"; shift; exec "$@""#, "sh", umask]);
    command.arg(&own_program).args(["image", "build"]).arg(&codex).arg("--out").arg(&out).arg("--offline");
    command
        .env("TZ", time_zone)
        .env("LC_ALL", locale)
        .env("SEPULCHER_CACHE", &own_cache)
        .env("HOME", &folder);
    command.current_dir(&folder);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let status = command.status()?;
    if status.success() { Ok(out) } else { Err(format!("the {name} build ended with {status}").into()) }
}

/// A cache with the downloaded packages of `cache` and nothing that was made of them.
pub fn downloads_only(cache: &Path, own: &Path) -> Result<PathBuf> {
    for kept in ["debs", "locks"] {
        if cache.join(kept).exists() {
            crate::copy_folder(&cache.join(kept), &own.join(kept))?;
        }
    }
    Ok(own.to_owned())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // The owner of our own process's folder is who we are.
    fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

fn hand_over(path: &Path, user: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(user), Some(user))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// An error that names the first difference: offset, and partition for a disk.
pub fn same(one: &Path, other: &Path) -> Result<()> {
    let (mut left, mut right) = (File::open(one)?, File::open(other)?);
    let (mut left_block, mut right_block) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0u64;
    loop {
        let (read, also) = (fill(&mut left, &mut left_block)?, fill(&mut right, &mut right_block)?);
        let differs = left_block[..read].iter().zip(&right_block[..also]).position(|(a, b)| a != b);
        if let Some(at) = differs.or((read != also).then_some(read.min(also))) {
            let at = offset + at as u64;
            let place = image::place(one, at) + &changed_files(one, other)?;
            return Err(
                format!("{} and {} differ at byte {at}: {place}", one.display(), other.display()).into()
            );
        }
        if read == 0 {
            return Ok(());
        }
        offset += read as u64;
    }
}

/// Paths of files that differ between the roots of two disk images, for people; empty when the roots are the same.
fn changed_files(one: &Path, other: &Path) -> Result<String> {
    if one.extension().is_none_or(|extension| extension != "raw") {
        return Ok(String::new());
    }
    let folder = tempfile::tempdir()?;
    let mut digests = Vec::new();
    for (name, image) in [("one", one), ("other", other)] {
        let root = folder.path().join(name);
        let offset = image::partition(image, Role::Root)?.offset;
        image::toolbox("tools-build")?
            .command("fsck.erofs")?
            .args([format!("--extract={}", root.display()), format!("--offset={offset}")])
            .arg(image)
            .read()?;
        let mut files = BTreeMap::new();
        describe(&root, &root, &mut files)?;
        digests.push(files);
    }
    let (other, one) = (digests.pop().unwrap_or_default(), digests.pop().unwrap_or_default());
    let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let changed = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    Ok(changed.fold(String::new(), |text, name| text + "\n  /" + &name.to_string_lossy()))
}

/// Relative path → mode and digest (or target) of everything below `folder`.
fn describe(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let content = if metadata.is_dir() {
            describe(root, &path, files)?;
            String::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path)?.display().to_string()
        } else {
            Sha256Digest::of(&fs::read(&path)?).to_string()
        };
        let mode = metadata.permissions().mode();
        files.insert(path.strip_prefix(root)?.to_owned(), format!("{mode:o} {content}"));
    }
    Ok(())
}

fn fill(file: &mut File, block: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_offset() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one.json", "other.json"].map(|name| folder.path().join(name));
        fs::write(&one, [0; 3000]).unwrap();
        fs::write(&other, [0; 3000]).unwrap();
        same(&one, &other).unwrap();
        let mut bytes = [0; 3000];
        bytes[2999] = 1;
        fs::write(&other, bytes).unwrap();
        assert!(same(&one, &other).unwrap_err().to_string().contains("differ at byte 2999"));
        fs::write(&other, [0; 2000]).unwrap();
        assert!(same(&one, &other).unwrap_err().to_string().contains("differ at byte 2000"));
    }
}
