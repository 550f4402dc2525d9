//! Any text as a Codex.
#![no_main]

libfuzzer_sys::fuzz_target!(|case: &str| sepulcher_fuzz::codex(case));
