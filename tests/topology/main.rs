//! Gateways, peers and a second site in containers, with a userspace WireGuard: `cargo xtask topology`.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod appliance;
mod between;
mod bonds;
mod claims;
mod device;
mod ear;
mod engine;
mod host;
mod lab;
mod netavark;
mod pause;
mod rebirth;
mod scene;
mod silence;
mod sites;
mod writers;
