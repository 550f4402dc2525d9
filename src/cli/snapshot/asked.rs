//! What a peer asked for over the tether, on its machine. The journal tells who it was.

use std::path::Path;

use super::host;
use crate::cli::Failure;
use crate::codex::name::Name;
use crate::peer::Refused;
use crate::peer::store::{Place, Who};
use crate::rebirth::intent::Outcome;
use crate::snapshot::store;
use crate::snapshot::wish::{Create, Named, Prune, Restore};

/// Makes a snapshot.
pub fn create(root: &Path, peer: &Name, wish: &Create) -> Result<Outcome, Failure> {
    let (name, _) = store::create(&Place::appliance(root), &host(), wish.order(false))?;
    let name =
        name.ok_or_else(|| Refused::new("no snapshot was kept", "this is a defect: please report it"))?;
    println!("peer {peer} had the snapshot {name} made");
    Ok(Outcome::Created { name })
}

/// Reads one whole.
pub fn verify(root: &Path, wish: &Named) -> Result<Outcome, Failure> {
    Ok(Outcome::Verified(store::verify(&Place::appliance(root), wish.snapshot.as_deref())?))
}

/// Puts one back, and tells whether the machine has to restart: the agent takes the host's key when it starts.
pub fn restore(root: &Path, peer: &Name, wish: &Restore) -> Result<(Outcome, bool), Failure> {
    let place = Place::appliance(root);
    let before = place.host_key()?;
    let restored = store::restore(&place, &host(), &Who::Peer(peer.clone()), wish.order(false))?;
    println!("peer {peer} had the snapshot {} put back", restored.name);
    Ok((Outcome::Restored(restored), place.host_key()? != before))
}

/// Removes all but the latest.
pub fn prune(root: &Path, peer: &Name, Prune { keep }: Prune) -> Result<Outcome, Failure> {
    let removed = store::prune(&Place::appliance(root), &host(), keep.get(), false)?;
    println!("peer {peer} had snapshots removed: {}", removed.join(", "));
    Ok(Outcome::Pruned { removed, more: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs;
    use crate::sys::wireguard::SecretKey;

    const KEY: &str = "var/lib/sepulcher/secrets/tether.key";

    /// A machine with an identity and a peer.
    fn machine() -> (tempfile::TempDir, Name) {
        let root = tempfile::tempdir().unwrap();
        let place = Place::appliance(root.path());
        for folder in [&place.law, &place.bonds.join("peers"), &place.secrets] {
            fs::create_dir_all(folder).unwrap();
        }
        let law = b"schema = 1\n[appliance]\nname = \"lychd\"\n";
        fs::write(&place.law.join("lychd.toml"), 0o644, law).unwrap();
        let peer = format!(
            "public-key = \"{}\"\naddress = \"10.88.16.2\"\ngrants = [\"snapshots\"]\n",
            SecretKey::generate().public()
        );
        fs::write(&place.bonds.join("peers/archivist.toml"), 0o644, peer.as_bytes()).unwrap();
        renew(root.path());
        (root, "archivist".parse().unwrap())
    }

    /// Gives the machine another identity, which is returned.
    fn renew(root: &Path) -> Vec<u8> {
        let key = SecretKey::generate().to_file().as_bytes().to_vec();
        fs::write_atomic(&root.join(KEY), 0o600, &key).unwrap();
        key
    }

    #[test]
    fn a_machine_that_gets_another_key_restarts_and_one_that_keeps_its_own_does_not() {
        let (machine, peer) = machine();
        let root = machine.path();
        let first = renew(root);
        let wish = Create { with_identity: true, bonds_only: true, ..Create::default() };
        let Outcome::Created { name } = create(root, &peer, &wish).unwrap() else {
            panic!("another outcome")
        };
        let wish = Restore { snapshot: Some(name.clone()), with_identity: true, ..Restore::default() };
        let restarts = || restore(root, &peer, &wish).unwrap().1;
        assert!(!restarts(), "it is the same key");
        let second = renew(root);
        let bonds = Restore { with_identity: false, ..wish.clone() };
        assert!(!restore(root, &peer, &bonds).unwrap().1);
        assert_eq!(fs::read(&root.join(KEY)).unwrap(), second);
        let (outcome, restarts) = restore(root, &peer, &wish).unwrap();
        assert!(restarts && fs::read(&root.join(KEY)).unwrap() == first);
        let Outcome::Restored(restored) = outcome else { panic!("another outcome") };
        assert!(restored.name == name && restored.before.is_some(), "{restored:?}");
    }

    #[test]
    fn what_a_peer_puts_back_is_on_record_as_its_doing() {
        let (machine, peer) = machine();
        let root = machine.path();
        create(root, &peer, &Create { bonds_only: true, ..Create::default() }).unwrap();
        let bonds = Place::appliance(root).bonds;
        let text = fs::read(&bonds.join("peers/archivist.toml")).unwrap();
        let other = SecretKey::generate().public();
        let late = format!("public-key = \"{other}\"\naddress = \"10.88.16.3\"\ngrants = []\n");
        fs::write(&bonds.join("peers/late.toml"), 0o644, late.as_bytes()).unwrap();
        restore(root, &peer, &Restore::default()).unwrap();
        assert!(!fs::exists(&bonds.join("peers/late.toml")).unwrap());
        assert_eq!(fs::read(&bonds.join("peers/archivist.toml")).unwrap(), text);
        let log = String::from_utf8(fs::read(&bonds.join("audit.jsonl")).unwrap()).unwrap();
        assert!(log.contains("peer archivist") && log.contains("\"restore\""), "{log}");
    }
}
