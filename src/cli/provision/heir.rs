//! A machine that takes the place of a lost one: what its first boot is given of an exported snapshot.

use std::collections::BTreeMap;
use std::path::Path;

use super::credential::Credential;
use super::secrets::Secrets;
use super::target::Target;
use crate::cli::snapshot::travel;
use crate::cli::{Failure, Kind};
use crate::codex::ledger::{LAW_LEDGER, LEDGER};
use crate::codex::name::Name;
use crate::codex::{Codex, Sources};
use crate::snapshot::{IDENTITY, Snapshot, archive, law, store};
use crate::sys::clock;
use crate::sys::wireguard::SecretKey;
use crate::tree::Sha256Digest;

/// The credential, and what is to be known before it is put on the disk, a line each, for people.
///
/// # Errors
/// The export does not open or is damaged, or the machine would refuse it.
pub fn of(
    target: &Target,
    (sources, codex): (&Sources, &Codex),
    file: &Path,
    identity: &Path,
    recovery: Sha256Digest,
) -> Result<(Credential, Vec<String>), Failure> {
    target.is_ours()?;
    let mut opened = travel::opened(file, identity)?;
    let snapshot = archive::read(&mut opened, &mut |_, _, _| Ok(()))?;
    let appliance = codex.appliance.name.clone();
    let of = &snapshot.manifest.appliance;
    let mut plan = vec![format!(
        "the export is of {}: whoever was revoked or rotated since is as then, and has to be once more",
        snapshot.manifest.created
    )];
    if *of != appliance {
        plan.push(format!("note: the snapshot is of {of}, the disk of {appliance}"));
    }
    let image = target.image(of);
    for volume in &snapshot.manifest.volumes {
        plan.push(format!("note: volume {} stays out: a disk is provisioned with bonds alone", volume.name));
    }
    let unusable = |error| {
        Failure::new(Kind::Input, format!("the host's private key in the snapshot is unusable: {error}"))
            .hint("choose another export, or one without that key")
    };
    let key = snapshot.parts.get(IDENTITY).map(|bytes| SecretKey::parse(bytes));
    let kept = key.transpose().map_err(unusable)?;
    plan.push(if kept.is_some() {
        "the machine is the lost one to its devices: that one must not come back".to_owned()
    } else {
        "note: the snapshot does not hold the host's private key: every device needs the new public key"
            .to_owned()
    });
    let host = kept.unwrap_or_else(SecretKey::generate);
    let snapshot = snapshot.with_volumes(Vec::new()).without_identity();
    // The image seals the Codex's own ledger with its law.
    let mut sealed = law(sources);
    if let Some(revoked) = sources.text(LEDGER) {
        sealed.insert(LAW_LEDGER, revoked);
    }
    plan.extend(store::foretell(&snapshot, &sealed, image.as_ref(), host.public())?);
    plan.extend(unknown(codex, &snapshot).map(|name| {
        format!("note: peer {name} of the Codex is not in the snapshot, and stays out: bond it again")
    }));
    let packed = archive::pack(&snapshot).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let (bonds, secrets) = (BTreeMap::new(), Secrets::new());
    Ok((Credential { appliance, host, bonds, recovery, snapshot: Some(packed), secrets }, plan))
}

/// Peers that are bonded by a Codex, and that a snapshot does not know.
fn unknown<'a>(codex: &'a Codex, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Name> {
    let now = clock::now();
    let living = codex.active().filter(move |(_, peer)| !peer.is_expired(now)).map(|(name, _)| name);
    living.filter(|name| snapshot.text(&format!("peers/{name}.toml")).is_none())
}

#[cfg(test)]
mod tests;
