//! What is safe beside bonds that are broken, and how those end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use toml_edit::{Array, DocumentMut, value};

use super::{Edited, bury, entomb};
use crate::codex::Peer;
use crate::codex::key::PublicKey;
use crate::codex::time::Timestamp;
use crate::peer::{Broken, Kind, Refused, Revoke, Situation};
use crate::tree::Sha256Digest;

/// Refuses a key beside a bond whose own cannot be read.
pub fn no_key_unknown(situation: &Situation<'_>) -> Result<(), Refused> {
    match situation.broken.iter().find(|broken| !broken.has_key()) {
        Some(broken) => Err(broken.refused("no key is given out while one is not known")),
        None => Ok(()),
    }
}

/// Refuses a bond beside another one of which is not known what it holds.
pub fn nothing_unknown(situation: &Situation<'_>, kind: &Kind) -> Result<(), Refused> {
    no_key_unknown(situation)?;
    let tether = &situation.codex.tether;
    let unclear = situation.broken.iter().find(|broken| !broken.has_addresses(tether));
    if let Some(broken) = unclear {
        return Err(broken.refused("no address is given out while one is not known"));
    }
    match (kind, situation.broken.first()) {
        (Kind::Lych { routes, .. }, Some(broken)) if !routes.is_empty() => {
            Err(broken.refused("no network is given out beside a bond that may have it"))
        }
        _ => Ok(()),
    }
}

/// The tombstone of a bond that cannot be read: what was found in it and is nobody else's is dead.
pub fn grave(broken: &Broken, revoke: &Revoke, situation: &Situation<'_>) -> Result<Edited, Refused> {
    let Situation { codex, host_key, now, .. } = *situation;
    let others = || situation.broken.iter().filter(|other| other.file != broken.file);
    let mut kept: BTreeSet<_> = others().flat_map(|other| &other.public_keys).chain(&host_key).collect();
    for peer in codex.peers.values() {
        kept.extend(peer.replaced.iter().chain([&peer.public_key]));
        kept.extend(peer.overlap.iter().map(|old| &old.public_key));
    }
    let dead: Vec<_> = broken.public_keys.iter().filter(|key| !kept.contains(key)).copied().collect();
    let free = |address: IpAddr| {
        let had = |peer: &Peer| {
            IpAddr::V4(peer.address) == address || peer.address6.map(IpAddr::V6) == Some(address)
        };
        !codex.active().any(|(_, peer)| had(peer))
            && !others().any(|other| other.addresses.contains(&address))
    };
    let address = broken.address(&codex.tether).filter(|address| free((*address).into()));
    let address6 = broken.address6(&codex.tether).filter(|address| free((*address).into()));
    let mut document = DocumentMut::new();
    let first = dead.first().copied().map_or_else(|| nobodys_key(&broken.file, now), Ok)?;
    document["public-key"] = value(first.to_string());
    document["address"] = value(address.unwrap_or(Ipv4Addr::UNSPECIFIED).to_string());
    if let Some(address6) = address6 {
        document["address6"] = value(address6.to_string());
    }
    document["grants"] = value(Array::new());
    dead.iter().skip(1).for_each(|key| bury(&mut document, *key));
    let reason = revoke.reason.clone().unwrap_or_else(|| broken.why());
    entomb(&mut document, now, Some(&reason));
    let mut lines = vec![format!("- peer {}, whose file is broken", revoke.name)];
    lines.extend(dead.iter().map(|key| format!("- key {key}")));
    if dead.is_empty() {
        lines.push("no key of its own can be read out of it".to_owned());
    }
    Ok(Edited::of(&document, lines))
}

/// A tombstone names a key: this one has no private half that anybody knows.
fn nobodys_key(file: &str, now: Timestamp) -> Result<PublicKey, Refused> {
    let Sha256Digest(mut bytes) = Sha256Digest::of(format!("{file} {now}").as_bytes());
    bytes[31] &= 0x7f;
    PublicKey::try_from(bytes).map_err(|error| Refused::new(error.to_string(), "try again in a second"))
}
