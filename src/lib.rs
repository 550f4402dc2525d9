//! Sepulcher turns one Codex (a folder of TOML) into one sealed appliance.
//!
//! Modules in reading order. Each uses only what stands above it, but for the order of versions, which `snapshot` takes from
//! `rebirth`; so nothing above `sys` has effects. A test holds that.
//!
//! 1. [`codex`] — the validated configuration, and every mistake it can hold
//! 2. [`tree`] — path → {mode, bytes}: what rendering produces
//! 3. [`qr`], [`svg`] — text → QR code for terminal, SVG and PNG; drawings
//! 4. [`reach`] — who reaches what, and why: the sets of the rulesets, answers, the map
//! 5. [`render`] — Codex → tree: quadlets, WireGuard, nftables, Caddy, units, manifest
//! 6. [`sync`] — desired and observed state → plan
//! 7. [`probe`] — what a scanner asks a host, and what its answers say
//! 8. [`sys`] — files, processes, netlink, HTTP, a scanner's packets
//! 9. [`peer`] — a request → a change of the bonds, and the transaction that makes it
//! 10. [`image`] — tree + locked packages → verity-sealed disk
//! 11. [`snapshot`] — the bonds of one moment, kept and put back
//! 12. [`rebirth`] — the next body: versions, the signed bundle it travels in
//! 13. [`tether`] — the agent that keeps the kernel in step with the bonds
//! 14. [`cli`] — arguments, output, exit codes

pub mod cli;
pub mod codex;
pub mod image;
pub mod peer;
pub mod probe;
pub mod qr;
pub mod reach;
pub mod rebirth;
pub mod render;
pub mod snapshot;
pub mod svg;
pub mod sync;
pub mod sys;
pub mod tether;
pub mod tree;
