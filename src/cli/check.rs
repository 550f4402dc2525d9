//! `sepulcher check`: every mistake of a Codex at once.

mod caution;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Failure, codex};
use crate::codex::{Codex, Diagnostic, PeerState, Sources, Tier};
use crate::sys;

/// Check a Codex and report every mistake at once
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that holds lychd.toml
    dir: PathBuf,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let sources = sys::codex::load(&[&args.dir]);
    let parsed = Codex::parse(&sources);
    if args.json {
        println!("{:#}", report(&parsed, &sources));
    } else if let Ok(codex) = &parsed {
        println!("{}", summary(codex));
        codex::warn(&caution::cautions(codex, &sources), &sources);
    }
    parsed.map(|_| ()).map_err(|mistakes| codex::refused(&mistakes, &sources))
}

struct Counts {
    services: usize,
    peers: usize,
    revoked: usize,
    forest: usize,
    tether: usize,
    pod: usize,
}

fn count(codex: &Codex) -> Counts {
    let ports = |tier| {
        codex.services.values().flat_map(|service| &service.ports).filter(|port| port.tier == tier).count()
    };
    Counts {
        services: codex.services.len(),
        peers: codex.peers.len(),
        revoked: codex.peers.values().filter(|peer| peer.state == PeerState::Revoked).count(),
        forest: ports(Tier::Forest),
        tether: ports(Tier::Tether),
        pod: ports(Tier::Pod),
    }
}

fn summary(codex: &Codex) -> String {
    let Counts { services, peers, revoked, forest, tether, pod } = count(codex);
    let name = &codex.appliance.name;
    let (services, peers) = (counted(services, "service"), counted(peers, "peer"));
    format!(
        "{name}: {services}, {peers} ({revoked} revoked), ports: {forest} forest, {tether} tether, {pod} pod"
    )
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn report(parsed: &Result<Codex, Vec<Diagnostic>>, sources: &Sources) -> Value {
    match parsed {
        Ok(codex) => {
            let Counts { services, peers, revoked, forest, tether, pod } = count(codex);
            json!({
                "valid": true,
                "appliance": codex.appliance.name.as_str(),
                "services": services,
                "peers": peers,
                "revoked": revoked,
                "ports": { "forest": forest, "tether": tether, "pod": pod },
                "mistakes": [],
                "warnings": all(&caution::cautions(codex, sources), sources),
            })
        }
        Err(mistakes) => json!({ "valid": false, "mistakes": all(mistakes, sources) }),
    }
}

fn all(diagnostics: &[Diagnostic], sources: &Sources) -> Vec<Value> {
    diagnostics.iter().map(|diagnostic| one(diagnostic, sources)).collect()
}

fn one(mistake: &Diagnostic, sources: &Sources) -> Value {
    let position = |offset| {
        let (line, column) = sources.position(&mistake.file, offset)?;
        Some(json!({ "line": line, "column": column }))
    };
    let span = mistake.span.as_ref();
    let related: Vec<Value> = mistake
        .related
        .iter()
        .map(|(place, label)| {
            let start = place.span.and_then(|(start, _)| sources.position(&place.file, start));
            let (line, column) = start.unzip();
            json!({ "file": sources.shown(&place.file), "line": line, "column": column, "label": label })
        })
        .collect();
    json!({
        "severity": mistake.severity.as_str(),
        "message": mistake.message,
        "file": sources.shown(&mistake.file),
        "start": span.and_then(|span| position(span.start)),
        "end": span.and_then(|span| position(span.end)),
        "label": mistake.label,
        "related": related,
        "notes": mistake.notes,
        "hint": mistake.hint,
    })
}
