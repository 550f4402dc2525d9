//! The agent in network namespaces of its own, with a userspace WireGuard: root only, nothing of the host
//! is touched.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod arena;
mod bonds;
mod client;
mod crowd;
mod door;
mod gateway;
mod lab;
mod low_order;
#[path = "../topology/netavark.rs"]
mod netavark;
mod obstacles;
mod oracle;
mod packets;
mod silence;
mod strays;
mod tether;
mod veil;
