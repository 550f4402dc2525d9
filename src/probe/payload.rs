//! What is sent by UDP: nothing, noise, and what looks like WireGuard's four messages.
//!
//! Offsets and lengths are those of <https://www.wireguard.com/protocol/>; everything that only a holder of keys could
//! make is noise.

use blake2::digest::consts::U16;
use blake2::digest::{Digest as _, KeyInit as _, Mac as _};
use blake2::{Blake2s256, Blake2sMac};
use serde::{Serialize, Serializer};

use super::dice::Dice;
use crate::codex::key::PublicKey;

/// Length of a handshake initiation in bytes; its mac1 begins at [`MAC1`].
const INITIATION: usize = 148;
const MAC1: usize = 116;
const RESPONSE: usize = 92;
const COOKIE: usize = 64;

/// What a datagram looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// No byte at all.
    Empty,
    /// So many random bytes.
    Random(usize),
    /// A handshake initiation whose mac1 is noise.
    BadMac1,
    /// A handshake initiation whose mac1 is right: what somebody sends who knows the host's public key.
    GoodMac1,
    /// An initiation (with a right mac1 when the key is known), and the same bytes again.
    Replayed,
    /// An initiation (likewise) that lacks its end.
    Truncated,
    /// A handshake response.
    Response,
    /// A cookie reply.
    Cookie,
    /// A message of the tunnel: a keepalive.
    Transport,
    /// Random bytes in a packet that may pass so many routers.
    Hops(u8),
}

/// The shapes that are compared between ports.
pub const SHAPES: [Shape; 13] = [
    Shape::Empty,
    Shape::Random(1),
    Shape::Random(32),
    Shape::Random(148),
    Shape::Random(1200),
    Shape::BadMac1,
    Shape::GoodMac1,
    Shape::Replayed,
    Shape::Truncated,
    Shape::Response,
    Shape::Cookie,
    Shape::Transport,
    Shape::Random(512),
];

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Random(length) => write!(f, "random, {length} B"),
            Self::BadMac1 => f.write_str("initiation, bad mac1"),
            Self::GoodMac1 => f.write_str("initiation, good mac1"),
            Self::Replayed => f.write_str("initiation, replayed"),
            Self::Truncated => f.write_str("initiation, truncated"),
            Self::Response => f.write_str("response"),
            Self::Cookie => f.write_str("cookie reply"),
            Self::Transport => f.write_str("transport data"),
            Self::Hops(hops) => write!(f, "{hops} hops"),
        }
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Shape {
    /// Whether it can only be made by somebody who knows the host's public key.
    pub fn needs_key(self) -> bool {
        self == Self::GoodMac1
    }

    /// How many packets it is.
    pub fn packets(self) -> u32 {
        if self == Self::Replayed { 2 } else { 1 }
    }

    /// The bytes of a datagram.
    pub fn payload(self, key: Option<&PublicKey>, dice: &mut Dice) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Random(length) => dice.bytes(length),
            Self::Hops(_) => dice.bytes(32),
            Self::BadMac1 => initiation(None, dice),
            Self::GoodMac1 | Self::Replayed => initiation(key, dice),
            Self::Truncated => {
                let mut message = initiation(key, dice);
                message.truncate(INITIATION - 1 - dice.below(INITIATION - 4));
                message
            }
            Self::Response => message(2, RESPONSE, dice),
            Self::Cookie => message(3, COOKIE, dice),
            // Receiver, counter, and the tag of an empty packet.
            Self::Transport => message(4, 32, dice),
        }
    }
}

/// A type, three zeros, noise.
fn message(kind: u8, length: usize, dice: &mut Dice) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(dice.bytes(length - 4));
    message
}

/// Its mac1 is right when the key is known; mac2 is zeros, as that of one who holds no cookie.
fn initiation(key: Option<&PublicKey>, dice: &mut Dice) -> Vec<u8> {
    let mut initiation = message(1, INITIATION, dice);
    initiation[MAC1 + 16..].fill(0);
    if let Some(mac1) = key.and_then(|key| mac1(key, &initiation[..MAC1])) {
        initiation[MAC1..MAC1 + 16].copy_from_slice(&mac1);
    }
    initiation
}

/// What WireGuard asks of a message before it calculates anything dear: a keyed hash that anybody can make who knows
/// the receiver's public key.
fn mac1(key: &PublicKey, message: &[u8]) -> Option<[u8; 16]> {
    let hash = Blake2s256::new().chain_update(b"mac1----").chain_update(key.as_bytes()).finalize();
    // 32 bytes are a key that the function takes.
    let mac = Blake2sMac::<U16>::new_from_slice(&hash).ok()?;
    Some(mac.chain_update(message).finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PublicKey {
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap()
    }

    #[test]
    fn mac1_is_what_another_implementation_calculates() {
        // Python's hashlib: blake2s(bytes(range(116)), digest_size=16, key=blake2s(b"mac1----" + key).digest())
        let message: Vec<u8> = (0..116).collect();
        let hex: String = mac1(&key(), &message).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "39469c22c2a4b4d55fc120001e350077");
    }

    #[test]
    fn messages_have_the_type_and_length_of_wireguards() {
        let mut dice = Dice::new([1; 32]);
        let mut made = |shape: Shape| shape.payload(Some(&key()), &mut dice);
        for (shape, kind, length) in [
            (Shape::BadMac1, 1, 148),
            (Shape::GoodMac1, 1, 148),
            (Shape::Replayed, 1, 148),
            (Shape::Response, 2, 92),
            (Shape::Cookie, 3, 64),
            (Shape::Transport, 4, 32),
        ] {
            let message = made(shape);
            assert_eq!((message[..4].to_vec(), message.len()), (vec![kind, 0, 0, 0], length), "{shape}");
        }
        for _ in 0..500 {
            let message = made(Shape::Truncated);
            assert!((4..148).contains(&message.len()) && message[..4] == [1, 0, 0, 0], "{}", message.len());
        }
        assert_eq!((made(Shape::Empty).len(), made(Shape::Random(1200)).len()), (0, 1200));
    }

    #[test]
    fn only_the_good_mac1_is_good() {
        let mut dice = Dice::new([1; 32]);
        let mut good = |shape: Shape| {
            let message = shape.payload(Some(&key()), &mut dice);
            mac1(&key(), &message[..MAC1]).unwrap() == message[MAC1..MAC1 + 16]
        };
        assert!(good(Shape::GoodMac1) && good(Shape::Replayed) && !good(Shape::BadMac1));
    }
}
