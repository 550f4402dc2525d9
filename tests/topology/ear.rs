//! Listens for what reaches a machine, and keeps it when the test fails.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::host::{Host, Rights, until};
use crate::lab::World;

/// A capture on an interface of a machine that may open raw sockets.
pub struct Ear<'a> {
    host: &'a Host,
    kept: PathBuf,
}

impl<'a> Ear<'a> {
    /// Captures on `eth0` what the filter of tcpdump says.
    pub fn at(world: &World, host: &'a Host, filter: &str) -> Self {
        Self::on("eth0", world, host, filter)
    }

    /// The same on any interface.
    pub fn on(interface: &str, world: &World, host: &'a Host, filter: &str) -> Self {
        // As the user that it is: the container knows no other. At once, or the last second stays in the kernel's buffer.
        host.sh(&format!(
            "rm -f /run/ear /run/heard.pcap; tcpdump -Z root -n -U --immediate-mode -i {interface} -w /run/heard.pcap '{filter}' 2> /run/ear & \
             echo $! > /run/ear.pid"
        ));
        until("the ear listens", || host.try_sh("cat /run/ear").ok()?.contains("listening").then_some(()));
        Self { host, kept: world.log(&host.name).with_extension("pcap") }
    }

    /// One line a packet, of all until now.
    pub fn heard(&self) -> String {
        // What came in the last moment is on its way through the listener.
        self.host.sh("sleep 0.5; tcpdump -Z root -n -r /run/heard.pcap 2> /run/reader")
    }
}

/// A capture of all that passes a machine's `eth0`, by somebody beside it: for those who want to know why a test failed.
pub struct Recorder {
    host: Host,
    kept: PathBuf,
}

impl Recorder {
    /// Captures from now on what `other` sends and gets.
    pub fn beside(world: &World, other: &Host, name: &str) -> Self {
        let rights = Rights { capabilities: &["NET_RAW"], ..Rights::default() };
        let argv = [
            "tcpdump",
            "-Z",
            "root",
            "-n",
            "-U",
            "--immediate-mode",
            "-s",
            "256",
            "-i",
            "eth0",
            "-w",
            "/run/heard.pcap",
        ];
        let host = world.beside(other, name, &argv, rights);
        Self { host, kept: world.log(name).with_extension("pcap") }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            keep(&self.host, &self.kept);
        }
    }
}

/// Writes what was heard into a file of ours.
fn keep(host: &Host, kept: &Path) {
    // The test has failed already, for a reason of its own.
    let Ok(text) = host.try_sh("base64 --wrap 0 /run/heard.pcap") else { return };
    let Ok(bytes) = STANDARD.decode(text.trim()) else { return };
    let _ = fs::create_dir_all(kept.parent().unwrap());
    let _ = fs::write(kept, bytes);
    eprintln!("what {} heard is in {}", host.name, kept.display());
}

impl Drop for Ear<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            keep(self.host, &self.kept);
        } else {
            let _ = self.host.try_sh("kill $(cat /run/ear.pid)");
        }
    }
}
