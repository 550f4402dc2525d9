//! The plan as text: one line a step, `+` for what comes, `-` for what goes, `~` for what changes.

use std::collections::BTreeSet;
use std::fmt;

use super::{DesiredPeer, PeerChange, Plan, Prefix, PresharedChange, Step};
use crate::codex::key::PublicKey;

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateLink => f.write_str("+ link"),
            Self::SetMtu { from: Some(from), to } => write!(f, "~ mtu {from} -> {to}"),
            Self::SetMtu { from: None, to } => write!(f, "+ mtu {to}"),
            Self::AddAddress(prefix) => write!(f, "+ address {prefix}"),
            Self::RemoveAddress(prefix) => write!(f, "- address {prefix}"),
            Self::SetKey(key) => write!(f, "~ private key of {key}"),
            Self::RemovePeer(key) => write!(f, "- peer {key}"),
            Self::RemoveStray(key) => write!(f, "- peer {key}, {}", key.kind()),
            Self::AddPeer(key, peer) => added(f, key, peer),
            Self::UpdatePeer(key, change) => changed(f, key, change),
            Self::SetListenPort(port) => write!(f, "~ listen port {port}"),
            Self::BringUp => f.write_str("~ up"),
            Self::AddRoute(prefix) => write!(f, "+ route {prefix}"),
            Self::RemoveRoute(prefix) => write!(f, "- route {prefix}"),
        }
    }
}

fn added(f: &mut fmt::Formatter<'_>, key: &PublicKey, peer: &DesiredPeer) -> fmt::Result {
    let DesiredPeer { name, allowed_ips, endpoint, named: _, keepalive, preshared } = peer;
    write!(f, "+ peer {name} {key} allowed ips {}", joined(allowed_ips))?;
    if let Some(endpoint) = endpoint {
        write!(f, ", endpoint {endpoint}")?;
    }
    if *keepalive > 0 {
        write!(f, ", keepalive {keepalive} s")?;
    }
    if preshared.is_some() {
        f.write_str(", with a preshared key")?;
    }
    Ok(())
}

fn changed(f: &mut fmt::Formatter<'_>, key: &PublicKey, change: &PeerChange) -> fmt::Result {
    let PeerChange { name, allowed_ips, endpoint, keepalive, preshared } = change;
    write!(f, "~ peer {name} {key}")?;
    if let Some(allowed_ips) = allowed_ips {
        write!(f, ", allowed ips {}", joined(allowed_ips))?;
    }
    if let Some(endpoint) = endpoint {
        write!(f, ", endpoint {endpoint}")?;
    }
    if let Some(keepalive) = keepalive {
        write!(f, ", keepalive {keepalive} s")?;
    }
    match preshared {
        Some(PresharedChange::Set(_)) => f.write_str(", another preshared key"),
        Some(PresharedChange::Remove) => f.write_str(", without its preshared key"),
        None => Ok(()),
    }
}

fn joined(prefixes: &BTreeSet<Prefix>) -> String {
    if prefixes.is_empty() {
        return "(none)".to_owned();
    }
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
