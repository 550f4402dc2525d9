//! Claims about the ways in: a disk that was provisioned, the tether, and the console of a machine that nobody knows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sepulcher::codex::LAW;
use sepulcher::image::disk::Role;
use sepulcher::image::window::{ReadAt as _, Window};
use sepulcher::sys::cmd::Command;

use super::around::{self, Bonded, KEY, WG0, Web, until};
use super::encryption;
use super::noise::Noise;
use super::site::{HOST, Keys, Site};
use super::{BOOT, Claim, DISK};
use crate::netns::Netns;
use crate::vm::{Running, disk_from};
use crate::{Result, image};

/// How long an answer of the console may take on a busy emulator.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// What all boots of one have: an image of a Codex without peers, and the program that made it.
pub struct Nobody<'a> {
    site: &'a Site,
    program: PathBuf,
    /// Where everything of theirs is.
    pub folder: PathBuf,
    codex: PathBuf,
    /// The image.
    pub image: PathBuf,
}

/// What there was before the power was cut.
struct Before {
    /// The machine's public key.
    key: String,
    phone: Bonded,
    /// It is revoked.
    laptop: Option<Bonded>,
}

/// Boots a provisioned disk, then one that is not.
pub fn claims(site: &Site) -> Result<Vec<Claim>> {
    let nobody = Nobody::build(site, "nobody", "")?;
    let mut claims = nobody.provisioned()?;
    claims.extend(nobody.at_the_console()?);
    Ok(claims)
}

impl<'a> Nobody<'a> {
    /// The site's law, and `more` behind it.
    pub fn build(site: &'a Site, name: &str, more: &str) -> Result<Self> {
        let folder = site.folder.path().join(name);
        let codex = folder.join("codex");
        crate::copy_folder(&site.codex(), &codex)?;
        fs::remove_dir_all(codex.join("peers"))?;
        let law = codex.join(LAW);
        fs::write(&law, fs::read_to_string(&law)? + more)?;
        let image = folder.join("lychd.raw");
        image::build(&codex, &image)?;
        Ok(Self { site, program: image::program()?, folder, codex, image })
    }

    fn boot(&self, hub: &Netns, disk: &dyn Fn() -> Result<PathBuf>) -> Result<(Running, String)> {
        around::boot(&self.site.toolbox, &self.folder, hub, disk)
    }

    /// Our program as a peer runs it.
    pub fn from(&self, peer: &Bonded) -> Command {
        Command::new(&self.program).args(["--host", WG0, "peer"]).within(peer.netns.launcher())
    }

    /// A disk with the phone on it: the bond over the tether, and the credential's end.
    fn provisioned(&self) -> Result<Vec<Claim>> {
        let folder = &self.folder;
        let [provisioned, disk, conf] =
            ["provisioned.raw", "disk.raw", "phone.conf"].map(|name| folder.join(name));
        fs::copy(&self.image, &provisioned)?;
        let told = self.provision(&provisioned, &conf)?;
        let secret = credential(&provisioned)?.ok_or("there is no credential on the provisioned disk")?;
        let hub = around::hub(&self.site.toolbox)?;
        let keys = Keys::of("phone", &fs::read_to_string(&conf)?)?;
        let phone = Bonded::new(&self.site.toolbox, &hub, &keys, "192.0.2.21/24")?;
        let mut noise = Noise::start(&self.site.toolbox, &hub, folder)?;
        noise.phase("first boot, bonds over the tether");
        let (mut running, key) = self.boot(&hub, &|| disk_from(&provisioned, &disk, DISK))?;
        let mut claims =
            vec![Claim::check("a provisioned disk boots with the identity that was told", || {
                running.expect(BOOT, "sepulcher: health ok")?;
                if told.contains(&format!("{KEY}{key}")) {
                    Ok(key.clone())
                } else {
                    Err(format!("{key}: {told}").into())
                }
            })];
        claims.push(Claim::check("the provisioned phone shakes hands", || shakes(&phone, &keys, &key)));
        let (told, laptop) = self.over_the_tether(&hub, &phone, &key);
        claims.extend(told);
        claims.push(Claim::check("at the console a device that is online vouches for another", || {
            let said = bond(&mut running, "tablet", None)?;
            said.contains("phone is online").then_some(()).ok_or(said)?;
            Ok("phone vouched for tablet".to_owned())
        }));
        show_if_failed(&claims, &running);
        // As a power cut does it: nothing is told to the machine.
        drop(running);
        noise.phase("power cut, second boot");
        claims.push(Claim::check("the credential and its bytes are gone from the disk", || {
            let esp = esp(&disk)?;
            let left =
                [b"sepulcher provision ".as_slice(), &secret].into_iter().any(|bytes| contains(&esp, bytes));
            if left { Err("they are on the ESP still".into()) } else { Ok("not on the ESP".to_owned()) }
        }));
        claims.push(Claim::check(
            "the state is in clear, and holds the host's key, as its law has it",
            || {
                let at = encryption::find(&disk, &secret)?.ok_or("the host's key is nowhere on the disk")?;
                Ok(image::place(&disk, at))
            },
        ));
        claims.extend(self.again(&hub, &disk, &Before { key, phone, laptop })?);
        claims.push(Claim::check("nor are they over a power cut and the next boot", || noise.end()));
        Ok(claims)
    }

    /// The same disk after a power cut. The phone has not been told of it.
    fn again(&self, hub: &Netns, disk: &Path, before: &Before) -> Result<Vec<Claim>> {
        let Before { key, phone, laptop } = before;
        let (mut running, again) = self.boot(hub, &|| Ok(disk.to_owned()))?;
        let mut claims = vec![Claim::check("after a power cut the machine has the same host key", || {
            running.expect(BOOT, "sepulcher: health ok")?;
            if again == *key { Ok(again.clone()) } else { Err(format!("{again}, it was {key}").into()) }
        })];
        claims.push(Claim::check("the phone is back by itself, and every bond is held", || {
            let mut list = String::new();
            until(HANDSHAKE, "the list over the tether", || {
                let output = self.from(phone).arg("list").output()?;
                list = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok(output.status.success())
            })?;
            let row = |name: &str, state: &str| {
                list.lines().any(|line| line.starts_with(&format!("{name} ")) && line.contains(state))
            };
            if row("phone", " active ") && row("tablet", " active ") && row("laptop", " revoked ") {
                Ok("phone and tablet are active, the laptop is revoked".to_owned())
            } else {
                Err(list.into())
            }
        }));
        if let Some(laptop) = laptop {
            let (web, oculus) = (Web { toolbox: &self.site.toolbox }, format!("http://{WG0}:6006/"));
            claims.push(web.silent("whom it had revoked is still cut off", &laptop.netns, &oculus));
        }
        show_if_failed(&claims, &running);
        Ok(claims)
    }

    /// Puts an identity and a bond for the phone on a disk; what was told.
    pub fn provision(&self, disk: &Path, conf: &Path) -> Result<String> {
        let made = Command::new(&self.program)
            .args(["provision", "--bond", "phone", "--endpoint", HOST, "--disk"])
            .arg(disk)
            .arg("--codex")
            .arg(&self.codex)
            .arg("--conf")
            .arg(conf)
            .output()?;
        let told = String::from_utf8_lossy(&made.stderr).into_owned();
        if made.status.success() { Ok(told) } else { Err(told.into()) }
    }

    /// The phone, which may, bonds and revokes a laptop, which may not.
    fn over_the_tether(&self, hub: &Netns, phone: &Bonded, key: &str) -> (Vec<Claim>, Option<Bonded>) {
        let web = Web { toolbox: &self.site.toolbox };
        let oculus = format!("http://{WG0}:6006/");
        let mut laptop = None;
        let mut claims = vec![Claim::check("a peer with the grant bonds another over the tether", || {
            let conf = self.folder.join("laptop.conf");
            let bond =
                self.from(phone).args(["bond", "laptop", "--grant", "oculus", "--endpoint", HOST, "--conf"]);
            bond.arg(&conf).read()?;
            let keys = Keys::of("laptop", &fs::read_to_string(&conf)?)?;
            let peer = Bonded::new(&self.site.toolbox, hub, &keys, "192.0.2.22/24")?;
            let seen = shakes(&peer, &keys, key)?;
            laptop = Some(peer);
            Ok(seen)
        })];
        let Some(laptop) = laptop else { return (claims, None) };
        claims.push(web.answers("it reaches what it was granted", &laptop.netns, &oculus, "stand-in oculus"));
        claims.push(Claim::check("it shows in the list over the tether, with its handshake", || {
            let list = String::from_utf8(self.from(phone).arg("list").read()?)?;
            let line = list.lines().find(|line| line.starts_with("laptop ")).ok_or_else(|| list.clone())?;
            if line.contains(" ago") { Ok(line.to_owned()) } else { Err(line.into()) }
        }));
        claims.push(Claim::check("a peer without the grant gets nothing", || {
            let output = self.from(&laptop).arg("list").output()?;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.code() == Some(69) && output.stdout.is_empty() {
                Ok(told)
            } else {
                Err(told.into())
            }
        }));
        claims.push(Claim::check("a peer with the grant revokes another over the tether", || {
            let output = self.from(phone).args(["revoke", "laptop", "--reason", "lost"]).output()?;
            let told = String::from_utf8(output.stderr)?;
            if output.status.success() { Ok(told) } else { Err(told.into()) }
        }));
        std::thread::sleep(Duration::from_secs(2));
        claims.push(web.silent("a revoked peer is cut off", &laptop.netns, &oculus));
        (claims, Some(laptop))
    }

    /// A machine that nobody knows yet: the first bond, and what the second one takes.
    fn at_the_console(&self) -> Result<Vec<Claim>> {
        let hub = around::hub(&self.site.toolbox)?;
        let disk = self.folder.join("disk.raw");
        let (mut running, key) = self.boot(&hub, &|| disk_from(&self.image, &disk, DISK))?;
        let mut said = [String::new(), String::new()];
        let mut claims = vec![Claim::check("the first device is bonded at the serial console", || {
            running.expect(BOOT, "sepulcher: health ok")?;
            said[0] = bond(&mut running, "phone", None)?;
            Ok("phone".to_owned())
        })];
        let phrase = said[0].lines().find_map(|line| line.strip_prefix("recovery phrase: "));
        let phrase = phrase.unwrap_or_default().to_owned();
        claims.push(Claim::check(
            "while no device is online, a second one takes the recovery phrase",
            || {
                let refused = bond(&mut running, "laptop", Some("00000-00000-00000-00000-00000"))?;
                if !refused.contains("This is not the recovery phrase.") {
                    return Err(refused.into());
                }
                said[1] = bond(&mut running, "laptop", Some(&phrase))?;
                Ok("a wrong one was refused, the one that was shown accepted".to_owned())
            },
        ));
        claims.push(Claim::check("both shake hands with what the console showed", || {
            let [phone, laptop] = [Keys::of("phone", &said[0])?, Keys::of("laptop", &said[1])?];
            let first = Bonded::new(&self.site.toolbox, &hub, &phone, "192.0.2.21/24")?;
            let second = Bonded::new(&self.site.toolbox, &hub, &laptop, "192.0.2.22/24")?;
            Ok(format!("{}, {}", shakes(&first, &phone, &key)?, shakes(&second, &laptop, &key)?))
        }));
        show_if_failed(&claims, &running);
        Ok(claims)
    }
}

fn show_if_failed(claims: &[Claim], running: &Running) {
    if claims.iter().any(|claim| claim.result.is_err()) {
        eprintln!("{}", running.tail(120));
    }
}

/// That a peer comes to shake hands.
pub fn shakes(peer: &Bonded, keys: &Keys, host_key: &str) -> Result<String> {
    peer.dial(keys, host_key)?;
    until(HANDSHAKE, "a handshake", || Ok(peer.handshake()? > 0))?;
    Ok(format!("{} at {}", keys.name, keys.address))
}

/// Types once the console has said something.
fn answer(running: &mut Running, what: &str, keys: &str) -> Result<()> {
    running.expect(running.uptime() + ANSWER, what)?;
    running.type_in(keys)
}

/// Has the machine leave a body at its console, while that device vouches for it.
pub fn roll_back(running: &mut Running, leave: &str, device: &str) -> Result<()> {
    running.type_in("\n")?;
    answer(running, "r go back to the body before", "r\n")?;
    running.expect(running.uptime() + ANSWER, &format!("{device} is online and vouches"))?;
    answer(running, "Ctrl-D leaves all as it is", &format!("{leave}\n"))?;
    running.expect(running.uptime() + ANSWER, "The machine restarts as the body before").map(drop)
}

/// Goes through the console's dialog and returns what it said, a line each.
fn bond(running: &mut Running, name: &str, phrase: Option<&str>) -> Result<String> {
    let from = running.log.len();
    running.type_in("\n")?;
    answer(running, "b bond a device", "b\n")?;
    if let Some(phrase) = phrase {
        answer(running, "No bonded device is online", &format!("{phrase}\n"))?;
    }
    let seen = running.wait(running.uptime() + ANSWER, |line| {
        line.contains("Ctrl-D goes back") || line.contains("not the recovery phrase")
    });
    match seen {
        crate::vm::Seen::Line(_, line) if line.contains("Ctrl-D") => {}
        crate::vm::Seen::Line(_, line) => return Ok(line),
        _ => return Err(format!("the console is silent:\n{}", running.tail(20)).into()),
    }
    // What it dials is the law's, what it may reach is what is suggested.
    running.type_in(&format!("{name}\n\n"))?;
    running.expect(running.uptime() + ANSWER, "PrivateKey = ")?;
    running.expect(running.uptime() + ANSWER, "AllowedIPs = ")?;
    // The prompt has no line end: a moment for it, then Enter ends the line.
    std::thread::sleep(Duration::from_secs(2));
    running.type_in("\n")?;
    running.expect(running.uptime() + ANSWER, "Bonded.")?;
    Ok(running.log[from..].iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n"))
}

/// The bytes of a disk's EFI system partition.
pub fn esp(disk: &Path) -> Result<Vec<u8>> {
    let placed = image::partition(disk, Role::Esp)?;
    let mut bytes = vec![0; usize::try_from(placed.size)?];
    Window::new(&File::open(disk)?, placed.offset, placed.size).fill(&mut bytes, 0)?;
    Ok(bytes)
}

/// The host's key as it stands in the credential on a disk.
pub fn credential(disk: &Path) -> Result<Option<Vec<u8>>> {
    const MARK: &[u8] = b"\"host-key\":\"";
    let esp = esp(disk)?;
    let at = esp.windows(MARK.len()).position(|window| window == MARK);
    Ok(at.map(|at| esp[at + MARK.len()..at + MARK.len() + 44].to_vec()))
}

/// Whether a part stands somewhere in there.
pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
