//! `sepulcher rebirth sign`: where an update is signed need not be where it is built.

use std::path::PathBuf;

use crate::cli::Failure;
use crate::cli::keygen::open_key;
use crate::cli::output::{json, print};
use crate::codex::{Codex, PublisherKey};
use crate::rebirth::bundle::{Bundle, write};

/// Sign an update that `sepulcher image build --update` wrote
///
/// Its parts are checked first; a signature that it has is replaced. A machine takes it when the body that runs there names
/// this key as its publisher.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the update, `lychd_2.update`
    folder: PathBuf,
    /// Secret key, as `sepulcher keygen` makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { folder, key, json: as_json } = args;
    let key = open_key(key)?;
    let Bundle { description, digest, .. } = write::sign(folder, &key)?;
    let ours = key.public();
    // A law that this program cannot read is judged by the machine that is to live by it.
    let next = Codex::parse(&description.law()).ok().map(|law| law.rebirth.publisher);
    if let Some(note) = next.and_then(|next| hands_over(ours, next)) {
        eprintln!("note: {note}");
    }
    if *as_json {
        let value = serde_json::json!({
            "schema": 1, "digest": digest.to_string(), "update": description.title(), "publisher": ours.to_string(),
        });
        return print(&json(&value)?);
    }
    eprintln!("{} is signed by {}; its digest:", description.title(), ours.id());
    print(&format!("{digest}\n"))
}

/// What follows for later updates when the new law names another publisher than who signs.
fn hands_over(ours: PublisherKey, next: Option<PublisherKey>) -> Option<String> {
    match next {
        Some(next) if next == ours => None,
        Some(next) => {
            Some(format!("machines that become this body take later updates of {} alone", next.id()))
        }
        None => {
            Some("machines that become this body take no update any more: its law names no publisher".into())
        }
    }
}
