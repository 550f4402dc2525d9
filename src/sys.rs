//! The only effects: files, processes, netlink, HTTP. Decisions are made elsewhere.
#![expect(clippy::disallowed_methods, reason = "effects boundary")]

pub mod cmd;
pub mod fs;
pub mod http;
pub mod stage;
