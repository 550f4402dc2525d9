//! `cargo xtask bench --tether`: what one more peer costs among few and among many, with a userspace WireGuard.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sepulcher::codex::Backend;
use sepulcher::codex::key::PublicKey;
use sepulcher::image::toolbox::Toolbox;
use sepulcher::sync::{Desired, Plan, Step};
use sepulcher::sys::cmd::Command;
use sepulcher::sys::wireguard::{self, SecretKey};
use sepulcher::tether::status::Status;

use super::{example_sources, line, made_up_key, median, parsed, peer_address, peer_file, with_peers};
use crate::netns::Netns;
use crate::{Result, image};

const FEW: u32 = 10;
const MANY: u32 = 10_000;

/// Peers of the agent that is left idle, and for how long.
const IDLE: (u32, Duration) = (1000, Duration::from_secs(60));

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs all measurements and prints a line each.
pub fn run() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("sepulcher-bench-").tempdir()?;
    let lab = Lab {
        boot: image::toolbox("tools-boot")?,
        judge: image::toolbox("tools-judge")?,
        program: image::program()?,
        folder: folder.path().to_owned(),
    };
    let [few, many] = [lab.changes(FEW)?, lab.changes(MANY)?];
    line("one peer more among 10, its step alone", "none", &ms(few.step));
    line("one peer more among 10,000, its step alone", "none", &ms(many.step));
    line("  the latter by the former", "3", &ratio(many.step, few.step));
    line("wg syncconf of 10,001 peers", "none", &ms(many.syncconf));
    line("  by the step", "20 at least", &ratio(many.syncconf, many.step));
    line("one peer more among 10, file to interface", "none", &ms(few.whole));
    line("one peer more among 10,000, file to interface", "none", &ms(many.whole));
    line("  the latter by the former", "3", &ratio(many.whole, few.whole));
    lab.idle()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn ratio(upper: Duration, lower: Duration) -> String {
    format!("{:.1}", upper.as_secs_f64() / lower.as_secs_f64())
}

struct Lab {
    boot: Toolbox,
    judge: Toolbox,
    program: PathBuf,
    folder: PathBuf,
}

/// Medians.
struct Changes {
    /// The agent's step: one peer message.
    step: Duration,
    /// `wg syncconf` of the whole file with one peer more.
    syncconf: Duration,
    /// The agent from the moment the peer's file is there to the moment it has read the peer back.
    whole: Duration,
}

impl Lab {
    fn changes(&self, count: u32) -> Result<Changes> {
        let codex = self.codex(count)?;
        let netns = Netns::new(&self.boot, "bench")?;
        let interface = format!("sb{}", std::process::id() % 10_000_000);
        let _wireguard = self.wireguard(&netns, &interface)?;
        let wg = self.boot.command("wg")?;
        let key = fs::read_to_string(codex.join("secrets/tether.key"))?;
        let all = wg.clone().args(["setconf", &interface, "/dev/stdin"]).stdin(configuration(&key, count));
        all.read()?;
        let syncconf =
            self.syncconf(&wg, &interface, &configuration(&key, count + 1), &made_up_key(count))?;
        let step = step(&interface, count)?;
        // The agent begins with the peers of its Codex.
        all.read()?;
        let agent = self.agent(&netns, &interface, &codex)?;
        let mut next = count;
        let whole = median(5, || {
            place(&codex, next)?;
            next += 1;
            agent.until_it_holds(next)
        })?;
        Ok(Changes { step, syncconf, whole })
    }

    /// A Codex in a folder of its own.
    fn codex(&self, count: u32) -> Result<PathBuf> {
        let folder = self.folder.join(format!("codex-{count}"));
        for (name, text) in with_peers(&example_sources(), count)?.iter() {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            fs::write(path, text)?;
        }
        fs::create_dir_all(folder.join("secrets"))?;
        fs::write(folder.join("secrets/tether.key"), SecretKey::generate().to_file().as_bytes())?;
        Ok(folder)
    }

    fn wireguard(&self, netns: &Netns, interface: &str) -> Result<Running> {
        let command = self.boot.command("wireguard-go")?.args(["-f", interface]).within(netns.launcher());
        let running = Running::start(&command, &self.folder.join("wireguard.log"))?;
        let wg = self.boot.command("wg")?.args(["show", interface]);
        until("wireguard-go serves", || Ok(wg.read().is_ok()))?;
        Ok(running)
    }

    /// `wg syncconf` of the file `text`, which holds `newest` beside the peers that are there.
    fn syncconf(&self, wg: &Command, interface: &str, text: &str, newest: &str) -> Result<Duration> {
        let file = self.folder.join("sync.conf");
        fs::write(&file, text)?;
        let remove = wg.clone().args(["set", interface, "peer", newest, "remove"]);
        let sync = wg.clone().args(["syncconf", interface]).arg(&file);
        let mut times = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            sync.read()?;
            times.push(start.elapsed());
            remove.read()?;
        }
        times.sort();
        Ok(times[times.len() / 2])
    }

    fn agent(&self, netns: &Netns, interface: &str, codex: &Path) -> Result<Agent> {
        let status = self.folder.join("tether.json");
        let _ = fs::remove_file(&status);
        let command = Command::new(&self.program)
            .args(["tether", "run", "--backend", "userspace", "--interface", interface])
            .args([Path::new("--law"), codex, Path::new("--bonds"), codex])
            .args([Path::new("--key"), &codex.join("secrets/tether.key"), Path::new("--status"), &status])
            .args([Path::new("--secrets"), &codex.join("secrets")])
            .args([Path::new("--door"), &self.folder.join("door.sock")])
            .args([Path::new("--nft"), &self.judge.shims().join("nft")])
            .within(netns.launcher());
        let log = self.folder.join("agent.log");
        let agent = Agent { running: Running::start(&command, &log)?, status };
        until("the agent is ready", || Ok(agent.status().is_some_and(|status| status.ready)))
            .map_err(|error| format!("{error}:\n{}", fs::read_to_string(log).unwrap_or_default()))?;
        Ok(agent)
    }

    fn idle(&self) -> Result<()> {
        let (count, time) = IDLE;
        let codex = self.codex(count)?;
        let netns = Netns::new(&self.boot, "bench")?;
        let interface = format!("sb{}", std::process::id() % 10_000_000);
        let _wireguard = self.wireguard(&netns, &interface)?;
        let agent = self.agent(&netns, &interface, &codex)?;
        // Services that nobody runs here are looked after sooner at first.
        std::thread::sleep(time);
        let before = agent.running.wake_ups()?;
        std::thread::sleep(time);
        let wake_ups = agent.running.wake_ups()? - before;
        line(
            "idle agent with 1,000 peers, memory",
            "20 MiB",
            &format!("{} MiB", agent.running.memory()? >> 10),
        );
        line("idle agent, wake-ups in a minute", "none", &wake_ups.to_string());
        Ok(())
    }
}

/// What `wg setconf` reads: the host's private key and so many peers.
fn configuration(key: &str, count: u32) -> String {
    let mut text = format!("[Interface]\nPrivateKey = {}\n", key.trim());
    for index in 0..count {
        let address = peer_address(index);
        text += &format!("[Peer]\nPublicKey = {}\nAllowedIPs = {address}/32\n", made_up_key(index));
    }
    text
}

/// The message of one peer more, as the agent sends it.
fn step(interface: &str, count: u32) -> Result<Duration> {
    const RUNS: u32 = 9;
    let secret = SecretKey::generate();
    let codex = parsed(&with_peers(&example_sources(), count + RUNS)?)?;
    let desired = Desired::of(&codex, secret.public(), &BTreeMap::new(), &BTreeMap::new());
    let mut next = count;
    median(RUNS as usize, || {
        let key: PublicKey = made_up_key(next).parse()?;
        next += 1;
        let peer = desired.peers.get(&key).ok_or("a peer was not made")?;
        let plan = Plan { steps: vec![Step::AddPeer(key, peer.clone())] };
        Ok(wireguard::apply(interface, Backend::Userspace, &plan, &secret)?)
    })
}

/// Puts a peer's file in place as a whole.
fn place(codex: &Path, index: u32) -> Result<()> {
    let beside = codex.join(format!("peers/.p{index}"));
    fs::write(&beside, peer_file(index))?;
    Ok(fs::rename(beside, codex.join(format!("peers/p{index}.toml")))?)
}

struct Agent {
    running: Running,
    status: PathBuf,
}

impl Agent {
    fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(&self.status).ok()?).ok()
    }

    fn until_it_holds(&self, count: u32) -> Result<()> {
        until("the agent holds the peer", || {
            Ok(self.status().is_some_and(|status| status.peers.held == count as usize))
        })
    }
}

/// A process that ends with its owner.
struct Running(Child);

impl Running {
    fn start(command: &Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        let mut command = command.to_std();
        Ok(Self(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?))
    }

    /// How often its threads went to sleep and were woken, since they started.
    fn wake_ups(&self) -> Result<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            sum += field(&thread?.path().join("status"), "voluntary_ctxt_switches:")?;
        }
        Ok(sum)
    }

    /// Resident memory in KiB.
    fn memory(&self) -> Result<u64> {
        field(Path::new(&format!("/proc/{}/status", self.0.id())), "VmRSS:")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A number of a process's status.
fn field(status: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(status)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > end {
            return Err(format!("{what} did not come within {} s", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
