//! Claims about the machine's WireGuard: bonds that change while others talk, and what a server must do.
//!
//! The latter are the assertions of Linux's own self-test (`tools/testing/selftests/wireguard/netns.sh`) that concern a
//! server, here on the interface that the agent configured, behind the published port of a pod.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sepulcher::sys::cmd::Command;

use super::Claim;
use super::around::{self, Bonded, WG0, Web, until};
use super::fault::Fault;
use super::low_order::LOW_ORDER;
use super::session::Session;
use super::site::{HOST, Keys, SECOND_HOST, Site};
use super::stream::{PAUSE, Stream};
use crate::Result;
use crate::netns::Netns;
use crate::vm::Running;

/// How long a handshake may take that follows at once, under emulation.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The agent looks every 30 s when nothing happens, and a restart takes its time.
const RECHECK: Duration = Duration::from_secs(45);

/// Where nobody is that the machine has reason to send to.
const WRAITH: &str = "192.0.2.66";

/// A booted machine with two bonded peers that have shaken hands.
pub struct Scene<'a> {
    /// Our program.
    pub program: PathBuf,
    /// Image, tools, scratch.
    pub site: &'a Site,
    /// The machine.
    pub running: &'a Running,
    /// Where the machine and the peers are plugged in.
    pub hub: &'a Netns,
    /// A peer that is granted the Oculus.
    pub phone: &'a Bonded,
    /// A peer that may change bonds.
    pub laptop: &'a Bonded,
    /// The machine's public key.
    pub host_key: &'a str,
}

/// Tries all of them, in this order: the last ones change the phone.
pub fn claims(scene: &Scene<'_>) -> Vec<Claim> {
    vec![
        Claim::check("a peer's stream survives bond, rotation and revocation of another", || {
            scene.stream_survives()
        }),
        Claim::check("it survives the end and the restart of the agent, and so does its session", || {
            scene.agent_dies()
        }),
        Claim::check("both sides count what passed between them", || scene.counts()),
        Claim::check("replies leave with the address that was dialled", || scene.sticky_source()),
        Claim::check("a peer that moves is followed, its session kept", || scene.roams()),
        Claim::check("the seven keys of low order are refused, and never held", || scene.low_order()),
        Claim::check("a new key shakes hands at once, and the old one no more", || scene.key_changes()),
    ]
}

impl Scene<'_> {
    /// `sepulcher peer` on the laptop, over the tether.
    fn admin(&self, words: &[&str]) -> Result<()> {
        let command = Command::new(&self.program).args(["--host", WG0, "peer"]).args(words.iter().copied());
        command.within(self.laptop.netns.launcher()).read()?;
        Ok(())
    }

    /// The same with a configuration that comes back.
    fn admin_for_keys(&self, name: &str, words: &[&str]) -> Result<Keys> {
        let conf = self.site.folder.path().join(format!("{name}-{}.conf", words[0]));
        let path = conf.display().to_string();
        self.admin(&[words, &["--endpoint", HOST, "--conf", &path]].concat())?;
        Keys::of(name, &fs::read_to_string(&conf)?)
    }

    fn page(&self, from: &Bonded) -> Result<String> {
        let answer = Web { toolbox: &self.site.toolbox }.get(&from.netns, &format!("http://{WG0}:6006/"))?;
        if answer.body.contains("stand-in oculus") { Ok(answer.body) } else { Err(answer.body.into()) }
    }

    /// What the machine's interface holds of the phone.
    fn seen(&self) -> Result<serde_json::Value> {
        self.look().map(|(_, phone)| phone)
    }

    /// The time by the machine's clock, and what its interface holds of the phone.
    fn look(&self) -> Result<(u64, serde_json::Value)> {
        let key = self.phone.wg("show", &["public-key"])?;
        let peers = self.peers()?;
        let found = peers["peers"]
            .as_array()
            .and_then(|all| all.iter().find(|peer| peer["public_key"] == key.trim()));
        let found = found.ok_or_else(|| format!("the phone is not held: {peers}"))?;
        Ok((peers["now"].as_u64().ok_or("the machine tells no time")?, found.clone()))
    }

    fn peers(&self) -> Result<serde_json::Value> {
        let answer = Web { toolbox: &self.site.toolbox }
            .get(&self.laptop.netns, &format!("http://{WG0}:51821/v1/peers"))?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// Both ends' word on the session of the phone.
    fn session(&self) -> Result<Session> {
        let (now, seen) = self.look()?;
        Session::of(self.phone.handshake()?, now, &seen)
    }

    /// Lets the phone shake hands, so that WireGuard does not do so by itself while something is proven.
    fn fresh_session(&self) -> Result<()> {
        let before = self.session()?;
        if before.is_young() {
            return Ok(());
        }
        self.phone.configure(&self.site.peers[0], self.host_key)?;
        until(AT_ONCE, "a session that both ends know", || {
            let now = self.session()?;
            Ok(now.is_another(&before) && now.is_young())
        })
    }

    /// Makes a change, and says how long a stream to the phone stood still by it; one that costs the phone its session
    /// is an error. The session is compared at once on both ends.
    fn undisturbed(&self, stream: &mut Stream, change: impl FnOnce() -> Result<()>) -> Result<Duration> {
        self.fresh_session()?;
        let (before, start) = (self.session()?, Instant::now());
        change()?;
        before.goes_on_as(&self.session()?)?;
        stream.pause_since(start, PAUSE)
    }

    fn stream_survives(&self) -> Result<String> {
        let mut stream = Stream::open(&self.site.toolbox, &self.phone.netns)?;
        let mut tablet = None;
        let bond = self.undisturbed(&mut stream, || {
            let keys = self.admin_for_keys("tablet", &["bond", "tablet", "--grant", "oculus"])?;
            let peer = Bonded::new(&self.site.toolbox, self.hub, &keys, "192.0.2.23/24")?;
            peer.dial(&keys, self.host_key)?;
            self.page(&peer)?;
            tablet = Some(peer);
            Ok(())
        })?;
        let tablet = tablet.ok_or("there is no tablet")?;
        let rotate = self.undisturbed(&mut stream, || {
            let keys = self.admin_for_keys("tablet", &["rotate", "tablet"])?;
            tablet.configure(&keys, self.host_key)?;
            until(AT_ONCE, "the handshake with the new key", || Ok(tablet.handshake()? > 0))?;
            self.page(&tablet).map(drop)
        })?;
        let key = tablet.wg("show", &["public-key"])?.trim().to_owned();
        if !self.peers()?.to_string().contains(&key) {
            return Err("the tablet is not held".into());
        }
        let revoke = self.undisturbed(&mut stream, || {
            self.admin(&["revoke", "tablet", "--reason", "lost"])?;
            until(AT_ONCE, "the end of the tablet", || Ok(!self.peers()?.to_string().contains(&key)))
        })?;
        let quiet = Instant::now();
        std::thread::sleep(Duration::from_secs(5));
        let quiet = stream.pause_since(quiet, PAUSE)?;
        let [bond, rotate, revoke, quiet] = [bond, rotate, revoke, quiet].map(|pause| pause.as_millis());
        Ok(format!(
            "the same session throughout; the longest pause in ms: bond {bond}, rotate {rotate}, revoke {revoke}, nothing {quiet}"
        ))
    }

    /// How often the agent has looked since it started.
    fn looks(&self) -> Result<u64> {
        let metrics = Web { toolbox: &self.site.toolbox }
            .get(&self.laptop.netns, &format!("http://{WG0}:51821/metrics"))?;
        let mut lines = metrics.body.lines();
        let count = lines.find_map(|line| line.strip_prefix("sepulcher_plan_duration_seconds_count "));
        Ok(count.ok_or_else(|| format!("no looks are counted: {}", metrics.body))?.parse()?)
    }

    /// Makes a change, and waits until the agent has looked by it; how often it has looked by then.
    fn has_looked(&self, change: &[&str]) -> Result<u64> {
        let (before, mut after) = (self.looks()?, 0);
        self.admin(change)?;
        until(AT_ONCE, "a look of the agent", || {
            after = self.looks()?;
            Ok(after > before)
        })?;
        Ok(after)
    }

    fn agent_dies(&self) -> Result<String> {
        let mut stream = Stream::open(&self.site.toolbox, &self.phone.netns)?;
        // An agent that has started anew has looked less often.
        let looks = self.has_looked(&["grant", "phone", "worker"])?;
        let mut again = 0;
        let pause = self.undisturbed(&mut stream, || {
            let debugger = around::debugger(self.site.folder.path());
            let fault = Fault::inflict(self.running, &self.program, &debugger)?;
            let died = until(RECHECK, "the end of the agent", || Ok(self.looks().is_err()));
            fault.mend()?;
            died?;
            until(RECHECK, "another agent", || {
                again = self.looks().unwrap_or(u64::MAX);
                Ok(again < looks)
            })
        })?;
        self.has_looked(&["ungrant", "phone", "worker"])?;
        Ok(format!(
            "looks of the agent: {looks}, of the next one: {again}; the longest pause: {} ms",
            pause.as_millis()
        ))
    }

    fn counts(&self) -> Result<String> {
        let number = |value: &serde_json::Value, key: &str| value[key].as_u64().unwrap_or_default();
        let before = self.seen()?;
        for _ in 0..5 {
            self.page(self.phone)?;
        }
        let after = self.seen()?;
        let grown = ["received", "sent"].map(|key| number(&after, key).saturating_sub(number(&before, key)));
        // Five requests and answers are some kilobytes each way, with all that TCP and WireGuard add.
        if grown.iter().all(|bytes| (1_000..100_000).contains(bytes)) {
            Ok(format!("{} bytes received, {} sent for five pages", grown[0], grown[1]))
        } else {
            Err(format!("{before} and then {after}").into())
        }
    }

    fn sticky_source(&self) -> Result<String> {
        let dialled = format!("{SECOND_HOST}:51820");
        // WireGuard follows the machine to the address that an answer comes from. What the machine had sent before it
        // heard of the new way (a keepalive, an acknowledgement) may still come from the old one, and lead back to it:
        // so the laptop dials again. A machine that answers from its first address never passes.
        until(AT_ONCE, "answers from the address that was dialled", || {
            self.laptop.wg("set", &["peer", self.host_key, "endpoint", &dialled])?;
            for _ in 0..3 {
                self.page(self.laptop)?;
            }
            Ok(self.laptop.wg("show", &["endpoints"])?.contains(&dialled))
        })?;
        Ok(dialled)
    }

    fn roams(&self) -> Result<String> {
        let netns = &self.phone.netns;
        let mut stream = Stream::open(&self.site.toolbox, netns)?;
        let pause = self.undisturbed(&mut stream, || {
            // In this order: the second address of a network goes with the first.
            netns.ip("address delete 192.0.2.21/24 dev eth0")?;
            netns.ip("address add 192.0.2.31/24 dev eth0")?;
            self.phone.wg("set", &["listen-port", "51999"])?;
            self.page(self.phone)?;
            let endpoint = self.seen()?["endpoint"].to_string();
            let followed = endpoint.contains("192.0.2.31:51999");
            if followed { Ok(()) } else { Err(format!("the machine sends to {endpoint}").into()) }
        })?;
        Ok(format!("192.0.2.31:51999, the same session; its stream paused for {} ms", pause.as_millis()))
    }

    /// Asks the machine to bond a site that it is to dial and to keep alive; the answer and its status.
    fn dial_out(&self, key: &str) -> Result<String> {
        let body = format!(
            r#"{{"verb":"bond","name":"wraith","public_key":"{key}","grants":[],
                "kind":{{"lych":{{"endpoint":"{WRAITH}:7777","keepalive":1,"routes":[]}}}}}}"#
        );
        let url = format!("http://{WG0}:51821/v1/bonds");
        let curl = self.site.toolbox.command("curl")?.args(["--silent", "--max-time", "20"]);
        let curl = curl.args(["--write-out", "%{http_code}", "--header", "Content-Type: application/json"]);
        let curl = curl.args(["--data", &body, &url]).within(self.laptop.netns.launcher());
        Ok(String::from_utf8(curl.read()?)?)
    }

    fn low_order(&self) -> Result<String> {
        let wraith = Netns::new(&self.site.toolbox, "wraith")?;
        wraith.plug_into(self.hub, "br0", "wraith", &format!("{WRAITH}/24"))?;
        for key in LOW_ORDER {
            let told = self.dial_out(key)?;
            if !told.ends_with("400") {
                return Err(format!("{key}: {told}").into());
            }
            if self.peers()?.to_string().contains(key) {
                return Err(format!("{key} is held").into());
            }
        }
        // WireGuard says hello every 5 s to whom it is to keep alive.
        std::thread::sleep(Duration::from_secs(6));
        let silence = wraith.datagrams()?;
        // The same with a key that somebody may hold is dialled: what is not sent would have been seen.
        let private = self.site.toolbox.command("wg")?.arg("genkey").read()?;
        let public =
            String::from_utf8(self.site.toolbox.command("wg")?.arg("pubkey").stdin(private).read()?)?;
        let told = self.dial_out(public.trim())?;
        if !told.ends_with("200") {
            return Err(format!("a site was not bonded: {told}").into());
        }
        until(AT_ONCE, "a hello to a site that is bonded", || Ok(wraith.datagrams()? > silence))?;
        self.admin(&["revoke", "wraith"])?;
        if silence == 0 {
            Ok("0 packets to all seven, where a key of somebody's is dialled".to_owned())
        } else {
            Err(format!("{silence} packets were sent").into())
        }
    }

    fn key_changes(&self) -> Result<String> {
        let keys = self.admin_for_keys("phone", &["rotate", "phone"])?;
        until(AT_ONCE, "the end of the old key", || Ok(self.seen().is_err()))?;
        self.phone.configure(&keys, self.host_key)?;
        until(AT_ONCE, "the handshake with the new key", || Ok(self.phone.handshake()? > 0))?;
        self.page(self.phone)
    }
}
