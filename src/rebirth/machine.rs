//! The machine's two slots and its boot entries, as they are on the disk.
//!
//! Partitions are told apart by lsblk(8), written by systemd-sysupdate(8), and read back here before they count.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use uuid::Uuid;

use super::entry::Entry;
use super::record::Part;
use super::version::Version;
use super::{Error, fetch};
use crate::codex::Appliance;
use crate::image::disk::{self, Role};
use crate::image::identity;
use crate::image::window::Window;
use crate::peer::Refused;
use crate::peer::store::is_temporary;
use crate::sys::services::Services;
use crate::sys::{cmd, fs};
use crate::tree::Sha256Digest;

/// What the boot loader says at a boot whose entry has a counter.
const COUNTED: &str = "sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The device that the root file system is mounted from, once its hash tree is checked.
const ROOT: &str = "/dev/mapper/root";

/// Where everything is; the root of the machine's files is `/` but in tests.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

/// The body that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The appliance's name.
    pub name: String,
    /// Version of the image.
    pub version: Version,
    /// Verity root hash.
    pub root_hash: Sha256Digest,
}

/// A root partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its device.
    pub device: String,
    /// The version of the body that it holds; `None` for an empty one.
    pub version: Option<Version>,
    /// Whether it is the one that runs.
    pub running: bool,
    /// Its length in bytes.
    pub size: u64,
    /// Verity root hash of its body, as the names of its two partitions tell it.
    pub root_hash: Option<Sha256Digest>,
}

#[derive(Debug, Deserialize)]
struct Listing {
    blockdevices: Vec<Device>,
}

/// A row of `lsblk --list`.
#[derive(Debug, Deserialize)]
struct Device {
    path: String,
    partlabel: Option<String>,
    parttype: Option<String>,
    partuuid: Option<String>,
    size: u64,
    /// The kernel's name, and that of what it is made of.
    kname: String,
    pkname: Option<String>,
}

impl Device {
    fn is(&self, role: Role) -> bool {
        self.parttype.as_deref().and_then(|text| text.parse().ok()) == Some(role.type_uuid())
    }

    fn uuid(&self) -> Option<Uuid> {
        self.partuuid.as_deref()?.parse().ok()
    }
}

impl Machine {
    /// The machine whose files are below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The root of its files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where it remembers its bodies.
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/sepulcher/rebirth")
    }

    /// Where the boot entries are.
    pub fn entries_folder(&self) -> PathBuf {
        self.root.join("efi/EFI/Linux")
    }

    /// A program of the machine's own.
    fn program(&self, path: &str) -> cmd::Command {
        cmd::Command::new(self.root.join(path))
    }

    /// The body that runs, from os-release(5) and the kernel's command line.
    pub fn running(&self) -> Result<Running, Error> {
        let text = |path: &str| -> Result<String, Error> {
            Ok(String::from_utf8_lossy(&fs::read_bounded(&self.root.join(path), 1 << 16)?).into_owned())
        };
        let (release, cmdline) = (text("usr/lib/os-release")?, text("proc/cmdline")?);
        let value = |key: &str| release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let root_hash = cmdline.split_whitespace().find_map(|word| word.strip_prefix("roothash="));
        let known = || {
            let version = value("IMAGE_VERSION")?.parse().ok()?;
            Some(Running {
                name: value("IMAGE_ID")?.to_owned(),
                version,
                root_hash: root_hash?.parse().ok()?,
            })
        };
        known().ok_or_else(|| {
            let hint = "run this on the appliance, or ask it over the tether: `sepulcher --host NAME rebirth status`";
            Refused::new("this machine does not run a sealed image", hint).into()
        })
    }

    /// Whether this is a machine of a sealed image at all.
    pub fn is_sealed(&self) -> bool {
        self.running().is_ok()
    }

    /// The kernel's name for this boot.
    pub fn boot(&self) -> Result<String, Error> {
        let bytes = fs::read_bounded(&self.root.join("proc/sys/kernel/random/boot_id"), 128)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn devices(&self) -> Result<Vec<Device>, Error> {
        let asked = self.program("usr/bin/lsblk").args([
            "--json",
            "--bytes",
            "--list",
            "--output",
            "PATH,PARTLABEL,PARTTYPE,PARTUUID,SIZE,KNAME,PKNAME",
        ]);
        let listing: Listing = serde_json::from_slice(&asked.read()?).map_err(Error::Listing)?;
        Ok(of_one_disk(listing.blockdevices))
    }

    /// The root partitions.
    pub fn slots(&self, running: &Running) -> Result<Vec<Slot>, Error> {
        let (own, _) = identity::partitions(running.root_hash);
        let devices = self.devices()?;
        let slot = |device: &Device| {
            let label = device.partlabel.as_deref().unwrap_or_default();
            let version = label.strip_prefix(&running.name).and_then(|rest| rest.strip_prefix('_'));
            let verity = format!("{label}_verity");
            let tree = devices
                .iter()
                .find(|other| other.is(Role::Verity) && other.partlabel.as_deref() == Some(verity.as_str()));
            let halves = || Some(identity::root_hash(device.uuid()?, tree?.uuid()?));
            Slot {
                version: version.and_then(|text| text.parse().ok()),
                running: device.uuid() == Some(own),
                size: device.size,
                root_hash: version.and_then(|_| halves()),
                device: device.path.clone(),
            }
        };
        Ok(devices.iter().filter(|device| device.is(Role::Root)).map(slot).collect())
    }

    /// The appliance's boot entries. An empty file is what a power loss left of one, and the boot loader skips it.
    pub fn entries(&self, name: &str) -> Result<Vec<Entry>, Error> {
        let mut files = fs::list(&self.entries_folder())?;
        files.retain(|path| fs::size(path).map_or(true, |size| size > 0));
        let parsed = |path: &PathBuf| Entry::parse(&path.file_name()?.to_string_lossy(), name);
        Ok(files.iter().filter_map(parsed).collect())
    }

    /// Gives an entry another name.
    pub fn rename(&self, from: &Entry, to: &Entry) -> Result<(), Error> {
        let folder = self.entries_folder();
        if from != to {
            fs::rename_on_fat(&folder.join(from.to_string()), &folder.join(to.to_string()))?;
        }
        Ok(())
    }

    /// Removes an entry.
    pub fn remove(&self, entry: &Entry) -> Result<(), Error> {
        let path = self.entries_folder().join(entry.to_string());
        fs::remove_file(&path)?;
        Ok(fs::sync_parent(&path)?)
    }

    /// Adds an entry with this kernel image, which is read back before the boot loader sees it.
    pub fn add(&self, entry: &Entry, kernel: &[u8]) -> Result<(), Error> {
        let path = self.entries_folder().join(entry.to_string());
        let written = fs::write_temporary(&path, 0o600, kernel)?;
        // What was written may still be in memory: the disk is asked.
        fs::forget(&fs::open(&written)?, &written)?;
        if fs::read_bounded(&written, kernel.len() as u64 + 1)? == kernel {
            return Ok(fs::rename_on_fat(&written, &path)?);
        }
        fs::remove_file(&written)?;
        Err(Refused::new("the boot partition gave back other bytes", "the disk is failing: replace it")
            .into())
    }

    /// Removes what a power loss left of our entries: kernel images that were not whole yet, and empty ones.
    pub fn tidy(&self, name: &str) -> Result<(), Error> {
        for path in fs::list(&self.entries_folder())? {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_half = unfinished(&file).is_some_and(|file| Entry::parse(file, name).is_some());
            let is_empty =
                || Entry::parse(&file, name).is_some() && fs::size(&path).is_ok_and(|size| size == 0);
            if (is_half || is_empty()) && path.is_file() {
                fs::remove_file(&path)?;
                fs::sync_parent(&path)?;
            }
        }
        Ok(())
    }

    /// Length of an entry's kernel image in bytes.
    pub fn size(&self, entry: &Entry) -> Result<u64, Error> {
        Ok(fs::size(&self.entries_folder().join(entry.to_string()))?)
    }

    /// Whether the boot loader counts the attempts of what it has started. It tells that at every boot.
    pub fn is_counted(&self) -> bool {
        fs::exists(&self.root.join(COUNTED)).unwrap_or_default()
    }

    /// Bytes that are free on the boot partition.
    pub fn free_for_entries(&self) -> Result<u64, Error> {
        Ok(fs::free_space(&self.entries_folder())?)
    }

    /// Has the parts in `incoming` written to the slot that does not run.
    pub fn write_slot(&self, version: &Version) -> Result<(), Error> {
        self.sysupdate(&["update", version.as_str()])
    }

    /// Has the slot that does not run labelled as an empty one.
    pub fn empty_slot(&self) -> Result<(), Error> {
        self.sysupdate(&["--instances-max=1", "vacuum"])
    }

    fn sysupdate(&self, words: &[&str]) -> Result<(), Error> {
        // Its progress is for whoever looks on.
        let command = self.program("usr/lib/systemd/systemd-sysupdate").args(words.iter().copied());
        let command = command.env("SYSTEMD_COLORS", "0").env("SYSTEMD_EMOJI", "0");
        let status = command.to_std().stdin(std::process::Stdio::null()).stdout(std::io::stderr()).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(Error::Sysupdate(status.to_string())),
            Err(error) => return Err(Error::Sysupdate(error.to_string())),
        }
        // Links and labels are udev's, and it may still be at it.
        self.program("usr/bin/udevadm").args(["settle", "--timeout=30"]).read()?;
        Ok(())
    }

    /// That a partition begins with exactly these bytes, read from the disk.
    pub fn holds(&self, role: Role, uuid: Uuid, part: &Part) -> Result<(), Error> {
        let devices = self.devices()?;
        let device = devices
            .iter()
            .find(|device| device.is(role) && device.uuid() == Some(uuid))
            .ok_or_else(|| {
                let message = format!("there is no {} partition {uuid}", role.name());
                Refused::new(message, "stage the body anew")
            })?;
        let path = self.root.join(device.path.trim_start_matches('/'));
        let file = fs::open(&path)?;
        let read = || -> io::Result<Sha256Digest> {
            file.sync_all()?;
            fs::forget(&file, &path).map_err(io::Error::other)?;
            disk::digest(&Window::new(&file, 0, part.size))
        };
        if device.size >= part.size && fs::context(read(), "read", &path)? == part.sha256 {
            return Ok(());
        }
        let message = format!("{} does not hold the {} that was staged", device.path, role.name());
        Err(Refused::new(message, "stage the body anew; when it happens again, the disk is failing").into())
    }

    /// The network namespace that has `wg0`: the agent's, which is the pod's.
    pub fn tether(&self, appliance: &Appliance) -> Result<PathBuf, Error> {
        let podman = self.root.join("usr/bin/podman").into();
        let processes = Services { podman, ..Services::default() }.processes()?;
        let Some(process) = processes.get(&appliance.container("vpn")) else {
            return Err(fetch::without_tether().into());
        };
        Ok(self.root.join(format!("proc/{process}/ns/net")))
    }

    /// Restarts the machine at once: what hangs would not end in order.
    pub fn reboot_at_once(&self) -> Result<(), Error> {
        self.program("usr/bin/systemctl").args(["--force", "reboot"]).read()?;
        Ok(())
    }

    /// Restarts the machine, when what runs has ended in order.
    pub fn reboot(&self) -> Result<(), Error> {
        self.program("usr/bin/systemctl").args(["--no-block", "reboot"]).read()?;
        Ok(())
    }
}

/// What is on the disk of the root file system: a stick that the image was written from has the same partitions.
fn of_one_disk(mut devices: Vec<Device>) -> Vec<Device> {
    let under = |name: &str| devices.iter().find(|device| device.kname == name)?.pkname.clone();
    let partition = devices.iter().find(|device| device.path == ROOT).and_then(|root| root.pkname.clone());
    if let Some(disk) = partition.and_then(|partition| under(&partition)) {
        devices.retain(|device| device.pkname.as_ref() == Some(&disk));
    }
    devices
}

/// The file that one with a name of [`fs::temporary`] was to become.
fn unfinished(file: &str) -> Option<&str> {
    let (file, _) = Some(file)
        .filter(|file| is_temporary(file))?
        .strip_prefix('.')?
        .strip_suffix(".tmp")?
        .rsplit_once('.')?;
    Some(file)
}
