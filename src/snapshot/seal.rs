//! Snapshots on their way elsewhere: encrypted with age (age-encryption.org/v1) to one recipient or several.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use age::stream::{StreamReader, StreamWriter};

use super::damaged;
use crate::peer::Refused;

/// Whose key opens an export: `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = |_| "a recipient is an age public key, `age1…`; `age-keygen` makes one".to_owned();
        age::x25519::Recipient::from_str(text).map(Self).map_err(told)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

crate::codex::serde_as_text!(Recipient);

/// Encrypts what is written to the value; `finish` ends it.
///
/// # Errors
/// There is no recipient, or the system has no random numbers.
pub fn seal<W: Write>(to: W, recipients: &[Recipient]) -> io::Result<StreamWriter<W>> {
    let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
    encryptor.wrap_output(to)
}

/// Decrypts with any of the keys in the text of an identity file. A damaged export is an error of who reads the value.
///
/// # Errors
/// The file holds no key, none of them fits, or this is no export.
pub fn open<R: Read>(sealed: R, identities: &str) -> Result<StreamReader<R>, Refused> {
    let lines = identities.lines().map(str::trim).filter(|line| line.starts_with("AGE-SECRET-KEY-"));
    let keys: Vec<_> = lines.filter_map(|line| age::x25519::Identity::from_str(line).ok()).collect();
    if keys.is_empty() {
        let hint = "name the file that `age-keygen` wrote; its line begins with AGE-SECRET-KEY-1";
        return Err(Refused::new("the identity file holds no age key", hint));
    }
    let decryptor =
        age::Decryptor::new(sealed).map_err(|error| damaged(&format!("it is no export: {error}")))?;
    decryptor.decrypt(keys.iter().map(|key| key as &dyn age::Identity)).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys => Refused::new(
            "no key of the identity file opens this export",
            "name the identity file of one of its recipients",
        ),
        other => damaged(&format!("it cannot be decrypted: {other}")),
    })
}
