//! The agent in network namespaces of its own, with a userspace WireGuard: root only, nothing of the host
//! is touched.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod bonds;
mod client;
mod door;
mod gateway;
mod lab;
mod obstacles;
mod silence;
mod tether;
