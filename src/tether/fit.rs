//! Which bonds can be held now: those whose time is not over, whose key is not our own, and whose preshared key
//! is at hand. The others are left out with their grants and routes, and hold nobody up.

use std::path::Path;
use std::sync::Arc;

use super::bonds::Broken;
use crate::codex::key::{PublicKey, SharedKey};
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, PeerState, preshared_file};
use crate::sync::PresharedKeys;
use crate::sys;

/// What can be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The Codex without what cannot be held.
    pub codex: Codex,
    /// The preshared keys of what can.
    pub preshared: PresharedKeys,
    /// Bonds that are in force and cannot be held.
    pub unfit: Vec<Broken>,
}

/// Finds what of `codex` can be held at `now` by the interface of `own` key, with the preshared keys of the folder
/// `secrets`.
pub fn fit(codex: &Codex, now: Timestamp, own: Option<PublicKey>, secrets: &Path) -> Fit {
    examine(codex.as_of(now), own, |file| {
        let read = sys::fs::read_bounded(&secrets.join(file), 4096).map(zeroize::Zeroizing::new);
        let bytes = read.map_err(|error| super::explain(&error))?;
        SharedKey::parse(&bytes)
            .map_err(|error| format!("{} is unusable: {error}", secrets.join(file).display()))
    })
}

fn examine(
    mut codex: Codex,
    own: Option<PublicKey>,
    read: impl Fn(&str) -> Result<SharedKey, String>,
) -> Fit {
    let mut preshared = PresharedKeys::new();
    let mut unfit = Vec::new();
    let mut report = |name: &Name, reason: String| {
        unfit.push(Broken { file: format!("peers/{name}.toml"), last_good: false, reason });
    };
    codex.keep_peers(|name, peer| {
        if peer.state != PeerState::Active {
            return true;
        }
        let before = peer.generation.saturating_sub(1);
        let old = peer.overlap.as_ref().map(|old| (old.public_key, old.preshared, before));
        if let Some((key, needed, generation)) = old
            && let Err(reason) =
                held(key, own).and_then(|()| key_of(&mut preshared, &read, name, (key, needed, generation)))
        {
            report(name, format!("its key before cannot be held: {reason}"));
            Arc::make_mut(peer).overlap = None;
        }
        match held(peer.public_key, own).and_then(|()| {
            key_of(&mut preshared, &read, name, (peer.public_key, peer.preshared, peer.generation))
        }) {
            Ok(()) => true,
            Err(reason) => {
                report(name, format!("it cannot be held: {reason}"));
                false
            }
        }
    });
    Fit { codex, preshared, unfit }
}

/// WireGuard passes over a peer with the interface's own key.
fn held(key: PublicKey, own: Option<PublicKey>) -> Result<(), String> {
    if Some(key) == own {
        return Err("its public key is this host's own; put the peer's own there".into());
    }
    Ok(())
}

/// Adds the preshared key that belongs to a public key of a generation, if it needs one.
fn key_of(
    preshared: &mut PresharedKeys,
    read: impl Fn(&str) -> Result<SharedKey, String>,
    name: &Name,
    (key, needed, generation): (PublicKey, bool, u32),
) -> Result<(), String> {
    if needed {
        let remedy = |reason| format!("{reason}; `sepulcher peer rotate {name}` makes a new one");
        preshared.insert(key, read(&preshared_file(name, generation)).map_err(remedy)?);
    }
    Ok(())
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

    fn names(fit: &Fit) -> Vec<&str> {
        fit.codex.peers.keys().map(Name::as_str).collect()
    }

    #[test]
    fn a_peer_is_left_out_from_the_second_on_at_which_it_expires() {
        let codex = codex(&[("guest", 0, "expires = 2026-11-22T20:05:00Z\n"), ("phone", 1, "")]);
        let end = "2026-11-22T20:05:00Z".parse::<Timestamp>().unwrap();
        let at = |now| fit(&codex, now, None, Path::new("/nonexistent"));
        assert_eq!(names(&at(Timestamp::from_epoch(end.epoch() - 1))), ["guest", "phone"]);
        assert_eq!(names(&at(end)), ["phone"]);
        assert!(at(end).unfit.is_empty(), "that is no fault");
        assert_eq!(codex.next_change(Timestamp::from_epoch(0)), Some(end));
    }

    #[test]
    fn a_peer_without_its_preshared_key_is_told_and_holds_nobody_up() {
        let codex = codex(&[("laptop", 0, "preshared = true\n"), ("phone", 1, "preshared = true\n")]);
        let fit = examine(codex, None, |file| match file {
            "peers/phone.1.psk" => Ok(shared(7)),
            other => Err(format!("cannot read {other}")),
        });
        assert_eq!(names(&fit), ["phone"]);
        assert_eq!(fit.preshared, PresharedKeys::from([(key(1), shared(7))]));
        assert_eq!(fit.unfit[0].file, "peers/laptop.toml");
        let reason = "it cannot be held: cannot read peers/laptop.1.psk; `sepulcher peer rotate laptop` makes a new one";
        assert_eq!(fit.unfit[0].reason, reason);
    }

    #[test]
    fn two_keys_of_a_peer_are_held_with_the_preshared_key_of_their_generation() {
        let more = format!(
            "generation = 3\npreshared = true\n\
             [overlap]\npublic-key = \"{}\"\npreshared = true\nuntil = 2026-11-22T20:05:00Z\n",
            KEYS[1]
        );
        let codex = codex(&[("phone", 0, &more)]);
        let whole = examine(codex.clone(), None, |file| Ok(shared(if file.contains(".3.") { 3 } else { 2 })));
        assert_eq!(whole.preshared, PresharedKeys::from([(key(0), shared(3)), (key(1), shared(2))]));
        let desired = Desired::of(&whole.codex, key(2), &DialTargets::new(), &whole.preshared);
        assert_eq!(desired.overlaps, [(key(1), key(0))].into());
        let new = examine(codex, None, |file| file.contains(".3.").then(|| shared(3)).ok_or("gone".into()));
        assert_eq!((names(&new), new.unfit.len()), (vec!["phone"], 1));
        let desired = Desired::of(&new.codex, key(2), &DialTargets::new(), &new.preshared);
        assert_eq!((desired.peers.len(), desired.overlaps.len()), (1, 0));
    }

    #[test]
    fn a_peer_with_our_own_key_is_told_and_left_out() {
        let fit = examine(codex(&[("mirror", 0, ""), ("phone", 1, "")]), Some(key(0)), |_| unreachable!());
        assert_eq!(names(&fit), ["phone"]);
        assert!(fit.unfit[0].reason.contains("this host's own"), "{}", fit.unfit[0].reason);
    }
}
