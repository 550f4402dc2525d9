//! Mistakes in a Codex, each with its place and remedy.
