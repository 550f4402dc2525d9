//! WireGuard keys: public ones, and the preshared ones that two peers hold in common.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize as _, Zeroizing};

/// A WireGuard public key: 32 bytes of a Curve25519 point that is not of low order, in the one way that tools write it.
///
/// Displays as `wg` prints it: 44 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Why a text is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// Not 44 characters of canonical base64.
    #[error("a WireGuard public key is 44 characters of base64, as `wg pubkey` prints it")]
    Malformed,
    /// A point with which every shared secret is zero: nobody holds its private key.
    #[error("this public key is a low-order point: nobody can hold its private key")]
    LowOrder,
    /// Another way to write a key: the same private key belongs to it, though it is compared as a different one.
    #[error("this public key is another one in disguise: no tool writes a key like this")]
    Disguised,
}

/// The u-coordinates of order 1, 2, 4 and 8 on the curve and its twist, and their non-canonical
/// encodings, with the top bit clear (RFC 7748 masks it). Source: <https://cr.yp.to/ecdh.html#validate>.
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    one(),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

const fn one() -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = 1;
    point
}

/// 2^255 - 19 and its neighbours differ in the first byte only.
const fn near_p(first: u8) -> [u8; 32] {
    let mut point = [0xff; 32];
    point[0] = first;
    point[31] = 0x7f;
    point
}

/// Whether these bytes are the least that make a point: Curve25519 (RFC 7748) passes over the top bit and counts modulo
/// 2^255 - 19, WireGuard compares all bytes.
fn is_least(bytes: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = bytes;
    *last < 0x7f || (*last == 0x7f && (*first < 0xed || middle.iter().any(|byte| *byte != 0xff)))
}

impl PublicKey {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What 32 bytes are that an interface holds as a peer's key.
    pub fn held(bytes: [u8; 32]) -> Result<Self, StrayKey> {
        Self::try_from(bytes).map_err(|_| StrayKey(bytes))
    }
}

/// What an interface can hold as a peer's public key although no bond can name it: a point of low order, or a key in
/// disguise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StrayKey([u8; 32]);

impl StrayKey {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What kind of key it is, for people.
    pub fn kind(&self) -> &'static str {
        match PublicKey::try_from(self.0) {
            Err(NotAKey::LowOrder) => "a key of low order",
            _ => "a key in disguise",
        }
    }
}

impl fmt::Display for StrayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl TryFrom<[u8; 32]> for PublicKey {
    type Error = NotAKey;

    fn try_from(bytes: [u8; 32]) -> Result<Self, NotAKey> {
        let mut masked = bytes;
        masked[31] &= 0x7f;
        match bytes {
            _ if LOW_ORDER.contains(&masked) => Err(NotAKey::LowOrder),
            bytes if is_least(&bytes) => Ok(Self(bytes)),
            _ => Err(NotAKey::Disguised),
        }
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let bytes = STANDARD.decode(text).map_err(|_| NotAKey::Malformed)?;
        Self::try_from(<[u8; 32]>::try_from(bytes).map_err(|_| NotAKey::Malformed)?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

crate::codex::serde_as_text!(PublicKey);

/// A preshared key: 32 bytes that both ends of one bond hold. It has no `Display` and no `Serialize`; its memory is
/// wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey([u8; 32]);

/// The text is not a preshared key. What it was is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a preshared key is 44 characters of base64 and a line end, as `wg genpsk` prints it")]
pub struct NotShared;

impl SharedKey {
    /// From its bytes; zeros are no key to WireGuard.
    pub fn new(bytes: [u8; 32]) -> Option<Self> {
        (bytes != [0; 32]).then_some(Self(bytes))
    }

    /// Reads the content of a key file: 44 characters of base64, then at most one line end.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotShared> {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let decoded = Zeroizing::new(STANDARD.decode(text).map_err(|_| NotShared)?);
        Self::new(<[u8; 32]>::try_from(decoded.as_slice()).map_err(|_| NotShared)?).ok_or(NotShared)
    }

    /// Its base64, as it stands in a configuration; a key file has a line end behind it.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for SharedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_and_displays_as_wg_prints_it() {
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        assert_eq!(text.parse::<PublicKey>().unwrap().to_string(), text);
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in [
            "",
            "x",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dh=",
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(NotAKey::Malformed), "{text:?}");
        }
    }

    #[test]
    fn the_low_order_points_are_refused_with_either_top_bit() {
        for mut point in LOW_ORDER {
            assert_eq!(PublicKey::try_from(point), Err(NotAKey::LowOrder));
            point[31] |= 0x80;
            assert_eq!(PublicKey::try_from(point), Err(NotAKey::LowOrder));
        }
    }

    #[test]
    fn a_key_that_is_another_one_written_differently_is_refused() {
        let key: PublicKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap();
        let mut twin = *key.as_bytes();
        twin[31] |= 0x80;
        assert_eq!(PublicKey::try_from(twin), Err(NotAKey::Disguised));
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Lg=";
        assert_eq!(
            (STANDARD.encode(twin).as_str(), text.parse::<PublicKey>()),
            (text, Err(NotAKey::Disguised))
        );
        assert_eq!(PublicKey::held(twin).unwrap_err().kind(), "a key in disguise");
        // 9, the base point, and 2^255 - 19 + 9.
        let (mut nine, mut beyond) = ([0; 32], near_p(0xed + 9));
        nine[0] = 9;
        assert!(PublicKey::try_from(nine).is_ok());
        assert_eq!(PublicKey::try_from(beyond), Err(NotAKey::Disguised));
        beyond[7] = 0xfe;
        assert!(PublicKey::try_from(beyond).is_ok(), "this one is below 2^255 - 19");
        assert_eq!(PublicKey::held([0; 32]).unwrap_err().kind(), "a key of low order");
    }

    #[test]
    fn a_preshared_key_reads_back_and_never_shows_itself() {
        let key = SharedKey::new([7; 32]).unwrap();
        assert_eq!(SharedKey::parse(format!("{}\n", *key.to_text()).as_bytes()), Ok(key.clone()));
        assert_eq!(format!("{:?}", Some(&key)), "Some(SharedKey(…))");
        let zeros = STANDARD.encode([0; 32]);
        for bad in ["", "x", "\n", &zeros, &format!("{}\n\n", *key.to_text())] {
            assert_eq!(SharedKey::parse(bad.as_bytes()), Err(NotShared), "{bad:?}");
        }
    }
}
