//! Tests of the program and its parts against the real consumers of what they make.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests have effects and may fail")]

mod image;
mod judge_disk;
