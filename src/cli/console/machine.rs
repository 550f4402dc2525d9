//! What the console shows of its machine.

use std::path::Path;

use serde::Deserialize;

use crate::codex::Codex;
use crate::sys::{cmd, fs};

/// Addresses of the uplink, as text without prefix lengths; empty while it has none.
pub fn addresses(codex: &Codex) -> Vec<String> {
    let asked = cmd::Command::new("ip").args(["-json", "address", "show", "scope", "global", "up"]);
    asked.read().map(|told| uplinks(&told, codex.uplink.interface.as_str())).unwrap_or_default()
}

#[derive(Deserialize)]
struct Interface {
    ifname: Option<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: Option<String>,
}

/// Addresses of the interfaces that `pattern` matches, out of what ip(8) tells in JSON.
fn uplinks(told: &[u8], pattern: &str) -> Vec<String> {
    let (Ok(interfaces), Ok(pattern)) =
        (serde_json::from_slice::<Vec<Interface>>(told), glob::Pattern::new(pattern))
    else {
        return Vec::new();
    };
    let ours =
        interfaces.into_iter().filter(|one| one.ifname.as_deref().is_some_and(|name| pattern.matches(name)));
    ours.flat_map(|one| one.addr_info).filter_map(|address| address.local).collect()
}

/// The verdict over this boot, in a few words.
pub fn health() -> &'static str {
    let state = |unit: &str| {
        let asked = cmd::Command::new("systemctl").args(["is-active", unit]).output();
        asked.map(|told| String::from_utf8_lossy(&told.stdout).trim().to_owned()).unwrap_or_default()
    };
    if state("boot-complete.target") == "active" {
        return "ok";
    }
    match state("sepulcher-health.service").as_str() {
        "failed" => "FAILED (h tells why)",
        "activating" | "active" | "inactive" => "not known yet, this boot is going on",
        _ => "not known",
    }
}

/// What the health check of this boot has said, its last lines.
pub fn findings() -> String {
    let asked = cmd::Command::new("journalctl").args([
        "--boot",
        "--unit=sepulcher-health.service",
        "--output=cat",
        "--lines=24",
        "--no-pager",
    ]);
    match asked.read() {
        Ok(told) => String::from_utf8_lossy(&told).into_owned(),
        Err(error) => format!("{error}\n"),
    }
}

/// The host's public key.
pub fn public_key(root: &Path) -> Option<String> {
    let bytes = fs::read_bounded(&root.join("run/sepulcher/tether.pub"), 4096).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_uplinks() {
        let told = br#"[{},{"ifname":"ens3","addr_info":[{"local":"192.0.2.10","prefixlen":24},{"local":"2001:db8::1"}]},
            {"ifname":"podman1","addr_info":[{"local":"10.88.0.1"}]}]"#;
        assert_eq!(uplinks(told, "en*"), ["192.0.2.10", "2001:db8::1"]);
        assert!(uplinks(told, "eth*").is_empty() && uplinks(b"no", "en*").is_empty());
    }
}
