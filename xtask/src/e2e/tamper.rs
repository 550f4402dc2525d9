//! Claims about a damaged image: one changed byte, and the machine does not come up.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use sepulcher::image::disk::Role;
use sepulcher::image::window::{ReadAt as _, Window};

use super::Claim;
use super::site::Site;
use crate::Result;
use crate::image::{partition, toolbox};
use crate::vm::{Machine, Seen, Start, Uplink, disk_from};

/// How long a machine may take to refuse; the wait for a root that does not exist is part of it.
const REFUSAL: Duration = Duration::from_secs(180);

/// A place on the disk to change.
type Place = fn(&Path) -> Result<u64>;

/// Each damage, where it is done, and words of the reason that the console must show.
const DAMAGES: [(&str, Place, &[&str]); 5] = [
    ("a changed byte in a file of the root is refused", file_data, &["data block", "is corrupted"]),
    ("a changed byte in the root's superblock is refused", root_superblock, &["data block", "is corrupted"]),
    ("a changed byte in the hash tree is refused", hash_tree, &["metadata block", "is corrupted"]),
    (
        "a changed byte in the verity superblock is refused",
        verity_superblock,
        &["Failed to load verity superblock"],
    ),
    ("a wrong root hash is refused", root_hash, &["Timed out waiting for device"]),
];

/// Boots a copy of the image for each damage, two at a time: such a machine keeps one processor busy.
pub fn claims(site: &Site) -> Vec<Claim> {
    let check = |(name, place, reason): &(&'static str, Place, &[&str])| {
        Claim::check(name, || refused(site, *place, reason))
    };
    let mut claims = Vec::new();
    for pair in DAMAGES.chunks(2) {
        thread::scope(|scope| {
            let threads: Vec<_> = pair.iter().map(|damage| scope.spawn(move || check(damage))).collect();
            for (thread, (name, ..)) in threads.into_iter().zip(pair) {
                let broken = || Claim::check(name, || Err("the test broke off".into()));
                claims.push(thread.join().unwrap_or_else(|_| broken()));
            }
        });
    }
    claims
}

/// Changes one byte and boots: the reason must show, and health never.
fn refused(site: &Site, place: Place, reason: &[&str]) -> Result<String> {
    let at = place(&site.image)?;
    let scratch = tempfile::tempdir_in(site.folder.path())?;
    let disk = disk_from(&site.image, &scratch.path().join("damaged.raw"), 4 << 30)?;
    let file = File::options().read(true).write(true).open(&disk)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    // A hexadecimal digit of the root hash must stay one.
    let changed = if byte[0] == b'0' { b'1' } else { b'0' };
    file.write_all_at(&[changed], at)?;
    let uplink = Uplink::User(Vec::new());
    // One processor is enough to refuse, and cannot stall on a busy emulator.
    let machine = Machine {
        toolbox: &site.toolbox,
        start: Start::Disk(&disk),
        scratch: scratch.path(),
        uplink,
        processors: 1,
    };
    let mut running = machine.power_on()?;
    let up = |line: &str| line.contains("tether public key") || line.contains("sepulcher: health ok");
    let seen = running.wait(REFUSAL, |line| up(line) || reason.iter().all(|word| line.contains(word)));
    match seen {
        Seen::Line(_, line) if up(&line) => Err("the machine came up all the same".into()),
        // The machine gives the attempt up by itself; QEMU ends instead of restarting it.
        Seen::Line(at, line) => match running.wait(at + REFUSAL, up) {
            Seen::Line(..) => Err(format!("the machine came up after all, behind `{line}`").into()),
            Seen::Timeout => Err(format!("the machine hangs after `{line}`:\n{}", running.tail(30)).into()),
            Seen::Off => Ok(format!("{line} ({:.1} s), and gave up", at.as_secs_f32())),
        },
        Seen::Off | Seen::Timeout => Err(format!("no reason on the console:\n{}", running.tail(30)).into()),
    }
}

/// A block of a program that every boot runs.
fn file_data(image: &Path) -> Result<u64> {
    let root = partition(image, Role::Root)?;
    let dump = toolbox("tools-judge")?.command("dump.erofs")?;
    let shown = dump
        .arg(format!("--offset={}", root.offset))
        .args(["-e", "--path=/usr/lib/systemd/systemd"])
        .arg(image)
        .read()?;
    let text = String::from_utf8(shown)?;
    // Extents are listed as `index: logical start..end | length : physical start..end | length`.
    let physical = text
        .lines()
        .filter_map(|line| line.split_once(" : "))
        .find_map(|(_, physical)| physical.trim().split("..").next()?.trim().parse::<u64>().ok());
    let start = physical.ok_or_else(|| format!("no extent of systemd in:\n{text}"))?;
    Ok(root.offset + start + 100)
}

fn root_superblock(image: &Path) -> Result<u64> {
    // The superblock of erofs starts at byte 1024; this is in the middle of its UUID.
    Ok(partition(image, Role::Root)?.offset + 1024 + 52)
}

fn hash_tree(image: &Path) -> Result<u64> {
    // Block 0 is the superblock, block 1 the top of the tree.
    Ok(partition(image, Role::Verity)?.offset + 4096 + 7)
}

fn verity_superblock(image: &Path) -> Result<u64> {
    Ok(partition(image, Role::Verity)?.offset + 2)
}

/// The last digit of the root hash in the command line inside the kernel image.
fn root_hash(image: &Path) -> Result<u64> {
    const MARK: &[u8] = b"roothash=";
    let esp = partition(image, Role::Esp)?;
    let file = File::open(image)?;
    let mut bytes = vec![0; usize::try_from(esp.size)?];
    Window::new(&file, esp.offset, esp.size).fill(&mut bytes, 0)?;
    let at = bytes.windows(MARK.len()).position(|window| window == MARK).ok_or("no root hash on the ESP")?;
    Ok(esp.offset + (at + MARK.len() + 63) as u64)
}
