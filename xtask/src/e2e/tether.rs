//! Claims about the machine's WireGuard: bonds that change while others talk, and what a server must do.
//!
//! The latter are the assertions of Linux's own self-test (`tools/testing/selftests/wireguard/netns.sh`) that concern a
//! server, here on the interface that the agent configured, behind the published port of a pod.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use sepulcher::sys::cmd::Command;

use super::Claim;
use super::around::{Bonded, WG0, Web, until};
use super::site::{HOST, Keys, SECOND_HOST, Site};
use crate::Result;
use crate::netns::Netns;

/// How long a handshake may take that follows at once, under emulation.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Points of Curve25519 with which every private key makes the same secret.
const LOW_ORDER: [&str; 7] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
    "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
    "7P///////////////////////////////////////38=",
    "7f///////////////////////////////////////38=",
    "7v///////////////////////////////////////38=",
];

/// A booted machine with two bonded peers that have shaken hands.
pub struct Scene<'a> {
    /// Our program.
    pub program: PathBuf,
    /// Image, tools, scratch.
    pub site: &'a Site,
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
        let key = self.phone.wg("show", &["public-key"])?;
        let peers = self.peers()?;
        let found = peers["peers"]
            .as_array()
            .and_then(|all| all.iter().find(|peer| peer["public_key"] == key.trim()));
        Ok(found.ok_or_else(|| format!("the phone is not held: {peers}"))?.clone())
    }

    fn peers(&self) -> Result<serde_json::Value> {
        let answer = Web { toolbox: &self.site.toolbox }
            .get(&self.laptop.netns, &format!("http://{WG0}:51821/v1/peers"))?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    fn stream_survives(&self) -> Result<String> {
        let before = self.phone.handshake()?;
        let stream = Stream::open(&self.phone.netns)?;
        let first = self.admin_for_keys("tablet", &["bond", "tablet", "--grant", "oculus"])?;
        let tablet = Bonded::new(&self.site.toolbox, self.hub, &first, "192.0.2.23/24")?;
        tablet.dial(&first, self.host_key)?;
        self.page(&tablet)?;
        let second = self.admin_for_keys("tablet", &["rotate", "tablet"])?;
        tablet.configure(&second, self.host_key)?;
        until(AT_ONCE, "the handshake with the new key", || Ok(tablet.handshake()? > 0))?;
        self.page(&tablet)?;
        let key = tablet.wg("show", &["public-key"])?.trim().to_owned();
        if !self.peers()?.to_string().contains(&key) {
            return Err("the tablet is not held".into());
        }
        self.admin(&["revoke", "tablet", "--reason", "lost"])?;
        until(AT_ONCE, "the end of the tablet", || Ok(!self.peers()?.to_string().contains(&key)))?;
        let told = stream.end()?;
        let after = self.phone.handshake()?;
        // WireGuard renews a session by itself after two minutes; what a change would cause is a handshake at once.
        if after == before || after - before >= 110 {
            Ok(told)
        } else {
            Err(format!("a new session after {} s: {told}", after - before).into())
        }
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
        let (handshake, netns) = (self.phone.handshake()?, &self.phone.netns);
        // In this order: the second address of a network goes with the first.
        netns.ip("address delete 192.0.2.21/24 dev eth0")?;
        netns.ip("address add 192.0.2.31/24 dev eth0")?;
        self.phone.wg("set", &["listen-port", "51999"])?;
        self.page(self.phone)?;
        let endpoint = self.seen()?["endpoint"].to_string();
        if !endpoint.contains("192.0.2.31:51999") {
            return Err(format!("the machine sends to {endpoint}").into());
        }
        let later = self.phone.handshake()?;
        if later == handshake || later - handshake >= 110 {
            Ok(endpoint)
        } else {
            Err("it had to shake hands anew".into())
        }
    }

    fn low_order(&self) -> Result<String> {
        let url = format!("http://{WG0}:51821/v1/bonds");
        for key in LOW_ORDER {
            let body = format!(r#"{{"verb":"bond","name":"wraith","public_key":"{key}","grants":[]}}"#);
            let curl = self.site.toolbox.command("curl")?.args([
                "--silent",
                "--max-time",
                "20",
                "--write-out",
                "%{http_code}",
            ]);
            let curl = curl.args(["--header", "Content-Type: application/json", "--data", &body, &url]);
            let told = String::from_utf8(curl.within(self.laptop.netns.launcher()).read()?)?;
            if !told.ends_with("400") {
                return Err(format!("{key}: {told}").into());
            }
            if self.peers()?.to_string().contains(key) {
                return Err(format!("{key} is held").into());
            }
        }
        Ok("a peer that is not held is sent nothing".to_owned())
    }

    fn key_changes(&self) -> Result<String> {
        let keys = self.admin_for_keys("phone", &["rotate", "phone"])?;
        until(AT_ONCE, "the end of the old key", || Ok(self.seen().is_err()))?;
        self.phone.configure(&keys, self.host_key)?;
        until(AT_ONCE, "the handshake with the new key", || Ok(self.phone.handshake()? > 0))?;
        self.page(self.phone)
    }
}

/// A TCP stream from a peer to the Oculus that has something to say five times a second, until it is ended: a
/// request whose head goes on and on.
struct Stream(Child);

const STREAM: &str = r#"exec 3<>/dev/tcp/10.88.16.1/6006 || exit 1
printf 'GET / HTTP/1.1\r\n' >&3
until read -r -t 0.2 _; do lines=$((lines + 1)); printf 'X: %s\r\n' "$lines" >&3 || exit 1; done
printf '\r\n' >&3; echo "$lines lines on one connection, then:"; cat <&3
"#;

impl Stream {
    fn open(from: &Netns) -> Result<Self> {
        let command = Command::new("bash").args(["-c", STREAM]).within(from.launcher());
        Ok(Self(
            command.to_std().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?,
        ))
    }

    /// Ends the request; what was answered to it.
    fn end(mut self) -> Result<String> {
        self.0.stdin.take().ok_or("the stream has no standard input")?.write_all(b"\n")?;
        let output = self.0.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && told.contains("HTTP/1.1 200 OK") {
            Ok(told.lines().next().unwrap_or_default().to_owned())
        } else {
            Err(format!("{told}{}", String::from_utf8_lossy(&output.stderr)).into())
        }
    }
}
