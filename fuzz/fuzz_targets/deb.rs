//! Any bytes as a package. Checksums of what is changed are set right half of the time: the reader would refuse
//! nearly every change at the door.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|bytes: &[u8]| sepulcher_fuzz::package(bytes));

fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(bytes, size, max_size);
    if seed % 2 == 0 {
        mend(&mut bytes[..size]);
    }
    size
});

/// Sets the checksums of the tar headers in uncompressed members right.
fn mend(deb: &mut [u8]) {
    let mut at = 8;
    while let Some(header) = deb.get(at..at + 60) {
        let name = header[..16].trim_ascii_end();
        // GNU's ar ends names with a slash.
        let is_tar = name.strip_suffix(b"/").unwrap_or(name).ends_with(b".tar");
        let Some(size) = number(&header[48..58], 10) else { return };
        let start = at + 60;
        let end = start.saturating_add(size).min(deb.len());
        if is_tar {
            mend_tar(&mut deb[start..end]);
        }
        at = end + size % 2;
    }
}

fn mend_tar(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + 512) {
        if header.iter().any(|byte| *byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let Some(size) = number(&header[124..136], 8) else { return };
        at = at.saturating_add(512).saturating_add(size.div_ceil(512).saturating_mul(512));
    }
}

fn number(text: &[u8], radix: u32) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?.trim_matches(['\0', ' ']);
    usize::from_str_radix(text, radix).ok()
}
