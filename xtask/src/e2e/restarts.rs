//! Claims about a machine whose parts are restarted: reach and silence are the same afterwards.

use std::time::{Duration, Instant};

use super::around::{self, Bonded, WG0, Web, until};
use super::noise::Noise;
use super::rig::Rig;
use super::site::{BRIDGE, COCKPIT, HOST, Site};
use super::stream::{PAUSE, Stream};
use super::{BOOT, Claim, DISK};
use crate::Result;
use crate::netns::Netns;
use crate::vm::{Running, disk_from};

/// How long the machine may take to do what its shell is told.
const COMMAND: Duration = Duration::from_secs(120);

/// How long everything may take to be back behind that, on a busy emulator.
const BACK: Duration = Duration::from_secs(300);

/// How long it may take that follows at once, told by programs that an emulator executes.
const AT_ONCE: Duration = Duration::from_secs(20);

/// The public key of somebody who never comes.
const GUEST: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// Prints the number of the pod that runs.
const POD: &str = "podman pod inspect --format '{{.Id}}' lychd";

/// How long a stream may stand still while Netavark takes its rules away and makes them anew, each by a program that an
/// emulator executes; a session that was lost costs more.
const RELOAD: Duration = Duration::from_secs(4);

/// What to show when something is not as it should be.
const LOOK: &str =
    "nft list ruleset; ip neighbour; cat /proc/sys/net/netfilter/nf_conntrack_count; podman ps --all";

/// The hosts around a rigged machine.
struct Scene<'a> {
    site: &'a Site,
    rig: Rig,
    hub: Netns,
    outsider: Netns,
    phone: Bonded,
    laptop: Bonded,
}

/// Boots the image in a rig and restarts what can be restarted, while an outsider knocks.
pub fn claims(site: &Site) -> Result<Vec<Claim>> {
    let folder = site.folder.path();
    let scene = Scene::new(site)?;
    let disk = disk_from(&site.image, &folder.join("disk.raw"), DISK)?;
    let mut noise = Noise::start(&site.toolbox, &scene.hub, folder)?;
    noise.phase("first boot");
    let (mut running, key) = scene.power_on(&disk)?;
    let mut claims = vec![Claim::check("the image comes up in the rig, and both peers talk to it", || {
        running.expect(BOOT, "sepulcher: health ok")?;
        for (peer, keys) in [&scene.phone, &scene.laptop].into_iter().zip(&site.peers) {
            peer.dial(keys, &key)?;
        }
        scene.back()
    })];
    claims.push(Claim::check(
        "a service of the host answers the peer that is granted it, and nobody else",
        || scene.host_service(),
    ));
    claims.push(Claim::check("a peer is cut when the clock jumps past its end, and others stay", || {
        scene.clock_jumps()
    }));
    noise.knows(&key)?;
    noise.phase("the rulesets are loaded anew");
    claims.push(Claim::check("a peer's stream survives the host's ruleset, loaded anew", || {
        scene.survives("systemctl reload sepulcher-firewall.service", PAUSE)
    }));
    claims.push(Claim::check("it survives Netavark's, made anew by podman", || {
        scene.survives("podman network reload --all", RELOAD)
    }));
    noise.phase("the agent dies");
    claims.push(Claim::check("it survives the agent's container, killed with all that is in it", || {
        scene.survives("systemctl kill --signal=KILL lychd-vpn.service", PAUSE)
    }));
    noise.phase("a container restarts");
    claims.push(Claim::check(
        "containers that are killed or restarted are back, with the same policy",
        || {
            let kill = "podman kill systemd-lychd-oculus && systemctl restart lychd-veil.service";
            scene.restarts(kill, "podman inspect --format '{{.Id}}' systemd-lychd-oculus")
        },
    ));
    noise.phase("the pod restarts");
    claims.push(Claim::check("so is the pod, restarted as a whole", || {
        scene.restarts("systemctl restart lychd-pod.service", POD)
    }));
    claims.push(Claim::check("so is the pod, its first process killed", || {
        let infra = "$(podman pod inspect --format '{{.InfraContainerID}}' lychd)";
        scene.restarts(&format!("kill -9 $(podman inspect --format '{{{{.State.Pid}}}}' {infra})"), POD)
    }));
    claims.push(Claim::check("the outsider's ear hears", || noise.hears(&site.toolbox)));
    if claims.iter().any(|claim| claim.result.is_err()) {
        eprintln!("{}", scene.rig.run(LOOK, COMMAND).unwrap_or_else(|error| error.to_string()));
    }
    noise.phase("reboot");
    let again = scene.reboot(&mut running, &disk);
    let told = match &again {
        Ok((_, other)) if *other == key => Ok(format!("the host key is {key} still")),
        Ok((_, other)) => Err(format!("the host key was {key} and is {other}")),
        Err(error) => Err(error.to_string()),
    };
    claims.push(Claim::check("the machine reboots by itself and is the same", || Ok(told?)));
    claims.push(Claim::check("the peers are back without having been told", || scene.back()));
    if claims.iter().any(|claim| claim.result.is_err()) {
        eprintln!("{}", again.as_ref().map_or(&running, |(running, _)| running).tail(120));
    }
    drop((running, again));
    claims.push(Claim::check("all the while a thousand knocks a second are answered by nothing", || {
        noise.end()
    }));
    Ok(claims)
}

impl<'a> Scene<'a> {
    fn new(site: &'a Site) -> Result<Self> {
        let toolbox = &site.toolbox;
        let hub = around::hub(toolbox)?;
        let outsider = Netns::new(toolbox, "outsider")?;
        outsider.plug_into(&hub, "br0", "outsider", "192.0.2.1/24")?;
        let [phone, laptop] = &site.peers;
        let phone = Bonded::new(toolbox, &hub, phone, "192.0.2.21/24")?;
        let laptop = Bonded::new(toolbox, &hub, laptop, "192.0.2.22/24")?;
        let rig = Rig::of(&site.image, site.folder.path())?;
        Ok(Self { site, rig, hub, outsider, phone, laptop })
    }

    /// Until the machine tells its public key.
    fn power_on(&self, disk: &std::path::Path) -> Result<(Running, String)> {
        around::until_key(&|| {
            let (toolbox, scratch) = (&self.site.toolbox, self.site.folder.path());
            around::machine(toolbox, scratch, &self.hub, self.rig.start(disk))
                .power_on_with(self.rig.serial())
        })
    }

    /// Has the host itself offer something, on every address that it has.
    fn host_service(&self) -> Result<String> {
        let start = format!("systemd-run --unit=cockpit sepulcher stand-in cockpit {COCKPIT}");
        self.rig.run(&start, COMMAND)?;
        let web = Web { toolbox: &self.site.toolbox };
        let url = format!("http://{BRIDGE}:{COCKPIT}/");
        until(BACK, "the host's service", || {
            Ok(web.get(&self.phone.netns, &url).is_ok_and(|page| page.body.contains("stand-in cockpit")))
        })?;
        // `*` holds no service of the host.
        web.stays_silent(&self.laptop.netns, &url)?;
        web.stays_silent(&self.outsider, &format!("http://{HOST}:{COCKPIT}/"))?;
        Ok(format!("through wg0 at {BRIDGE}:{COCKPIT}, silence elsewhere"))
    }

    /// Bonds a guest for an hour, and sets the clock two hours ahead and back.
    fn clock_jumps(&self) -> Result<String> {
        let jump = |hours: &str| self.rig.run(&format!("date --set \"{hours} hours\""), COMMAND);
        let bond = format!("sepulcher peer bond guest --public-key {GUEST} --expires 1h --no-config");
        self.rig.run(&bond, COMMAND)?;
        until(COMMAND, "the guest at the interface", || self.held("guest"))?;
        let mut stream = Stream::open(&self.site.toolbox, &self.phone.netns)?;
        let start = Instant::now();
        jump("+2")?;
        until(AT_ONCE, "the guest's end", || Ok(!self.held("guest")?))?;
        let cut = start.elapsed();
        let pause = stream.pause_since(start, PAUSE)?;
        jump("-2")?;
        self.rig.run("sepulcher peer revoke guest --reason 'it was a guest'", COMMAND)?;
        until(AT_ONCE, "the guest's revocation", || Ok(!self.held("guest")?))?;
        let (seconds, pause) = (cut.as_secs_f32(), pause.as_millis());
        Ok(format!("gone {seconds:.1} s after the command began; another's longest pause was {pause} ms"))
    }

    /// Whether the machine's interface holds a peer.
    fn held(&self, name: &str) -> Result<bool> {
        let told = self.rig.run(&format!("sepulcher peer show {name} --json"), COMMAND)?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        let held = told["held"].as_bool();
        Ok(held.ok_or_else(|| format!("it is not said whether {name} is held: {told}"))?)
    }

    /// That a command holds a peer's stream up no longer than it may, and changes nothing of what is reached.
    fn survives(&self, command: &str, limit: Duration) -> Result<String> {
        let mut stream = Stream::open(&self.site.toolbox, &self.phone.netns)?;
        let start = Instant::now();
        self.rig.run(command, COMMAND)?;
        // What comes of it may come a moment later.
        std::thread::sleep(Duration::from_secs(5));
        let pause = stream.pause_since(start, limit)?;
        Ok(format!("the longest pause was {} ms; {}", pause.as_millis(), self.back()?))
    }

    /// That everything is as before some time after a command, with another container or pod than before in the place of
    /// that whose number `which` prints.
    fn restarts(&self, command: &str, which: &str) -> Result<String> {
        let before = self.rig.run(which, COMMAND)?;
        let start = Instant::now();
        self.rig.run(command, COMMAND)?;
        until(BACK, "another one", || {
            Ok(self.rig.run(which, COMMAND).is_ok_and(|now| !now.is_empty() && now != before))
        })?;
        let told = self.back()?;
        Ok(format!("{told} {:.1} s after it was told to", start.elapsed().as_secs_f32()))
    }

    /// Waits until peers and outsiders reach what they may, and looks at what they may not.
    fn back(&self) -> Result<String> {
        let web = Web { toolbox: &self.site.toolbox };
        let page = |from: &Netns, url: &str, words: &str| {
            web.get(from, url).is_ok_and(|answer| answer.body.contains(words))
        };
        until(BACK, "the pages that were there before", || {
            Ok(page(&self.phone.netns, &format!("http://{WG0}:6006/"), "stand-in oculus")
                && page(&self.laptop.netns, &format!("http://{WG0}/a2a/smith"), "stand-in intercom")
                && page(&self.outsider, &format!("http://{HOST}/"), "stand-in vessel"))
        })?;
        // Silence takes as long as one waits for it, and all of it can be waited for at once.
        let silent = [
            (&self.phone.netns, format!("http://{WG0}:9464/")),
            (&self.outsider, format!("http://{HOST}:6006/")),
            (&self.outsider, format!("http://{HOST}:5432/")),
        ];
        std::thread::scope(|scope| {
            let looks = silent.map(|(from, url)| {
                let web = &web;
                scope.spawn(move || web.stays_silent(from, &url).map_err(|error| error.to_string()))
            });
            looks.into_iter().try_for_each(|look| {
                look.join().unwrap_or_else(|_| Err("a look at silence ended early".to_owned())).map(drop)
            })
        })?;
        Ok("pages and silence as before".to_owned())
    }

    /// Lets the machine restart itself, and starts it when the emulator has ended.
    fn reboot(&self, running: &mut Running, disk: &std::path::Path) -> Result<(Running, String)> {
        self.rig.run("systemctl --no-block reboot", COMMAND)?;
        running.off(COMMAND)?;
        let (mut running, key) = self.power_on(disk)?;
        running.expect(BOOT, "sepulcher: health ok")?;
        Ok((running, key))
    }
}
