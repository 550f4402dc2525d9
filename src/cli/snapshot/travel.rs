//! Snapshots that leave the machine, and that come back to it or to another.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Changing, remote, tell};
use crate::cli::peer::Remote;
use crate::cli::{Failure, Kind};
use crate::peer::store::Place;
use crate::snapshot::seal::{self, Recipient};
use crate::snapshot::{Snapshot, store};
use crate::sys::fs;
use crate::tether::door::snapshots::Export as Wanted;
use crate::tree::Sha256Digest;

/// An identity file holds a few lines.
const IDENTITY_LIMIT: u64 = 64 << 10;

/// Write a snapshot encrypted to a file
///
/// The format is age's: `age --decrypt` opens it, too. With `--host`, the machine encrypts, and volumes stay there.
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
    if let Some(remote) = args.changing.list.place.remote()? {
        return export_from(&remote, args);
    }
    let Export { file: path, snapshot, recipient, with_identity, with_volumes, changing } = args;
    let Changing { list, dry_run } = changing;
    let place = list.place()?;
    let (name, snapshot) = store::read(&place, snapshot.as_deref())?;
    let snapshot = leaving(&name, snapshot, *with_identity)?;
    if *with_volumes && snapshot.manifest.volumes.is_empty() {
        return Err(Failure::new(Kind::Input, format!("{name} holds no volumes"))
            .hint("make one that does: `sepulcher snapshot create`, without `--bonds-only`"));
    }
    let snapshot = if *with_volumes { snapshot } else { without_volumes(snapshot) };
    vacant(path)?;
    if !dry_run {
        let (temporary, file) = fs::open_temporary(path, 0o600)?;
        let written = sealed(&place, &name, &snapshot, file, recipient, path)
            .and_then(|file| Ok(fs::context(file.sync_all(), "write", path)?));
        if let Err(failure) = written {
            fs::remove_file(&temporary)?;
            return Err(failure);
        }
        fs::place(&temporary, path)?;
    }
    let (identity, volumes) = (snapshot.manifest.identity, snapshot.manifest.volumes.len());
    told(args, &name, identity, volumes, store::digest(&snapshot.manifest))
}

/// The same of a machine elsewhere: what it encrypts comes over the tether.
fn export_from(remote: &Remote, args: &Export) -> Result<(), Failure> {
    let Export { file: path, snapshot, recipient, with_identity, with_volumes, changing } = args;
    if *with_volumes {
        return Err(Failure::new(Kind::Input, "volumes do not go over the tether")
            .hint("leave `--with-volumes` out; a service's own backup may go through its own port"));
    }
    changing.not_dry()?;
    vacant(path)?;
    let (snapshot, recipients) = (snapshot.clone(), recipient.clone());
    let wanted = Wanted { snapshot, recipients, with_identity: *with_identity };
    let exported = remote::export(remote, &wanted)?;
    let sealed = STANDARD.decode(&exported.sealed).map_err(|error| remote.strange(&error.to_string()))?;
    fs::create_atomic(path, 0o600, &sealed)?;
    for volume in &exported.without {
        eprintln!("note: volume {volume} stays on the machine: none goes over the tether");
    }
    told(args, &exported.name, exported.identity, 0, exported.digest)
}

/// Refuses to replace a file.
fn vacant(path: &Path) -> Result<(), Failure> {
    if fs::exists(path)? {
        let message = format!("{} is there already", path.display());
        return Err(Failure::new(Kind::Input, message).hint("name another file"));
    }
    Ok(())
}

/// Says what is where.
fn told(
    args: &Export,
    name: &str,
    identity: bool,
    volumes: usize,
    digest: Sha256Digest,
) -> Result<(), Failure> {
    let Export { file, changing: Changing { list, dry_run }, .. } = args;
    let file = file.display();
    let value = json!({
        "schema": 1, "name": name, "file": file.to_string(), "identity": identity, "volumes": volumes,
        "digest": digest.to_string(),
    });
    let verb = if *dry_run { "would go to" } else { "is in" };
    tell(list, &value, &format!("{name} {verb} {file}\n"))
}

/// What may leave: without the host's private key, unless `identity` asks for it.
pub fn leaving(name: &str, snapshot: Snapshot, identity: bool) -> Result<Snapshot, Failure> {
    match (identity, snapshot.manifest.identity) {
        (false, _) => Ok(snapshot.without_identity()),
        (true, true) => Ok(snapshot),
        (true, false) => {
            Err(Failure::new(Kind::Input, format!("{name} does not hold the host's private key"))
                .hint("make one that does: `sepulcher snapshot create --with-identity`"))
        }
    }
}

fn without_volumes(snapshot: Snapshot) -> Snapshot {
    for volume in &snapshot.manifest.volumes {
        eprintln!("note: volume {} is left out; `--with-volumes` takes it along", volume.name);
    }
    snapshot.with_volumes(Vec::new())
}

/// Writes what leaves to `to`, encrypted, and gives that back; `path` is it for people.
pub fn sealed<W: Write>(
    place: &Place,
    name: &str,
    snapshot: &Snapshot,
    to: W,
    recipients: &[Recipient],
    path: &Path,
) -> Result<W, Failure> {
    let mut sealed =
        seal::seal(to, recipients).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    store::write_out(place, name, snapshot, &mut sealed, path)?;
    Ok(fs::context(sealed.finish(), "write", path)?)
}

/// Runs `sepulcher snapshot import`.
pub fn import(args: &Import) -> Result<(), Failure> {
    let Import { file, identity, with_volumes, changing: Changing { list, dry_run } } = args;
    let place = list.place()?;
    // An export is a little longer than what it holds.
    let volumes = if *with_volumes { Some(fs::size(file)?) } else { None };
    let mut opened = opened(file, identity)?;
    let (name, snapshot) = store::import(&place, &super::host(), &mut opened, volumes, *dry_run)?;
    let value = json!({ "schema": 1, "name": name, "manifest": snapshot.manifest });
    tell(list, &value, &format!("{name}\n"))
}

/// What an export holds, decrypted with a key of the file `identity`.
pub fn opened(file: &Path, identity: &Path) -> Result<impl Read + use<>, Failure> {
    let identities = Zeroizing::new(fs::read_bounded(identity, IDENTITY_LIMIT)?);
    let identities = Zeroizing::new(String::from_utf8_lossy(&identities).into_owned());
    Ok(seal::open(fs::open(file)?, &identities)?)
}
