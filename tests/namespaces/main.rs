//! The agent in network namespaces of its own, with a userspace WireGuard: root only, nothing of the host
//! is touched.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod arena;
mod between;
mod bonds;
mod client;
mod crowd;
mod door;
mod full;
mod gateway;
mod lab;
mod load;
mod low_order;
mod names;
#[path = "../topology/netavark.rs"]
mod netavark;
mod nobody;
mod obstacles;
mod oracle;
mod outside;
mod packets;
mod paths;
mod pushes;
mod refusals;
mod silence;
mod sites;
mod snapshots;
mod strays;
mod tether;
mod updates;
mod veil;
