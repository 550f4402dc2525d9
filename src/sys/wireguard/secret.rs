//! The host's private key: read, made, and never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wireguard_control::Key;
use zeroize::{Zeroize as _, Zeroizing};

use crate::codex::key::{PublicKey, SharedKey};

/// A WireGuard private key. It has no `Display` and no `Serialize`; its memory is wiped when it is dropped.
pub struct SecretKey([u8; 32]);

/// The text is not a private key. What it was is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a WireGuard private key is 44 characters of base64 and a line end, as `wg genkey` prints it")]
pub struct NotASecret;

impl SecretKey {
    /// A new key from the kernel's random numbers.
    pub fn generate() -> Self {
        Self(Key::generate_private().0)
    }

    /// Reads the content of a key file: 44 characters of base64, then at most one line end.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotASecret> {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let decoded = Zeroizing::new(STANDARD.decode(text).map_err(|_| NotASecret)?);
        let key = <[u8; 32]>::try_from(decoded.as_slice()).map_err(|_| NotASecret)?;
        // A file of zeros is what a crash can leave, and what WireGuard takes for "no key".
        if key == [0; 32] { Err(NotASecret) } else { Ok(Self(key)) }
    }

    /// The content of a key file.
    pub fn to_file(&self) -> Zeroizing<String> {
        let mut text = STANDARD.encode(self.0);
        text.push('\n');
        Zeroizing::new(text)
    }

    /// The public half.
    ///
    /// # Panics
    /// Never: the base point has prime order and a clamped scalar is no multiple of it, so the product
    /// has prime order too.
    pub fn public(&self) -> PublicKey {
        match PublicKey::try_from(self.to_control().get_public().0) {
            Ok(key) => key,
            Err(error) => unreachable!("{error}"),
        }
    }

    /// For the WireGuard library.
    pub(super) fn to_control(&self) -> Key {
        Key(self.0)
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// A new preshared key from the kernel's random numbers.
pub fn fresh_preshared_key() -> SharedKey {
    loop {
        // Zeros would be no key; they never come.
        if let Some(key) = SharedKey::new(Key::generate_preshared().0) {
            return key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=\n";

    #[test]
    fn a_key_file_reads_back_and_has_the_public_half_that_wg_pubkey_prints() {
        let secret = SecretKey::parse(FILE.as_bytes()).unwrap();
        assert_eq!(secret.public().to_string(), "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=");
        assert_eq!(*secret.to_file(), FILE);
    }

    #[test]
    fn anything_else_is_refused() {
        let zeros = format!("{}\n", STANDARD.encode([0; 32]));
        for text in ["", "\n", "x", &FILE[1..], &format!("{FILE}\n"), &format!(" {FILE}"), &zeros] {
            assert_eq!(SecretKey::parse(text.as_bytes()).unwrap_err(), NotASecret, "{text:?}");
        }
    }

    #[test]
    fn a_key_never_shows_itself() {
        let secret = SecretKey::parse(FILE.as_bytes()).unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "SecretKey(…) Some(SecretKey(…))");
    }

    #[test]
    fn every_new_key_is_another() {
        assert_ne!(SecretKey::generate().public(), SecretKey::generate().public());
    }
}
