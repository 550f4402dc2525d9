//! One binary for all integration tests: starting it is cheaper than linking many.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests touch files and may panic")]

mod packages;
