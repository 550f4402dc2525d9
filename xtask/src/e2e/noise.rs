//! An outsider that knocks a thousand times a second for as long as a machine runs, and an ear for what comes back.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sepulcher::codex::key::PublicKey;
use sepulcher::image::toolbox::Toolbox;
use sepulcher::probe::dice::Dice;
use sepulcher::probe::payload::{SHAPES, Shape};

use super::around::until;
use super::site::{HOST, HOST6};
use crate::netns::Netns;
use crate::{Result, image, vm};

/// The outsider's addresses.
const ADDRESS: &str = "192.0.2.66";
const ADDRESS6: &str = "2001:db8:2::66";

/// Probes a second.
const RATE: u64 = 1000;

/// So many of them go out together.
const BURST: u64 = 10;

/// Of so many probes two are TCP connections, one in each family.
const EVERY: u64 = 20;

/// Of so many probes one goes over IPv6.
const EVERY6: u64 = 5;

/// Initiations with a right mac1 in a flood: a multiple of what makes WireGuard answer with cookies.
const FLOOD: u64 = 5000;

/// TCP ports that the machine uses for itself, or not at all; none of the forest's.
const TCP: [u16; 8] = [22, 443, 2019, 5432, 6006, 7134, 9464, 51820];

/// The knocking, from [`Noise::start`] to [`Noise::end`].
pub struct Noise {
    netns: Netns,
    ear: Child,
    capture: PathBuf,
    scan: Toolbox,
    end: Arc<AtomicBool>,
    known: Arc<Known>,
    knocking: Option<JoinHandle<std::io::Result<()>>>,
    began: Instant,
    phases: Vec<(String, Duration, u64)>,
}

/// What the one who knocks has done and knows.
#[derive(Default)]
struct Known {
    sent: AtomicU64,
    /// Initiations that are to go out as fast as they can.
    flood: AtomicU64,
    /// The machine's public key: anybody may have it.
    key: OnceLock<PublicKey>,
}

impl Noise {
    /// Begins to knock at a machine that need not be there yet.
    pub fn start(toolbox: &Toolbox, hub: &Netns, scratch: &Path) -> Result<Self> {
        let netns = Netns::new(toolbox, "noise")?;
        netns.plug_into(hub, "br0", "noise", &format!("{ADDRESS}/24"))?;
        netns.ip(&format!("address add {ADDRESS6}/64 dev eth0 nodad"))?;
        // Nobody has to tell where the machine is: so packets leave before it can.
        for host in [HOST, HOST6] {
            let place = vm::HARDWARE_ADDRESS;
            netns.ip(&format!("neighbour replace {host} lladdr {place} dev eth0 nud permanent"))?;
        }
        let scan = image::toolbox("tools-scan")?;
        let capture = scratch.join("noise.pcap");
        let ear = listen(&scan, &netns, &capture)?;
        let (end, known) = (Arc::new(AtomicBool::new(false)), Arc::new(Known::default()));
        let network = File::open(format!("/run/netns/{}", netns.name))?;
        let (stop, knowing) = (Arc::clone(&end), Arc::clone(&known));
        let knocking = thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            knock(&stop, &knowing)
        });
        let phases = vec![("powered off".to_owned(), Duration::ZERO, 0)];
        Ok(Self {
            netns,
            ear,
            capture,
            scan,
            end,
            known,
            knocking: Some(knocking),
            began: Instant::now(),
            phases,
        })
    }

    /// What happens to the machine from now on.
    pub fn phase(&mut self, name: &str) {
        self.phases.push((name.to_owned(), self.began.elapsed(), self.sent()));
    }

    fn sent(&self) -> u64 {
        self.known.sent.load(Ordering::Relaxed)
    }

    /// Has the outsider know the machine's public key from now on, as anybody may: it can make a mac1 that is right.
    pub fn knows(&self, key: &str) -> Result<()> {
        let key: PublicKey = key.parse()?;
        // The machine has one key for life: who knows it already knows this one.
        let _ = self.known.key.set(key);
        Ok(())
    }

    /// Sends thousands of initiations with a right mac1 at once: WireGuard under such a load answers with cookies, unless
    /// somebody keeps them in.
    pub fn floods(&self) -> Result<String> {
        if self.known.key.get().is_none() {
            return Err("the outsider does not know the key".into());
        }
        let start = Instant::now();
        self.known.flood.store(FLOOD, Ordering::Relaxed);
        until(Duration::from_secs(60), "the end of the flood", || {
            Ok(self.known.flood.load(Ordering::Relaxed) == 0)
        })?;
        Ok(format!("{FLOOD} initiations in {:.1} s", start.elapsed().as_secs_f32()))
    }

    /// What nmap, which was given ample time, finds out about the tether's port that it does not find out about its neighbour.
    pub fn scanned(&self) -> Result<String> {
        let tcp: Vec<_> = TCP.iter().map(u16::to_string).collect();
        let ports = format!("T:80,{},U:51820,51821,53,40000", tcp.join(","));
        let data = self.scan.file("usr/share/nmap");
        let nmap = |options: &[&str]| -> Result<String> {
            let command = self.scan.command("nmap")?.arg("--datadir").arg(&data);
            let command = command.args(["-n", "-Pn", "--reason", "--max-retries", "2", "-oX", "-"]);
            let told =
                command.args(options.iter().copied()).arg(HOST).within(self.netns.launcher()).read()?;
            Ok(String::from_utf8(told)?)
        };
        let seen = nmap(&["-sU", "-sS", "-O", "-p", &ports])?;
        let state = |protocol: &str, port: &str| -> Result<String> {
            let mark = format!(r#"<port protocol="{protocol}" portid="{port}"><state "#);
            let found = seen.split(&mark).nth(1).and_then(|rest| rest.split("/>").next());
            Ok(found.ok_or_else(|| format!("nmap tells nothing of {protocol} {port}: {seen}"))?.to_owned())
        };
        // What it takes for the system's fingerprint are ports that answered.
        if seen
            .split("<portused ")
            .skip(1)
            .any(|used| used.split("/>").next().is_some_and(|used| used.contains(r#"portid="51820""#)))
        {
            return Err(format!("nmap takes the tether's port for a fingerprint: {seen}").into());
        }
        let open = state("tcp", "80")?;
        if !open.contains(r#"state="open""#) {
            return Err(format!("nmap does not even see the forest's port: {open}").into());
        }
        let closed = state("udp", "40000")?;
        for port in ["51820", "51821", "53"] {
            if state("udp", port)? != closed {
                return Err(format!("UDP {port} is {}, another {closed}", state("udp", port)?).into());
            }
        }
        for port in &tcp {
            if !state("tcp", port)?.contains(r#"state="filtered" reason="no-response""#) {
                return Err(format!("TCP {port} is {}", state("tcp", port)?).into());
            }
        }
        let protocols = nmap(&["-sO", "-p", "1,2,17,47,50,51,132"])?;
        let told = protocols.matches(r#"state="open|filtered" reason="no-response""#).count();
        if told < 7 {
            return Err(format!("an IP protocol answers: {protocols}").into());
        }
        Ok(format!("UDP 51820, 51821, 53 and 40000 alike: {closed}"))
    }

    /// Ends the knocking; how much there was in each phase, and that nothing came back.
    pub fn end(mut self) -> Result<String> {
        self.phase("the end");
        self.end.store(true, Ordering::Relaxed);
        if let Some(knocking) = self.knocking.take() {
            knocking.join().map_err(|_| "the knocking broke off")??;
        }
        let told = self.timeline();
        let heard = self.heard()?;
        let (sent, seconds) = (self.sent(), self.began.elapsed().as_secs());
        if sent < RATE * seconds * 9 / 10 {
            return Err(format!("only {sent} probes in {seconds} s: {told}").into());
        }
        if heard.is_empty() { Ok(told) } else { Err(format!("{told}\n{heard}").into()) }
    }

    /// That the ear hears: what is asked of the forest's port is answered, and then forgotten.
    pub fn hears(&mut self, curl: &Toolbox) -> Result<String> {
        let url = format!("http://{HOST}/");
        let curl =
            curl.command("curl")?.args(["--silent", "--max-time", "10", "--local-port", "33333", &url]);
        curl.within(self.netns.launcher()).read()?;
        until(Duration::from_secs(10), "the ear hears", || {
            Ok(self.packets("tcp dst port 33333")?.lines().count() > 2)
        })?;
        Ok(format!("{} packets of one page", self.packets("tcp dst port 33333")?.lines().count()))
    }

    fn timeline(&self) -> String {
        let pairs = self.phases.windows(2).map(|pair| {
            let [(name, from, before), (_, to, after)] = pair else { return String::new() };
            format!("{name} {:.0}–{:.0} s: {} sent", from.as_secs_f32(), to.as_secs_f32(), after - before)
        });
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// Everything that was sent to the outsider but for what the forest's port answered to the page that was asked for, and
    /// to nmap. The knocking never asks it.
    fn heard(&self) -> Result<String> {
        let all = self.packets("not tcp dst port 33333 and not tcp src port 80")?;
        let mut kinds = BTreeMap::new();
        for line in all.lines() {
            let kind = line.split_once(' ').map_or(line, |(_, rest)| rest).to_owned();
            *kinds.entry(kind).or_insert(0_u32) += 1;
        }
        Ok(kinds.iter().take(20).map(|(kind, count)| format!("{count} × {kind}\n")).collect())
    }

    fn packets(&self, filter: &str) -> Result<String> {
        let reader =
            self.scan.command("tcpdump")?.args(["-Z", "root", "-n", "-r"]).arg(&self.capture).arg(filter);
        Ok(String::from_utf8(reader.read()?)?)
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // Both fail only when it has ended already.
        let _ = self.ear.kill();
        let _ = self.ear.wait();
    }
}

/// Captures what is addressed to the outsider, IPv4 and IPv6, until it is killed. ARP is not among it: whoever shares a link
/// knows that somebody is there, and the page that the outsider asks for needs it.
fn listen(scan: &Toolbox, netns: &Netns, capture: &Path) -> Result<Child> {
    let own = format!("(ip and dst host {ADDRESS}) or (ip6 and not ip6 multicast)");
    let command = scan.command("tcpdump")?.args([
        "-Z",
        "root",
        "-n",
        "-U",
        "--immediate-mode",
        "-i",
        "eth0",
        "-Q",
        "in",
        "-w",
    ]);
    let command = command.arg(capture).arg(own).within(netns.launcher());
    let ear = command.to_std().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    until(Duration::from_secs(10), "the ear listens", || Ok(capture.exists()))?;
    Ok(ear)
}

/// Sends until it is told to end: to the tether's port every other time, else to any.
fn knock(end: &AtomicBool, known: &Known) -> std::io::Result<()> {
    let host: Ipv4Addr = HOST.parse().map_err(std::io::Error::other)?;
    let host6: Ipv6Addr = HOST6.parse().map_err(std::io::Error::other)?;
    let (socket, socket6) =
        (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?, UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?);
    let Known { sent, flood, key } = known;
    // The same in every run.
    let mut dice = Dice::new([7; 32]);
    let start = Instant::now();
    while !end.load(Ordering::Relaxed) {
        let due = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX) * RATE / 1000;
        while sent.load(Ordering::Relaxed) < due {
            for _ in 0..BURST {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let over6 = number % EVERY6 == 3;
                let to: IpAddr = if over6 { host6.into() } else { host.into() };
                if number % EVERY == 1 || number % EVERY == 3 {
                    let port = TCP[dice.below(TCP.len())];
                    // Nobody answers: a SYN has left when the time is over.
                    let _ = TcpStream::connect_timeout(&(to, port).into(), Duration::from_millis(1));
                    continue;
                }
                let port = if number.is_multiple_of(2) { 51820 } else { dice.port() };
                let shape = SHAPES[dice.below(SHAPES.len())];
                let payload = shape.payload(key.get(), &mut dice);
                for _ in 0..shape.packets() {
                    // While the machine is away the socket may be told so by our own side.
                    let _ = if over6 { &socket6 } else { &socket }.send_to(&payload, (to, port));
                }
            }
        }
        for _ in 0..flood.load(Ordering::Relaxed) {
            let _ = socket.send_to(&Shape::GoodMac1.payload(key.get(), &mut dice), (host, 51820));
        }
        flood.store(0, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(BURST * 1000 / RATE));
    }
    Ok(())
}
