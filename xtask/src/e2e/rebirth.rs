//! Claims about a machine that becomes another body, and what it refuses to become.
//!
//! What its owner would do at a shell is done in the rig; every boot that proves something starts from the firmware.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sepulcher::rebirth::publisher::SigningKey;
use sepulcher::sys::cmd::Command;
use sepulcher::tree::Sha256Digest;

use super::around::{self, Bonded, KEY, WG0, Web};
use super::bodies::{self, Defect, Law, Made, SOUND};
use super::defects::{FALLS, Fall, replace};
use super::depot;
use super::rig::Rig;
use super::scene::{COMMAND, Scene, device};
use super::site::{Keys, Site};
use super::{BOOT, Claim, ways};
use crate::Result;
use crate::vm::{Running, Seen, Start};

/// How long the machine may take to stage a body on a busy emulator.
const STAGE: Duration = Duration::from_secs(400);

/// Has a machine become another body and return, by hand and, once, by itself.
pub fn claims(site: &Site) -> Result<Vec<Claim>> {
    let scene = Scene::new(site)?;
    let second = bodies::build(site, "2", &Defect { law: with_dns, ..SOUND })?;
    let mut claims = Vec::new();
    let mut disks: Vec<_> = REFUSALS.iter().map(|(_, make, _)| make(site, &second)).collect::<Result<_>>()?;
    disks.push(stick(site)?);
    let (running, key) = scene.act(&scene.first, &disks)?;
    claims.push(Claim::check(
        "its pod asks the host's name servers, also when they change, and no other",
        || scene.asks_as_the_host(),
    ));
    for (index, (name, _, words)) in REFUSALS.iter().enumerate() {
        let device = device(index);
        claims
            .push(Claim::check(name, || scene.refuses(&format!("sepulcher rebirth stage {device}"), words)));
    }
    claims.push(Claim::check("a stick with the same image is not taken for the machine's disk", || {
        scene.own_slots(&device(REFUSALS.len()))
    }));
    claims.push(Claim::check("a digest of nothing that is staged activates nothing", || {
        scene.refuses(&format!("sepulcher rebirth activate {:064}", 0), "no body is staged")
    }));
    let _depot = depot::open(&site.toolbox, &scene.hub, site.folder.path())?;
    let half = truncated(&second)?;
    claims.push(Claim::check("one that is not whole, fetched over the uplink, is refused", || {
        scene.refuses(
            &format!("sepulcher rebirth stage {}", address(depot::ADDRESS, &half)),
            "cannot read the update bundle",
        )
    }));
    scene.off(running)?;
    claims.extend(scene.asked_for(&second, &key)?);
    let mut bonded = None;
    claims.push(Claim::check(
        "the machine becomes the second body, and peers are back without a new bond",
        || {
            let mut running = scene.comes_up("attempt 1 of 3")?;
            scene.talks(&scene.phone, &site.peers[0], &key)?;
            scene.talks(&scene.laptop, &site.peers[1], &key)?;
            let kept = scene.remote("snapshot", &["list"])?;
            if !kept.contains("before body 2 took the place of 1") {
                return Err(format!("no snapshot of what was before: {kept}").into());
            }
            let peers =
                (scene.bond("tablet", "192.0.2.23/24", &key)?, scene.bond("stolen", "192.0.2.24/24", &key)?);
            scene.admin(&["revoke", "stolen", "--reason", "it was stolen"])?;
            running.expect(BOOT + COMMAND, "Finished systemd-bless-boot")?;
            let told = format!("healthy and blessed {:.1} s after power-on", running.uptime().as_secs_f32());
            bonded = Some((running, peers));
            Ok(told)
        },
    ));
    // What follows is about those who were bonded.
    let Some((mut running, (tablet, lost))) = bonded else { return Ok(claims) };
    claims.push(Claim::check("a body that runs is not activated once more", || {
        scene.denies(&["activate", &digest(&second)?], "body 2 runs already")
    }));
    claims.push(Claim::check("it finds a source by its name, where the law has a DNS server", || {
        scene.denies(&["stage", &address(depot::NAME, &half)], "cannot read the update bundle")
    }));
    claims.push(Claim::check("it is rolled back at its console, where a device vouches for that", || {
        settles(&mut running)?;
        scene.talks(&scene.laptop, &site.peers[1], &key)?;
        ways::roll_back(&mut running, "2", "laptop")?;
        running.off(COMMAND)?;
        Ok("it restarted by itself".to_owned())
    }));
    drop(running);
    claims.push(Claim::check(
        "the first body is back, with the bond made under the second, and without the revoked one",
        || {
            let running = scene.comes_up("sepulcher: health ok")?;
            for (peer, keys) in [(&scene.phone, &site.peers[0]), (&tablet.0, &tablet.1)] {
                scene.talks(peer, keys, &key)?;
            }
            scene.stays_out(&lost.0, &lost.1, &key)?;
            Ok(format!("all talk {:.1} s after power-on", running.uptime().as_secs_f32()))
        },
    ));
    claims.extend(scene.falls(&FALLS[..1])?);
    Ok(claims)
}

/// What one Rebirth there and back takes.
pub struct Figures {
    /// Size of the update in bytes.
    pub update: u64,
    /// From the command to stage it to its end.
    pub staged: Duration,
    /// The same of its activation, the snapshot included, the restart not.
    pub activated: Duration,
    /// From power-on to the first page that a peer gets of the new body.
    pub back: Duration,
    /// From the command to roll back to its end.
    pub rolled_back: Duration,
    /// From power-on to the first page of the old body.
    pub returned: Duration,
}

/// Has a machine become another body and return, and looks at the clock.
pub fn figures(site: &Site) -> Result<Figures> {
    let scene = Scene::new(site)?;
    let second = bodies::build(site, "2", &SOUND)?;
    let (running, key) = scene.act(&scene.first, std::slice::from_ref(&second.archive))?;
    let staged = timed(|| scene.stages(&device(0)))?;
    let activated = timed(|| scene.activates(&second))?;
    scene.off(running)?;
    let back = scene.answers_after(&key)?;
    let rig = Rig::of(&second.image, site.folder.path())?;
    let (mut running, _) = scene.act(&rig, &[])?;
    let rolled_back = timed(|| rig.run("sepulcher rebirth rollback", COMMAND))?;
    running.off(COMMAND)?;
    let returned = scene.answers_after(&key)?;
    let update = fs::metadata(&second.archive)?.len();
    Ok(Figures { update, staged, activated, back, rolled_back, returned })
}

/// Waits until a boot that was healthy is over. Its body is proven then: the console comes behind the blessing, and a
/// body that was proven before has none.
fn settles(running: &mut Running) -> Result<()> {
    running.expect(BOOT * 2 + COMMAND, "Started sepulcher-console@ttyS0")?;
    match running.log.iter().find(|(_, line)| line.contains("Failed to start systemd-bless-boot")) {
        Some((_, line)) => Err(line.as_str().into()),
        None => Ok(()),
    }
}

/// That a status tells of body 1, which runs, and of body 2, which waits in the other slot with this digest.
fn both_slots(status: &str, digest: &str) -> Result<String> {
    let told: serde_json::Value = serde_json::from_str(status)?;
    let slot = |running: bool| {
        let slots = told["slots"].as_array().into_iter().flatten();
        let of: Vec<_> = slots.filter(|slot| slot["running"] == running).collect();
        <[_; 1]>::try_from(of).map_or(&serde_json::Value::Null, |[slot]| slot)
    };
    let (own, other) = (slot(true), slot(false));
    let runs = told["running"].is_string() && own["version"] == told["running"] && own["entry"].is_string();
    let waits = other["version"] == "2" && other["entry"].is_null() && other["root-hash"].is_string();
    let staged = told["staged"]["version"] == "2" && told["staged"]["digest"] == digest;
    if runs && waits && staged {
        Ok(format!("{} runs, 2 waits in {}", own["version"], other["device"]))
    } else {
        Err(status.into())
    }
}

fn timed<T>(act: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}

/// Has a machine become an older body and return, and try every body that cannot be healthy.
pub fn falls(site: &Site) -> Result<Vec<Claim>> {
    let scene = Scene::new(site)?;
    let mut claims = scene.steps_back()?;
    claims.extend(scene.falls(&FALLS[1..])?);
    Ok(claims)
}

/// The law of a network with a DNS server.
fn with_dns(law: &mut Law) {
    replace(law, "lychd.toml", "dns = []", &format!("dns = [\"{}\"]", depot::ADDRESS));
}

/// The digest that `activate` wants.
fn digest(made: &Made) -> Result<String> {
    Ok(Sha256Digest::of(&fs::read(made.folder.join("SHA256SUMS"))?).to_string())
}

/// Makes an archive that is refused, out of a good update or anew.
type Spoil = fn(&Site, &Made) -> Result<PathBuf>;

/// Claims of refusal: what is wrong, the update, and words of the reason.
const REFUSALS: [(&str, Spoil, &str); 5] = [
    ("an update that another publisher signed is refused", foreign, "signed by somebody else"),
    ("a changed byte in it is refused", changed_byte, "has another digest than SHA256SUMS says"),
    ("an older version is refused", older, "is older than"),
    ("a law that does not know a granted service is refused, with the peers", stranding, "peers/phone.toml"),
    ("a law with another port is refused, with the peers", other_port, "phone"),
];

fn foreign(_: &Site, made: &Made) -> Result<PathBuf> {
    bodies::damaged(made, "foreign", |folder| bodies::sign(folder, &SigningKey::generate()?, "lychd 2"))
}

fn changed_byte(_: &Site, made: &Made) -> Result<PathBuf> {
    bodies::damaged(made, "changed", |folder| {
        let path = folder.join("lychd_2.efi");
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(fs::write(path, bytes)?)
    })
}

/// A file of the site as a server has it.
fn address(host: &str, file: &Path) -> String {
    format!("http://{host}/lychd/{}", file.file_name().unwrap_or_default().to_string_lossy())
}

fn truncated(made: &Made) -> Result<PathBuf> {
    let archive = made.archive.with_extension("truncated");
    let bytes = fs::read(&made.archive)?;
    fs::write(&archive, &bytes[..bytes.len() / 2 / 512 * 512])?;
    Ok(archive)
}

/// The site's image in an archive: no partition of it is seen before somebody looks behind the archive's first block.
fn stick(site: &Site) -> Result<PathBuf> {
    let archive = site.folder.path().join("stick.tar");
    let (folder, name) = (site.image.parent(), site.image.file_name());
    let (Some(folder), Some(name)) = (folder, name) else { return Err("the image has no name".into()) };
    Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(&archive).arg(name).read()?;
    Ok(archive)
}

fn older(site: &Site, _: &Made) -> Result<PathBuf> {
    Ok(bodies::build(site, "0.9", &SOUND)?.archive)
}

fn stranding(site: &Site, _: &Made) -> Result<PathBuf> {
    let law = |law: &mut Law| drop(law.remove("services/oculus.toml"));
    Ok(bodies::build(site, "2.1", &Defect { law, ..SOUND })?.archive)
}

fn other_port(site: &Site, _: &Made) -> Result<PathBuf> {
    let law = |law: &mut Law| replace(law, "lychd.toml", "[tether]", "[tether]\nport = 51900");
    Ok(bodies::build(site, "2.2", &Defect { law, ..SOUND })?.archive)
}

impl Scene<'_> {
    /// Has the body staged and activated by a peer, over the tether, until the machine goes down by itself.
    fn asked_for(&self, made: &Made, key: &str) -> Result<Vec<Claim>> {
        let mut running = self.comes_up("sepulcher: health ok")?;
        let [phone, laptop] = [(&self.phone, &self.site.peers[0]), (&self.laptop, &self.site.peers[1])];
        for (peer, keys) in [phone, laptop] {
            self.talks(peer, keys, key)?;
        }
        // The attempt of this body, too, is proven before it may be given up.
        running.expect(BOOT + COMMAND, "Finished systemd-bless-boot")?;
        let server = &self.site.peers[1].address;
        depot::serve_on(&self.laptop.netns, server, self.site.folder.path())?;
        let digest = digest(made)?;
        let archive = address(server, &made.archive);
        let mut claims = vec![
            Claim::check("a peer without the grant is told nothing at all", || {
                let web = Web { toolbox: &self.site.toolbox };
                web.stays_silent(&self.phone.netns, &format!("http://{WG0}:51821/rebirth"))
            }),
            Claim::check("a peer with it has nothing fetched from elsewhere", || {
                self.denies(&["stage", "http://192.0.2.66/lychd_2.tar"], "fetches nothing from")
            }),
            Claim::check(
                "it serves a signed body itself, and has it fetched over the tether and staged",
                || {
                    let start = Instant::now();
                    let said = self.remote("rebirth", &["stage", &archive])?;
                    if said.trim() == digest {
                        Ok(format!("in {:.1} s", start.elapsed().as_secs_f32()))
                    } else {
                        Err(said.into())
                    }
                },
            ),
            Claim::check("the status tells of both slots", || {
                both_slots(&self.remote("rebirth", &["status", "--json"])?, &digest)
            }),
        ];
        claims.push(Claim::check("the digest of another body activates nothing", || {
            self.denies(&["activate", &format!("{:064}", 0)], "another body is staged: 2")
        }));
        claims.push(Claim::check("it has that body activated, and the machine restarts by itself", || {
            self.remote("rebirth", &["activate", &digest])?;
            running.off(COMMAND)?;
            Ok("it went down".to_owned())
        }));
        Ok(claims)
    }

    /// That the machine does not do what a peer with the grant asks for, and says so.
    fn denies(&self, words: &[&str], why: &str) -> Result<String> {
        match self.remote("rebirth", words) {
            Err(error) if error.to_string().contains(why) => Ok(why.to_owned()),
            other => Err(format!("no `{why}` in: {other:?}").into()),
        }
    }

    /// Has the machine become an older body because somebody asks for that, and return.
    fn steps_back(&self) -> Result<Vec<Claim>> {
        let made = bodies::build(self.site, "0.9", &SOUND)?;
        let (running, key) = self.act(&self.first, std::slice::from_ref(&made.archive))?;
        let stage = format!("sepulcher rebirth stage --allow-downgrade {}", device(0));
        let staged = self.first.run(&stage, STAGE).and_then(|_| self.activates(&made));
        self.off(running)?;
        let runs = |mark: &str, version: &str| -> Result<Running> {
            let mut running = self.comes_up(mark)?;
            for (peer, keys) in [&self.phone, &self.laptop].into_iter().zip(&self.site.peers) {
                self.talks(peer, keys, &key)?;
            }
            settles(&mut running)?;
            let told: serde_json::Value =
                serde_json::from_str(&self.remote("rebirth", &["status", "--json"])?)?;
            if told["running"] == version { Ok(running) } else { Err(told.to_string().into()) }
        };
        Ok(vec![
            Claim::check("an older body that is asked for takes the place of the one that runs", || {
                staged?;
                let mut running = runs("attempt 1 of 3", "0.9")?;
                let told = format!("proven {:.1} s after power-on", running.uptime().as_secs_f32());
                self.remote("rebirth", &["rollback"])?;
                running.off(COMMAND)?;
                Ok(told)
            }),
            Claim::check("and the machine is told to return to the newer one", || {
                let running = runs("sepulcher: health ok", "1")?;
                Ok(format!("proven {:.1} s after power-on", running.uptime().as_secs_f32()))
            }),
        ])
    }

    /// Time from power-on to the first page that a peer gets. The body is proven behind it.
    fn answers_after(&self, key: &str) -> Result<Duration> {
        let (mut running, _) = self.power_on(Start::Disk(&self.disk), &[])?;
        self.talks(&self.phone, &self.site.peers[0], key)?;
        let answered = running.uptime();
        settles(&mut running)?;
        Ok(answered)
    }

    /// That the slots are those of the machine's own disk while the image on `stick` is there, too.
    fn own_slots(&self, stick: &str) -> Result<String> {
        let look =
            "lsblk --noheadings --list --output PATH,PARTLABEL; echo ==; sepulcher rebirth status --json";
        let told = self.first.run(
            &format!(
                "loop=$(losetup --find --show --partscan --read-only --offset 512 {stick}) && udevadm settle && {look}; \
                 code=$?; losetup --detach $loop && udevadm settle && test $code = 0"
            ),
            COMMAND,
        )?;
        let (devices, status) = told.split_once("==").ok_or("the machine told of no devices")?;
        let roots = devices.lines().filter(|line| line.trim_end().ends_with(" lychd_1")).count();
        let status: serde_json::Value = serde_json::from_str(status)?;
        let slots = status["slots"].as_array().ok_or("the status has no slots")?;
        let own =
            slots.iter().all(|slot| slot["device"].as_str().is_some_and(|path| path.starts_with("/dev/vda")));
        let runs = slots.iter().filter(|slot| slot["running"] == true).count();
        if roots == 2 && own && slots.len() == 2 && runs == 1 {
            Ok(format!("{roots} disks have the root, one has slots"))
        } else {
            Err(format!("{devices}{status}").into())
        }
    }

    /// That the agent's container has the name servers which the host has: first none, then one.
    fn asks_as_the_host(&self) -> Result<String> {
        let servers = || -> Result<Vec<String>> {
            let list = self.first.run(
                "cat /proc/$(podman inspect --format '{{.State.Pid}}' systemd-lychd-vpn)/root/etc/resolv.conf",
                COMMAND,
            )?;
            let servers = list.lines().filter_map(|line| line.trim().strip_prefix("nameserver "));
            Ok(servers.map(str::to_owned).collect())
        };
        let none = Vec::<String>::new();
        around::until(BOOT, "the agent's container", || Ok(servers().is_ok()))?;
        if servers()? != none {
            return Err(format!("the law has no name server, and the pod asks {:?}", servers()?).into());
        }
        // Each well before it is looked at anyway.
        let changes = |how: &str, expected: &[String]| {
            self.first.run(&format!("resolvectl {how}"), COMMAND)?;
            timed(|| around::until(Duration::from_secs(8), how, || Ok(servers()? == expected)))
        };
        let link = "$(cd /sys/class/net && echo en*)";
        let one = depot::ADDRESS.to_owned();
        let told = changes(&format!("dns {link} {one}"), &[one])?;
        let taken = changes(&format!("revert {link}"), &none)?;
        Ok(format!(
            "none at first; a new one after {:.1} s, and gone again after {:.1} s",
            told.as_secs_f32(),
            taken.as_secs_f32()
        ))
    }

    /// That a command fails and says so.
    fn refuses(&self, command: &str, words: &str) -> Result<String> {
        match self.first.run(command, STAGE) {
            Ok(said) => Err(format!("`{command}` was granted: {said}").into()),
            Err(error) if error.to_string().contains(words) => {
                let told = error.to_string();
                let reason = told.lines().find(|line| line.contains("error: ")).unwrap_or(&told);
                Ok(reason.rsplit("error: ").next().unwrap_or_default().to_owned())
            }
            Err(error) => Err(format!("no `{words}` in: {error}").into()),
        }
    }

    fn stages(&self, device: &str) -> Result<String> {
        let start = Instant::now();
        let said = self.first.run(&format!("sepulcher rebirth stage {device}"), STAGE)?;
        let digest = said.lines().last().unwrap_or_default().to_owned();
        Ok(format!("{digest} in {:.1} s", start.elapsed().as_secs_f32()))
    }

    fn activates(&self, made: &Made) -> Result<String> {
        let digest = digest(made)?;
        self.first.run(&format!("sepulcher rebirth activate --at-next-boot {digest}"), STAGE)?;
        let told = self.first.run("ls -1 /efi/EFI/Linux; ls /var/lib/sepulcher/snapshots", COMMAND)?;
        let snapshot = told.contains(".tar.zst");
        let entry = told.lines().find(|line| line.contains("+3-0.efi") && !line.contains("lychd_1"));
        match entry {
            Some(entry) if snapshot => Ok(entry.trim().to_owned()),
            _ => Err(format!("no entry or no snapshot: {told}").into()),
        }
    }

    /// Has the machine try bodies that cannot be healthy; after each it is what it was before, and says why.
    fn falls(&self, falls: &[Fall]) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for Fall { name, version, defect, reason, bonds } in falls {
            let made = bodies::build(self.site, version, defect)?;
            let (running, key) = self.act(&self.first, std::slice::from_ref(&made.archive))?;
            let staged = self.stages(&device(0)).and_then(|_| self.activates(&made));
            self.off(running)?;
            claims.push(Claim::check(name, || {
                staged?;
                self.returns(version, reason, *bonds, &key)
            }));
        }
        Ok(claims)
    }

    /// Bonds a device over the tether as soon as the laptop is through, and before the body gives up.
    fn bonds_meanwhile(&self, key: &str) -> Result<Keys> {
        let keys = &self.site.peers[1];
        // Its routes are there from the first time on.
        if self.laptop.dial(keys, key).is_err() {
            self.laptop.configure(keys, key)?;
        }
        around::until(BOOT, "the laptop's tunnel", || Ok(self.remote("peer", &["list"]).is_ok()))?;
        self.handed("stylus", &["bond", "stylus", "--grant", "oculus"])
    }

    /// Powers on until the old body tells that it is back, with three attempts of the new one before. Whoever is bonded
    /// under the first of them still is.
    fn returns(&self, version: &str, reason: &str, bonds: bool, key: &str) -> Result<String> {
        let mut bonded = None;
        let back = format!("body {version} did not prove healthy");
        let start = Instant::now();
        for attempt in 0..=3 {
            let mut running = self.powered(Start::Disk(&self.disk), &[])?;
            if bonds && attempt == 0 {
                running.expect(BOOT, KEY)?;
                bonded = Some(self.bonds_meanwhile(key)?);
            }
            match running.wait(BOOT * 2, |line| line.contains(&back)) {
                Seen::Line(..) if attempt == 3 => {
                    running.expect(BOOT * 2, "sepulcher: health ok")?;
                    self.talks(&self.phone, &self.site.peers[0], key)?;
                    if let Some(keys) = &bonded {
                        let peer = Bonded::new(&self.site.toolbox, &self.hub, keys, "192.0.2.25/24")?;
                        self.talks(&peer, keys, key)?;
                    }
                    // It may be given up again only when it is proven.
                    settles(&mut running)?;
                    let told = running.log.iter().any(|(_, line)| line.contains(reason));
                    let seconds = start.elapsed().as_secs();
                    return if told {
                        Ok(format!("back, and told why, {seconds} s after the first attempt began"))
                    } else {
                        Err(format!("no `{reason}` on the console:\n{}", running.tail(80)).into())
                    };
                }
                Seen::Off if attempt < 3 => {}
                Seen::Line(..) => return Err(format!("it was back after {attempt} attempts").into()),
                Seen::Off | Seen::Timeout => {
                    return Err(
                        format!("attempt {attempt} did not end as it should:\n{}", running.tail(60)).into()
                    );
                }
            }
        }
        Err("it never came back".into())
    }
}
