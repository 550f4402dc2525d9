//! What the next body changes: files, ports, who loses reach, the format of the bonds. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::stranded;
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Diagnostic, Encryption, Endpoint, Sources, Tier, is_law};
use crate::peer::Refused;
use crate::reach::Reach;
use crate::reach::map::{Map, Row};
use crate::render::{RenderError, manifest, render};
use crate::tree::{Tree, diff};

/// A law, and the version of the format that its body keeps bonds in.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// `lychd.toml` and `services/*.toml`; other files are left alone.
    pub law: &'a Sources,
    /// See [`codex::SCHEMA`](crate::codex::SCHEMA).
    pub schema: u32,
}

/// A bond that a law does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    /// File of the bond, `peers/phone.toml`.
    pub file: String,
    /// The first mistake that it would be, for people.
    pub why: String,
}

impl fmt::Display for Stranded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.strip_prefix("peers/").and_then(|name| name.strip_suffix(".toml"));
        write!(f, "{}: {}", name.unwrap_or(&self.file), self.why)
    }
}

/// What changes. Displays as text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Rendered files: unified hunks, as [`diff`] writes them; without the manifest, which always changes.
    pub artefacts: String,
    /// What is offered from now on, no more, or to others; a line each.
    pub offers: Vec<String>,
    /// What clients have to be told; a line each.
    pub clients: Vec<String>,
    /// Who reaches what no more; a line each.
    pub lost: Vec<String>,
    /// Bonds that the new law does not allow: a machine that holds them refuses the update.
    pub stranded: Vec<Stranded>,
    /// Peers whose configuration would no longer lead to the machine, a line each: it refuses the update for them, too.
    pub strangers: Vec<String>,
    /// How the state is encrypted, before and after: where that changes, a machine refuses the update.
    pub encryption: (Encryption, Encryption),
    /// Versions of the format of bonds, before and after.
    pub schema: (u32, u32),
}

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A law is broken by itself.
    #[error("the law holds {} mistakes", .0.len())]
    Law(Vec<Diagnostic>),
    /// A law cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A client's configuration cannot be rendered.
    #[error(transparent)]
    Client(#[from] Refused),
}

/// The Codex of a law and of those of `bonds` (`peers/*.toml` and ledgers) that it allows, and the others.
///
/// # Errors
/// The mistakes of the law itself.
pub fn hold(law: &Sources, bonds: &Sources) -> Result<(Codex, Vec<Stranded>), Vec<Diagnostic>> {
    let mut sources: Sources = law.iter().filter(|(file, _)| is_law(file)).collect();
    Codex::parse(&sources)?;
    for (file, text) in bonds.iter().filter(|(file, _)| !is_law(file)) {
        sources.insert(file, text);
    }
    let mut stranded: BTreeMap<String, String> = BTreeMap::new();
    let codex = Codex::parse_sound(&mut sources, Codex::parse_part, |_| true, &mut |mistake| {
        stranded.entry(mistake.file).or_insert(mistake.message);
    })?;
    Ok((codex, stranded.into_iter().map(|(file, why)| Stranded { file, why }).collect()))
}

/// What changes from `old` to `new` for these bonds at `now`.
///
/// # Errors
/// See [`Error`].
pub fn preview(old: Side<'_>, new: Side<'_>, bonds: &Sources, now: Timestamp) -> Result<Preview, Error> {
    let (before, _) = hold(old.law, bonds).map_err(Error::Law)?;
    let (after, stranded) = hold(new.law, bonds).map_err(Error::Law)?;
    let (old_map, new_map) = (Reach::new(&before, now).map(), Reach::new(&after, now).map());
    let mut both = before.clone();
    both.peers.retain(|name, _| after.peers.contains_key(name));
    Ok(Preview {
        artefacts: diff(&artefacts(&before)?, &artefacts(&after)?),
        offers: offers(&old_map, &new_map),
        clients: clients(&before, &after),
        lost: lost(&old_map, &new_map),
        stranded,
        strangers: stranded::strangers(&both, &after, now)?,
        encryption: (before.state.encryption, after.state.encryption),
        schema: (old.schema, new.schema),
    })
}

/// What the law alone renders to.
fn artefacts(codex: &Codex) -> Result<Tree, Error> {
    let rendered = render(&codex.without_peers())?;
    let mut tree = Tree::default();
    for (path, entry) in rendered.iter().filter(|(path, _)| *path != manifest::PATH) {
        tree.add(path, entry.clone()).map_err(RenderError::from)?;
    }
    Ok(tree)
}

/// What a row of a map is about.
type What<'a> = (Option<&'a Name>, &'a str);

fn what(row: &Row) -> What<'_> {
    (row.service.as_ref(), &row.label)
}

fn named((service, label): What<'_>) -> String {
    let owner = service.map_or("the tether", Name::as_str);
    format!("{label} of {owner}")
}

fn audience(tier: Tier) -> &'static str {
    match tier {
        Tier::Pod => "the pod alone",
        Tier::Tether => "peers that hold it",
        Tier::Forest => "everybody",
    }
}

fn offers(old: &Map, new: &Map) -> Vec<String> {
    let tiers = |map: &'_ Map| -> BTreeMap<(Option<Name>, String), Tier> {
        map.rows.iter().map(|row| ((row.service.clone(), row.label.clone()), row.tier)).collect()
    };
    let (old, new) = (tiers(old), tiers(new));
    let things: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let line = |thing: &(Option<Name>, String)| {
        let name = named((thing.0.as_ref(), &thing.1));
        match (old.get(thing), new.get(thing)) {
            (None, Some(tier)) => Some(format!("+ {name}: {tier}, {}", audience(*tier))),
            (Some(tier), None) => Some(format!("- {name}: {tier}, {}", audience(*tier))),
            (Some(old), Some(new)) if old != new => {
                Some(format!("~ {name}: {old} becomes {new}, {}", audience(*new)))
            }
            _ => None,
        }
    };
    things.into_iter().filter_map(line).collect()
}

/// What stands in the configuration of every client.
fn clients(old: &Codex, new: &Codex) -> Vec<String> {
    let endpoint = |codex: &Codex| match &codex.tether.endpoint {
        None => "none".to_owned(),
        Some(Endpoint::Dns(name)) => name.to_string(),
        Some(Endpoint::Ip(address)) => address.to_string(),
    };
    let facts = |codex: &Codex| {
        let (tether, pod) = (&codex.tether, &codex.pod);
        [
            ("the endpoint that clients dial", endpoint(codex)),
            ("the port that clients dial", tether.port.to_string()),
            ("the tether's network", tether.network.to_string()),
            ("the tether's IPv6 network", tether.network6.map_or("none".into(), |(net, _)| net.to_string())),
            ("the pod's network", pod.network.to_string()),
            ("the MTU of clients", tether.mtu.to_string()),
        ]
    };
    let pairs = facts(old).into_iter().zip(facts(new));
    let changed = pairs.filter(|((_, old), (_, new))| old != new);
    changed.map(|((fact, old), (_, new))| format!("~ {fact}: {old} becomes {new}")).collect()
}

/// For every peer what it reaches.
fn reached(map: &Map) -> BTreeMap<&Name, BTreeSet<What<'_>>> {
    let mut all = BTreeMap::new();
    for (index, column) in map.columns.iter().enumerate() {
        let held: BTreeSet<What<'_>> =
            map.rows.iter().filter(|row| row.reached.get(index) == Some(&true)).map(what).collect();
        all.extend(column.peers.iter().map(|peer| (peer, held.clone())));
    }
    all
}

/// What peers of both reach no more, a line each.
pub fn losses(old: &Codex, new: &Codex, now: Timestamp) -> Vec<String> {
    lost(&Reach::new(old, now).map(), &Reach::new(new, now).map())
}

/// Peers that are held before and after, and what they reach no more.
fn lost(old: &Map, new: &Map) -> Vec<String> {
    let (old, new) = (reached(old), reached(new));
    let mut lines = Vec::new();
    for (peer, before) in old {
        let Some(after) = new.get(peer) else { continue };
        lines.extend(before.difference(after).map(|thing| format!("- {peer}: {}", named(*thing))));
    }
    lines
}

impl Preview {
    /// Whether nothing changes at all.
    pub fn is_empty(&self) -> bool {
        let Self { artefacts, offers, clients, lost, stranded, strangers, encryption, schema: (old, new) } =
            self;
        artefacts.is_empty()
            && [offers, clients, lost, strangers].into_iter().all(Vec::is_empty)
            && stranded.is_empty()
            && encryption.0 == encryption.1
            && old == new
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { artefacts, offers, clients, lost, stranded, strangers, encryption, schema: (old, new) } =
            self;
        if self.is_empty() {
            return writeln!(f, "nothing changes");
        }
        f.write_str(artefacts)?;
        let stranded: Vec<String> = stranded.iter().map(|one| format!("! {one}")).collect();
        let strangers: Vec<String> = strangers.iter().map(|one| format!("! {}", one.trim_start())).collect();
        let parts = [
            ("what opens (+), closes (-) or changes its audience (~)", offers),
            ("what stands in the configurations of clients", clients),
            ("what peers reach no more", lost),
            (
                "bonds that the new law does not allow: a machine that holds them refuses the update",
                &stranded,
            ),
            ("peers that would need a new configuration: a machine refuses the update for them", &strangers),
        ];
        for (title, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            writeln!(f, "\n{title}:")?;
            lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        let (before, after) = encryption;
        if before != after {
            writeln!(
                f,
                "\nthe encryption of the state: {before} becomes {after}: a machine refuses the update"
            )?;
        }
        if old != new {
            writeln!(
                f,
                "\nthe format of the bonds: schema {old} becomes {new} on the first boot of the new body"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
