//! From the Codex as typed to the valid one, or every mistake at once.
