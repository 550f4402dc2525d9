//! Who may bond at the console.
//!
//! The first device is bonded by whoever sits there: until then the machine is nobody's. From then on it takes a device
//! that may manage bonds and is online, or the recovery phrase. A site that is always online proves nothing about who sits here, so
//! it does not count; nor does a machine become nobody's again when its peers are revoked or expire.

use std::time::Duration;

use crate::cli::recovery::Phrase;
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Door, PeerKind};
use crate::peer::store::Bonds;
use crate::peer::{Observed, Refused};
use crate::tree::Sha256Digest;

/// A device whose last handshake is not older than this, in seconds, is online: WireGuard makes a new one every two
/// minutes while there is traffic.
const PRESENT: u64 = 180;
/// So much later than the agent's time a handshake may be, in seconds: the agent notes the time, then looks.
const BEHIND: u64 = 10;
/// The longest wait after a wrong phrase.
const LONGEST: Duration = Duration::from_secs(30);

/// What it takes to bond a device now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it is the first.
    First,
    /// Nothing more: this device is online.
    Present(Name),
    /// The recovery phrase of this digest, if one was ever made.
    Phrase(Option<Sha256Digest>),
}

impl Proof {
    /// Refuses what takes more `now` than was proven: others may have bonded while questions stood open.
    pub fn still_suffices(&self, now: &Self) -> Result<(), Refused> {
        match (self, now) {
            (Self::Phrase(_), _) | (Self::First, Self::First) | (Self::Present(_), Self::Present(_)) => {
                Ok(())
            }
            _ => Err(Refused::new("what vouched for this is gone", "ask again")),
        }
    }
}

/// Decides what it takes.
pub fn needed(
    bonds: &Bonds,
    recovery: Option<Sha256Digest>,
    observed: Option<&Observed>,
    now: Timestamp,
) -> Proof {
    // A bond that cannot be read is one all the same.
    if bonds.codex.peers.is_empty() && bonds.broken.is_empty() && recovery.is_none() {
        return Proof::First;
    }
    let current = bonds.codex.as_of(now);
    let mut devices = current
        .active()
        .filter(|(_, peer)| peer.kind == PeerKind::Device && peer.grants.doors.contains(&Door::Bonds));
    let present = devices.find(|(_, peer)| observed.is_some_and(|seen| is_online(seen, &peer.public_key)));
    match present {
        Some((name, _)) => Proof::Present(name.clone()),
        None => Proof::Phrase(recovery),
    }
}

/// Ages are told by the clock of whoever looked. A handshake that is yet to come is from before that was set back, and as
/// old as anything.
fn is_online(observed: &Observed, key: &crate::codex::key::PublicKey) -> bool {
    let recent = |at: u64| {
        at > 0 && at <= observed.now.saturating_add(BEHIND) && observed.now.saturating_sub(at) < PRESENT
    };
    let mut held = observed.peers.iter().filter(|peer| peer.public_key == *key && peer.held);
    held.any(|peer| peer.last_handshake.is_some_and(recent))
}

/// Whether what was typed is the phrase.
pub fn is_phrase(typed: &str, digest: Sha256Digest) -> bool {
    Phrase::parse(typed).is_some_and(|phrase| phrase.digest() == digest)
}

/// How long to wait after so many wrong phrases in a row.
pub fn delay(wrong: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(wrong.saturating_sub(1))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codex::{Codex, Sources};
    use crate::peer::ObservedPeer;
    use crate::sys::wireguard::SecretKey;

    const NOW: u64 = 2_000_000_000;

    fn bonds(peers: &[(&str, String)]) -> Bonds {
        let mut sources = Sources::default();
        sources.insert("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n");
        for (at, (name, more)) in peers.iter().enumerate() {
            let text = format!("address = \"10.88.16.{}\"\ngrants = [\"bonds\"]\n{more}", at + 2);
            sources.insert(format!("peers/{name}.toml"), text);
        }
        let codex = Codex::parse(&sources).unwrap();
        Bonds { codex, sources, broken: Vec::new(), flawed: Vec::new() }
    }

    fn key(secret: &SecretKey) -> String {
        format!("public-key = \"{}\"\n", secret.public())
    }

    fn seen(secret: &SecretKey, last_handshake: Option<u64>) -> Observed {
        let peer = ObservedPeer {
            public_key: secret.public(),
            endpoint: None,
            last_handshake,
            received: 0,
            sent: 0,
            denied: 0,
            held: true,
        };
        Observed {
            schema: 1,
            interface: "wg0".into(),
            public_key: None,
            now: NOW,
            peers: vec![peer],
            strays: Vec::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_epoch(NOW)
    }

    #[test]
    fn the_first_device_needs_no_proof_and_every_other_does() {
        assert_eq!(needed(&bonds(&[]), None, None, now()), Proof::First);
        let digest = Sha256Digest::of(b"phrase");
        assert_eq!(needed(&bonds(&[]), Some(digest), None, now()), Proof::Phrase(Some(digest)));
        let place = crate::codex::Place::file("peers/phone.toml");
        let slip = vec![crate::codex::Diagnostic::error("a slip", &place)];
        let broken = crate::peer::Broken::all(slip, &Sources::default(), |_| None);
        assert_eq!(needed(&Bonds { broken, ..bonds(&[]) }, None, None, now()), Proof::Phrase(None));
        let tombstone = key(&SecretKey::generate()) + "state = \"revoked\"\n";
        assert_eq!(needed(&bonds(&[("phone", tombstone)]), None, None, now()), Proof::Phrase(None));
    }

    #[test]
    fn a_device_with_a_fresh_handshake_is_present() {
        let secret = SecretKey::generate();
        let phone = bonds(&[("phone", key(&secret))]);
        let proof = |handshake| needed(&phone, None, Some(&seen(&secret, handshake)), now());
        assert_eq!(proof(Some(NOW - 10)), Proof::Present("phone".parse().unwrap()));
        assert_eq!(proof(Some(NOW - PRESENT)), Proof::Phrase(None));
        for handshake in [None, Some(0)] {
            assert_eq!(proof(handshake), Proof::Phrase(None));
        }
        let other = SecretKey::generate();
        assert_eq!(needed(&phone, None, Some(&seen(&other, Some(NOW))), now()), Proof::Phrase(None));
    }

    #[test]
    fn a_handshake_that_is_yet_to_come_proves_nothing() {
        let secret = SecretKey::generate();
        let phone = bonds(&[("phone", key(&secret))]);
        let proof = |handshake| needed(&phone, None, Some(&seen(&secret, Some(handshake))), now());
        assert_eq!(proof(NOW + 1), Proof::Present("phone".parse().unwrap()), "made while the agent looked");
        for handshake in [NOW + BEHIND + 1, NOW + 1000, u64::MAX] {
            assert_eq!(proof(handshake), Proof::Phrase(None), "{handshake}");
        }
    }

    #[test]
    fn a_device_that_may_not_manage_bonds_vouches_for_nobody() {
        let secret = SecretKey::generate();
        let mut guest = bonds(&[("guest", key(&secret))]);
        if let Some(peer) = guest.codex.peers.values_mut().next() {
            Arc::make_mut(peer).grants.doors.clear();
        }
        assert_eq!(needed(&guest, None, Some(&seen(&secret, Some(NOW))), now()), Proof::Phrase(None));
    }

    #[test]
    fn sites_and_those_who_are_bonded_no_more_prove_nothing() {
        let secret = SecretKey::generate();
        for more in ["kind = \"lych\"\n", "state = \"revoked\"\n", "expires = 2033-05-18T03:33:20Z\n"] {
            let site = bonds(&[("site", key(&secret) + more)]);
            let proof = needed(&site, None, Some(&seen(&secret, Some(NOW))), now());
            assert_eq!(proof, Proof::Phrase(None), "{more}");
        }
    }

    #[test]
    fn wrong_phrases_cost_more_and_more_time() {
        let waits: Vec<_> = [1, 2, 3, 5, 6, 7, u32::MAX].map(|wrong| delay(wrong).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 16, 30, 30, 30]);
        let phrase = Phrase::generate();
        assert!(is_phrase(&phrase.to_string().to_lowercase(), phrase.digest()));
        assert!(!is_phrase("wrong", phrase.digest()) && !is_phrase("", phrase.digest()));
    }
}
