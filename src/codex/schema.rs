//! The Codex as typed: the private serde mirror of the TOML files.
