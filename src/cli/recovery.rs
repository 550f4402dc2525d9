//! The recovery phrase: what a person says at the console when no bonded device is at hand.
//!
//! 125 random bits, so that its plain digest is enough to know it by: nothing can be tried out against it.

use std::fmt;

use zeroize::{Zeroize as _, Zeroizing};

use crate::sys::random;
use crate::tree::Sha256Digest;

/// Digits and letters without those that are taken for others: I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a phrase, five bits each, and of a group.
const LENGTH: usize = 25;
const GROUP: usize = 5;
/// Name of the file in the secrets that holds the digest.
pub const FILE: &str = "recovery";

/// A recovery phrase. It has no `Debug`; its memory is wiped when it is dropped.
pub struct Phrase(String);

impl Phrase {
    /// A new one.
    pub fn generate() -> Self {
        let random = Zeroizing::new(random::bytes());
        Self(random.iter().take(LENGTH).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
    }

    /// Reads what a person typed: upper or lower case, with or without dashes and blanks, letters that look like
    /// digits as these. `None` when it cannot be a phrase.
    pub fn parse(typed: &str) -> Option<Self> {
        let mut phrase = Self(String::with_capacity(LENGTH));
        for typed in typed.chars().filter(|typed| !matches!(typed, '-' | ' ')) {
            let meant = match typed.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            if phrase.0.len() == LENGTH || !ALPHABET.contains(&u8::try_from(meant).ok()?) {
                return None;
            }
            phrase.0.push(meant);
        }
        (phrase.0.len() == LENGTH).then_some(phrase)
    }

    /// What is kept of it.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(self.0.as_bytes())
    }
}

impl fmt::Display for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, character) in self.0.chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{character}")?;
        }
        Ok(())
    }
}

impl Drop for Phrase {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_known_again_however_it_is_typed() {
        let phrase = Phrase::generate();
        let shown = phrase.to_string();
        assert_eq!(shown.len(), LENGTH + 4);
        for typed in [&shown, &shown.to_lowercase(), &shown.replace('-', " "), &shown.replace('-', "")] {
            assert_eq!(Phrase::parse(typed).unwrap().digest(), phrase.digest(), "{typed}");
        }
        let digits = "00000-11111-00000-11111-00000";
        let slips = "oOoOo-lLiI1-00000-11111-00000";
        assert_eq!(Phrase::parse(slips).unwrap().digest(), Phrase::parse(digits).unwrap().digest());
    }

    #[test]
    fn what_cannot_be_a_phrase_is_none() {
        let long = "0".repeat(LENGTH + 1);
        let foreign = format!("{}U", "0".repeat(LENGTH - 1));
        for typed in ["", "0", &long, &foreign, &"é".repeat(LENGTH), &"\0".repeat(LENGTH)] {
            assert!(Phrase::parse(typed).is_none(), "{typed:?}");
        }
    }

    #[test]
    fn every_phrase_is_another() {
        assert_ne!(Phrase::generate().digest(), Phrase::generate().digest());
    }
}
