//! Host names that peers are dialled by, looked up beside the agent: a slow server holds nobody up.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::wake::Nudger;
use crate::codex::name::DnsName;
use crate::sync::DialTargets;

/// Looks names up in a thread and remembers the last address of each.
#[derive(Debug, Default)]
pub struct Resolver {
    known: DialTargets,
    running: Option<Receiver<(DnsName, Option<IpAddr>)>>,
}

impl Resolver {
    /// What is known by now.
    pub fn known(&mut self) -> &DialTargets {
        if let Some(running) = &self.running {
            loop {
                match running.try_recv() {
                    Ok((name, Some(address))) => {
                        self.known.insert(name, address);
                    }
                    // A name that cannot be looked up now keeps its last address.
                    Ok((_, None)) => {}
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.running = None;
                        break;
                    }
                }
            }
        }
        &self.known
    }

    /// Looks `names` up, unless a look-up is under way, and nudges when it is done.
    pub fn look_up(&mut self, names: BTreeSet<DnsName>, mut nudger: Nudger) {
        if self.running.is_some() || names.is_empty() {
            return;
        }
        let (sender, receiver) = channel();
        self.running = Some(receiver);
        std::thread::spawn(move || {
            for name in names {
                let address = (name.as_str(), 0_u16)
                    .to_socket_addrs()
                    .ok()
                    .and_then(|mut addresses| addresses.next())
                    .map(|address| address.ip());
                if sender.send((name, address)).is_err() {
                    return;
                }
            }
            drop(sender);
            // When nobody waits any more there is nobody to wake.
            let _ = nudger.nudge();
        });
    }
}
