//! `sepulcher map`: the whole reachability, as a table and as a picture.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::output::{self, print, table};
use super::{Failure, codex};
use crate::codex::name::Name;
use crate::reach::map::{Column, Map, Row};
use crate::reach::{Reach, picture};
use crate::sys::{clock, fs};

/// Show who reaches what
///
/// Peers that reach the same share a column.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a Codex on a workstation [default: that of this appliance]
    #[arg(long, value_name = "DIR")]
    codex: Option<PathBuf>,
    /// Draw it into FILE instead
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (codex, _) = codex::read(args.codex.as_deref())?;
    let reach = Reach::new(&codex, clock::now());
    let map = reach.map();
    if let Some(path) = &args.svg {
        Ok(fs::write_atomic(path, 0o644, picture::draw(&codex, &map).as_bytes())?)
    } else if args.json {
        print(&output::json(&all(&map))?)
    } else {
        print(&shown(&map))
    }
}

/// The table, and who shares a column.
fn shown(map: &Map) -> String {
    let heading = ["SERVICE", "WHAT", "TIER"].map(str::to_owned).into_iter();
    let mut rows = vec![heading.chain(map.columns.iter().map(Column::title)).collect::<Vec<_>>()];
    rows.extend(map.rows.iter().map(|row| {
        let Row { service, label, tier, reached } = row;
        let marks = reached.iter().map(|reached| if *reached { "yes" } else { "-" }.to_owned());
        [owner(service.as_ref()), label.clone(), tier.to_string()].into_iter().chain(marks).collect()
    }));
    let mut text = table(&rows);
    for column in map.columns.iter().filter(|column| column.peers.len() > 1) {
        let names: Vec<&str> = column.peers.iter().map(Name::as_str).collect();
        text.push_str(&format!("\n{}: {}\n", column.title(), names.join(" ")));
    }
    text
}

fn owner(service: Option<&Name>) -> String {
    service.map_or_else(|| "(tether)".to_owned(), Name::to_string)
}

fn all(map: &Map) -> Value {
    let columns: Vec<Value> = map
        .columns
        .iter()
        .map(|Column { source, peers }| json!({ "source": source.to_string(), "peers": peers }))
        .collect();
    let rows: Vec<Value> = map
        .rows
        .iter()
        .map(|Row { service, label, tier, reached }| {
            json!({ "service": service, "what": label, "tier": tier.to_string(), "reached": reached })
        })
        .collect();
    json!({ "schema": 1, "columns": columns, "rows": rows })
}
