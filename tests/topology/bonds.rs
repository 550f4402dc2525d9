//! Changes of a gateway's bonds, by the program that people use.

use std::process::{Child, Command, Stdio};

use sepulcher::codex::Codex;

use crate::device::Device;
use crate::lab::Gateway;

impl Gateway {
    /// Bonds a device under its own name, with grants for the Oculus and the iperf server. What comes back is the
    /// preshared key, when one was made.
    pub fn bond(&self, device: &Device) -> Option<String> {
        self.bond_with(device, &[])
    }

    /// The same with more words for the command line.
    pub fn bond_with(&self, device: &Device, more: &[&str]) -> Option<String> {
        self.bond_to(device, &["oculus", "iperf"], more)
    }

    /// The same with grants of its own.
    pub fn bond_to(&self, device: &Device, grants: &[&str], more: &[&str]) -> Option<String> {
        let (name, key) = (&device.host.name, device.key.to_string());
        let words = ["bond", name, "--public-key", &key, "--grant"];
        preshared(&self.peer(&[&words, grants, more].concat()))
    }

    /// Revokes a device.
    pub fn revoke(&self, device: &Device) {
        self.peer(&["revoke", &device.host.name, "--reason", "lost"]);
    }

    /// Gives a device the last key that it made; its preshared key comes back, when one was made.
    pub fn rotate(&self, device: &Device, more: &[&str]) -> Option<String> {
        let (name, key) = (&device.host.name, device.key.to_string());
        preshared(&self.peer(&[&["rotate", name, "--public-key", &key], more].concat()))
    }

    /// Runs `sepulcher snapshot` with these words.
    pub fn snapshot(&self, words: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
        let output = command.arg("snapshot").args(words).arg("--codex").arg(&self.codex).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sepulcher snapshot {}: {errors}", words.join(" "));
    }

    /// Starts `sepulcher peer` with these words.
    pub fn start_peer(&self, words: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
        command.arg("peer").args(words).arg("--json").arg("--codex").arg(&self.codex);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The Codex as it stands.
    pub fn bonds(&self) -> Codex {
        Codex::parse(&sepulcher::sys::codex::load(&[&self.codex])).unwrap()
    }

    /// Has the log of changes checked.
    pub fn audit(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepulcher"));
        let output = command.args(["audit", "verify", "--codex"]).arg(&self.codex).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `sepulcher peer`; its answer.
    pub fn peer(&self, words: &[&str]) -> serde_json::Value {
        let output = self.start_peer(words).wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sepulcher peer {}: {errors}", words.join(" "));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The preshared key out of the configuration that an answer holds.
fn preshared(answer: &serde_json::Value) -> Option<String> {
    let client = answer["client"].as_str()?;
    client.lines().find_map(|line| line.strip_prefix("PresharedKey = ")).map(str::to_owned)
}
