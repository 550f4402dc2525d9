//! A gateway with its agent, and devices with tunnels to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sepulcher::codex::key::{PublicKey, SharedKey};
use sepulcher::sys::wireguard::SecretKey;
use sepulcher::tether::status::Status;

use crate::lab::{Daemon, Machine, until};

pub const SEPULCHER: &str = env!("CARGO_BIN_EXE_sepulcher");

/// A gateway with an agent and a stand-in of the Oculus, all files in `folder`.
pub struct Gateway {
    pub machine: Machine,
    pub folder: PathBuf,
    pub key: PublicKey,
}

impl Gateway {
    pub fn new(folder: &Path) -> Self {
        let machine = Machine::new();
        // The pod's own address: where published ports arrive.
        machine.sh("ip address add 10.88.0.10/32 dev lo");
        for below in ["law/services", "bonds/peers", "secrets/peers"] {
            fs::create_dir_all(folder.join(below)).unwrap();
        }
        let law = "schema = 1\n[appliance]\nname = \"lab\"\n[tether]\nbackend = \"userspace\"\n";
        fs::write(folder.join("law/lychd.toml"), law).unwrap();
        let oculus =
            "description = \"Trace UI\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"tether\"\n";
        fs::write(folder.join("law/services/oculus.toml"), oculus).unwrap();
        let secret = SecretKey::generate();
        fs::write(folder.join("tether.key"), secret.to_file().as_bytes()).unwrap();
        Self { machine, folder: folder.to_owned(), key: secret.public() }
    }

    /// An agent that looks every second.
    pub fn agent(&self) -> Daemon {
        self.agent_with(self.agent_command(1))
    }

    pub fn agent_with(&self, command: Command) -> Daemon {
        Daemon::start(command, &self.folder.join("agent.log"))
    }

    /// An agent that looks every so many seconds when nothing happens.
    pub fn agent_command(&self, recheck: u8) -> Command {
        let mut command = self.machine.command(SEPULCHER);
        command.args(["tether", "run", "--recheck", &recheck.to_string()]);
        for (option, file) in [
            ("--law", "law"),
            ("--bonds", "bonds"),
            ("--secrets", "secrets"),
            ("--key", "tether.key"),
            ("--status", "tether.json"),
            ("--veil", "veil"),
            ("--door", "door.sock"),
            ("--control", "control.sock"),
        ] {
            command.arg(option).arg(self.folder.join(file));
        }
        command
    }

    /// Waits until the agent says that it is ready.
    pub fn ready(&self) {
        until("the agent is ready", || self.status().filter(|status| status.ready));
    }

    /// Writes the preshared key of a peer's generation.
    pub fn share(&self, name: &str, generation: u32, key: &SharedKey) {
        let folder = self.folder.join("secrets/peers");
        let beside = folder.join(".new");
        fs::write(&beside, format!("{}\n", *key.to_text())).unwrap();
        fs::rename(beside, folder.join(format!("{name}.{generation}.psk"))).unwrap();
    }

    pub fn stand_in(&self) -> Daemon {
        let mut command = self.machine.command(SEPULCHER);
        command.args(["stand-in", "oculus", "6006", "--path", "/traces"]);
        Daemon::start(command, &self.folder.join("oculus.log"))
    }

    /// All of it: the stand-in, a userspace WireGuard, and an agent that looks every so many seconds and is ready.
    /// What is returned runs until it is dropped.
    pub fn running(&self, recheck: u8) -> [Daemon; 2] {
        let oculus = self.stand_in();
        self.machine.wireguard();
        let agent = self.agent_with(self.agent_command(recheck));
        self.ready();
        [oculus, agent]
    }

    /// What the agent told last.
    pub fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(self.folder.join("tether.json")).ok()?).ok()
    }

    pub fn held(&self) -> usize {
        self.status().map_or(0, |status| status.peers.held)
    }

    pub fn bond(&self, name: &str, content: &str) {
        let file = self.folder.join(format!("bonds/peers/{name}.toml"));
        let beside = self.folder.join(format!("bonds/peers/.{name}.new"));
        fs::write(&beside, content).unwrap();
        fs::rename(beside, file).unwrap();
    }

    /// What the interface holds of the peer with that key.
    pub fn peer(&self, key: PublicKey) -> serde_json::Value {
        let (law, bonds) = (self.folder.join("law"), self.folder.join("bonds"));
        let line =
            format!("{SEPULCHER} tether status --json --law {} --bonds {}", law.display(), bonds.display());
        let all: serde_json::Value = serde_json::from_str(&self.machine.sh(&line)).unwrap();
        all["peers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|peer| peer["public_key"] == key.to_string())
            .cloned()
            .unwrap()
    }

    /// The session of a device, to be compared with [`Gateway::assert_untouched`].
    pub fn session(&self, device: &Device) -> Session {
        let (last_handshake, received, sent) = counters(&self.peer(device.key));
        assert!(last_handshake > 0 && received > 0 && sent > 0, "there is no session yet");
        Session { last_handshake, received, sent, log: self.log().len() }
    }

    /// That the agent has not touched the device since: a peer that is made anew begins at zero, and one that is
    /// changed is in the journal. The handshake itself is not compared: where an answer is quicker than
    /// wireguard-go's own timer, that runs on, and the device shakes hands again after 5 s or 15 s by itself.
    pub fn assert_untouched(&self, device: &Device, before: &Session) {
        let (last_handshake, received, sent) = counters(&self.peer(device.key));
        let after = (last_handshake, received, sent);
        assert!(last_handshake >= before.last_handshake, "{before:?} {after:?}");
        assert!(received >= before.received && sent >= before.sent, "{before:?} {after:?}");
        let log = self.log();
        let since = log.get(before.log..).unwrap_or(&log);
        let mine = since.lines().find(|line| line.contains(&device.key.to_string()));
        assert_eq!(mine, None, "the agent did something to it");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap()
    }
}

/// A device with a tunnel to the gateway.
pub struct Device {
    pub machine: Machine,
    pub key: PublicKey,
    pub address: String,
    /// The gateway as `wg set wg0 peer` takes it.
    host: String,
}

impl Device {
    pub fn new(gateway: &Gateway, number: u8) -> Self {
        Self::at(gateway, number, &format!("10.88.16.{}", number + 2))
    }

    /// A device with that tunnel address.
    pub fn at(gateway: &Gateway, number: u8, address: &str) -> Self {
        let machine = Machine::new();
        let here = format!("192.0.2.{}", 4 * number + 1);
        let there = format!("192.0.2.{}/30", 4 * number + 2);
        gateway.machine.plug(&format!("up{number}"), &format!("{here}/30"), &machine, &there);
        // As behind one bridge: answers come from the pod's address, whichever cable they take. Else the device would
        // follow the gateway to this cable's own address, where nothing is published.
        let network = format!("192.0.2.{}/30", 4 * number);
        gateway.machine.sh(&format!("ip route replace {network} dev up{number} scope link src 10.88.0.10"));
        let secret = SecretKey::generate();
        let key_file = gateway.folder.join(format!("device{number}.key"));
        fs::write(&key_file, secret.to_file().as_bytes()).unwrap();
        machine.wireguard();
        machine.sh(&format!(
            "ip route add 10.88.0.10 via {here} && wg set wg0 private-key {} && \
             ip address add {address}/20 dev wg0 && ip link set wg0 up",
            key_file.display(),
        ));
        let host = format!("{} allowed-ips 10.88.16.0/20 endpoint 10.88.0.10:51820", gateway.key);
        machine.sh(&format!("wg set wg0 peer {host}"));
        Self { machine, key: secret.public(), address: address.to_owned(), host }
    }

    /// Lets its handshakes need that preshared key.
    pub fn share(&mut self, gateway: &Gateway, key: &SharedKey) {
        let file = gateway.folder.join(format!("device-{}.psk", self.key.to_string().replace('/', "_")));
        fs::write(&file, key.to_text().as_bytes()).unwrap();
        self.host += &format!(" preshared-key {}", file.display());
        self.machine.sh(&format!("wg set wg0 peer {}", self.host));
    }

    /// Knows nothing of the gateway any more, its session included.
    pub fn disconnect(&self) {
        let key = self.host.split_whitespace().next().unwrap();
        self.machine.sh(&format!("wg set wg0 peer {key} remove"));
    }

    /// Begins anew: the next packet needs a handshake.
    pub fn reconnect(&self) {
        self.disconnect();
        self.machine.sh(&format!("wg set wg0 peer {}", self.host));
    }

    /// One look whether the page comes through the tunnel.
    pub fn try_page(&self) -> Option<String> {
        self.machine.get("10.88.16.1", 6006, "/traces")
    }

    pub fn file(&self, more: &str) -> String {
        format!(
            "public-key = \"{}\"\naddress = \"{}\"\ngrants = [\"oculus\"]\n{more}",
            self.key, self.address
        )
    }

    pub fn page(&self) -> String {
        until("the page comes through the tunnel", || self.try_page())
    }
}

/// What has passed between the gateway and a device, and how much the agent had said by then.
#[derive(Debug)]
pub struct Session {
    last_handshake: u64,
    received: u64,
    sent: u64,
    log: usize,
}

/// Last handshake, bytes received, bytes sent.
fn counters(peer: &serde_json::Value) -> (u64, u64, u64) {
    let number = |key: &str| peer[key].as_u64().unwrap_or_default();
    (number("last_handshake"), number("received_bytes"), number("sent_bytes"))
}
