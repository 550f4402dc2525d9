//! Whether a signature is the publisher's.

use minisign_verify::{Error, PublicKey, Signature};

use super::{SIGNATURE, damaged};
use crate::codex::PublisherKey;
use crate::image::manifest::SUMS;
use crate::peer::Refused;

/// What the signature says besides (its trusted comment, which is signed too).
///
/// # Errors
/// It is no signature, or not one of these bytes by this key.
pub fn verify(publisher: &PublisherKey, sums: &[u8], signature: &[u8]) -> Result<String, Refused> {
    let no_signature = || damaged(format!("{SIGNATURE} is no signature in minisign's format"));
    let text = std::str::from_utf8(signature).map_err(|_| no_signature())?;
    let signature = Signature::decode(text).map_err(|_| no_signature())?;
    let key = PublicKey::from_base64(&publisher.to_string()).map_err(|_| no_signature())?;
    match key.verify(sums, &signature, false) {
        Ok(()) => Ok(signature.trusted_comment().to_owned()),
        Err(Error::UnexpectedKeyId) => Err(Refused::new(
            format!("the update is signed by somebody else than the publisher {}", publisher.id()),
            "take one that is signed with that key; another publisher is named by `[rebirth]` of the law, in a new \
             image",
        )),
        Err(Error::UnsupportedLegacyMode) => {
            Err(damaged("its signature is of minisign's old kind: sign with `minisign -H`"))
        }
        Err(_) => Err(damaged(format!("{SIGNATURE} is not the publisher's signature of {SUMS}"))),
    }
}
