//! Which bonds can be held now: those whose time is not over, whose key is not our own, and whose preshared key
//! is at hand. The others are left out with their grants and routes, and hold nobody up.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::bonds::Broken;
use crate::codex::key::{PublicKey, SharedKey};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, PeerState, preshared_file};
use crate::sync::PresharedKeys;
use crate::sys;

/// Preshared keys by their file: name and generation of the peer.
pub type ReadKeys = BTreeMap<String, SharedKey>;

/// What can be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The Codex without what cannot be held.
    pub codex: Codex,
    /// The preshared keys of what can.
    pub preshared: PresharedKeys,
    /// Bonds that are in force and cannot be held as they are.
    pub unfit: Vec<Broken>,
}

/// A preshared key that cannot be read.
struct Unread {
    reason: String,
    /// Whether there is none. Anything else that is wrong may be over at the next look.
    gone: bool,
}

/// Finds what of `codex` can be held at `now` by the interface of `own` key, with the preshared keys of the folder
/// `secrets`. One that is there and cannot be read is that which was `read` before: a disk that stutters, or a process
/// that has too many files open, cuts nobody off.
pub fn fit(
    codex: &Codex,
    now: Timestamp,
    own: Option<PublicKey>,
    secrets: &Path,
    read: &mut ReadKeys,
) -> Fit {
    examine(codex.as_of(now), own, read, |file| {
        let bytes = sys::fs::read_bounded(&secrets.join(file), 4096).map(zeroize::Zeroizing::new);
        let bytes =
            bytes.map_err(|error| Unread { reason: super::explain(&error), gone: error.is_not_found() })?;
        SharedKey::parse(&bytes).map_err(|error| {
            let reason = format!("{} is unusable: {error}", secrets.join(file).display());
            Unread { reason, gone: false }
        })
    })
}

fn examine(
    mut codex: Codex,
    own: Option<PublicKey>,
    known: &mut ReadKeys,
    read: impl Fn(&str) -> Result<SharedKey, Unread>,
) -> Fit {
    let mut keys = Keys { known, read, used: ReadKeys::new(), preshared: PresharedKeys::new() };
    let mut unfit = Vec::new();
    let mut report = |name: &Name, last_good: bool, reason: String| {
        unfit.push(Broken { file: format!("peers/{name}.toml"), last_good, in_force: false, reason });
    };
    codex.keep_peers(|name, peer| {
        if peer.state != PeerState::Active {
            return true;
        }
        let before = peer.generation.saturating_sub(1);
        let old = peer.overlap.as_ref().map(|old| (old.public_key, old.preshared, before));
        if let Some(old) = old {
            match keys.hold(name, own, old) {
                Ok(None) => {}
                Ok(Some(reason)) => report(name, true, reason),
                Err(reason) => {
                    report(name, false, format!("its key before cannot be held: {reason}"));
                    Arc::make_mut(peer).overlap = None;
                }
            }
        }
        match keys.hold(name, own, (peer.public_key, peer.preshared, peer.generation)) {
            Ok(None) => true,
            Ok(Some(reason)) => {
                report(name, true, reason);
                true
            }
            Err(reason) => {
                report(name, false, format!("it cannot be held: {reason}"));
                false
            }
        }
    });
    let Keys { used, preshared, .. } = keys;
    *known = used;
    Fit { codex, preshared, unfit }
}

/// WireGuard passes over a peer with the interface's own key.
fn held(key: PublicKey, own: Option<PublicKey>) -> Result<(), String> {
    if Some(key) == own {
        return Err("its public key is this host's own; put the peer's own there".into());
    }
    Ok(())
}

/// Preshared keys while they are gathered.
struct Keys<'a, R> {
    known: &'a ReadKeys,
    read: R,
    /// What is to be known at the next look.
    used: ReadKeys,
    preshared: PresharedKeys,
}

impl<R: Fn(&str) -> Result<SharedKey, Unread>> Keys<'_, R> {
    /// Adds the preshared key that belongs to a public key of a generation, if it needs one. What is wrong with it when it
    /// is one that was read before.
    fn hold(
        &mut self,
        name: &Name,
        own: Option<PublicKey>,
        (key, needed, generation): (PublicKey, bool, u32),
    ) -> Result<Option<String>, String> {
        held(key, own)?;
        if !needed {
            return Ok(None);
        }
        let file = preshared_file(name, generation);
        let (shared, fault) = match (self.read)(&file) {
            Ok(shared) => (shared, None),
            Err(Unread { reason, gone }) => match self.known.get(&file).filter(|_| !gone) {
                Some(shared) => {
                    (shared.clone(), Some(format!("its preshared key is the one read before: {reason}")))
                }
                None => return Err(format!("{reason}; `sepulcher peer rotate {name}` makes a new one")),
            },
        };
        self.used.insert(file, shared.clone());
        self.preshared.insert(key, shared);
        Ok(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Sources;
    use crate::sync::{Desired, DialTargets};

    const KEYS: [&str; 3] = [
        "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        "/O8+G5a2GFPG6Kl6oB0kmvCkbKhLkf9a8HcHGEJGUlc=",
    ];

    fn codex(peers: &[(&str, usize, &str)]) -> Codex {
        let mut sources = Sources::default();
        sources.insert("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n");
        for (number, (name, key, more)) in peers.iter().enumerate() {
            let (key, last) = (KEYS[*key], number + 2);
            let text = format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = []\n{more}");
            sources.insert(format!("peers/{name}.toml"), text);
        }
        Codex::parse(&sources).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    fn key(number: usize) -> PublicKey {
        KEYS[number].parse().unwrap()
    }

    fn shared(byte: u8) -> SharedKey {
        SharedKey::new([byte; 32]).unwrap()
    }

    fn gone(reason: &str) -> Unread {
        Unread { reason: reason.into(), gone: true }
    }

    fn names(fit: &Fit) -> Vec<&str> {
        fit.codex.peers.keys().map(Name::as_str).collect()
    }

    #[test]
    fn a_peer_is_left_out_from_the_second_on_at_which_it_expires() {
        let codex = codex(&[("guest", 0, "expires = 2026-11-22T20:05:00Z\n"), ("phone", 1, "")]);
        let end = "2026-11-22T20:05:00Z".parse::<Timestamp>().unwrap();
        let at = |now| fit(&codex, now, None, Path::new("/nonexistent"), &mut ReadKeys::new());
        assert_eq!(names(&at(Timestamp::from_epoch(end.epoch() - 1))), ["guest", "phone"]);
        assert_eq!(names(&at(end)), ["phone"]);
        assert!(at(end).unfit.is_empty(), "that is no fault");
        assert_eq!(codex.next_change(Timestamp::from_epoch(0)), Some(end));
    }

    #[test]
    fn a_peer_without_its_preshared_key_is_told_and_holds_nobody_up() {
        let codex = codex(&[("laptop", 0, "preshared = true\n"), ("phone", 1, "preshared = true\n")]);
        let fit = examine(codex, None, &mut ReadKeys::new(), |file| match file {
            "peers/phone.1.psk" => Ok(shared(7)),
            other => Err(gone(&format!("cannot read {other}"))),
        });
        assert_eq!(names(&fit), ["phone"]);
        assert_eq!(fit.preshared, PresharedKeys::from([(key(1), shared(7))]));
        assert_eq!(fit.unfit[0].file, "peers/laptop.toml");
        let reason = "it cannot be held: cannot read peers/laptop.1.psk; `sepulcher peer rotate laptop` makes a new one";
        assert_eq!(fit.unfit[0].reason, reason);
    }

    #[test]
    fn a_preshared_key_that_cannot_be_read_is_the_one_of_before_until_it_is_gone() {
        let codex = |generation: u32| {
            codex(&[("phone", 0, &format!("generation = {generation}\npreshared = true\n"))])
        };
        let mut known = ReadKeys::new();
        let fail = |gone| move |_: &str| Err(Unread { reason: "too many open files".into(), gone });
        let none = examine(codex(1), None, &mut known, fail(false));
        assert_eq!((names(&none).len(), none.unfit[0].last_good), (0, false), "it was never read");
        examine(codex(1), None, &mut known, |_| Ok(shared(7)));
        for _ in 0..2 {
            let kept = examine(codex(1), None, &mut known, fail(false));
            assert_eq!(kept.preshared, PresharedKeys::from([(key(0), shared(7))]));
            let told = "its preshared key is the one read before: too many open files";
            assert_eq!((kept.unfit[0].last_good, kept.unfit[0].reason.as_str()), (true, told));
        }
        assert!(
            names(&examine(codex(2), None, &mut known.clone(), fail(false))).is_empty(),
            "that is another one"
        );
        assert!(names(&examine(codex(1), None, &mut known, fail(true))).is_empty());
        assert!(known.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn a_clock_that_jumps_gives_each_moment_its_bonds_and_the_next_one_to_wake_at() {
        let codex = codex(&[
            ("guest", 0, "expires = 2026-11-22T20:05:00Z\n"),
            ("laptop", 1, "expires = 2026-11-22T21:00:00Z\n"),
            ("phone", 2, ""),
        ]);
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (first, second) = (time("2026-11-22T20:05:00Z"), time("2026-11-22T21:00:00Z"));
        let before = time("2026-11-22T20:00:00Z");
        // Over one end, over both, back again.
        for (now, held, next) in [
            (before, 3, Some(first)),
            (time("2026-11-22T20:59:59Z"), 2, Some(second)),
            (time("2031-01-01T00:00:00Z"), 1, None),
            (before, 3, Some(first)),
        ] {
            let fit = fit(&codex, now, None, Path::new("/nonexistent"), &mut ReadKeys::new());
            assert_eq!((names(&fit).len(), codex.next_change(now)), (held, next), "{now}");
        }
    }

    #[test]
    fn two_keys_of_a_peer_are_held_with_the_preshared_key_of_their_generation() {
        let more = format!(
            "generation = 3\npreshared = true\n\
             [overlap]\npublic-key = \"{}\"\npreshared = true\nuntil = 2026-11-22T20:05:00Z\n",
            KEYS[1]
        );
        let codex = codex(&[("phone", 0, &more)]);
        let mut known = ReadKeys::new();
        let whole = examine(codex.clone(), None, &mut known, |file| {
            Ok(shared(if file.contains(".3.") { 3 } else { 2 }))
        });
        assert_eq!(whole.preshared, PresharedKeys::from([(key(0), shared(3)), (key(1), shared(2))]));
        let desired = Desired::of(&whole.codex, key(2), &DialTargets::new(), &whole.preshared);
        assert_eq!(desired.overlaps, [(key(1), key(0))].into());
        let new = examine(codex, None, &mut known, |file| {
            file.contains(".3.").then(|| shared(3)).ok_or(gone("gone"))
        });
        assert_eq!((names(&new), new.unfit.len()), (vec!["phone"], 1));
        let desired = Desired::of(&new.codex, key(2), &DialTargets::new(), &new.preshared);
        assert_eq!((desired.peers.len(), desired.overlaps.len()), (1, 0));
    }

    #[test]
    fn a_peer_with_our_own_key_is_told_and_left_out() {
        let fit = examine(
            codex(&[("mirror", 0, ""), ("phone", 1, "")]),
            Some(key(0)),
            &mut ReadKeys::new(),
            |_| unreachable!(),
        );
        assert_eq!(names(&fit), ["phone"]);
        assert!(fit.unfit[0].reason.contains("this host's own"), "{}", fit.unfit[0].reason);
    }
}
