//! Unified kernel image: systemd's EFI stub with kernel, initrd and command line as sections of one PE file.
//!
//! Sources: the UAPI group's UKI specification, systemd-stub(7), and Microsoft's "PE format". `ukify inspect` and
//! `bootctl kernel-inspect` are the judges.

use object::LittleEndian as LE;
use object::pe;
use object::read::pe::PeFile64;

/// Bytes of a section header.
const SECTION_HEADER: usize = 40;
/// Offsets in the optional header of PE32+.
const SIZE_OF_INITIALIZED_DATA: usize = 8;
const SIZE_OF_IMAGE: usize = 56;
const CHECKSUM: usize = 64;
const DLL_CHARACTERISTICS: usize = 70;

/// What goes into a unified kernel image.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// systemd's stub: `usr/lib/systemd/boot/efi/linuxx64.efi.stub` of the package systemd-boot-efi.
    pub stub: &'a [u8],
    /// Content of os-release(5).
    pub os_release: &'a str,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Kernel release, e.g. `6.12.43+deb13-cloud-amd64`.
    pub uname: &'a str,
    /// The kernel, itself a PE file.
    pub kernel: &'a [u8],
    /// The initrd.
    pub initrd: &'a [u8],
}

/// Why there is no unified kernel image, or why a file is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a PE32+ file, or a damaged one.
    #[error("{what} is not a PE file for 64-bit EFI: {reason}")]
    NotPe {
        /// Which input.
        what: &'static str,
        /// The parser's words.
        reason: String,
    },
    /// The stub has no room for the section headers.
    #[error("the EFI stub has no room for the header of section {0}")]
    NoRoom(&'static str),
    /// The stub already has a section of that name.
    #[error("the EFI stub already has a section {0}")]
    Taken(&'static str),
    /// More than a PE file can hold.
    #[error("the unified kernel image would exceed 4 GiB")]
    TooBig,
}

/// One section of a PE file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// Name, e.g. `.cmdline`.
    pub name: String,
    /// Content without padding.
    pub data: &'a [u8],
}

/// Builds the image. The kernel comes last: systemd-stub may leave it in place, and it may grow when it unpacks.
pub fn build(parts: &Parts<'_>) -> Result<Vec<u8>, Error> {
    let Parts { stub, os_release, cmdline, uname, kernel, initrd } = *parts;
    let mut image = Image::open(stub)?;
    image.add(".osrel", os_release.as_bytes(), pe::IMAGE_SCN_CNT_INITIALIZED_DATA)?;
    image.add(".cmdline", cmdline.as_bytes(), pe::IMAGE_SCN_CNT_INITIALIZED_DATA)?;
    image.add(".uname", uname.as_bytes(), pe::IMAGE_SCN_CNT_INITIALIZED_DATA)?;
    image.add(".initrd", initrd, pe::IMAGE_SCN_CNT_INITIALIZED_DATA)?;
    if !parse("the kernel", kernel)?.1 {
        image.forbid_nx();
    }
    image.add(".linux", kernel, pe::IMAGE_SCN_CNT_CODE)?;
    image.finish()
}

/// The sections of a unified kernel image (or of any PE32+ file), in file order.
pub fn sections(image: &[u8]) -> Result<Vec<Section<'_>>, Error> {
    let not_pe = |error: object::Error| Error::NotPe { what: "the image", reason: error.to_string() };
    let file = PeFile64::parse(image).map_err(not_pe)?;
    let table = file.section_table();
    let section = |header: &pe::ImageSectionHeader| {
        let data = header.pe_data(image).map_err(not_pe)?;
        Ok(Section { name: String::from_utf8_lossy(header.raw_name()).into_owned(), data })
    };
    table.iter().map(section).collect()
}

/// The content of one section as text without trailing NULs and line ends; `None` when it is absent or not UTF-8.
pub fn text<'a>(sections: &[Section<'a>], name: &str) -> Option<&'a str> {
    let section = sections.iter().find(|section| section.name == name)?;
    Some(std::str::from_utf8(section.data).ok()?.trim_end_matches(['\0', '\n']))
}

/// Checks that `data` is PE32+ and says where its NT headers are and whether it is fit for W^X memory.
fn parse(what: &'static str, data: &[u8]) -> Result<(usize, bool), Error> {
    let not_pe = |error: object::Error| Error::NotPe { what, reason: error.to_string() };
    let file = PeFile64::parse(data).map_err(not_pe)?;
    let flags = file.nt_headers().optional_header.dll_characteristics.get(LE);
    Ok((
        file.dos_header().nt_headers_offset() as usize,
        flags & pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT != pe::DllFlags(0),
    ))
}

/// A PE file to which sections are added.
struct Image {
    bytes: Vec<u8>,
    /// Offset of the COFF file header.
    coff: usize,
    /// Offset of the optional header.
    optional: usize,
    /// Offset of the next section header and the end of the room for them.
    next: usize,
    room: usize,
    section_alignment: u32,
    file_alignment: u32,
    /// End of the last section in memory.
    end: u32,
    names: Vec<String>,
}

impl Image {
    fn open(stub: &[u8]) -> Result<Self, Error> {
        let what = "the EFI stub";
        let (nt, _) = parse(what, stub)?;
        let not_pe = |reason: &str| Error::NotPe { what, reason: reason.to_owned() };
        let file = PeFile64::parse(stub).map_err(|error| not_pe(&error.to_string()))?;
        let header = &file.nt_headers().optional_header;
        let optional = nt + 24;
        let table = optional + usize::from(file.nt_headers().file_header.size_of_optional_header.get(LE));
        let sections: Vec<_> = file.section_table().iter().collect();
        let first_data =
            sections.iter().map(|section| section.pointer_to_raw_data.get(LE)).filter(|at| *at > 0).min();
        let end_of = |section: &pe::ImageSectionHeader| {
            section.virtual_address.get(LE).checked_add(section.virtual_size.get(LE))
        };
        let ends = sections.iter().map(|section| end_of(section)).collect::<Option<Vec<u32>>>();
        let aligned = |value: u32| value.is_power_of_two().then_some(value);
        Ok(Self {
            coff: nt + 4,
            optional,
            next: table + sections.len() * SECTION_HEADER,
            room: first_data.unwrap_or(0).min(header.size_of_headers.get(LE)) as usize,
            section_alignment: aligned(header.section_alignment.get(LE))
                .ok_or_else(|| not_pe("alignment"))?,
            file_alignment: aligned(header.file_alignment.get(LE)).ok_or_else(|| not_pe("alignment"))?,
            end: ends.and_then(|ends| ends.into_iter().max()).ok_or_else(|| not_pe("it has no section"))?,
            names: sections.iter().map(|s| String::from_utf8_lossy(s.raw_name()).into_owned()).collect(),
            bytes: stub.to_vec(),
        })
    }

    fn add(&mut self, name: &'static str, data: &[u8], content: pe::SectionFlags) -> Result<(), Error> {
        if self.names.iter().any(|taken| taken == name) {
            return Err(Error::Taken(name));
        }
        if self.next + SECTION_HEADER > self.room {
            return Err(Error::NoRoom(name));
        }
        let size = u32::try_from(data.len()).map_err(|_| Error::TooBig)?;
        let raw_size = size.checked_next_multiple_of(self.file_alignment).ok_or(Error::TooBig)?;
        let address = self.end.checked_next_multiple_of(self.section_alignment).ok_or(Error::TooBig)?;
        let start = self.bytes.len().next_multiple_of(self.file_alignment as usize);
        let pointer = u32::try_from(start).map_err(|_| Error::TooBig)?;
        let mut header = [0; SECTION_HEADER];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let flags = (content | pe::IMAGE_SCN_MEM_READ).0;
        for (offset, value) in [(8, size), (12, address), (16, raw_size), (20, pointer), (36, flags)] {
            header[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        self.bytes[self.next..self.next + SECTION_HEADER].copy_from_slice(&header);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(start + raw_size as usize, 0);
        self.next += SECTION_HEADER;
        self.end = address.checked_add(size).ok_or(Error::TooBig)?;
        self.names.push(name.to_owned());
        let initialized = self.optional + SIZE_OF_INITIALIZED_DATA;
        let total = self.get(initialized).checked_add(size).ok_or(Error::TooBig)?;
        self.set(initialized, total);
        Ok(())
    }

    /// Clears the promise that nothing in the image needs memory that is writable and executable at once: the
    /// firmware would hold an old kernel to it.
    fn forbid_nx(&mut self) {
        let at = self.optional + DLL_CHARACTERISTICS;
        let flags = u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]);
        let flags = flags & !pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT.0;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_le_bytes());
    }

    fn finish(mut self) -> Result<Vec<u8>, Error> {
        let size = self.end.checked_next_multiple_of(self.section_alignment).ok_or(Error::TooBig)?;
        let count = u16::try_from(self.names.len()).map_err(|_| Error::TooBig)?;
        self.bytes[self.coff + 2..self.coff + 4].copy_from_slice(&count.to_le_bytes());
        self.set(self.optional + SIZE_OF_IMAGE, size);
        // EFI does not look at the checksum; zero says that there is none.
        self.set(self.optional + CHECKSUM, 0);
        Ok(self.bytes)
    }

    fn get(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    fn set(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The smallest PE32+ file with one section and room for more.
    pub fn tiny_pe(nx: bool, headers: u32) -> Vec<u8> {
        let mut bytes = vec![0; headers as usize];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"MZ");
        put(0x3c, &0x40u32.to_le_bytes());
        put(0x40, b"PE\0\0");
        put(0x44, &0x8664u16.to_le_bytes());
        put(0x46, &1u16.to_le_bytes());
        put(0x54, &240u16.to_le_bytes());
        put(0x56, &0x22eu16.to_le_bytes());
        let optional = 0x58;
        put(optional, &0x20bu16.to_le_bytes());
        put(optional + 32, &4096u32.to_le_bytes());
        put(optional + 36, &512u32.to_le_bytes());
        put(optional + 56, &8192u32.to_le_bytes());
        put(optional + 60, &headers.to_le_bytes());
        put(optional + 68, &10u16.to_le_bytes());
        put(optional + 70, &(if nx { 0x160u16 } else { 0x60 }).to_le_bytes());
        put(optional + 108, &16u32.to_le_bytes());
        let section = optional + 240;
        put(section, b".text");
        put(section + 8, &5u32.to_le_bytes());
        put(section + 12, &4096u32.to_le_bytes());
        put(section + 16, &512u32.to_le_bytes());
        put(section + 20, &headers.to_le_bytes());
        bytes.extend_from_slice(b"code!");
        bytes.resize(headers as usize + 512, 0);
        bytes
    }

    fn parts<'a>(stub: &'a [u8], kernel: &'a [u8]) -> Parts<'a> {
        Parts { stub, os_release: "ID=test\n", cmdline: "root=x", uname: "6.12", kernel, initrd: b"cpio" }
    }

    #[test]
    fn sections_come_back_as_they_were_given() {
        let (stub, kernel) = (tiny_pe(true, 1024), tiny_pe(true, 1024));
        let image = build(&parts(&stub, &kernel)).unwrap();
        let sections = sections(&image).unwrap();
        let names: Vec<_> = sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, [".text", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
        assert_eq!(text(&sections, ".cmdline"), Some("root=x"));
        assert_eq!(text(&sections, ".osrel"), Some("ID=test"));
        assert_eq!(text(&sections, ".absent"), None);
        assert_eq!(sections[5].data, kernel);
    }

    #[test]
    fn the_size_of_the_image_covers_the_last_section_in_whole_pages() {
        let (stub, kernel) = (tiny_pe(true, 1024), tiny_pe(true, 1024));
        let image = build(&parts(&stub, &kernel)).unwrap();
        let file = PeFile64::parse(image.as_slice()).unwrap();
        let last = file.section_table().iter().last().unwrap();
        assert_eq!(last.virtual_address.get(LE), 6 * 4096);
        assert_eq!(file.nt_headers().optional_header.size_of_image.get(LE), 7 * 4096);
        assert!(image.len().is_multiple_of(512));
    }

    #[test]
    fn a_kernel_that_is_not_fit_for_nx_takes_the_promise_back() {
        for nx in [true, false] {
            let image = build(&parts(&tiny_pe(true, 1024), &tiny_pe(nx, 1024))).unwrap();
            assert_eq!(parse("the image", &image).unwrap().1, nx);
        }
    }

    #[test]
    fn a_stub_without_room_or_with_our_sections_is_refused() {
        let kernel = tiny_pe(true, 1024);
        let small = tiny_pe(true, 512);
        assert_eq!(build(&parts(&small, &kernel)), Err(Error::NoRoom(".initrd")));
        let stub = tiny_pe(true, 1024);
        let twice = build(&parts(&stub, &kernel)).unwrap();
        assert_eq!(build(&parts(&twice, &kernel)), Err(Error::Taken(".osrel")));
    }

    #[test]
    fn what_is_not_pe_is_named() {
        let good = tiny_pe(true, 1024);
        let stub = build(&parts(b"noise", &good)).unwrap_err().to_string();
        assert!(stub.starts_with("the EFI stub is not a PE file"), "{stub}");
        let kernel = build(&parts(&good, b"")).unwrap_err().to_string();
        assert!(kernel.starts_with("the kernel is not a PE file"), "{kernel}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_damaged_stub_is_an_error_or_an_image_and_never_a_panic(at in 0usize..1024, value: u8) {
            let mut stub = tiny_pe(true, 1024);
            stub[at] = value;
            if let Ok(image) = build(&parts(&stub, &tiny_pe(true, 1024))) {
                prop_assert!(image.len() >= stub.len());
            }
        }
    }
}
