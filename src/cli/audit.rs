//! `sepulcher audit`: the log of all changes of the bonds, shown and checked.

use serde_json::json;

use super::output::{print, table};
use super::peer::Where;
use super::{Failure, Kind};
use crate::codex::Sources;
use crate::codex::name::Name;
use crate::peer::audit::{self, Log, Record};
use crate::peer::store::Place;
use crate::sys::{codex as files, fs};
use crate::tree::Sha256Digest;

/// Verbs of `sepulcher audit`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Check that no record was changed, taken out or put in
    Verify(Verify),
    /// Print all records
    Show(Show),
}

/// Check that no record was changed, taken out or put in
///
/// Each record holds the digest of the one before it. That the end was cut off is seen only by somebody who kept the digest
/// of a later record: give it with --head.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Digest that this command printed earlier; the log must still hold that record
    #[arg(long, value_name = "SHA256")]
    head: Option<Sha256Digest>,
    #[command(flatten)]
    show: Show,
}

/// Where the log is, and how it is printed.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[command(flatten)]
    place: Where,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs a verb of `sepulcher audit`.
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Verify(args) => verify(args),
        Verb::Show(args) => show(args),
    }
}

fn verify(args: &Verify) -> Result<(), Failure> {
    let place = args.show.place.local()?;
    let log = read(&place)?;
    let head = log.records.last().map(|(_, digest)| *digest);
    let holds = |digest: &Sha256Digest| log.records.iter().any(|(_, found)| found == digest);
    if let Some(lost) = args.head.filter(|head| !holds(head)) {
        return Err(Failure::new(Kind::Input, format!("the log no longer holds the record {lost}"))
            .hint("its end was cut off or written anew: compare it with a snapshot"));
    }
    let differing = differing(&log, &files::load(&place.folders()));
    if args.show.json {
        let names: Vec<_> = differing.iter().map(|name| name.as_str()).collect();
        let told = json!({
            "schema": 1,
            "records": log.records.len(),
            "head": head.map(|head| head.to_string()),
            "torn": log.torn,
            "differing": names,
        });
        return print(&format!("{told:#}\n"));
    }
    print(&summary(&log, head, &differing))
}

fn summary(log: &Log, head: Option<Sha256Digest>, differing: &[&Name]) -> String {
    let Some(head) = head else { return "no change is on record\n".to_owned() };
    let count = log.records.len();
    let mut text =
        format!("{count} record{}, the chain is whole\nhead {head}\n", if count == 1 { "" } else { "s" });
    for line in &log.torn {
        text.push_str(&format!("note: line {line} is a piece that a killed command left\n"));
    }
    for name in differing {
        text.push_str(&format!(
            "note: peers/{name}.toml is not as its last record says: it was edited by hand\n"
        ));
    }
    text
}

/// Peers whose files are not as their last records say.
fn differing<'a>(log: &'a Log, sources: &Sources) -> Vec<&'a Name> {
    let last: std::collections::BTreeMap<&Name, &Record> =
        log.records.iter().map(|(record, _)| (&record.peer, record)).collect();
    let digest = |name: &Name| {
        sources.text(&format!("peers/{name}.toml")).map(|text| Sha256Digest::of(text.as_bytes()))
    };
    let differs = last.into_iter().filter(|(name, record)| digest(name) != record.file_sha256);
    differs.map(|(name, _)| name).collect()
}

fn show(args: &Show) -> Result<(), Failure> {
    let log = read(&args.place.local()?)?;
    if args.json {
        let lines: Vec<String> =
            log.records.iter().map(|(record, _)| serde_json::to_string(record).unwrap_or_default()).collect();
        return print(&format!("[{}]\n", lines.join(",\n")));
    }
    let headings = ["SEQ", "TIME", "WHO", "VERB", "PEER", "GENERATION"].map(str::to_owned).to_vec();
    let row = |(record, _): &(Record, Sha256Digest)| {
        let Record { seq, time, who, verb, peer, generation, file_sha256: _, previous: _ } = record;
        let words = [seq.to_string(), time.to_string(), who.to_string(), verb.to_string()];
        words.into_iter().chain([peer.to_string(), generation.to_string()]).collect()
    };
    print(&table(&[headings].into_iter().chain(log.records.iter().map(row)).collect::<Vec<_>>()))
}

/// Reads the log and checks its chain.
fn read(place: &Place) -> Result<Log, Failure> {
    let path = place.bonds.join(audit::FILE);
    let bytes = fs::if_there(fs::read_bounded(&path, audit::LIMIT))?.unwrap_or_default();
    Log::read(&bytes).map_err(|broken| {
        Failure::new(Kind::Input, format!("{}: {broken}", path.display()))
            .hint("it was tampered with, or the disk lost a part of it: compare it with a snapshot")
    })
}
