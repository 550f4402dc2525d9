//! Claims about a booted machine: what bonded peers reach, and what nobody else does.

use std::time::Duration;

use super::around::{self, Bonded, WG0, Web, until};
use super::noise::Noise;
use super::site::{HOST, Site};
use super::tether::{self, Scene};
use super::{BOOT, Claim, DISK, timeline};
use crate::netns::Netns;
use crate::vm::{Running, Seen, disk_from};
use crate::{Result, image};

/// The hosts around the machine.
struct Neighbourhood {
    hub: Netns,
    outsider: Netns,
    peers: [Bonded; 2],
}

impl Neighbourhood {
    fn new(site: &Site) -> Result<Self> {
        let hub = around::hub(&site.toolbox)?;
        let outsider = Netns::new(&site.toolbox, "outsider")?;
        outsider.plug_into(&hub, "br0", "outsider", "192.0.2.1/24")?;
        let [first, second] = &site.peers;
        let peers = [
            Bonded::new(&site.toolbox, &hub, first, "192.0.2.21/24")?,
            Bonded::new(&site.toolbox, &hub, second, "192.0.2.22/24")?,
        ];
        Ok(Self { hub, outsider, peers })
    }
}

/// Boots the image, waits for its health, and checks what each neighbour can reach.
pub fn claims(site: &Site) -> Result<(Vec<Claim>, String)> {
    let neighbourhood = Neighbourhood::new(site)?;
    let folder = site.folder.path();
    let disk = || disk_from(&site.image, &folder.join("disk.raw"), DISK);
    let mut noise = Noise::start(&site.toolbox, &neighbourhood.hub, folder)?;
    noise.phase("first boot");
    let (mut running, host_key) = around::boot(&site.toolbox, folder, &neighbourhood.hub, &disk)?;
    let mut claims = vec![Claim::check("the sealed image boots to health without a failed unit", || {
        let (at, _) = running.expect(BOOT, "sepulcher: health ok")?;
        Ok(format!("healthy {:.1} s after power-on", at.as_secs_f32()))
    })];
    noise.knows(&host_key)?;
    noise.phase("peers come");
    claims.extend(network_claims(site, &neighbourhood, &host_key));
    noise.phase("bonds change, the agent dies");
    let Neighbourhood { hub, outsider: _, peers: [phone, laptop] } = &neighbourhood;
    claims.extend(tether::claims(&Scene {
        program: image::program()?,
        site,
        running: &running,
        hub,
        phone,
        laptop,
        host_key: &host_key,
    }));
    noise.phase("a flood of handshakes");
    claims.push(Claim::check("a flood of handshakes from nobody leaves the tunnels up", || {
        let told = noise.floods()?;
        let web = Web { toolbox: &site.toolbox };
        until(Duration::from_secs(30), "Oculus, behind the flood", || {
            Ok(web.get(&laptop.netns, &format!("http://{WG0}:6006/")).is_ok())
        })?;
        Ok(told)
    }));
    noise.phase("nmap looks");
    claims.push(Claim::check("nmap cannot tell the tether's port from a closed one", || noise.scanned()));
    claims.push(Claim::check("the ear of the knocking outsider hears", || noise.hears(&site.toolbox)));
    claims.push(blessed(&mut running));
    claims.push(no_failed_unit(&running));
    if claims.iter().any(|claim| claim.result.is_err()) {
        eprintln!("{}", running.tail(200));
    }
    let times = timeline(&running);
    noise.phase("power-off");
    drop(running);
    claims.push(Claim::check("a thousand knocks a second are answered by nothing at all", || noise.end()));
    Ok((claims, times))
}

/// The boot counter is stopped once the health check has passed.
fn blessed(running: &mut Running) -> Claim {
    Claim::check("the boot is complete and its entry blessed", || {
        let done = |line: &str| line.contains("systemd-bless-boot") && !line.contains("Starting");
        match running.wait(BOOT + Duration::from_secs(60), done) {
            Seen::Line(_, line) if line.contains("Finished") => Ok(line),
            Seen::Line(_, line) => Err(line.into()),
            Seen::Off | Seen::Timeout => Err("no word of systemd-bless-boot".into()),
        }
    })
}

fn no_failed_unit(running: &Running) -> Claim {
    Claim::check("no unit failed while booting", || {
        let failed: Vec<_> = running
            .log
            .iter()
            .map(|(_, line)| line.as_str())
            .filter(|line| line.contains("[FAILED]"))
            .collect();
        if failed.is_empty() { Ok("none on the console".to_owned()) } else { Err(failed.join("\n").into()) }
    })
}

fn network_claims(site: &Site, around: &Neighbourhood, host_key: &str) -> Vec<Claim> {
    let web = Web { toolbox: &site.toolbox };
    let [phone, laptop] = &around.peers;
    let [phone_keys, laptop_keys] = &site.peers;
    let outside = format!("http://{HOST}");
    let inside = format!("http://{WG0}");
    vec![
        Claim::check("a bonded peer shakes hands with the kernel's WireGuard in the pod", || {
            phone.dial(phone_keys, host_key)?;
            laptop.dial(laptop_keys, host_key)?;
            until(Duration::from_secs(30), "a handshake", || {
                Ok(phone.handshake()? > 0 && laptop.handshake()? > 0)
            })?;
            Ok("both peers".to_owned())
        }),
        web.answers(
            "Oculus answers a granted peer through wg0",
            &phone.netns,
            &format!("{inside}:6006/"),
            "stand-in oculus",
        ),
        Claim::check("Oculus sees the peer's tunnel address", || {
            let body = web.get(&phone.netns, &format!("{inside}:6006/"))?.body;
            if body.contains(&phone_keys.address) { Ok(body.trim().to_owned()) } else { Err(body.into()) }
        }),
        web.silent(
            "a peer without the grant does not reach the worker's metrics",
            &phone.netns,
            &format!("{inside}:9464/"),
        ),
        web.answers(
            "a peer granted everything does",
            &laptop.netns,
            &format!("{inside}:9464/"),
            "stand-in worker",
        ),
        web.answers(
            "the pinned route answers through the tether",
            &laptop.netns,
            &format!("{inside}/a2a/smith"),
            "stand-in intercom",
        ),
        web.answers(
            "Vessel answers anybody through the Veil",
            &around.outsider,
            &format!("{outside}/"),
            "stand-in vessel",
        ),
        web.answers(
            "a forest route answers anybody",
            &around.outsider,
            &format!("{outside}/a2a/hello"),
            "stand-in intercom",
        ),
        Claim::check("the pinned route answers the forest as a path that nobody serves", || {
            let [pinned, unknown] = ["/a2a/smith", "/nobody/knows"]
                .map(|path| web.get(&around.outsider, &format!("{outside}{path}")));
            let (pinned, unknown) = (pinned?, unknown?);
            if (&pinned.status, &pinned.body) == (&unknown.status, &unknown.body) {
                Ok(format!("status {}, the same body", pinned.status))
            } else {
                Err(format!("{} {} against {} {}", pinned.status, pinned.body, unknown.status, unknown.body)
                    .into())
            }
        }),
        web.silent("Oculus is silent to an outsider", &around.outsider, &format!("{outside}:6006/")),
        web.silent("the Phylactery is silent to an outsider", &around.outsider, &format!("{outside}:5432/")),
        web.silent(
            "the Phylactery is silent to a peer granted everything",
            &laptop.netns,
            &format!("{inside}:5432/"),
        ),
        web.silent("SSH is silent to an outsider", &around.outsider, &format!("{outside}:22/")),
    ]
}
