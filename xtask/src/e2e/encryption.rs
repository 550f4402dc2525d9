//! Claims about a state that is encrypted to the machine's TPM: the machine lives as any other, and its disk tells nothing
//! to who has it without that TPM.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::memmem;
use sepulcher::image::disk;
use sepulcher::image::window::{ReadAt as _, Window};

use super::around::{self, Bonded, KEY, WG0, Web, until};
use super::site::{HOST, Keys, Site};
use super::ways::{self, Nobody, contains, shakes};
use super::{BOOT, Claim, DISK};
use crate::netns::Netns;
use crate::tpm::Tpm;
use crate::vm::{Machine, Running, Start, disk_from};
use crate::{Result, image};

/// How long a tunnel may take to be back by itself.
const TUNNEL: Duration = Duration::from_secs(60);

/// How much of the state is compared before and after somebody else tried to open it: what its keys are in.
const HEADER: usize = 16 << 20;

/// How long a partition table is: its protective record, header and entries.
const TABLE: usize = 34 * 512;

/// Bytes that a disk is searched by.
const CHUNK: usize = 1 << 20;

/// The machine, and the phone that it was provisioned with.
struct Scene<'a> {
    nobody: Nobody<'a>,
    site: &'a Site,
    hub: Netns,
    disk: PathBuf,
    phone: Bonded,
    keys: Keys,
    /// What must not be on the disk in clear: the host's key, and one that a second device shares with the machine.
    secrets: Vec<Vec<u8>>,
}

/// Boots a provisioned disk twice with its TPM, once with another one and again with its own, and a fresh disk without any.
pub fn claims(site: &Site) -> Result<Vec<Claim>> {
    let (mut scene, mut claims) = Scene::new(site)?;
    let own = Tpm::start(&site.toolbox, &scene.nobody.folder.join("tpm"))?;
    let (running, key) = scene.power_on(&own)?;
    claims.extend(scene.first(running, &key));
    claims.push(Claim::check("none of its keys is on the disk in clear", || scene.tells_nothing()));
    claims.extend(scene.again(&own, &key)?);
    drop(own);
    claims.push(Claim::check(
        "with another TPM it does not come up and says why, and with its own it still does",
        || scene.elsewhere(&key),
    ));
    claims.push(Claim::check(
        "without a TPM a fresh disk does not come up, and gets no state in clear",
        || scene.without(),
    ));
    Ok(claims)
}

impl<'a> Scene<'a> {
    fn new(site: &'a Site) -> Result<(Self, Vec<Claim>)> {
        let nobody = Nobody::build(site, "encrypted", "\n[state]\nencryption = \"tpm2\"\n")?;
        let folder = &nobody.folder;
        let [provisioned, disk, conf] =
            ["provisioned.raw", "disk.raw", "phone.conf"].map(|name| folder.join(name));
        fs::copy(&nobody.image, &provisioned)?;
        nobody.provision(&provisioned, &conf)?;
        disk_from(&provisioned, &disk, DISK)?;
        let secret =
            ways::credential(&provisioned)?.ok_or("there is no credential on the provisioned disk")?;
        // The search that must find nothing later finds it here.
        let seen = Claim::check("a provisioned disk holds the host's key until its first boot", || {
            let at = find(&disk, &secret)?.ok_or("the search does not find it")?;
            Ok(image::place(&provisioned, at))
        });
        let keys = Keys::of("phone", &fs::read_to_string(&conf)?)?;
        let hub = around::hub(&site.toolbox)?;
        let phone = Bonded::new(&site.toolbox, &hub, &keys, "192.0.2.21/24")?;
        Ok((Self { nobody, site, hub, disk, phone, keys, secrets: vec![secret] }, vec![seen]))
    }

    fn machine<'b>(&'b self, disk: &'b Path) -> Machine<'b> {
        around::machine(&self.site.toolbox, &self.nobody.folder, &self.hub, Start::Disk(disk))
    }

    fn power_on(&self, tpm: &Tpm) -> Result<(Running, String)> {
        around::until_key(&|| self.machine(&self.disk).power_on_with(tpm.words()))
    }

    /// That a machine gives up with this reason, and never wakes.
    fn refuses(&self, disk: &Path, tpm: Option<&Tpm>, reason: &str) -> Result<String> {
        let words = tpm.iter().flat_map(|tpm| tpm.words());
        // One processor is enough to refuse, and cannot stall on a busy emulator.
        let mut running = Machine { processors: 1, ..self.machine(disk) }.power_on_with(words)?;
        let (_, said) = running.expect(BOOT, reason)?;
        running.expect(BOOT, "this boot cannot go on")?;
        running.off(Duration::from_secs(60))?;
        match running.log.iter().find(|(_, line)| line.contains(KEY)) {
            Some((_, line)) => Err(format!("it woke all the same: {line}").into()),
            None => Ok(said),
        }
    }

    /// What a machine is for, and something to remember.
    fn first(&mut self, mut running: Running, key: &str) -> Vec<Claim> {
        let mut claims = vec![Claim::check("a machine whose law encrypts the state boots healthy", || {
            let (at, _) = running.expect(BOOT, "sepulcher: health ok")?;
            Ok(format!("{:.0} s after power-on", at.as_secs_f32()))
        })];
        claims.push(Claim::check("the phone that it was provisioned with bonds another device", || {
            shakes(&self.phone, &self.keys, key)?;
            let conf = self.nobody.folder.join("laptop.conf");
            let words = ["bond", "laptop", "--grant", "oculus", "--endpoint", HOST, "--conf"];
            self.nobody.from(&self.phone).args(words).arg(&conf).read()?;
            let keys = Keys::of("laptop", &fs::read_to_string(&conf)?)?;
            let preshared = keys.preshared.clone().ok_or("the laptop shares no key with the machine")?;
            self.secrets.push(preshared.into_bytes());
            let laptop = Bonded::new(&self.site.toolbox, &self.hub, &keys, "192.0.2.22/24")?;
            shakes(&laptop, &keys, key)?;
            self.page(&laptop)
        }));
        if claims.iter().any(|claim| claim.result.is_err()) {
            eprintln!("{}", running.tail(120));
        }
        // As a power cut does it: nothing is told to the machine.
        drop(running);
        claims
    }

    fn page(&self, peer: &Bonded) -> Result<String> {
        let web = Web { toolbox: &self.site.toolbox };
        let mut seen = String::new();
        until(TUNNEL, "the page of a bonded peer", || {
            seen = web
                .get(&peer.netns, &format!("http://{WG0}:6006/"))
                .map_or_else(|error| error.to_string(), |answer| answer.body);
            Ok(seen.contains("stand-in oculus"))
        })?;
        Ok(seen.trim().to_owned())
    }

    fn tells_nothing(&self) -> Result<String> {
        if self.secrets.len() < 2 {
            return Err("there is no second device, and so no key of it to search for".into());
        }
        for secret in &self.secrets {
            if let Some(at) = find(&self.disk, secret)? {
                return Err(format!("one of them is: {}", image::place(&self.disk, at)).into());
            }
        }
        Ok(format!(
            "{} keys, looked for in {} MiB",
            self.secrets.len(),
            fs::metadata(&self.disk)?.len() >> 20
        ))
    }

    /// The same disk and the same TPM after a power cut.
    fn again(&self, tpm: &Tpm, key: &str) -> Result<Vec<Claim>> {
        let (mut running, again) = self.power_on(tpm)?;
        let claims = vec![Claim::check(
            "after a power cut it is back with the same key, and its phone by itself",
            || {
                running.expect(BOOT, "sepulcher: health ok")?;
                if again != key {
                    return Err(format!("{again}, it was {key}").into());
                }
                let mut list = String::new();
                until(TUNNEL, "the list over the tether", || {
                    let output = self.nobody.from(&self.phone).arg("list").output()?;
                    list = String::from_utf8_lossy(&output.stdout).into_owned();
                    Ok(output.status.success())
                })?;
                let held = list.lines().any(|line| line.starts_with("laptop ") && line.contains(" active "));
                if held { Ok(again.clone()) } else { Err(list.into()) }
            },
        )];
        if claims.iter().any(|claim| claim.result.is_err()) {
            eprintln!("{}", running.tail(120));
        }
        Ok(claims)
    }

    /// The same disk in another machine, and back in its own.
    fn elsewhere(&self, key: &str) -> Result<String> {
        let before = self.header()?;
        let other = Tpm::start(&self.site.toolbox, &self.nobody.folder.join("another-tpm"))?;
        let said =
            self.refuses(&self.disk, Some(&other), "the TPM of this machine does not open the state")?;
        drop(other);
        if self.header()? != before {
            return Err("the state was written to".into());
        }
        let own = Tpm::start(&self.site.toolbox, &self.nobody.folder.join("tpm"))?;
        let (mut running, again) = self.power_on(&own)?;
        running.expect(BOOT, "sepulcher: health ok")?;
        if again == key { Ok(said) } else { Err(format!("{again}, it was {key}").into()) }
    }

    /// The image on a new disk, in a machine that has no TPM.
    fn without(&self) -> Result<String> {
        let disk = self.nobody.folder.join("fresh.raw");
        disk_from(&self.nobody.image, &disk, DISK)?;
        let said =
            self.refuses(&disk, None, "the law encrypts the state to a TPM 2.0, and this machine has none")?;
        if table(&disk)? == table(&self.nobody.image)? {
            Ok(said)
        } else {
            Err("the disk was partitioned all the same".into())
        }
    }

    /// The beginning of the state's partition.
    fn header(&self) -> Result<Vec<u8>> {
        let placed = state(&self.disk)?.ok_or("the disk has no state")?;
        let mut bytes = vec![0; HEADER];
        Window::new(&File::open(&self.disk)?, placed.offset, placed.size).fill(&mut bytes, 0)?;
        if contains(&bytes[..16], b"LUKS") { Ok(bytes) } else { Err("the state is no LUKS volume".into()) }
    }
}

/// The beginning of a disk, its partition table.
fn table(disk: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; TABLE];
    File::open(disk)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Where the state is on a disk.
fn state(disk: &Path) -> Result<Option<disk::Placed>> {
    let placed = disk::read(&File::open(disk)?)?;
    Ok(placed.into_iter().find(|placed| placed.label == "lychd_state"))
}

/// The first byte of a disk at which `wanted` stands in clear.
pub fn find(disk: &Path, wanted: &[u8]) -> Result<Option<u64>> {
    let mut file = File::open(disk)?;
    let (mut kept, mut at) = (Vec::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            return Ok(None);
        }
        let start = at - kept.len() as u64;
        kept.extend_from_slice(&chunk[..length]);
        if let Some(found) = memmem::find(&kept, wanted) {
            return Ok(Some(start + found as u64));
        }
        // What may be its beginning.
        kept.drain(..(kept.len() + 1).saturating_sub(wanted.len()));
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_across_two_chunks_is_found_where_it_begins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for at in [0, 7, CHUNK - 3, CHUNK, 2 * CHUNK + 5] {
            let mut bytes = vec![0; 3 * CHUNK];
            bytes[at..at + 6].copy_from_slice(b"secret");
            fs::write(file.path(), bytes).unwrap();
            assert_eq!(find(file.path(), b"secret").unwrap(), Some(at as u64));
            assert_eq!(find(file.path(), b"secrets").unwrap(), None);
        }
    }
}
