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
    running: Option<Receiver<(DnsName, Vec<IpAddr>)>>,
    /// Names looked up since everything was last looked up anew.
    asked: BTreeSet<DnsName>,
}

impl Resolver {
    /// What is known by now.
    pub fn known(&mut self) -> &DialTargets {
        if let Some(running) = &self.running {
            loop {
                match running.try_recv() {
                    Ok((name, addresses)) => {
                        let known = self.known.get(&name).copied();
                        if let Some(address) = settled(known, &addresses) {
                            self.known.insert(name, address);
                        }
                    }
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

    /// Looks `names` up, unless a look-up is under way, and nudges when it is done: all of them `anew`, else those
    /// without an address that were not asked for since.
    pub fn look_up(&mut self, mut names: BTreeSet<DnsName>, anew: bool, mut nudger: Nudger) {
        if self.running.is_some() {
            return;
        }
        if anew {
            self.asked.clear();
        } else {
            names.retain(|name| !self.known.contains_key(name) && !self.asked.contains(name));
        }
        if names.is_empty() {
            return;
        }
        self.asked.extend(names.iter().cloned());
        let (sender, receiver) = channel();
        self.running = Some(receiver);
        std::thread::spawn(move || {
            for name in names {
                let found = (name.as_str(), 0_u16).to_socket_addrs();
                let addresses =
                    found.map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default();
                if sender.send((name, addresses)).is_err() {
                    return;
                }
            }
            drop(sender);
            // When nobody waits any more there is nobody to wake.
            let _ = nudger.nudge();
        });
    }
}

/// The address to dial: the known one while it is still among those found (servers rotate their answers), or
/// while nothing is found; else the first.
fn settled(known: Option<IpAddr>, found: &[IpAddr]) -> Option<IpAddr> {
    known.filter(|known| found.is_empty() || found.contains(known)).or_else(|| found.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_while_the_name_still_has_it() {
        let [one, other]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        assert_eq!(settled(None, &[one, other]), Some(one));
        assert_eq!(settled(Some(other), &[one, other]), Some(other), "an answer in another order");
        assert_eq!(settled(Some(other), &[]), Some(other), "no answer");
        assert_eq!(settled(Some(other), &[one]), Some(one), "another address");
        assert_eq!(settled(None, &[]), None);
    }
}
