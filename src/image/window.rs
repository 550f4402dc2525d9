//! A span of a file that behaves like a file of its own: a partition inside a disk.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

/// Bytes that can be read at any place, from several threads at once.
pub trait ReadAt: Sync {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` with the bytes that start at `offset`.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// `len` bytes of a file from `start`, with a position of its own.
#[derive(Debug, Clone)]
pub struct Window<'a> {
    file: &'a File,
    start: u64,
    len: u64,
    position: u64,
}

impl<'a> Window<'a> {
    /// The span of `file` that starts at `start` and is `len` bytes long.
    pub fn new(file: &'a File, start: u64, len: u64) -> Self {
        Self { file, start, len, position: 0 }
    }

    /// The first `len` bytes of this window, or all of it when it is shorter.
    #[must_use]
    pub fn truncated(&self, len: u64) -> Self {
        Self::new(self.file, self.start, self.len.min(len))
    }

    /// How many of `wanted` bytes there are from the position on.
    fn available(&self, wanted: usize) -> usize {
        let left = self.len.saturating_sub(self.position);
        usize::try_from(left).map_or(wanted, |left| left.min(wanted))
    }
}

impl ReadAt for Window<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, self.start + offset)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.available(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let wanted = self.available(buffer.len());
        let count = self.file.write_at(&buffer[..wanted], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(delta) => self.len.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_and_writes_inside_its_span_alone() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"aabbbbcc", 0).unwrap();
        let mut window = Window::new(&file, 2, 4);
        window.seek(SeekFrom::End(-2)).unwrap();
        assert_eq!(window.write(b"XYZ").unwrap(), 2);
        assert!(window.write_all(b"Z").is_err());
        window.rewind().unwrap();
        let mut text = String::new();
        window.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bbXY");
        let mut all = [0; 8];
        file.fill(&mut all, 0).unwrap();
        assert_eq!(&all, b"aabbXYcc");
    }

    #[test]
    fn a_window_refuses_to_fill_across_its_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"aabbbbcc", 0).unwrap();
        assert!(Window::new(&file, 2, 4).fill(&mut [0; 3], 2).is_err());
        assert!(b"abc".fill(&mut [0; 2], 2).is_err());
    }
}
