//! The publisher's key pair, and what it signs, as minisign reads and writes them.
//!
//! Source: minisign's manual, "Signature format" and "Secret key format". Of one message there is one signature: no
//! random number goes into it, so that two builds of an update are the same bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::digest::consts::U32;
use blake2::{Blake2b, Blake2b512, Digest as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use scrypt::Params;
use zeroize::Zeroizing;

use crate::codex::PublisherKey;
use crate::peer::Refused;
use crate::sys::random;

/// "Ed25519", "of the message's digest", "scrypt", "no passphrase", "BLAKE2b", as the formats name them.
const ED25519: [u8; 2] = *b"Ed";
const PREHASHED: [u8; 2] = *b"ED";
const SCRYPT: [u8; 2] = *b"Sc";
const OPEN: [u8; 2] = [0, 0];
const BLAKE2B: [u8; 2] = *b"B2";
/// What begins the first line of every file.
const COMMENT: &str = "untrusted comment: ";
/// Bytes of a decoded secret key: three words, salt, two limits, and what the passphrase hides.
const HEAD: usize = 6;
const SALT: usize = 32;
const HIDDEN: usize = 8 + 64 + 32;
const LENGTH: usize = HEAD + SALT + 16 + HIDDEN;
/// Work and memory (in bytes) that a passphrase costs: scrypt with N = 2¹⁷, r = 8, p = 1.
const WORK: u64 = 1 << 22;
const MEMORY: u64 = 1 << 27;
/// What minisign itself asks for, and the most that is spent on a file of somebody else.
const MOST_MEMORY: u64 = 1 << 30;
const MOST_WORK: u64 = 1 << 25;

/// A publisher's secret key. It has no `Display`; its memory is wiped when it is dropped.
pub struct SigningKey {
    number: [u8; 8],
    /// Seed and public key.
    pair: Zeroizing<[u8; 64]>,
}

/// What a key was made of does not fit together: a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the parts of a key do not belong together")]
pub struct NoKey;

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`NoKey`], a defect.
    pub fn generate() -> Result<Self, NoKey> {
        let mut number = [0; 8];
        number.copy_from_slice(&random::bytes()[..8]);
        let seed = Zeroizing::new(random::bytes());
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| NoKey)?;
        let mut both = Zeroizing::new([0; 64]);
        both[..32].copy_from_slice(seed.as_slice());
        both[32..].copy_from_slice(pair.public_key().as_ref());
        Ok(Self { number, pair: both })
    }

    /// What the law of a body names.
    pub fn public(&self) -> PublisherKey {
        let mut key = [0; 32];
        key.copy_from_slice(&self.pair[32..]);
        PublisherKey::new(self.number, key)
    }

    /// The file of the public key.
    pub fn public_text(&self) -> String {
        let public = self.public();
        format!("{COMMENT}minisign public key {}\n{public}\n", public.id())
    }

    /// The file of the secret key; with a passphrase nobody can use it who does not know that.
    ///
    /// # Errors
    /// [`NoKey`], a defect.
    pub fn to_text(&self, passphrase: Option<&str>) -> Result<Zeroizing<String>, NoKey> {
        let mut hidden = Zeroizing::new([0; HIDDEN]);
        hidden[..8].copy_from_slice(&self.number);
        hidden[8..72].copy_from_slice(self.pair.as_slice());
        hidden[72..].copy_from_slice(&self.checksum());
        let (mut salt, mut limits): ([u8; SALT], _) = ([0; SALT], [0; 2]);
        if let Some(passphrase) = passphrase {
            salt = random::bytes();
            limits = [WORK, MEMORY];
            hide(&mut hidden, passphrase, &salt, limits).map_err(|_| NoKey)?;
        }
        let (method, what) =
            if passphrase.is_some() { (SCRYPT, "encrypted secret key") } else { (OPEN, "secret key") };
        let limits = limits.map(u64::to_le_bytes).concat();
        let bytes = [ED25519.as_slice(), &method, &BLAKE2B, &salt, &limits, hidden.as_slice()].concat();
        let encoded = Zeroizing::new(STANDARD.encode(Zeroizing::new(bytes).as_slice()));
        Ok(Zeroizing::new(format!("{COMMENT}minisign {what} {}\n{}\n", self.public().id(), *encoded)))
    }

    /// Whether the file of a secret key asks for a passphrase.
    ///
    /// # Errors
    /// It is no such file.
    pub fn is_locked(text: &str) -> Result<bool, Refused> {
        match decoded(text)?[..] {
            [_, _, a, b, ..] if [a, b] == OPEN => Ok(false),
            [_, _, a, b, ..] if [a, b] == SCRYPT => Ok(true),
            _ => Err(no_secret()),
        }
    }

    /// Reads the file of a secret key; `passphrase` where it [is locked](Self::is_locked).
    ///
    /// # Errors
    /// It is no such file, or the passphrase is not right.
    pub fn parse(text: &str, passphrase: Option<&str>) -> Result<Self, Refused> {
        // A passphrase for a key that asks for none is no mistake worth an error.
        let passphrase = passphrase.filter(|_| Self::is_locked(text) == Ok(true));
        if passphrase.is_none() && Self::is_locked(text)? {
            return Err(Refused::new("the secret key is locked", "say its passphrase"));
        }
        let bytes = decoded(text)?;
        let (head, hidden) = bytes.split_at(LENGTH - HIDDEN);
        let limit = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut open = Zeroizing::new([0; HIDDEN]);
        open.copy_from_slice(hidden);
        if let Some(passphrase) = passphrase {
            let limits = [limit(HEAD + SALT), limit(HEAD + SALT + 8)];
            hide(&mut open, passphrase, &head[HEAD..HEAD + SALT], limits)?;
        }
        let mut key = Self { number: [0; 8], pair: Zeroizing::new([0; 64]) };
        key.number.copy_from_slice(&open[..8]);
        key.pair.copy_from_slice(&open[8..72]);
        // `minisign -G -W` leaves the checksum out; the two halves of the pair prove each other all the same.
        let sound = key.checksum() == open[72..] || (passphrase.is_none() && open[72..] == [0; 32]);
        if sound && key.ring().is_some() {
            return Ok(key);
        }
        Err(match passphrase {
            Some(_) => Refused::new("the passphrase does not open the secret key", "try it again"),
            None => no_secret(),
        })
    }

    /// The detached signature of `message`, with a comment that is signed too.
    ///
    /// # Errors
    /// The two halves of the key do not belong together.
    pub fn sign(&self, message: &[u8], comment: &str) -> Result<String, NoKey> {
        let ring = self.ring().ok_or(NoKey)?;
        let signature = ring.sign(&Blake2b512::digest(message));
        let all = ring.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        let bytes = [PREHASHED.as_slice(), &self.number, signature.as_ref()].concat();
        Ok(format!(
            "{COMMENT}signature from minisign secret key {}\n{}\ntrusted comment: {comment}\n{}\n",
            self.public().id(),
            STANDARD.encode(bytes),
            STANDARD.encode(all)
        ))
    }

    fn ring(&self) -> Option<Ed25519KeyPair> {
        Ed25519KeyPair::from_seed_and_public_key(&self.pair[..32], &self.pair[32..]).ok()
    }

    fn checksum(&self) -> [u8; 32] {
        let mut hash = Blake2b::<U32>::new();
        hash.update(ED25519);
        hash.update(self.number);
        hash.update(self.pair.as_slice());
        hash.finalize().into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(… of {})", self.public().id())
    }
}

/// The bytes of a secret key's file: [`LENGTH`] of them, of a kind that is known here.
fn decoded(text: &str) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut lines = text.lines();
    let comment = lines.next().is_some_and(|line| line.starts_with(COMMENT));
    let line = lines.next().unwrap_or_default();
    let bytes = Zeroizing::new(STANDARD.decode(line.trim_end()).map_err(|_| no_secret())?);
    let known = bytes.starts_with(&ED25519) && bytes.get(4..6) == Some(&BLAKE2B[..]);
    if comment && known && bytes.len() == LENGTH { Ok(bytes) } else { Err(no_secret()) }
}

fn no_secret() -> Refused {
    Refused::new(
        "this is no secret key in minisign's format",
        "name the file that `sepulcher keygen` or `minisign -G` wrote, not the `.pub` beside it",
    )
}

/// Lays a stream of bytes over the key that follows from the passphrase; twice is as if never.
fn hide(
    hidden: &mut [u8; HIDDEN],
    passphrase: &str,
    salt: &[u8],
    [work, memory]: [u64; 2],
) -> Result<(), Refused> {
    if memory > MOST_MEMORY || work > MOST_WORK {
        return Err(no_secret());
    }
    let mut stream = Zeroizing::new([0; HIDDEN]);
    let params = params(work, memory).ok_or_else(no_secret)?;
    scrypt::scrypt(passphrase.as_bytes(), salt, &params, stream.as_mut_slice()).map_err(|_| no_secret())?;
    for (byte, over) in hidden.iter_mut().zip(stream.iter()) {
        *byte ^= over;
    }
    Ok(())
}

/// scrypt's parameters out of libsodium's limits, as libsodium picks them
/// (`crypto_pwhash_scryptsalsa208sha256`): the largest N that keeps both.
fn params(work: u64, memory: u64) -> Option<Params> {
    const R: u32 = 8;
    let work = work.max(32768);
    let by_work = work < memory / 32;
    let most = if by_work { work / u64::from(4 * R) } else { memory / u64::from(128 * R) };
    let log_n = (1..63).find(|log| 1 << log > most / 2)?;
    let p = if by_work { 1 } else { ((work / 4) >> log_n).min(0x3fff_ffff) / u64::from(R) };
    Params::new(u8::try_from(log_n).ok()?, R, u32::try_from(p).ok()?, Params::RECOMMENDED_LEN).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written_with_and_without_a_passphrase() {
        let key = SigningKey::generate().unwrap();
        for passphrase in [None, Some("correct horse")] {
            let text = key.to_text(passphrase).unwrap();
            assert_eq!(SigningKey::is_locked(&text), Ok(passphrase.is_some()));
            let read = SigningKey::parse(&text, passphrase).unwrap();
            assert_eq!(read.pair, key.pair);
            assert_eq!(read.public(), key.public());
        }
        assert!(key.public_text().ends_with(&format!("\n{}\n", key.public())));
        let locked = key.to_text(Some("right")).unwrap();
        let wrong = SigningKey::parse(&locked, Some("wrong")).unwrap_err();
        assert_eq!(wrong.message, "the passphrase does not open the secret key");
        assert!(SigningKey::parse(&locked, None).is_err());
    }

    #[test]
    fn what_is_no_secret_key_is_refused_and_never_shown() {
        let key = SigningKey::generate().unwrap();
        let text = key.to_text(None).unwrap();
        let line = text.lines().nth(1).unwrap();
        let changed = |at: usize| {
            let mut bytes = STANDARD.decode(line).unwrap();
            bytes[at] ^= 1;
            format!("{COMMENT}\n{}\n", STANDARD.encode(bytes))
        };
        let bad = [
            String::new(),
            "x".into(),
            key.public_text(),
            line.into(),
            format!("{COMMENT}\n{}\n", &line[4..]),
        ];
        for bad in bad.into_iter().chain([0, 2, 4, LENGTH - HIDDEN, LENGTH - 40, LENGTH - 1].map(changed)) {
            let refused = SigningKey::parse(&bad, None).map(|_| ()).unwrap_err();
            assert!(!refused.to_string().contains(line), "{refused}");
        }
        assert_eq!(format!("{key:?}"), format!("SigningKey(… of {})", key.public().id()));
    }

    #[test]
    fn limits_become_what_libsodium_makes_of_them() {
        // minisign's own, rsign's, and ours.
        for (work, memory, log_n, p) in
            [(1 << 25, 1 << 30, 20, 1), (1 << 20, 1 << 25, 15, 1), (WORK, MEMORY, 17, 1), (0, 1 << 24, 10, 1)]
        {
            let params = params(work, memory).unwrap();
            assert_eq!((params.log_n(), params.r(), params.p()), (log_n, 8, p), "{work} {memory}");
        }
    }

    #[test]
    fn one_message_has_one_signature() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(key.sign(b"x", "lychd 2"), key.sign(b"x", "lychd 2"));
        assert_ne!(key.sign(b"x", "lychd 2"), key.sign(b"y", "lychd 2"));
        assert_ne!(key.sign(b"x", "lychd 2"), key.sign(b"x", "lychd 3"));
    }
}
