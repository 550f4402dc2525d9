//! Identifiers that follow from content: the same image has the same UUIDs, salts and volume numbers everywhere.

use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::tree::Sha256Digest;

/// 32 bytes that depend on `seed` and on what they are for, and on nothing else.
pub fn derive(seed: Sha256Digest, purpose: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"sepulcher\0");
    hash.update(purpose.as_bytes());
    hash.update([0]);
    hash.update(seed.0);
    hash.finalize().into()
}

/// A UUID of version 8 (custom, RFC 9562) that depends on `seed` and on what it is for.
pub fn uuid(seed: Sha256Digest, purpose: &str) -> Uuid {
    Builder::from_custom_bytes(first_half(derive(seed, purpose))).into_uuid()
}

/// The UUIDs of a verity-protected partition and of its hash partition: first and last 128 bits of the root hash.
///
/// Source: systemd-veritysetup-generator(8), which looks for these when only `roothash=` is given.
pub fn partitions(root_hash: Sha256Digest) -> (Uuid, Uuid) {
    let mut last = [0; 16];
    last.copy_from_slice(&root_hash.0[16..]);
    (Uuid::from_bytes(first_half(root_hash.0)), Uuid::from_bytes(last))
}

/// The root hash that two such UUIDs stand for.
pub fn root_hash(root: Uuid, verity: Uuid) -> Sha256Digest {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(root.as_bytes());
    hash[16..].copy_from_slice(verity.as_bytes());
    Sha256Digest(hash)
}

fn first_half(bytes: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_depends_on_seed_and_purpose_alone() {
        let (one, two) = (Sha256Digest::of(b"1"), Sha256Digest::of(b"2"));
        assert_eq!(derive(one, "salt"), derive(one, "salt"));
        assert_ne!(derive(one, "salt"), derive(two, "salt"));
        assert_ne!(derive(one, "salt"), derive(one, "uuid"));
        assert_eq!(uuid(one, "disk").get_version_num(), 8);
    }

    #[test]
    fn partition_uuids_are_the_halves_of_the_root_hash() {
        let hash: Sha256Digest =
            "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef".parse().unwrap();
        let (root, verity) = partitions(hash);
        assert_eq!(root.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(verity.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(root_hash(root, verity), hash);
    }
}
