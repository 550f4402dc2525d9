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

/// Whether `bytes` are a linked 64-bit program for x86: no kernel module or other object, nothing for another machine.
pub fn is_program(bytes: &[u8]) -> bool {
    let Ok(file) = ElfFile64::<Endianness>::parse(bytes) else { return false };
    let (header, endian) = (file.elf_header(), file.endian());
    let loads = |segment: &elf::ProgramHeader64<Endianness>| segment.p_type(endian) == elf::PT_LOAD;
    header.e_machine(endian) == elf::EM_X86_64
        && matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN)
        && file.elf_program_headers().iter().any(loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a program with one segment, and no code.
    fn program(class: u8, kind: u8, machine: u8) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
        // Type, machine, version, offset of the segments, sizes of headers, number of segments; PT_LOAD.
        for (at, value) in
            [(16, kind), (18, machine), (20, 1), (32, 64), (52, 64), (54, 56), (56, 1), (64, 1)]
        {
            bytes[at] = value;
        }
        bytes
    }

    #[test]
    fn a_program_is_64_bits_wide_for_x86_and_linked() {
        assert!(is_program(&program(2, 2, 62)) && is_program(&program(2, 3, 62)));
        for (class, kind, machine) in [(1, 2, 62), (2, 1, 62), (2, 4, 62), (2, 2, 183), (2, 2, 3)] {
            assert!(
                !is_program(&program(class, kind, machine)),
                "class {class}, type {kind}, machine {machine}"
            );
        }
        let mut without_segments = program(2, 2, 62);
        without_segments[56] = 0;
        assert!(!is_program(&without_segments) && !is_program(b"") && !is_program(b"#!/bin/sh\n"));
    }

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
