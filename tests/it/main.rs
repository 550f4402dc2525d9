//! Rings 1 and 2 in one binary, which links faster than many: the command line, whole trees, invariants, and
//! the real parsers as judges.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests have effects and stop at once")]

mod accept;
mod allocate;
mod between;
mod cases;
mod cli;
mod completions;
mod corpus;
mod faults;
mod golden;
mod hostile;
mod image;
mod invariants;
mod judge;
mod judge_disk;
mod look;
mod modules;
mod noise;
mod packages;
mod peer;
mod peer_broken;
mod peer_faults;
mod pod_network;
mod podman;
mod power_loss;
mod probe;
mod proxy;
mod qr;
mod reach;
mod reject;
mod render;
mod snapshot;
mod support;
mod terminal;
mod update;
mod volumes;
