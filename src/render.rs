//! Codex → tree: everything on the appliance that follows from the Codex.
