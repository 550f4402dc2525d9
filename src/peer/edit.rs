//! The text of a peer's file, before and after. What a person wrote in it stays as it is: comments, order, spacing.

mod unclear;

use std::net::IpAddr;

use toml_edit::{Array, DocumentMut, Item, Table, Value, value};

use super::allocate::{self, Held};
use super::{Bond, Ending, Extend, Granting, Kind, Refused, Revoke, Rotate, Situation};
use crate::codex::key::PublicKey;
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Door, Grants, Peer, PeerState};

/// A peer's file as it is from now on.
pub struct Edited {
    /// Its text.
    pub text: String,
    /// Whether a preshared key is to be made.
    pub fresh_preshared: bool,
    /// What changed, a line each, for people.
    pub lines: Vec<String>,
}

impl Edited {
    fn of(document: &DocumentMut, lines: Vec<String>) -> Self {
        Self { text: document.to_string(), fresh_preshared: false, lines }
    }
}

/// A new peer's file.
pub fn bond(bond: &Bond, situation: &Situation<'_>) -> Result<Edited, Refused> {
    let Situation { codex, now, .. } = *situation;
    let Bond { name, public_key, address, address6, kind, grants, expires, preshared, dial: _, client: _ } =
        bond;
    free_name(situation, name)?;
    free_key(situation, public_key)?;
    unclear::nothing_unknown(situation, kind)?;
    // Its configuration is yet to be made.
    granted_peers(name, grants, situation)?;
    let address = match address {
        Some(address) => {
            free_address(situation, (*address).into(), allocate::lowest_free(situation))?;
            *address
        }
        None => allocate::lowest_free(situation).ok_or_else(|| full(codex, now))?,
    };
    let mut document = DocumentMut::new();
    document["public-key"] = value(public_key.to_string());
    document["address"] = value(address.to_string());
    let mut lines = vec![format!("+ peer {name} {address} {public_key}")];
    let free6 = allocate::lowest_free6(situation);
    if let Some(address6) = address6 {
        free_address(situation, (*address6).into(), free6)?;
    }
    if let Some(address6) = address6.or(free6) {
        document["address6"] = value(address6.to_string());
        lines.push(format!("+ address {address6}"));
    }
    lines.extend(write_kind(&mut document, kind));
    document["grants"] = value(words(grants));
    lines.extend(grants.iter().map(|grant| format!("+ grant {grant}")));
    if *preshared {
        document["preshared"] = value(true);
        lines.push("+ preshared key".to_owned());
    }
    document["created"] = moment(now);
    if let Some(ending) = expires {
        let expires = future(*ending, now)?;
        document["expires"] = moment(expires);
        lines.push(format!("+ expires {expires}"));
    }
    Ok(Edited { fresh_preshared: *preshared, ..Edited::of(&document, lines) })
}

fn write_kind(document: &mut DocumentMut, kind: &Kind) -> Vec<String> {
    let Kind::Lych { endpoint, keepalive, routes } = kind else { return Vec::new() };
    document["kind"] = value("lych");
    let mut lines = vec!["+ kind lych".to_owned()];
    if let Some(endpoint) = endpoint {
        document["endpoint"] = value(endpoint);
        lines.push(format!("+ endpoint {endpoint}"));
    }
    if let Some(keepalive) = keepalive {
        document["keepalive"] = value(i64::from(*keepalive));
    }
    if !routes.is_empty() {
        document["routes"] = value(words(routes));
        lines.extend(routes.iter().map(|route| format!("+ route {route}")));
    }
    lines
}

/// The tombstone of a peer.
pub fn revoke(revoke: &Revoke, situation: &Situation<'_>) -> Result<Edited, Refused> {
    if let Some(broken) = situation.broken_bond(&revoke.name) {
        return unclear::grave(broken, revoke, situation);
    }
    let (peer, mut document) = open(&revoke.name, situation)?;
    bury_overlap(&mut document, peer);
    entomb(&mut document, situation.now, revoke.reason.as_deref());
    Ok(Edited::of(&document, vec![format!("- peer {} {} {}", revoke.name, peer.address, peer.public_key)]))
}

/// The peer with another key.
pub fn rotate(rotate: &Rotate, situation: &Situation<'_>) -> Result<Edited, Refused> {
    let Rotate { name, public_key, preshared, overlap, dial: _, client: _ } = rotate;
    let (peer, mut document) = open(name, situation)?;
    free_key(situation, public_key)?;
    unclear::no_key_unknown(situation)?;
    let generation = peer.generation.checked_add(1).ok_or_else(|| {
        Refused::new(format!("`{name}` had as many keys as can be counted"), "revoke it, and bond it anew")
    })?;
    bury_overlap(&mut document, peer);
    let mut lines = vec![format!("~ peer {name} key {} -> {public_key}", peer.public_key)];
    if let Some(length) = overlap {
        let until = situation.now.after(*length);
        let mut table = Table::new();
        table["public-key"] = value(peer.public_key.to_string());
        table["preshared"] = value(peer.preshared);
        table["until"] = moment(until);
        document["overlap"] = Item::Table(table);
        lines.push(format!("~ the old key stays accepted until {until}"));
    } else {
        bury(&mut document, peer.public_key);
    }
    set(&mut document, "public-key", Value::from(public_key.to_string()));
    set(&mut document, "generation", Value::from(i64::from(generation)));
    set(&mut document, "preshared", Value::from(*preshared));
    if *preshared {
        lines.push("+ preshared key".to_owned());
    }
    Ok(Edited { fresh_preshared: *preshared, ..Edited::of(&document, lines) })
}

/// Whether `*` does not hold what the word grants: a door of the agent, a service of the host, or another peer.
fn stands_beside_all(word: &str, codex: &Codex) -> bool {
    Door::named(word).is_some() || codex.host_service(word).is_some() || Grants::peer_named(word).is_some()
}

/// Looks at words that grant other peers: who is not bonded cannot be granted. What else is wrong with a word is told when
/// the new text is read. Networks that come with the grants are told, a line each.
fn granted_peers(name: &Name, words: &[String], situation: &Situation<'_>) -> Result<Vec<String>, Refused> {
    let mut lines = Vec::new();
    for granted in words.iter().filter_map(|word| Grants::peer_named(word)?.parse::<Name>().ok()) {
        // It is told as a mistake of the text.
        if granted == *name {
            continue;
        }
        let peer = bonded(&granted, situation)?;
        lines.extend(
            peer.routes().iter().map(|route| format!("~ {route} belongs into the AllowedIPs of {name}")),
        );
    }
    Ok(lines)
}

/// The peer with more grants.
pub fn grant(granting: &Granting, situation: &Situation<'_>) -> Result<Edited, Refused> {
    let (peer, mut document) = open(&granting.name, situation)?;
    let told = granted_peers(&granting.name, &granting.grants, situation)?;
    let mut lines = Vec::new();
    let array = grants_of(&mut document, &granting.name)?;
    for word in &granting.grants {
        let is_service = word != "*" && !stands_beside_all(word, situation.codex);
        if array.iter().any(|held| held.as_str() == Some(word)) || (is_service && peer.grants.every_service) {
            return Err(Refused::new(
                format!("`{}` may reach `{word}` already", granting.name),
                "leave it out; `sepulcher peer show` tells what it may reach",
            ));
        }
        if word == "*" {
            array.retain(|held| held.as_str().is_some_and(|held| stands_beside_all(held, situation.codex)));
        }
        array.push(word);
        lines.push(format!("+ grant {} {word}", granting.name));
    }
    nonempty(&lines)?;
    lines.extend(told);
    Ok(Edited::of(&document, lines))
}

/// The peer with fewer grants.
pub fn ungrant(granting: &Granting, situation: &Situation<'_>) -> Result<Edited, Refused> {
    let (peer, mut document) = open(&granting.name, situation)?;
    let mut lines = Vec::new();
    let array = grants_of(&mut document, &granting.name)?;
    for word in &granting.grants {
        let held = array.len();
        array.retain(|held| held.as_str() != Some(word));
        if array.len() == held {
            let by_all = peer.grants.every_service && !stands_beside_all(word, situation.codex);
            let hint = if by_all {
                "it holds `*`: take that away, and grant the services that it keeps"
            } else {
                "`sepulcher peer show` tells what it holds"
            };
            return Err(Refused::new(format!("`{}` has no grant `{word}`", granting.name), hint));
        }
        lines.push(format!("- grant {} {word}", granting.name));
    }
    nonempty(&lines)?;
    Ok(Edited::of(&document, lines))
}

/// The peer with another expiry.
pub fn extend(extend: &Extend, situation: &Situation<'_>) -> Result<Edited, Refused> {
    let (peer, mut document) = open(&extend.name, situation)?;
    let told = |expires: Option<Timestamp>| expires.map_or("never".to_owned(), |at| at.to_string());
    let expires = extend.expires.map(|ending| future(ending, situation.now)).transpose()?;
    if let Some(expires) = expires {
        document["expires"] = moment(expires);
    } else {
        document.remove("expires");
    }
    let line = format!("~ {} expires {} -> {}", extend.name, told(peer.expires), told(expires));
    Ok(Edited::of(&document, vec![line]))
}

/// Whether a peer's file still names a key whose overlap is over.
pub fn is_over(peer: &Peer, now: Timestamp) -> bool {
    peer.overlap.as_ref().is_some_and(|overlap| overlap.until <= now)
}

/// The peer without an overlap that is over.
pub fn end_overlap(name: &Name, situation: &Situation<'_>) -> Result<Edited, Refused> {
    let (_, document) = open(name, situation)?;
    Ok(Edited::of(&document, vec![format!("- the old key of {name}")]))
}

/// A bonded peer and its file, without an overlap that is over.
fn open<'a>(name: &Name, situation: &Situation<'a>) -> Result<(&'a Peer, DocumentMut), Refused> {
    let peer = bonded(name, situation)?;
    let text = situation.sources.text(&format!("peers/{name}.toml")).unwrap_or_default();
    let mut document = document(name, text)?;
    if is_over(peer, situation.now) {
        bury_overlap(&mut document, peer);
    }
    Ok((peer, document))
}

/// The text of a peer's file, to be edited.
fn document(name: &Name, text: &str) -> Result<DocumentMut, Refused> {
    text.parse().map_err(|error| {
        Refused::new(format!("cannot edit peers/{name}.toml: {error}"), "mend the file by hand")
    })
}

/// A peer that is bonded, whether or not its time is over.
fn bonded<'a>(name: &Name, situation: &Situation<'a>) -> Result<&'a Peer, Refused> {
    if let Some(broken) = situation.broken_bond(name) {
        return Err(broken.refused(&format!("`{name}` cannot be read")));
    }
    let codex = situation.codex;
    let Some(peer) = codex.peers.get(name) else {
        let names = codex.peers.keys().map(Name::as_str);
        let hint = match crate::codex::nearest(name.as_str(), names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`sepulcher peer list` tells who is bonded".to_owned(),
        };
        return Err(Refused::new(format!("there is no peer `{name}`"), hint));
    };
    if peer.state == PeerState::Revoked {
        let hint = "a revoked peer never returns: bond it anew, under another name and with another key";
        return Err(Refused::new(format!("`{name}` is revoked"), hint));
    }
    Ok(peer)
}

fn free_name(situation: &Situation<'_>, name: &Name) -> Result<(), Refused> {
    if let Some(broken) = situation.broken_bond(name) {
        return Err(broken.refused(&format!("the name `{name}` is taken")));
    }
    let codex = situation.codex;
    // Only beside a bond that is not whole: nobody may be bonded into what was granted to somebody who is gone.
    let granted = codex.active().find(|(_, peer)| peer.grants.peers.contains(name));
    if let (Some((other, _)), None) = (granted, codex.peer(name)) {
        let hint = format!("take that away: `sepulcher peer ungrant {other} {}`", Grants::peer_word(name));
        return Err(Refused::new(format!("`{other}` is granted a `{name}` that is gone"), hint));
    }
    match codex.peers.get(name).map(|peer| peer.state) {
        None => Ok(()),
        Some(PeerState::Active) => Err(Refused::new(
            format!("the name `{name}` is taken"),
            format!(
                "`sepulcher peer rotate {name}` gives that peer a new key; for another peer choose another name"
            ),
        )),
        Some(PeerState::Revoked) => Err(Refused::new(
            format!("the name `{name}` is a revoked peer's"),
            format!("choose another name, like `{name}-2`"),
        )),
    }
}

/// Refuses a key that somebody has or ever had.
fn free_key(situation: &Situation<'_>, key: &PublicKey) -> Result<(), Refused> {
    let codex = situation.codex;
    let new_pair = "make a key pair of its own on the peer: `wg genkey | tee private.key | wg pubkey`";
    if situation.host_key == Some(*key) {
        return Err(Refused::new("this public key is the appliance's own", new_pair));
    }
    let dead = |peer: &Peer| peer.replaced.contains(key);
    let old = |peer: &Peer| peer.overlap.as_ref().is_some_and(|overlap| overlap.public_key == *key);
    for (name, peer) in &codex.peers {
        if peer.public_key == *key && peer.state == PeerState::Active {
            return Err(Refused::new(format!("this public key is `{name}`'s"), new_pair));
        }
        if peer.public_key == *key || dead(peer) || old(peer) {
            let message = format!("this public key was `{name}`'s and never comes back");
            return Err(Refused::new(message, new_pair));
        }
    }
    if codex.revoked_keys.contains(key) {
        return Err(Refused::new("this public key was revoked and never comes back", new_pair));
    }
    match situation.broken.iter().find(|broken| broken.public_keys.contains(key)) {
        Some(broken) => Err(broken.refused("this public key is somebody else's")),
        None => Ok(()),
    }
}

/// Refuses an address that somebody holds; `free` is one that nobody does.
fn free_address(
    situation: &Situation<'_>,
    address: IpAddr,
    free: Option<impl Into<IpAddr>>,
) -> Result<(), Refused> {
    let hint = match free.map(Into::into) {
        Some(free) => format!("the first free address is {free}; it is taken where none is asked for"),
        None => "the network is full: make it larger".to_owned(),
    };
    let message = match allocate::holder(situation, address) {
        None => return Ok(()),
        Some(Held::Bonded) => format!("the address {address} is taken"),
        Some(Held::Resting(Some(until))) => {
            format!("the address {address} was a revoked peer's and rests until {until}")
        }
        Some(Held::Resting(None)) => format!("the address {address} was a revoked peer's"),
    };
    Err(Refused::new(message, hint))
}

fn full(codex: &Codex, now: Timestamp) -> Refused {
    let rests = codex.peers.values().filter(|peer| peer.state == PeerState::Revoked);
    let next = rests
        .filter_map(|peer| Some(peer.revocation.at?.after(codex.tether.fence)))
        .filter(|at| *at > now)
        .min();
    let hint = match next {
        Some(next) => format!("revoke a peer, or wait until {next}, when an address comes free"),
        None => {
            "make `network` in `[tether]` larger; that is a new body, and clients need new configurations"
                .to_owned()
        }
    };
    Refused::new(format!("every address of {} is taken", codex.tether.network), hint)
}

fn future(ending: Ending, now: Timestamp) -> Result<Timestamp, Refused> {
    let expires = ending.moment(now);
    if expires > now {
        return Ok(expires);
    }
    Err(Refused::new(format!("{expires} is past: it is {now}"), "choose a later time, like `--expires 30d`"))
}

fn nonempty(lines: &[String]) -> Result<(), Refused> {
    if lines.is_empty() {
        return Err(Refused::new(
            "nothing is named",
            "name a service, `bonds`, `metrics`, `rebirth`, `snapshots` or `*`",
        ));
    }
    Ok(())
}

/// The tombstone of a peer whose file is `text`.
pub fn tombstone(name: &Name, text: &str, at: Timestamp, reason: &str) -> Result<String, Refused> {
    let mut document = document(name, text)?;
    entomb(&mut document, at, Some(reason));
    Ok(document.to_string())
}

/// Makes a peer's file its tombstone.
fn entomb(document: &mut DocumentMut, at: Timestamp, reason: Option<&str>) {
    set(document, "state", Value::from("revoked"));
    document["revoked"] = moment(at);
    if let Some(reason) = reason {
        document["reason"] = value(reason);
    }
}

/// A peer's file that remembers `keys` as dead, without its overlap where that is to end.
pub fn buried(
    name: &Name,
    text: &str,
    end_overlap: bool,
    keys: impl Iterator<Item = PublicKey>,
) -> Result<String, Refused> {
    let mut document = document(name, text)?;
    if end_overlap {
        document.remove("overlap");
    }
    keys.for_each(|key| bury(&mut document, key));
    Ok(document.to_string())
}

/// Ends an overlap: its key is dead from now on.
fn bury_overlap(document: &mut DocumentMut, peer: &Peer) {
    if let Some(overlap) = &peer.overlap {
        document.remove("overlap");
        bury(document, overlap.public_key);
    }
}

/// Remembers a key that never comes back.
fn bury(document: &mut DocumentMut, key: PublicKey) {
    let replaced = document.entry("replaced").or_insert_with(|| value(Array::new()));
    let key = key.to_string();
    let dead = |array: &Array| array.iter().any(|old| old.as_str() == Some(&key));
    if let Some(array) = replaced.as_array_mut().filter(|array| !dead(array)) {
        array.push(key);
    }
}

fn grants_of<'a>(document: &'a mut DocumentMut, name: &Name) -> Result<&'a mut Array, Refused> {
    let array = document.get_mut("grants").and_then(Item::as_array_mut);
    array.ok_or_else(|| {
        Refused::new(format!("peers/{name}.toml has no list `grants`"), "mend the file by hand")
    })
}

/// Gives a key another value, whose surroundings stay.
fn set(document: &mut DocumentMut, key: &str, mut new: Value) {
    if let Some(old) = document.get(key).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    document[key] = Item::Value(new);
}

fn words(words: &[String]) -> Array {
    words.iter().collect()
}

/// A moment as TOML writes it: without quotes.
fn moment(at: Timestamp) -> Item {
    match at.to_string().parse::<toml_edit::Datetime>() {
        Ok(time) => value(time),
        // RFC 3339 is what TOML takes; a text would be refused when it is read back.
        Err(_) => value(at.to_string()),
    }
}
