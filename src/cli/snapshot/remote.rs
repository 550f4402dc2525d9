//! The same over the tether: a device with the grant `snapshots` asks, and the machine answers.

use std::time::Duration;

use serde::Serialize;

use crate::cli::control::snapshots::{Exported, Stand, Told};
use crate::cli::control::wire::ANSWER;
use crate::cli::peer::Remote;
use crate::cli::wishes::{Wait, nonce};
use crate::cli::{Failure, Kind};
use crate::codex::Door;
use crate::rebirth::intent::Outcome;
use crate::snapshot::Manifest;
use crate::snapshot::store::{Restored, Whole};
use crate::snapshot::wish::{Create, Named, Prune, Restore};
use crate::tether::door::snapshots::{CREATE, EXPORT, Export, LIST, PRUNE, RESTORE, SHOW, Sent, VERIFY};

/// How long a machine may take for bonds: what was asked for before comes first.
const BONDS: Duration = Duration::from_secs(10 * 60);
/// The same for volumes.
const VOLUMES: Duration = Duration::from_secs(60 * 60);

/// The machine's snapshots, the oldest first, and what became of what this device wished for.
pub fn list(remote: &Remote) -> Result<Stand, Failure> {
    match ask(remote, LIST, None::<&()>)? {
        Told::List(stand) => Ok(stand),
        _ => Err(another(remote)),
    }
}

/// Name and manifest of one of them.
pub fn show(remote: &Remote, wanted: &Named) -> Result<(String, Manifest), Failure> {
    match ask(remote, SHOW, Some(wanted))? {
        Told::Show(shown) => Ok((shown.name, shown.manifest)),
        _ => Err(another(remote)),
    }
}

/// Has one read whole, and waits until it is.
pub fn verify(remote: &Remote, wanted: Named) -> Result<Whole, Failure> {
    match carried_out(remote, VERIFY, wanted, VOLUMES)? {
        Some(Outcome::Verified(whole)) => Ok(whole),
        _ => Err(another(remote)),
    }
}

/// One of them, encrypted.
pub fn export(remote: &Remote, wanted: &Export) -> Result<Exported, Failure> {
    match ask(remote, EXPORT, Some(wanted))? {
        Told::Export(exported) => Ok(exported),
        _ => Err(another(remote)),
    }
}

/// Has one made, and waits until it is; its name.
pub fn create(remote: &Remote, wish: Create) -> Result<String, Failure> {
    let patience = if wish.bonds_only { BONDS } else { VOLUMES };
    match carried_out(remote, CREATE, wish, patience)? {
        Some(Outcome::Created { name }) => Ok(name),
        _ => Err(another(remote)),
    }
}

/// Has one put back, and waits until it is.
pub fn restore(remote: &Remote, wish: Restore) -> Result<Restored, Failure> {
    let patience = if wish.with_volumes { VOLUMES } else { BONDS };
    match carried_out(remote, RESTORE, wish, patience)? {
        Some(Outcome::Restored(restored)) => Ok(restored),
        _ => Err(another(remote)),
    }
}

/// Has all but the latest removed, and waits until they are; names of them, and how many more.
pub fn prune(remote: &Remote, wish: Prune) -> Result<(Vec<String>, usize), Failure> {
    match carried_out(remote, PRUNE, wish, VOLUMES)? {
        Some(Outcome::Pruned { removed, more }) => Ok((removed, more)),
        _ => Err(another(remote)),
    }
}

fn carried_out(
    remote: &Remote,
    target: &str,
    wish: impl Serialize,
    patience: Duration,
) -> Result<Option<Outcome>, Failure> {
    let sent = Sent { nonce: nonce(), wish };
    let Told::Accepted(file) = ask(remote, target, Some(&sent))? else { return Err(another(remote)) };
    let hint = "`sepulcher --host HOST snapshot list` tells how far it is; a device that was bonded after the snapshot is \
                a stranger now";
    let wait = Wait { file: &file, patience, hint };
    Ok(wait.until_done(|| list(remote), |stand| &stand.asked)?.1.outcome)
}

fn another(remote: &Remote) -> Failure {
    remote.strange("it answers another question")
}

fn ask(remote: &Remote, target: &str, question: Option<&impl Serialize>) -> Result<Told, Failure> {
    let body = question.map(serde_json::to_vec).transpose();
    let body = body.map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    remote.told(target, body.as_deref(), ANSWER, Door::Snapshots)
}
