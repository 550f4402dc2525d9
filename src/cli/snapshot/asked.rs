//! What somebody asked for who may, on their machine. The journal tells who it was.

use std::path::Path;

use super::host;
use crate::cli::Failure;
use crate::peer::Refused;
use crate::peer::store::{Place, Who};
use crate::rebirth::{self, intent::Outcome, machine::Machine};
use crate::snapshot::store;
use crate::snapshot::wish::{Create, Named, Prune, Restore};

/// Makes a snapshot.
pub fn create(machine: &Machine, who: &Who, wish: &Create) -> Result<Outcome, Failure> {
    if !wish.bonds_only {
        proven(machine)?;
    }
    let (name, _) = store::create(&Place::appliance(machine.root()), &host(), wish.order(false))?;
    let name =
        name.ok_or_else(|| Refused::new("no snapshot was kept", "this is a defect: please report it"))?;
    println!("{who} had the snapshot {name} made");
    Ok(Outcome::Created { name })
}

/// Reads one whole.
pub fn verify(root: &Path, wish: &Named) -> Result<Outcome, Failure> {
    Ok(Outcome::Verified(store::verify(&Place::appliance(root), wish.snapshot.as_deref())?))
}

/// Puts one back. With the host's key the machine has to restart: the agent takes it when it starts.
pub fn restore(machine: &Machine, who: &Who, wish: &Restore) -> Result<Outcome, Failure> {
    // With another key the machine restarts.
    if wish.with_volumes || wish.with_identity {
        proven(machine)?;
    }
    let place = Place::appliance(machine.root());
    let restored = store::restore(&place, &host(), who, wish.order(false))?;
    println!("{who} had the snapshot {} put back", restored.name);
    Ok(Outcome::Restored(restored))
}

/// Refuses to hold services up, or to restart, on a body that has to prove healthy meanwhile: it would be given up for that.
fn proven(machine: &Machine) -> Result<(), Failure> {
    Ok(rebirth::store::proven(machine, &machine.running()?)?)
}

/// Removes all but the latest.
pub fn prune(root: &Path, who: &Who, Prune { keep }: Prune) -> Result<Outcome, Failure> {
    let removed = store::prune(&Place::appliance(root), &host(), who, keep.get(), false)?;
    println!("{who} had snapshots removed: {}", removed.join(", "));
    Ok(Outcome::Pruned { removed, more: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reactor::owes_restart;
    use crate::sys::fs;
    use crate::sys::wireguard::SecretKey;

    const KEY: &str = "var/lib/sepulcher/secrets/tether.key";

    /// A machine with an identity and a peer.
    fn machine() -> (tempfile::TempDir, Machine, Who) {
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
        fs::create_dir_all(&root.path().join("run/sepulcher")).unwrap();
        renew(root.path());
        runs_proven(root.path());
        let machine = Machine::new(root.path());
        (root, machine, Who::Peer("archivist".parse().unwrap()))
    }

    const PROVEN: &str = "efi/EFI/Linux/lychd_2.efi";

    /// Makes it the machine of a sealed image.
    fn runs_proven(root: &Path) {
        for (file, text) in [
            ("usr/lib/os-release", "IMAGE_ID=lychd\nIMAGE_VERSION=2\n".to_owned()),
            ("proc/cmdline", format!("roothash={:064}\n", 0)),
            (PROVEN, "x".to_owned()),
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(&root.join(file), 0o644, text.as_bytes()).unwrap();
        }
    }

    /// Gives the machine another identity, which is returned, and boots it with that.
    fn renew(root: &Path) -> Vec<u8> {
        let key = SecretKey::generate();
        let public = format!("{}\n", key.public());
        let key = key.to_file().as_bytes().to_vec();
        fs::write_atomic(&root.join(KEY), 0o600, &key).unwrap();
        fs::write_atomic(&root.join("run/sepulcher/tether.pub"), 0o644, public.as_bytes()).unwrap();
        key
    }

    #[test]
    fn a_machine_that_gets_another_key_restarts_and_one_that_keeps_its_own_does_not() {
        let (root, machine, who) = machine();
        let root = root.path();
        let first = renew(root);
        let wish = Create { with_identity: true, bonds_only: true, ..Create::default() };
        let Outcome::Created { name } = create(&machine, &who, &wish).unwrap() else {
            panic!("another outcome")
        };
        let wish = Restore { snapshot: Some(name.clone()), with_identity: true, ..Restore::default() };
        restore(&machine, &who, &wish).unwrap();
        assert!(!owes_restart(&machine), "it is the same key");
        let second = renew(root);
        let bonds = Restore { with_identity: false, ..wish.clone() };
        restore(&machine, &who, &bonds).unwrap();
        assert!(!owes_restart(&machine));
        assert_eq!(fs::read(&root.join(KEY)).unwrap(), second);
        let outcome = restore(&machine, &who, &wish).unwrap();
        assert!(owes_restart(&machine) && fs::read(&root.join(KEY)).unwrap() == first);
        let Outcome::Restored(restored) = outcome else { panic!("another outcome") };
        assert!(restored.name == name && restored.before.is_some(), "{restored:?}");
    }

    #[test]
    fn services_are_not_held_up_while_their_body_has_to_prove_healthy() {
        let (root, machine, who) = machine();
        let root = root.path();
        fs::rename(&root.join(PROVEN), &root.join("efi/EFI/Linux/lychd_2+2-1.efi")).unwrap();
        fs::write(&root.join("efi/EFI/Linux/lychd_1.efi"), 0o644, b"x").unwrap();
        let bonds = Create { bonds_only: true, ..Create::default() };
        create(&machine, &who, &bonds).unwrap();
        let with_volumes = Restore { with_volumes: true, ..Restore::default() };
        let restored = restore(&machine, &who, &with_volumes);
        let with_identity = Restore { with_identity: true, ..Restore::default() };
        let with_identity = restore(&machine, &who, &with_identity);
        for refused in [restored, with_identity, create(&machine, &who, &Create::default())] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("body 2 has not proven healthy yet"), "{said}");
        }
        restore(&machine, &who, &Restore::default()).unwrap();
    }

    #[test]
    fn who_is_cut_off_while_its_wish_is_carried_out_brings_nobody_back() {
        let (root, machine, who) = machine();
        let root = root.path();
        create(&machine, &who, &Create { bonds_only: true, ..Create::default() }).unwrap();
        let file = root.join("var/lib/sepulcher/codex/peers/archivist.toml");
        let text = String::from_utf8(fs::read(&file).unwrap()).unwrap() + "state = \"revoked\"\n";
        fs::write_atomic(&file, 0o644, text.as_bytes()).unwrap();
        let revive = ["archivist".parse().unwrap()].into();
        let refused = restore(&machine, &who, &Restore { revive, ..Restore::default() });
        let pruned = prune(root, &who, Prune { keep: std::num::NonZeroUsize::MIN });
        for refused in [refused, pruned] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("does not hold the grant `snapshots`"), "{said}");
        }
        assert_eq!(fs::read(&file).unwrap(), text.as_bytes());
    }

    #[test]
    fn what_a_peer_puts_back_is_on_record_as_its_doing() {
        let (root, machine, who) = machine();
        let root = root.path();
        create(&machine, &who, &Create { bonds_only: true, ..Create::default() }).unwrap();
        let bonds = Place::appliance(root).bonds;
        let text = fs::read(&bonds.join("peers/archivist.toml")).unwrap();
        let other = SecretKey::generate().public();
        let late = format!("public-key = \"{other}\"\naddress = \"10.88.16.3\"\ngrants = []\n");
        fs::write(&bonds.join("peers/late.toml"), 0o644, late.as_bytes()).unwrap();
        restore(&machine, &who, &Restore::default()).unwrap();
        assert!(!fs::exists(&bonds.join("peers/late.toml")).unwrap());
        assert_eq!(fs::read(&bonds.join("peers/archivist.toml")).unwrap(), text);
        let log = String::from_utf8(fs::read(&bonds.join("audit.jsonl")).unwrap()).unwrap();
        assert!(log.contains("peer archivist") && log.contains("\"restore\""), "{log}");
    }
}
