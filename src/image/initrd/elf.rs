//! What an ELF file needs to be loaded.

use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

/// Interpreter and libraries of an ELF file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Absolute path of the dynamic loader.
    pub interpreter: Option<String>,
    /// File names of shared libraries.
    pub libraries: Vec<String>,
}

/// Reads the needs of `bytes`; what is not a 64-bit ELF program or library (a script, a kernel module, data) has none.
pub fn needs(bytes: &[u8]) -> Result<Needs, object::Error> {
    const CLASS_64: u8 = 2;
    if !bytes.starts_with(b"\x7fELF") || bytes.get(4) != Some(&CLASS_64) {
        return Ok(Needs::default());
    }
    let file = ElfFile64::<Endianness>::parse(bytes)?;
    let endian = file.endian();
    let mut needs = Needs::default();
    if file.elf_header().e_type(endian) == elf::ET_REL {
        return Ok(needs);
    }
    for header in file.elf_program_headers() {
        if let Some(path) = header.interpreter(endian, bytes)? {
            needs.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let table = file.elf_dynamic_table()?;
    for entry in &table {
        if entry.tag == elf::DT_NEEDED {
            needs.libraries.push(String::from_utf8_lossy(table.string(entry)?).into_owned());
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_elf_needs_nothing() {
        for bytes in [b"#!/bin/sh\n".as_slice(), b"", b"\x7fELF\x01 32-bit"] {
            assert_eq!(needs(bytes).unwrap(), Needs::default());
        }
    }

    #[test]
    fn a_damaged_elf_file_is_an_error() {
        assert!(needs(b"\x7fELF\x02\x01\x01 and then noise").is_err());
    }
}
