//! The only effects: files, processes, netlink, HTTP. Decisions are made elsewhere.
#![expect(clippy::disallowed_methods, reason = "effects boundary")]

pub mod clock;
pub mod cmd;
pub mod codex;
pub mod fs;
pub mod http;
pub mod images;
pub mod interrupt;
pub mod journal;
pub mod link;
pub mod netns;
pub mod nft;
pub mod notify;
pub mod probe;
pub mod random;
pub mod record;
pub mod resolve;
pub mod serve;
pub mod services;
pub mod sockets;
pub mod stage;
pub mod terminal;
pub mod tree;
pub mod tty;
pub mod volume;
pub mod wake;
pub mod wireguard;
