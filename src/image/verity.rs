//! dm-verity: a hash tree over a file system, and one root hash that stands for all of it.
//!
//! On-disk format 1, SHA-256, blocks of 4096 bytes, superblock first, then the levels from the root down. Source:
//! the kernel's `admin-guide/device-mapper/verity.rst` and cryptsetup's wiki page "`DMVerity`"; `veritysetup` is the
//! judge.

use std::io;
use std::thread;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::identity;
use super::window::ReadAt;
use crate::tree::Sha256Digest;

/// Bytes in a block, of data and of hashes alike.
pub const BLOCK: usize = 4096;
const DIGEST: usize = 32;
const FANOUT: usize = BLOCK / DIGEST;
const SALT: usize = 32;
/// Blocks that a thread reads at once: 1 MiB.
const READ: usize = 256;

/// The hash partition's content and what it protects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// Stands for the data and the salt; goes to the kernel's command line.
    pub root_hash: Sha256Digest,
    /// Superblock and tree: 1/127 of the data's size.
    pub bytes: Vec<u8>,
}

/// Why data is not what its root hash says, or has no hash tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to protect, or not whole blocks.
    #[error("cannot protect {0} bytes with verity: it takes whole blocks of {BLOCK} bytes, at least one")]
    Size(u64),
    /// The hash partition does not start with a superblock of ours.
    #[error("the verity superblock is damaged: {0}")]
    Superblock(&'static str),
    /// Data or hash partition ends too early.
    #[error("the {what} ends before block {block}")]
    Truncated {
        /// `data` or `hash tree`.
        what: &'static str,
        /// First block that is missing.
        block: u64,
    },
    /// The tree is not the one that the root hash stands for.
    #[error("block {block} of the hash tree does not match the root hash")]
    Hash {
        /// Block number in the hash partition; the superblock is block 0.
        block: u64,
    },
    /// The data is not what the tree says.
    #[error("block {block} of the data does not match the hash tree")]
    Data {
        /// Block number in the data.
        block: u64,
    },
    /// Data or hashes cannot be read.
    #[error("cannot read blocks")]
    Read(#[from] io::Error),
}

/// Computes the hash tree of `data` on `threads` threads; salt and UUID follow from `seed`, e.g. the digest of what
/// the data was made from. Memory: the tree and 1 MiB a thread.
pub fn format(data: &(impl ReadAt + ?Sized), seed: Sha256Digest, threads: usize) -> Result<Verity, Error> {
    let size = data.size()?;
    if size == 0 || size % BLOCK as u64 != 0 {
        return Err(Error::Size(size));
    }
    let header = Header {
        uuid: identity::uuid(seed, "verity"),
        data_blocks: size / BLOCK as u64,
        salt: identity::derive(seed, "verity salt"),
    };
    let mut levels = vec![leaves(data, &header, threads)?];
    while let Some(below) = levels.last().filter(|below| below.len() > DIGEST) {
        levels.push(below.chunks(BLOCK).flat_map(|block| digest(&header.salt, &padded(block))).collect());
    }
    // The last level is one digest: the root hash itself.
    let root_hash = levels.pop().and_then(|top| top.try_into().ok()).map(Sha256Digest);
    let root_hash = root_hash.ok_or(Error::Size(size))?;
    let mut bytes = header.to_bytes().to_vec();
    for level in levels.iter().rev() {
        level.chunks(BLOCK).for_each(|block| bytes.extend_from_slice(&padded(block)));
    }
    Ok(Verity { root_hash, bytes })
}

/// Checks `data` and its hash tree against `root_hash`; an error names the first bad block, of the tree before the
/// data. Data beyond what the superblock counts is not looked at. Returns the number of data blocks.
pub fn verify(
    data: &(impl ReadAt + ?Sized),
    hash: &(impl ReadAt + ?Sized),
    root_hash: Sha256Digest,
    threads: usize,
) -> Result<u64, Error> {
    let header = header(hash)?;
    if data.size()? / (BLOCK as u64) < header.data_blocks {
        return Err(Error::Truncated { what: "data", block: data.size()? / BLOCK as u64 });
    }
    let stored = checked_leaves(hash, &header, root_hash)?;
    let computed = leaves(data, &header, threads)?;
    let differs = stored.chunks(DIGEST).zip(computed.chunks(DIGEST)).position(|(one, other)| one != other);
    match differs {
        Some(block) => Err(Error::Data { block: block as u64 }),
        None => Ok(header.data_blocks),
    }
}

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// UUID of the hash device.
    pub uuid: Uuid,
    /// Number of protected data blocks.
    pub data_blocks: u64,
    /// Hashed before every block.
    pub salt: [u8; SALT],
}

impl Header {
    fn to_bytes(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(b"verity\0\0");
        block[8..12].copy_from_slice(&1u32.to_le_bytes());
        block[12..16].copy_from_slice(&1u32.to_le_bytes());
        block[16..32].copy_from_slice(self.uuid.as_bytes());
        block[32..38].copy_from_slice(b"sha256");
        block[64..68].copy_from_slice(&4096u32.to_le_bytes());
        block[68..72].copy_from_slice(&4096u32.to_le_bytes());
        block[72..80].copy_from_slice(&self.data_blocks.to_le_bytes());
        block[80..82].copy_from_slice(&32u16.to_le_bytes());
        block[88..88 + SALT].copy_from_slice(&self.salt);
        block
    }

    /// Blocks of each level of the tree, leaves first; no level at all for a single data block.
    fn level_blocks(&self) -> Vec<u64> {
        let mut levels = Vec::new();
        let mut blocks = self.data_blocks;
        while blocks > 1 {
            blocks = blocks.div_ceil(FANOUT as u64);
            levels.push(blocks);
        }
        levels
    }
}

/// Reads the superblock of a hash partition; anything but what [`format`] writes is refused.
pub fn header(hash: &(impl ReadAt + ?Sized)) -> Result<Header, Error> {
    if hash.size()? < BLOCK as u64 {
        return Err(Error::Truncated { what: "hash tree", block: 0 });
    }
    let mut block = [0; BLOCK];
    hash.fill(&mut block, 0)?;
    let mut header = Header { uuid: Uuid::nil(), data_blocks: 0, salt: [0; SALT] };
    if !block.starts_with(b"verity\0\0") {
        return Err(Error::Superblock("its signature is missing"));
    }
    header.uuid = Uuid::from_slice(&block[16..32]).map_err(|_| Error::Superblock("its UUID is malformed"))?;
    for (byte, value) in block[72..80].iter().enumerate() {
        header.data_blocks |= u64::from(*value) << (8 * byte);
    }
    header.salt.copy_from_slice(&block[88..88 + SALT]);
    if header.to_bytes() != block {
        return Err(Error::Superblock(
            "it is not format 1 with SHA-256, blocks of 4096 bytes and a salt of 32",
        ));
    }
    if header.data_blocks == 0 {
        return Err(Error::Superblock("it protects no block"));
    }
    Ok(header)
}

/// Walks the tree from the root hash down and returns the digests of all data blocks as it stores them.
fn checked_leaves(
    hash: &(impl ReadAt + ?Sized),
    header: &Header,
    root_hash: Sha256Digest,
) -> Result<Vec<u8>, Error> {
    let available = hash.size()? / BLOCK as u64;
    let mut expected = root_hash.0.to_vec();
    let mut position = 1;
    for blocks in header.level_blocks().into_iter().rev() {
        let mut level = Vec::new();
        for (index, digest_of_block) in expected.chunks(DIGEST).take(small(blocks)).enumerate() {
            let block = position + index as u64;
            if block >= available {
                return Err(Error::Truncated { what: "hash tree", block });
            }
            let mut bytes = [0; BLOCK];
            hash.fill(&mut bytes, block * BLOCK as u64)?;
            if digest(&header.salt, &bytes) != *digest_of_block {
                return Err(Error::Hash { block });
            }
            level.extend_from_slice(&bytes);
        }
        position += blocks;
        expected = level;
    }
    expected.truncate(small(header.data_blocks).saturating_mul(DIGEST));
    Ok(expected)
}

/// Digests of all data blocks, in order, each thread over its own stretch.
fn leaves(data: &(impl ReadAt + ?Sized), header: &Header, threads: usize) -> Result<Vec<u8>, Error> {
    let stretch = header.data_blocks.div_ceil(threads.max(1) as u64).max(1);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        let mut first = 0;
        while first < header.data_blocks {
            let last = header.data_blocks.min(first + stretch);
            workers.push(scope.spawn(move || digests(data, &header.salt, first, last)));
            first = last;
        }
        let mut leaves = Vec::with_capacity(small(header.data_blocks).saturating_mul(DIGEST));
        for worker in workers {
            let digests = worker.join().map_err(|_| io::Error::other("a hashing thread panicked"))?;
            leaves.extend_from_slice(&digests?);
        }
        Ok(leaves)
    })
}

fn digests(data: &(impl ReadAt + ?Sized), salt: &[u8], first: u64, last: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; READ * BLOCK];
    let mut digests = Vec::with_capacity(small(last - first).saturating_mul(DIGEST));
    let mut block = first;
    while block < last {
        let count = small(last - block).min(READ);
        let buffer = &mut buffer[..count * BLOCK];
        data.fill(buffer, block * BLOCK as u64)?;
        buffer.chunks(BLOCK).for_each(|bytes| digests.extend_from_slice(&digest(salt, bytes)));
        block += count as u64;
    }
    Ok(digests)
}

fn digest(salt: &[u8], block: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(block);
    hash.finalize().into()
}

fn padded(block: &[u8]) -> [u8; BLOCK] {
    let mut whole = [0; BLOCK];
    whole[..block.len()].copy_from_slice(block);
    whole
}

fn small(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|index| u8::try_from((index / 7 + index / BLOCK) % 251).unwrap()).collect()
    }

    fn made(data: &[u8]) -> Verity {
        format(data, Sha256Digest::of(b"seed"), 2).unwrap()
    }

    #[test]
    fn what_is_formatted_verifies_at_every_depth_of_the_tree() {
        for blocks in [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
            let data = sample(blocks);
            let verity = made(&data);
            let verified = verify(data.as_slice(), verity.bytes.as_slice(), verity.root_hash, 2).unwrap();
            assert_eq!(verified, blocks as u64);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_the_bytes() {
        let data = sample(300);
        let seed = Sha256Digest::of(b"seed");
        assert_eq!(format(data.as_slice(), seed, 1).unwrap(), format(data.as_slice(), seed, 7).unwrap());
    }

    #[test]
    fn a_changed_data_block_is_named() {
        let mut data = sample(300);
        let verity = made(&data);
        data[211 * BLOCK + 17] ^= 1;
        data[212 * BLOCK] ^= 1;
        let error = verify(data.as_slice(), verity.bytes.as_slice(), verity.root_hash, 2).unwrap_err();
        assert_eq!(error.to_string(), "block 211 of the data does not match the hash tree");
    }

    #[test]
    fn every_changed_byte_of_the_hash_partition_is_refused() {
        let data = sample(300);
        let verity = made(&data);
        for offset in (0..verity.bytes.len()).step_by(61) {
            let mut bytes = verity.bytes.clone();
            bytes[offset] ^= 0x40;
            let result = verify(data.as_slice(), bytes.as_slice(), verity.root_hash, 1);
            // The UUID names the tree and is not part of what it proves.
            assert_eq!(result.is_ok(), (16..32).contains(&offset), "byte {offset}: {result:?}");
        }
    }

    #[test]
    fn a_wrong_root_hash_and_a_truncated_partition_are_named() {
        let data = sample(300);
        let verity = made(&data);
        let check = |data: &[u8], hash: &[u8], root| verify(data, hash, root, 1).unwrap_err().to_string();
        let wrong = Sha256Digest::of(b"wrong");
        assert_eq!(
            check(&data, &verity.bytes, wrong),
            "block 1 of the hash tree does not match the root hash"
        );
        let short = &data[..299 * BLOCK];
        assert_eq!(check(short, &verity.bytes, verity.root_hash), "the data ends before block 299");
        let short = &verity.bytes[..2 * BLOCK];
        assert_eq!(check(&data, short, verity.root_hash), "the hash tree ends before block 2");
        assert_eq!(check(&data, &[], verity.root_hash), "the hash tree ends before block 0");
    }

    #[test]
    fn only_whole_blocks_are_protected() {
        for size in [0, 1, BLOCK + 1] {
            let error = format(vec![0; size].as_slice(), Sha256Digest([0; 32]), 1).unwrap_err();
            assert!(matches!(error, Error::Size(given) if given == size as u64));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn noise_is_refused_without_a_panic(noise in proptest::collection::vec(any::<u8>(), 0..3 * BLOCK), blocks: u64) {
            let mut hash = Header { uuid: Uuid::nil(), data_blocks: blocks, salt: [7; SALT] }.to_bytes().to_vec();
            hash.extend_from_slice(&noise);
            let root = Sha256Digest::of(b"root");
            prop_assert!(verify(noise.as_slice(), hash.as_slice(), root, 2).is_err());
            prop_assert!(verify(noise.as_slice(), noise.as_slice(), root, 2).is_err());
        }
    }
}
