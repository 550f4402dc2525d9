//! Host names that peers are dialled by, looked up beside the agent: a slow server holds nobody up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::wake::Nudger;
use crate::codex::name::DnsName;
use crate::sync::DialTargets;

/// Looks names up in a thread and remembers the last address of each.
#[derive(Debug, Default)]
pub struct Resolver {
    known: DialTargets,
    running: Option<Receiver<(DnsName, Vec<IpAddr>)>>,
    /// When names were last looked up.
    asked: BTreeMap<DnsName, Instant>,
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

    /// Looks `names` up, unless a look-up is under way, and nudges when it is done. Each of them once in `pause`,
    /// however often that is wished.
    ///
    /// # Errors
    /// When no thread can be made for it, or nothing to nudge with; the next time tries again.
    pub fn look_up(
        &mut self,
        names: BTreeSet<DnsName>,
        pause: Duration,
        nudger: impl FnOnce() -> io::Result<Nudger>,
    ) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        let names = due(&mut self.asked, names, now, pause);
        if names.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = names.iter().map(|name| (name.clone(), now)).collect();
        let (sender, receiver) = channel();
        let mut nudger = nudger()?;
        std::thread::Builder::new().name("resolver".into()).spawn(move || {
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
        })?;
        self.running = Some(receiver);
        self.asked.extend(asked);
        Ok(())
    }
}

/// Those of `names` that were not `asked` for within the last `pause`. What was asked for before that is forgotten.
fn due(
    asked: &mut BTreeMap<DnsName, Instant>,
    names: BTreeSet<DnsName>,
    now: Instant,
    pause: Duration,
) -> BTreeSet<DnsName> {
    asked.retain(|_, at| now.duration_since(*at) < pause);
    names.into_iter().filter(|name| !asked.contains_key(name)).collect()
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
    fn a_name_is_asked_for_once_in_a_pause_however_often_somebody_looks() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<_>>();
        let (start, pause) = (Instant::now(), Duration::from_secs(30));
        let mut asked = BTreeMap::new();
        let mut times = Vec::new();
        // Somebody bonds every second.
        for second in 0..=60 {
            let now = start + Duration::from_secs(second);
            let due = due(&mut asked, names(&["one.example"]), now, pause);
            asked.extend(due.iter().map(|name| (name.clone(), now)));
            times.extend((!due.is_empty()).then_some(second));
        }
        assert_eq!(times, [0, 30, 60]);
        let both = names(&["one.example", "two.example"]);
        let soon = start + Duration::from_secs(61);
        assert_eq!(due(&mut asked, both, soon, pause), names(&["two.example"]), "a new one waits for nobody");
        assert!(due(&mut asked, names(&[]), soon + pause, pause).is_empty() && asked.is_empty());
    }

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
