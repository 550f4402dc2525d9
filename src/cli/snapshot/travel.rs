//! Snapshots that leave the machine, and that come back to it or to another.

use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::{Changing, tell};
use crate::cli::{Failure, Kind};
use crate::peer::store::Place;
use crate::snapshot::seal::{self, Recipient};
use crate::snapshot::{Snapshot, store};
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
    /// Let the volumes of services, where the snapshot holds them, travel too
    #[arg(long)]
    with_volumes: bool,
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
    /// Take over the volumes of services, too
    #[arg(long)]
    with_volumes: bool,
    #[command(flatten)]
    changing: Changing,
}

/// Runs `sepulcher snapshot export`.
pub fn export(args: &Export) -> Result<(), Failure> {
    let Export { file: path, snapshot, recipient, with_identity, with_volumes, changing } = args;
    let Changing { list, dry_run } = changing;
    let place = list.place()?;
    let (name, snapshot) = store::read(&place, snapshot.as_deref())?;
    if *with_identity && !snapshot.manifest.identity {
        return Err(Failure::new(Kind::Input, format!("{name} does not hold the host's private key"))
            .hint("make one that does: `sepulcher snapshot create --with-identity`"));
    }
    if *with_volumes && snapshot.manifest.volumes.is_empty() {
        return Err(Failure::new(Kind::Input, format!("{name} holds no volumes"))
            .hint("make one that does: `sepulcher snapshot create`, without `--bonds-only`"));
    }
    let snapshot = if *with_identity { snapshot } else { snapshot.without_identity() };
    let snapshot = if *with_volumes { snapshot } else { without_volumes(snapshot) };
    let file = path.display();
    if fs::exists(path)? {
        return Err(Failure::new(Kind::Input, format!("{file} is there already")).hint("name another file"));
    }
    if !dry_run {
        let (temporary, sealed) = fs::open_temporary(path, 0o600)?;
        let written = write(&place, &name, &snapshot, sealed, recipient, path);
        if let Err(failure) = written {
            fs::remove_file(&temporary)?;
            return Err(failure);
        }
        fs::place(&temporary, path)?;
    }
    let value = json!({
        "schema": 1, "name": name, "file": file.to_string(), "identity": snapshot.manifest.identity,
        "volumes": snapshot.manifest.volumes.len(), "digest": store::digest(&snapshot.manifest).to_string(),
    });
    let verb = if *dry_run { "would go to" } else { "is in" };
    tell(list, &value, &format!("{name} {verb} {file}\n"))
}

fn without_volumes(snapshot: Snapshot) -> Snapshot {
    for volume in &snapshot.manifest.volumes {
        eprintln!("note: volume {} is left out; `--with-volumes` takes it along", volume.name);
    }
    snapshot.with_volumes(Vec::new())
}

fn write(
    place: &Place,
    name: &str,
    snapshot: &Snapshot,
    file: std::fs::File,
    recipients: &[Recipient],
    path: &Path,
) -> Result<(), Failure> {
    let mut sealed =
        seal::seal(file, recipients).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    store::write_out(place, name, snapshot, &mut sealed, path)?;
    Ok(fs::context(sealed.finish().and_then(|file| file.sync_all()), "write", path)?)
}

/// Runs `sepulcher snapshot import`.
pub fn import(args: &Import) -> Result<(), Failure> {
    let Import { file, identity, with_volumes, changing: Changing { list, dry_run } } = args;
    let place = list.place()?;
    let identities = Zeroizing::new(fs::read_bounded(identity, IDENTITY_LIMIT)?);
    let identities = Zeroizing::new(String::from_utf8_lossy(&identities).into_owned());
    // An export is a little longer than what it holds.
    let volumes = if *with_volumes { Some(fs::size(file)?) } else { None };
    let mut opened = seal::open(fs::open(file)?, &identities)?;
    let (name, snapshot) = store::import(&place, &super::host(), &mut opened, volumes, *dry_run)?;
    let value = json!({ "schema": 1, "name": name, "manifest": snapshot.manifest });
    tell(list, &value, &format!("{name}\n"))
}
