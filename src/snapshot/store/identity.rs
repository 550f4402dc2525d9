//! The host's private key that comes back with bonds: it lies beside its place until the peers that go with it are in
//! force, and takes its place then, or goes when they never are.

use super::journal::IDENTITY;
use crate::peer::store::{Error, Place};
use crate::sys::fs;

/// The key on its way, beside its place.
const STAGED: &str = ".tether.key.restored";

/// Writes the key beside its place, and down that it goes with the folder of peers of that number.
pub(super) fn stage(place: &Place, key: &[u8], peers: u64) -> Result<(), Error> {
    fs::write_atomic(&place.secrets.join(STAGED), 0o600, key)?;
    IDENTITY.write(place, &peers)
}

/// Puts a key in place whose peers are in force, and removes every other one that is on its way.
pub(super) fn settle(place: &Place) -> Result<(), Error> {
    let staged = place.secrets.join(STAGED);
    let peers = match IDENTITY.read(place) {
        Ok(Some(peers)) => peers,
        Ok(None) => return Ok(fs::remove_file(&staged)?),
        // Of no use it would be in everybody's way for ever: the host keeps the key that it has.
        Err(Error::Refused(refused)) => {
            eprintln!("note: {refused}: it is taken for none");
            fs::remove_file(&staged)?;
            return IDENTITY.remove(place);
        }
        Err(other) => return Err(other),
    };
    if !in_force(place, peers)? {
        fs::remove_file(&staged)?;
    } else if fs::exists(&staged)? {
        fs::rename(&staged, &place.secrets.join("tether.key"))?;
    }
    IDENTITY.remove(place)
}

/// Whether the folder of peers is that of this number.
pub(super) fn in_force(place: &Place, number: u64) -> Result<bool, fs::Error> {
    let peers = place.bonds.join("peers");
    Ok(fs::exists(&peers)? && fs::inode(&peers)? == number)
}
