//! Verbs that only look: list, show.

use std::path::PathBuf;

use super::list::{self, Found, Overview};
use super::watch::Watch;
use super::{Failure, Kind, Transport, Where};
use crate::cli::output::json;
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::sys::clock;

/// Show all peers: what the bonds say beside what the kernel holds
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    look: Look,
}

/// Show all about one peer
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Name of the peer
    name: Name,
    #[command(flatten)]
    look: Look,
}

/// How to look.
#[derive(Debug, clap::Args)]
struct Look {
    #[command(flatten)]
    place: Where,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: Watch,
}

/// Runs `sepulcher peer list`.
pub fn list(args: &List) -> Result<(), Failure> {
    args.look.repeat(&|overview, now| Ok(overview.table(now)), &|overview| json(overview))
}

/// Runs `sepulcher peer show`.
pub fn show(args: &Show) -> Result<(), Failure> {
    args.look.repeat(&|overview, now| Ok(found(overview, &args.name)?.details(now)), &|overview| {
        json(&found(overview, &args.name)?)
    })
}

fn found<'a>(overview: &'a Overview, name: &Name) -> Result<Found<'a>, Failure> {
    overview.find(name.as_str()).ok_or_else(|| {
        Failure::new(Kind::Input, format!("there is no peer `{name}`"))
            .hint("`sepulcher peer list` tells who is bonded")
    })
}

impl Look {
    /// Looks once, or again and again.
    fn repeat(
        &self,
        text: &dyn Fn(&Overview, Timestamp) -> Result<String, Failure>,
        json: &dyn Fn(&Overview) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let transport = Transport::open(&self.place)?;
        self.watch.show(Self::folders(&transport), &mut || {
            let overview = self.overview(&transport)?;
            let now = overview.time(clock::now());
            if self.json { json(&overview) } else { text(&overview, now) }
        })
    }

    fn overview(&self, transport: &Transport) -> Result<Overview, Failure> {
        let observed = transport.observe(&self.place)?;
        Ok(list::join(transport.list()?, observed))
    }

    fn folders(transport: &Transport) -> Vec<PathBuf> {
        match transport {
            Transport::Local(place) => vec![place.bonds.join("peers")],
            Transport::Remote(_) => Vec::new(),
        }
    }
}
