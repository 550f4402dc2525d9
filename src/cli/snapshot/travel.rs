//! Snapshots that leave the machine, and that come back to it or to another.

use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::{Changing, tell};
use crate::cli::{Failure, Kind};
use crate::snapshot::seal::{self, Recipient};
use crate::snapshot::{archive, store};
use crate::sys::fs;

/// An identity file holds a few lines.
const IDENTITY_LIMIT: u64 = 64 << 10;

/// Write a snapshot encrypted to a file
///
/// The format is age's: `age --decrypt` opens it, too.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The file to make; one that is there is never replaced
    file: PathBuf,
    /// The snapshot's name [default: the latest]
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
    /// Who can open it: an age public key, `age1…`; can be given again
    #[arg(long, value_name = "KEY", required = true)]
    recipient: Vec<Recipient>,
    /// Let the host's private key, where the snapshot holds it, travel too
    #[arg(long)]
    with_identity: bool,
    #[command(flatten)]
    changing: Changing,
}

/// Take over an exported snapshot
#[derive(Debug, clap::Args)]
pub struct Import {
    /// What `sepulcher snapshot export` wrote
    file: PathBuf,
    /// File with the age key of a recipient, as `age-keygen` writes it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    #[command(flatten)]
    changing: Changing,
}

/// Runs `sepulcher snapshot export`.
pub fn export(args: &Export) -> Result<(), Failure> {
    let Changing { list, dry_run } = &args.changing;
    let (name, snapshot) = store::read(&list.place()?, args.snapshot.as_deref())?;
    if args.with_identity && !snapshot.manifest.identity {
        return Err(Failure::new(Kind::Input, format!("{name} does not hold the host's private key"))
            .hint("make one that does: `sepulcher snapshot create --with-identity`"));
    }
    let snapshot = if args.with_identity { snapshot } else { snapshot.without_identity() };
    let packed = archive::pack(&snapshot).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let sealed =
        seal::seal(&packed, &args.recipient).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let file = args.file.display();
    if fs::exists(&args.file)? {
        return Err(Failure::new(Kind::Input, format!("{file} is there already")).hint("name another file"));
    }
    if !dry_run {
        fs::create_atomic(&args.file, 0o600, &sealed)?;
    }
    let value = json!({
        "schema": 1, "name": name, "file": file.to_string(), "identity": snapshot.manifest.identity,
        "digest": store::digest(&snapshot.manifest).to_string(),
    });
    let verb = if *dry_run { "would go to" } else { "is in" };
    tell(list, &value, &format!("{name} {verb} {file}\n"))
}

/// Runs `sepulcher snapshot import`.
pub fn import(args: &Import) -> Result<(), Failure> {
    let Changing { list, dry_run } = &args.changing;
    let place = list.place()?;
    let identities = Zeroizing::new(fs::read_bounded(&args.identity, IDENTITY_LIMIT)?);
    let identities = Zeroizing::new(String::from_utf8_lossy(&identities).into_owned());
    let opened = seal::open(&fs::read_bounded(&args.file, seal::LIMIT)?, &identities)?;
    let snapshot = archive::unpack(&opened)?;
    let name = store::import(&place, &super::host(), &snapshot, *dry_run)?;
    let value = json!({ "schema": 1, "name": name, "manifest": snapshot.manifest });
    tell(list, &value, &format!("{name}\n"))
}
