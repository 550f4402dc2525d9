//! `sepulcher rebirth verify`: what a machine will check of an update, before it is sent there.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::output::{json as written, print, table};
use crate::cli::{Failure, Kind, codex};
use crate::codex::PublisherKey;
use crate::rebirth::bundle::{self, Bundle};

/// Check an update as a machine will: signature, digests, description
///
/// What depends on the machine (its version, its bonds, its space) is checked there, by `sepulcher rebirth stage`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the update, `lychd_2.update`
    folder: PathBuf,
    #[command(flatten)]
    key: Key,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Whose signature it must carry.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Key {
    /// The publisher's key, as `sepulcher keygen` prints it
    #[arg(long, value_name = "KEY")]
    publisher: Option<PublisherKey>,
    /// Folder of a Codex that names the publisher
    #[arg(long, value_name = "DIR")]
    codex: Option<PathBuf>,
}

impl Key {
    fn publisher(&self) -> Result<PublisherKey, Failure> {
        if let Some(key) = self.publisher {
            return Ok(key);
        }
        let codex = codex::open(&[self.codex.as_deref().unwrap_or_else(|| ".".as_ref())])?;
        codex.rebirth.publisher.ok_or_else(|| {
            Failure::new(Kind::Input, "the Codex names no publisher: it takes no update").hint(
                "write `publisher = ` under `[rebirth]` in lychd.toml, or name the key: --publisher KEY",
            )
        })
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let publisher = args.key.publisher()?;
    let bundle = bundle::open(&args.folder, &publisher)?;
    print(&if args.json { written(&value(&bundle))? } else { text(&bundle, &publisher) })
}

fn text(bundle: &Bundle, publisher: &PublisherKey) -> String {
    let Bundle { description, digest, folder: _, files } = bundle;
    let rows: Vec<Vec<String>> = files
        .iter()
        .map(|(file, (size, digest))| vec![file.clone(), format!("{size} bytes"), format!("sha256 {digest}")])
        .collect();
    format!(
        "{}, of sepulcher {}, signed by {}\nroot hash {}\ndigest {digest}\n{}",
        description.title(),
        description.program,
        publisher.id(),
        description.root_hash,
        table(&rows)
    )
}

fn value(bundle: &Bundle) -> serde_json::Value {
    let Bundle { description, digest, folder: _, files } = bundle;
    let file = |(file, (size, digest)): (&String, &(u64, crate::tree::Sha256Digest))| json!({ "file": file, "size": size, "sha256": digest.to_string() });
    json!({
        "schema": 1, "digest": digest.to_string(), "description": description,
        "files": files.iter().map(file).collect::<Vec<_>>(),
    })
}
