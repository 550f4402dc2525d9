//! What a peer asked for over the tether, on its machine. The journal tells who it was.

use std::path::Path;

use super::host;
use crate::cli::Failure;
use crate::codex::name::Name;
use crate::peer::Refused;
use crate::peer::store::{Place, Who};
use crate::rebirth::intent::Outcome;
use crate::snapshot::store;
use crate::snapshot::wish::{Create, Restore};

/// Makes a snapshot.
pub fn create(root: &Path, peer: &Name, wish: &Create) -> Result<Outcome, Failure> {
    let Create { note, with_identity, bonds_only } = wish;
    let creation = store::Creation {
        note: note.as_deref(),
        identity: *with_identity,
        volumes: !bonds_only,
        dry_run: false,
    };
    let (name, _) = store::create(&Place::appliance(root), &host(), creation)?;
    let name =
        name.ok_or_else(|| Refused::new("no snapshot was kept", "this is a defect: please report it"))?;
    println!("peer {peer} had the snapshot {name} made");
    Ok(Outcome::Created { name })
}

/// Puts one back, and tells whether the machine has to restart: the agent takes the host's key when it starts.
pub fn restore(root: &Path, peer: &Name, wish: &Restore) -> Result<(Outcome, bool), Failure> {
    let Restore { snapshot, revive, with_identity, with_volumes } = wish;
    let place = Place::appliance(root);
    let before = place.host_key()?;
    let wish = store::Wish {
        name: snapshot.as_deref(),
        revive,
        identity: *with_identity,
        volumes: *with_volumes,
        dry_run: false,
    };
    let restored = store::restore(&place, &host(), &Who::Peer(peer.clone()), wish)?;
    println!("peer {peer} had the snapshot {} put back", restored.name);
    Ok((Outcome::Restored(restored), place.host_key()? != before))
}
