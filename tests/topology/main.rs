//! Gateways, peers and a second site in containers, with a userspace WireGuard: `cargo xtask topology`.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod bonds;
mod claims;
mod device;
mod engine;
mod host;
mod lab;
mod pause;
mod sites;
mod writers;
