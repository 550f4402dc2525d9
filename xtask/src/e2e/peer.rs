//! Claims about a booted machine: what bonded peers reach, and what nobody else does.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sepulcher::image::toolbox::Toolbox;
use sepulcher::sys::cmd::Command;

use super::site::{HOST, Keys, Site};
use super::{BOOT, Claim, timeline};
use crate::Result;
use crate::netns::Netns;
use crate::vm::{Machine, Running, Seen, Uplink, disk_from};

/// The tunnel address of the machine.
const WG0: &str = "10.88.16.1";

/// Size of the disk that the image grows into on first boot.
const DISK: u64 = 4 << 30;

/// The hosts around the machine.
struct Neighbourhood {
    hub: Netns,
    outsider: Netns,
    peers: [Bonded; 2],
}

/// A namespace with a WireGuard interface in it.
struct Bonded {
    netns: Netns,
    interface: String,
    wg: Command,
    _daemon: Daemon,
}

/// A process that ends with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks ten times a second whether something holds.
fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !holds()? {
        if Instant::now() > end {
            return Err(format!("{what} did not come within {} s", limit.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Neighbourhood {
    fn new(site: &Site) -> Result<Self> {
        let hub = Netns::new(&site.toolbox, "hub")?;
        hub.ip("link add br0 type bridge")?;
        hub.ip("link set br0 up")?;
        hub.ip("tuntap add tap0 mode tap")?;
        hub.ip("link set tap0 master br0 up")?;
        let outsider = Netns::new(&site.toolbox, "outsider")?;
        outsider.plug_into(&hub, "br0", "outsider", "192.0.2.1/24")?;
        let [first, second] = &site.peers;
        let peers = [
            Bonded::new(site, &hub, first, "192.0.2.21/24")?,
            Bonded::new(site, &hub, second, "192.0.2.22/24")?,
        ];
        Ok(Self { hub, outsider, peers })
    }
}

impl Bonded {
    fn new(site: &Site, hub: &Netns, keys: &Keys, address: &str) -> Result<Self> {
        let netns = Netns::new(&site.toolbox, keys.name)?;
        netns.plug_into(hub, "br0", keys.name, address)?;
        // Userspace implementations share the folder of their sockets across namespaces: the name must be ours alone.
        let interface = format!("wg{}{}", &keys.name[..1], std::process::id() % 1_000_000);
        // In the foreground: as a daemon it would execute itself again, and what it is executed by is the toolbox's loader.
        let command = site.toolbox.command("wireguard-go")?.args(["-f", &interface]).within(netns.launcher());
        let daemon = Daemon(
            command.to_std().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?,
        );
        until(Duration::from_secs(10), "wireguard-go's interface", || {
            Ok(netns.ip(&format!("address add {}/32 dev {interface}", keys.address)).is_ok())
        })?;
        Ok(Self { netns, interface, wg: site.toolbox.command("wg")?, _daemon: daemon })
    }

    /// Configures the tunnel as the client configuration would, and brings it up.
    fn dial(&self, keys: &Keys, host_key: &str) -> Result<()> {
        let settings = format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {host_key}\nEndpoint = {HOST}:51820\n\
             AllowedIPs = 10.88.16.0/20, 10.88.0.0/24\nPersistentKeepalive = 5\n",
            keys.private
        );
        self.wg.clone().args(["setconf", &self.interface, "/dev/stdin"]).stdin(settings).read()?;
        self.netns.ip(&format!("link set {} mtu 1420 up", self.interface))?;
        self.netns.ip(&format!("route add 10.88.16.0/20 dev {}", self.interface))?;
        self.netns.ip(&format!("route add 10.88.0.0/24 dev {}", self.interface))
    }

    /// Seconds since 1970 of the latest handshake; 0 is never.
    fn handshake(&self) -> Result<u64> {
        let shown = self.wg.clone().args(["show", &self.interface, "latest-handshakes"]).read()?;
        let text = String::from_utf8(shown)?;
        Ok(text.split_whitespace().nth(1).unwrap_or("0").parse()?)
    }
}

/// Boots the image, waits for its health, and checks what each neighbour can reach.
pub fn claims(site: &Site) -> Result<(Vec<Claim>, String)> {
    let neighbourhood = Neighbourhood::new(site)?;
    let (mut running, line) = boot(site, &neighbourhood)?;
    let host_key = line.rsplit(' ').next().unwrap_or_default().to_owned();
    let mut claims = vec![Claim::check("the sealed image boots to health without a failed unit", || {
        let (at, _) = running.expect(BOOT, "sepulcher: health ok")?;
        Ok(format!("healthy {:.1} s after power-on", at.as_secs_f32()))
    })];
    claims.extend(network_claims(site, &neighbourhood, &host_key));
    claims.push(blessed(&mut running));
    claims.push(no_failed_unit(&running));
    if claims.iter().any(|claim| claim.result.is_err()) {
        eprintln!("{}", running.tail(200));
    }
    Ok((claims, timeline(&running)))
}

/// Powers on until the machine tells its key. A kernel that the emulator starves of timer interrupts (it says so) is
/// powered on once more: that is the test bench's defect, and it is told.
fn boot(site: &Site, around: &Neighbourhood) -> Result<(Running, String)> {
    const STARVED: &str = "rcu_preempt kthread starved";
    const KEY: &str = "tether public key: ";
    for attempt in 1.. {
        let disk = disk_from(&site.image, &site.folder.path().join("disk.raw"), DISK)?;
        let uplink = Uplink::Tap { name: "tap0".to_owned(), launcher: around.hub.launcher() };
        let machine = Machine {
            toolbox: &site.toolbox,
            disk: &disk,
            scratch: site.folder.path(),
            uplink,
            processors: 2,
        };
        let mut running = machine.power_on()?;
        match running.wait(BOOT, |line| line.contains(KEY) || line.contains(STARVED)) {
            Seen::Line(_, line) if line.contains(KEY) => return Ok((running, line)),
            Seen::Line(_, line) if attempt < 3 => {
                eprintln!("e2e: the emulator stalled ({line}); powering on again");
            }
            _ => return Err(format!("no key on the console; its last lines:\n{}", running.tail(60)).into()),
        }
    }
    Err("no attempt was made".into())
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
            if body.contains(phone_keys.address) { Ok(body.trim().to_owned()) } else { Err(body.into()) }
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

/// HTTP requests from inside a namespace.
struct Web<'a> {
    toolbox: &'a Toolbox,
}

struct Answer {
    status: String,
    body: String,
}

impl Web<'_> {
    fn curl(&self, from: &Netns, url: &str, limit: u32) -> Result<std::process::Output> {
        let limit = limit.to_string();
        let curl = self.toolbox.command("curl")?.args([
            "--silent",
            "--show-error",
            "--max-time",
            &limit,
            "--write-out",
            "\n%{http_code} %{time_connect}",
            url,
        ]);
        Ok(curl.within(from.launcher()).output()?)
    }

    fn get(&self, from: &Netns, url: &str) -> Result<Answer> {
        let output = self.curl(from, url, 20)?;
        if !output.status.success() {
            return Err(format!("{url}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let text = String::from_utf8(output.stdout)?;
        let (body, told) = text.rsplit_once('\n').ok_or("curl printed no status")?;
        let status = told.split(' ').next().unwrap_or_default();
        Ok(Answer { status: status.to_owned(), body: body.to_owned() })
    }

    fn answers(&self, name: &'static str, from: &Netns, url: &str, wanted: &str) -> Claim {
        Claim::check(name, || {
            let Answer { status, body } = self.get(from, url)?;
            if body.contains(wanted) {
                Ok(body.trim().to_owned())
            } else {
                Err(format!("{url}: {status} {body}").into())
            }
        })
    }

    /// Holds when nothing comes back: a time-out (curl's exit code 28) without a connection, not a refusal.
    fn silent(&self, name: &'static str, from: &Netns, url: &str) -> Claim {
        Claim::check(name, || {
            let output = self.curl(from, url, 4)?;
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            let connected = !told.trim_end().ends_with(" 0.000000");
            match output.status.code() {
                Some(28) if !connected => Ok("nothing came back in 4 s".to_owned()),
                code => Err(format!("{url}: curl ended with {code:?}: {told}").into()),
            }
        })
    }
}
