//! What one more peer costs among few and among many, what the whole policy costs, and what an idle agent does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sepulcher::codex::key::PublicKey;
use sepulcher::render::nftables;
use sepulcher::sync::{Desired, Plan, Step};
use sepulcher::sys::nft::Nft;
use sepulcher::sys::wireguard::{self, SecretKey};
use sepulcher::tether::RECHECK;

use super::lab::{Interface, Lab};
use super::{
    example_sources, line, made_up_key, median, middle, ms, parsed, peer_address, peer_file, ratio,
    with_peers,
};
use crate::Result;

const FEW: u32 = 10;
const MANY: u32 = 10_000;

/// Peers of the agent that is left idle, and for how long.
const IDLE: (u32, Duration) = (1000, Duration::from_secs(60));

/// Measures changes of one peer and of the whole policy, and prints a line each.
pub fn changes(lab: &Lab) -> Result<()> {
    let [few, many] = [changes_among(lab, FEW)?, changes_among(lab, MANY)?];
    line("one peer more among 10, its step alone", "none", &ms(few.step));
    line("one peer more among 10,000, its step alone", "none", &ms(many.step));
    line("  the latter by the former", "3", &ratio(many.step, few.step));
    line("wg syncconf of 10,001 peers", "none", &ms(many.syncconf));
    line("  by the step", "20 at least", &ratio(many.syncconf, many.step));
    line("one peer more among 10, file to interface", "none", &ms(few.whole));
    line("one peer more among 10,000, file to interface", "none", &ms(many.whole));
    line("  the latter by the former", "3", &ratio(many.whole, few.whole));
    line("whole policy of 10 peers replaced", "none", &ms(few.policy));
    line("whole policy of 10,000 peers replaced", "none", &ms(many.policy));
    Ok(())
}

/// Medians.
struct Changes {
    /// The agent's step: one peer message.
    step: Duration,
    /// `wg syncconf` of the whole file with one peer more.
    syncconf: Duration,
    /// The agent from the moment the peer's file is there to the moment it has read the peer back.
    whole: Duration,
    /// The pod's table, every grant in it, in one transaction.
    policy: Duration,
}

fn changes_among(lab: &Lab, count: u32) -> Result<Changes> {
    let sources = with_peers(&example_sources(), count)?;
    let codex = lab.codex(&format!("codex-{count}"), &sources)?;
    let interface = lab.interface("bench", &format!("sb{}", std::process::id() % 10_000_000))?;
    let policy = policy(lab, &interface, &nftables::pod(&parsed(&sources)?)?)?;
    let key = fs::read_to_string(codex.join("secrets/tether.key"))?;
    let all = lab.wg(&interface, "setconf")?.arg("/dev/stdin").stdin(configuration(&key, count));
    all.read()?;
    let syncconf = syncconf(lab, &interface, &configuration(&key, count + 1), &made_up_key(count))?;
    let step = interface.netns.within(|| step(lab, &interface.name, count))?;
    // The agent begins with the peers of its Codex.
    all.read()?;
    let agent = lab.agent(&interface, &codex)?;
    let mut next = count;
    let whole = median(5, || {
        place(&codex, next)?;
        next += 1;
        agent.until_it_holds(next)
    })?;
    Ok(Changes { step, syncconf, whole, policy })
}

/// The idle agent: its memory, how often its timers have it look, and how often its threads slept meanwhile, which is more:
/// a look waits for answers.
pub fn idle(lab: &Lab) -> Result<()> {
    let (count, time) = IDLE;
    let codex = lab.codex("idle", &with_peers(&example_sources(), count)?)?;
    let interface = lab.interface("bench", &format!("sb{}", std::process::id() % 10_000_000))?;
    let agent = lab.agent(&interface, &codex)?;
    // Services that nobody runs here are looked after sooner at first.
    std::thread::sleep(time);
    let before = agent.running.wake_ups()?;
    let looks = agent.looks_within(time);
    let wake_ups = agent.running.wake_ups()? - before;
    let most = time.as_secs() / RECHECK.as_secs() + 1;
    line("idle agent with 1,000 peers, memory", "20 MiB", &format!("{} MiB", agent.running.memory()? >> 10));
    line("idle agent, looks in a minute", &most.to_string(), &looks.to_string());
    line("  how often its threads slept", "none", &wake_ups.to_string());
    Ok(())
}

/// The table replaced by itself. It is gone afterwards.
fn policy(lab: &Lab, interface: &Interface, ruleset: &str) -> Result<Duration> {
    let nft = Nft::new(lab.tools.shims().join("nft"));
    interface.netns.within(|| {
        nft.load(ruleset)?;
        let time = median(5, || Ok(nft.load(ruleset)?))?;
        nft.load("delete table inet sepulcher\n")?;
        Ok(time)
    })
}

/// `wg syncconf` of the file `text`, which holds `newest` beside the peers that are there.
fn syncconf(lab: &Lab, interface: &Interface, text: &str, newest: &str) -> Result<Duration> {
    let file = lab.folder.join("sync.conf");
    fs::write(&file, text)?;
    let remove = lab.wg(interface, "set")?.args(["peer", newest, "remove"]);
    let sync = lab.wg(interface, "syncconf")?.arg(&file);
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        sync.read()?;
        times.push(start.elapsed());
        remove.read()?;
    }
    Ok(middle(times, Ord::cmp))
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
fn step(lab: &Lab, interface: &str, count: u32) -> Result<Duration> {
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
        Ok(wireguard::apply(interface, lab.backend, &plan, &secret)?)
    })
}

/// Puts a peer's file in place as a whole.
fn place(codex: &Path, index: u32) -> Result<()> {
    let beside = codex.join(format!("peers/.p{index}"));
    fs::write(&beside, peer_file(index))?;
    Ok(fs::rename(beside, codex.join(format!("peers/p{index}.toml")))?)
}
