//! `sepulcher snapshot`: the bonds of one moment, kept, put back, and taken elsewhere.

pub mod asked;
pub mod list;
mod remote;
pub mod travel;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{print, table};
use super::peer::Where;
use super::{Failure, Kind};
use crate::codex::name::Name;
use crate::codex::plain;
use crate::peer::store::{Place, caller};
use crate::snapshot::store::{self, Host, Whole};
use crate::snapshot::volume::Volume;
use crate::snapshot::{Manifest, wish};

/// Verbs of `sepulcher snapshot`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Keep bonds and volumes as they are now
    Create(Create),
    /// Show all snapshots, the oldest first
    List(List),
    /// Show what a snapshot is and holds
    Show(Show),
    /// Read a snapshot whole and check every digest
    Verify(Show),
    /// Put a snapshot back; who is revoked stays revoked
    Restore(Restore),
    /// Remove all but the latest snapshots
    Prune(Prune),
    /// Write a snapshot encrypted to a file, to keep it elsewhere
    Export(travel::Export),
    /// Take over an exported snapshot; `restore` puts it to work
    Import(travel::Import),
}

/// Keep bonds and volumes as they are now
///
/// Contained are the peers' files, the ledger of dead keys, the log of changes, the preshared keys, and the volumes of
/// services, but for those that the Codex leaves out (`snapshot = false`). Each service is paused while its volumes are
/// read: by its own command where the Codex names one (`[snapshot]`), otherwise its processes are frozen.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Hold the host's private key, too
    #[arg(long)]
    with_identity: bool,
    /// Leave the volumes of services out, and let the services go on
    #[arg(long)]
    bonds_only: bool,
    #[command(flatten)]
    changing: Changing,
}

/// Where the snapshots are, and how it is told.
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    place: Where,
    /// Root of an appliance's files
    #[arg(long, value_name = "DIR", conflicts_with = "codex", hide = true)]
    root: Option<PathBuf>,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// One snapshot.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its name [default: the latest]
    name: Option<String>,
    #[command(flatten)]
    list: List,
}

/// Put a snapshot back
///
/// Keys that were revoked or replaced since stay dead, and who has expired stays expired. Peers that were bonded since
/// leave; a snapshot of what was there before is made first, which brings them back. Volumes stay as they are, unless
/// `--with-volumes` is said: then that snapshot holds those that were there before. A machine that puts its private key
/// back for a peer (`--host`) restarts by itself.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The snapshot's name [default: the latest]
    name: Option<String>,
    /// Bring this peer back although it is revoked or expired; the log tells it
    #[arg(long, value_name = "NAME")]
    revive: Vec<Name>,
    /// Put the host's private key back, too: devices then know this machine without a new configuration
    #[arg(long)]
    with_identity: bool,
    /// Put the volumes of services back, too; the services are stopped meanwhile
    #[arg(long)]
    with_volumes: bool,
    #[command(flatten)]
    changing: Changing,
}

/// Remove all but the latest snapshots
///
/// Each that stays is read whole first. One that is damaged does not count, and goes when there are so many later ones.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// How many whole ones stay
    #[arg(long, value_name = "COUNT")]
    keep: usize,
    #[command(flatten)]
    changing: Changing,
}

/// What all verbs have that change something.
#[derive(Debug, clap::Args)]
pub struct Changing {
    #[command(flatten)]
    list: List,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs a verb of `sepulcher snapshot`.
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(args) => create(args),
        Verb::List(args) => list::run(args),
        Verb::Show(args) => show(args),
        Verb::Verify(args) => verify(args),
        Verb::Restore(args) => restore(args),
        Verb::Prune(args) => prune(args),
        Verb::Export(args) => travel::export(args),
        Verb::Import(args) => travel::import(args),
    }
}

impl List {
    /// The folders that are meant.
    fn place(&self) -> Result<Place, Failure> {
        match &self.root {
            Some(root) => Ok(Place::appliance(root)),
            None => self.place.local(),
        }
    }
}

impl Changing {
    /// Refuses to only try something over the tether.
    fn not_dry(&self) -> Result<(), Failure> {
        if self.dry_run {
            return Err(Failure::new(Kind::Input, "over the tether nothing is only tried")
                .hint("leave `--dry-run` out"));
        }
        Ok(())
    }
}

/// Prints the answer for programs, or that for people.
fn tell(list: &List, value: &Value, text: &str) -> Result<(), Failure> {
    // What comes over the tether drives no terminal.
    if list.json { print(&format!("{value:#}\n")) } else { print(&plain(text)) }
}

/// This machine's services; what is done to them is told on standard error.
fn host() -> Host<'static> {
    Host::new(&|line| {
        // Whoever listened may be gone, and services wait to be started.
        let _ = writeln!(std::io::stderr(), "note: {}", plain(line));
    })
}

/// Has services of this machine go on that a killed command left paused or stopped.
pub fn resume(root: &Path) -> Result<(), Failure> {
    Ok(store::resume(&Place::appliance(root), &host())?)
}

fn create(args: &Create) -> Result<(), Failure> {
    let Create { note, with_identity, bonds_only, changing } = args;
    let Changing { list, dry_run } = changing;
    let wish = wish::Create { note: note.clone(), with_identity: *with_identity, bonds_only: *bonds_only };
    if let Some(remote) = list.place.remote()? {
        changing.not_dry()?;
        let name = remote::create(&remote, wish)?;
        return tell(list, &json!({ "schema": 1, "name": name }), &format!("{name}\n"));
    }
    let place = list.place()?;
    let (name, manifest) = store::create(&place, &host(), wish.order(*dry_run))?;
    let text = match &name {
        Some(name) => format!("{name}\n"),
        None => format!("would keep {} files of {}\n", manifest.parts.len(), manifest.appliance),
    };
    for left in &manifest.not_contained {
        eprintln!("note: not contained: {left}");
    }
    tell(list, &json!({ "schema": 1, "name": name, "manifest": manifest }), &text)
}

fn show(Show { name, list }: &Show) -> Result<(), Failure> {
    let (name, manifest) = if let Some(remote) = list.place.remote()? {
        remote::show(&remote, &wish::Named { snapshot: name.clone() })?
    } else {
        let (name, snapshot) = store::read(&list.place()?, name.as_deref())?;
        (name, snapshot.manifest)
    };
    tell(list, &json!({ "schema": 1, "name": name, "manifest": manifest }), &told(&name, &manifest))
}

fn told(name: &str, manifest: &Manifest) -> String {
    let yes = |yes: bool| if yes { "contained" } else { "not contained" };
    let mut rows = vec![
        ("snapshot", name.to_owned()),
        ("digest", store::digest(manifest).to_string()),
        ("appliance", manifest.appliance.to_string()),
        ("body", manifest.body.clone()),
        ("law", manifest.law.to_string()),
        ("changes", manifest.generation.to_string()),
        ("host's private key", yes(manifest.identity).to_owned()),
    ];
    rows.extend(manifest.image.as_ref().map(|image| ("image", image.to_string())));
    rows.extend(manifest.host_key.map(|key| ("host's public key", key.to_string())));
    rows.extend(manifest.note.clone().map(|note| ("note", note)));
    rows.extend(manifest.not_contained.iter().map(|left| ("not contained", left.clone())));
    rows.extend(manifest.parts.iter().map(|part| ("file", format!("{} {} bytes", part.path, part.size))));
    rows.extend(manifest.volumes.iter().map(|volume| {
        let Volume { name, service, size, entries, .. } = volume;
        ("volume", format!("{name} of {service}: {size} bytes in {entries} entries"))
    }));
    table(&rows.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect::<Vec<_>>())
}

fn verify(Show { name, list }: &Show) -> Result<(), Failure> {
    let Whole { name, files, volumes, digest } = if let Some(remote) = list.place.remote()? {
        remote::verify(&remote, wish::Named { snapshot: name.clone() })?
    } else {
        store::verify(&list.place()?, name.as_deref())?
    };
    let value = json!({ "schema": 1, "name": name, "files": files, "volumes": volumes, "digest": digest });
    let text = format!("{name} is whole: {files} files, {volumes} volumes\ndigest {digest}\n");
    tell(list, &value, &text)
}

fn restore(args: &Restore) -> Result<(), Failure> {
    let Restore { name, revive, with_identity, with_volumes, changing } = args;
    let Changing { list, dry_run } = changing;
    let revive: BTreeSet<Name> = revive.iter().cloned().collect();
    let (with_identity, with_volumes) = (*with_identity, *with_volumes);
    let wish = wish::Restore { snapshot: name.clone(), revive, with_identity, with_volumes };
    let restored = if let Some(remote) = list.place.remote()? {
        changing.not_dry()?;
        remote::restore(&remote, wish)?
    } else {
        store::restore(&list.place()?, &host(), &caller(), wish.order(*dry_run))?
    };
    let mut text: String = restored.plan.iter().map(|line| format!("{line}\n")).collect();
    match &restored.before {
        Some(before) => {
            text.push_str(&format!("{} is restored; what was before is {before}\n", restored.name));
        }
        None if *dry_run => {}
        None => text.push_str(&format!("all is as {} says\n", restored.name)),
    }
    let value = json!({
        "schema": 1, "name": restored.name, "plan": restored.plan, "before": restored.before,
    });
    tell(list, &value, &text)
}

fn prune(args: &Prune) -> Result<(), Failure> {
    let Prune { keep, changing } = args;
    let Changing { list, dry_run } = changing;
    let keep = NonZeroUsize::new(*keep).ok_or_else(|| {
        Failure::new(Kind::Input, "no snapshot would be left").hint("keep one at least: `--keep 1`")
    })?;
    let (names, more) = if let Some(remote) = list.place.remote()? {
        changing.not_dry()?;
        remote::prune(&remote, wish::Prune { keep })?
    } else {
        (store::prune(&list.place()?, &host(), &caller(), keep.get(), *dry_run)?, 0)
    };
    let mut text: String = names.iter().map(|name| format!("- {name}\n")).collect();
    if more > 0 {
        text.push_str(&format!("- {more} more\n"));
    }
    tell(list, &json!({ "schema": 1, "removed": names, "more": more }), &text)
}
