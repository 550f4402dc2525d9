//! FAT32, read without trust: whatever the bytes are, the answer is content or an error.
//!
//! The fatfs crate panics on chains of clusters that lead outside. Source: Microsoft's "FAT32 File System
//! Specification", version 1.03.

use std::io::{self, Read, Seek, SeekFrom};

use super::{ENTRY, FOLDER};

const SECTOR: u64 = 512;
/// Attributes of a volume label, and of a piece of a long name.
const LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
/// Where a chain ends.
const END: u32 = 0x0fff_fff8;
/// More than the table of any partition of ours, in bytes.
const MAX_TABLE: u64 = 64 << 20;

/// A FAT32 volume.
pub struct Volume<V> {
    source: V,
    table: Vec<u8>,
    /// First byte of cluster 2.
    data: u64,
    /// Bytes of a cluster.
    cluster: u64,
    /// Number of clusters.
    clusters: u64,
    root: u64,
}

/// A file or folder.
pub struct Item {
    /// Name, the long one if there is one.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    first: u64,
    size: u64,
}

fn damaged<T>(what: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

impl<V: Read + Seek> Volume<V> {
    /// Reads boot sector and table.
    pub fn open(mut volume: V) -> io::Result<Self> {
        let mut boot = [0; 512];
        let size = volume.seek(SeekFrom::End(0))?;
        volume.rewind()?;
        volume.read_exact(&mut boot)?;
        let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| u64::from(word(&boot, at));
        let cluster = SECTOR * u64::from(boot[13]);
        if short(11) != SECTOR || !cluster.is_power_of_two() {
            return damaged("its sectors or clusters have an impossible size");
        }
        // FAT12 and FAT16 count their sectors, the entries of the root and the table's size elsewhere.
        if [17, 19, 22].into_iter().any(|at| short(at) != 0) {
            return damaged("it is not FAT32");
        }
        let (start, table) = (short(14) * SECTOR, long(36) * SECTOR);
        let (data, end) = (start + u64::from(boot[16]) * table, long(32) * SECTOR);
        let clusters = end.saturating_sub(data) / cluster;
        if boot[16] == 0 || end > size || (clusters + 2) * 4 > table || table > MAX_TABLE {
            return damaged("its parts do not fit into it");
        }
        volume.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        volume.by_ref().take(table).read_to_end(&mut bytes)?;
        Ok(Self { source: volume, table: bytes, data, cluster, clusters, root: long(44) })
    }

    /// What is in the folder at `path`, e.g. `["EFI", "Linux"]`.
    pub fn folder(&mut self, path: &[&str]) -> io::Result<Vec<Item>> {
        let mut items = parse(&self.chain(self.root, None)?);
        for name in path {
            let first = find_folder(&items, name)?;
            items = parse(&self.chain(first, None)?);
        }
        Ok(items)
    }

    /// Content of a file of at most `limit` bytes.
    pub fn read_bounded(&mut self, item: &Item, limit: u64) -> io::Result<Vec<u8>> {
        if item.size > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is too long", item.name)));
        }
        self.read(item)
    }

    /// Content of a file.
    pub fn read(&mut self, item: &Item) -> io::Result<Vec<u8>> {
        if item.size == 0 { Ok(Vec::new()) } else { self.chain(item.first, Some(item.size)) }
    }

    /// First bytes of the clusters that hold the folder at `path`.
    pub fn places(&mut self, path: &[&str]) -> io::Result<Vec<u64>> {
        let mut first = self.root;
        for (depth, name) in path.iter().enumerate() {
            let items = self.folder(&path[..depth])?;
            first = find_folder(&items, name)?;
        }
        self.clusters(first, None)
    }

    /// Length of a cluster in bytes.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// Content of a chain of clusters, `size` bytes of it or all.
    fn chain(&mut self, first: u64, size: Option<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for place in self.clusters(first, size.map(|size| size.div_ceil(self.cluster)))? {
            self.source.seek(SeekFrom::Start(place))?;
            let had = bytes.len() as u64;
            let wanted = size.map_or(self.cluster, |size| self.cluster.min(size - had));
            if self.source.by_ref().take(wanted).read_to_end(&mut bytes)? as u64 != wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(bytes)
    }

    /// Where the clusters of a chain begin, `count` of them or all.
    fn clusters(&self, first: u64, count: Option<u64>) -> io::Result<Vec<u64>> {
        let mut places = Vec::new();
        let mut next = first;
        for _ in 0..self.clusters {
            if !(2..self.clusters + 2).contains(&next) {
                return damaged("a chain of clusters leads outside");
            }
            places.push(self.data + (next - 2) * self.cluster);
            // `open` has seen that the table has a word for every cluster.
            let at = usize::try_from(next * 4).map_err(io::Error::other)?;
            let entry = word(&self.table, at) & 0x0fff_ffff;
            match count {
                Some(count) if count == places.len() as u64 => return Ok(places),
                None if entry >= END => return Ok(places),
                _ => next = u64::from(entry),
            }
        }
        damaged("a chain of clusters is a circle")
    }
}

fn find_folder(items: &[Item], name: &str) -> io::Result<u64> {
    let hit = items.iter().find(|item| item.is_folder && item.name.eq_ignore_ascii_case(name));
    hit.map(|item| item.first)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("it has no folder {name}")))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// The items of a folder's content.
fn parse(bytes: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut long: Vec<u16> = Vec::new();
    for entry in bytes.chunks_exact(ENTRY) {
        match (entry[0], entry[11]) {
            (0, _) => break,
            (super::DELETED, _) => long.clear(),
            (_, LONG_NAME) => {
                // Pieces come from the last to the first.
                let pieces = [&entry[1..11], &entry[14..26], &entry[28..32]].concat();
                let units = pieces.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
                long = units.take_while(|unit| *unit != 0).chain(long).collect();
            }
            (_, attributes) if attributes & LABEL != 0 => long.clear(),
            (_, attributes) => {
                let name = if long.is_empty() { short_name(entry) } else { String::from_utf16_lossy(&long) };
                long.clear();
                items.push(Item {
                    name,
                    is_folder: attributes & FOLDER != 0,
                    first: super::first_cluster(entry),
                    size: u64::from(word(entry, 28)),
                });
            }
        }
    }
    items
}

fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (name, extension) = (part(&entry[..8]), part(&entry[8..11]));
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}
