use proptest::prelude::*;

use super::*;
use crate::codex::key::SharedKey;
use crate::codex::{Overlap, PeerState};
use crate::peer::{Bond, Ending, Extend, Kind, Request, Revoke, Rotate, Situation, change};

const LAW: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nnetwork = \"10.88.16.0/26\"\nendpoint = \"lychd.example\"\nfence = \"1h\"\n";
const NOW: u64 = 1_795_000_000;

/// A folder of bonds in memory: requests and restores change it as the store does.
#[derive(Debug, Clone)]
struct Folder {
    sources: Sources,
    now: u64,
    keys: u8,
}

impl Folder {
    fn new() -> Self {
        let mut sources = Sources::default();
        sources.insert("lychd.toml", LAW);
        Self { sources, now: NOW, keys: 1 }
    }

    fn codex(&self) -> Codex {
        Codex::parse(&self.sources).unwrap_or_else(|mistakes| {
            panic!("{}", crate::codex::render_all(&mistakes, &self.sources, false))
        })
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_epoch(self.now)
    }

    /// A key that nobody ever had.
    fn fresh(&mut self) -> PublicKey {
        self.keys += 1;
        PublicKey::try_from([self.keys; 32]).unwrap()
    }

    /// Whether it was granted.
    fn ask(&mut self, request: &Request) -> bool {
        let codex = self.codex();
        let situation = Situation {
            codex: &codex,
            sources: &self.sources,
            broken: &[],
            host_key: None,
            now: self.time(),
        };
        let Ok(change) = change(request, &situation, &mut || SharedKey::new([9; 32]).unwrap()) else {
            return false;
        };
        self.sources.insert(change.file, change.text);
        let lines: Vec<_> = change.ledger.iter().map(|entry| format!("{entry}\n")).collect();
        self.sources.insert("revoked", self.ledger() + &lines.concat());
        true
    }

    fn ledger(&self) -> String {
        self.sources.text("revoked").unwrap_or_default().to_owned()
    }

    fn bond(&mut self, name: &str) -> bool {
        let public_key = self.fresh();
        self.ask(&Request::Bond(Bond {
            name: name.parse().unwrap(),
            public_key,
            address: None,
            address6: None,
            kind: Kind::Device,
            grants: Vec::new(),
            expires: None,
            preshared: false,
            dial: None,
            client: false,
        }))
    }

    fn revoke(&mut self, name: &str) -> bool {
        self.ask(&Request::Revoke(Revoke { name: name.parse().unwrap(), reason: None }))
    }

    fn rotate(&mut self, name: &str, overlap: bool) -> bool {
        let public_key = self.fresh();
        self.ask(&Request::Rotate(Rotate {
            name: name.parse().unwrap(),
            public_key,
            preshared: false,
            overlap: overlap.then(|| "2h".parse().unwrap()),
            dial: None,
            client: false,
        }))
    }

    fn extend(&mut self, name: &str, seconds: Option<u64>) -> bool {
        let expires = seconds.map(|seconds| Timestamp::from_epoch(self.now + seconds));
        let expires = expires.map(Ending::At);
        self.ask(&Request::Extend(Extend { name: name.parse().unwrap(), expires }))
    }

    fn merge(&self, soul: &Self, revive: &[&str]) -> Result<Merge, Refused> {
        let (codex, other) = (self.codex(), soul.codex());
        let revive = revive.iter().map(|name| name.parse().unwrap()).collect();
        let now = Bonds { codex: &codex, sources: &self.sources };
        merge(now, Bonds { codex: &other, sources: &soul.sources }, &revive, self.time())
    }

    fn restore(&mut self, soul: &Self, revive: &[&str]) -> Merge {
        let merged = self.merge(soul, revive).unwrap_or_else(|refused| panic!("{refused:?}"));
        assert_eq!(Codex::parse(&merged.sources).unwrap(), merged.codex);
        self.sources = merged.sources.clone();
        merged
    }

    /// Keys that are let in.
    fn living(&self) -> BTreeSet<PublicKey> {
        let codex = self.codex().as_of(self.time());
        let overlap = |overlap: &Overlap| overlap.public_key;
        let keys = codex
            .active()
            .flat_map(|(_, peer)| [Some(peer.public_key), peer.overlap.as_ref().map(overlap)])
            .flatten();
        keys.collect()
    }

    fn dead(&self) -> BTreeSet<PublicKey> {
        dead(&self.codex(), self.time())
    }

    fn key(&self, name: &str) -> PublicKey {
        self.codex().peers[&name.parse::<Name>().unwrap()].public_key
    }
}

#[test]
fn who_was_revoked_since_stays_revoked_unless_revived() {
    let mut now = Folder::new();
    now.bond("phone");
    now.bond("laptop");
    let soul = now.clone();
    now.revoke("phone");
    now.extend("laptop", Some(60));
    let key = soul.key("phone");
    let mut kept = now.clone();
    let merged = kept.restore(&soul, &[]);
    assert_eq!(merged.lines, ["= peer phone stays revoked"]);
    assert!(!kept.living().contains(&key) && kept.dead().contains(&key));
    assert_eq!(kept.sources.text("peers/laptop.toml"), soul.sources.text("peers/laptop.toml"));
    let merged = now.restore(&soul, &["phone"]);
    assert!(merged.lines[0].contains("phone comes back from the dead"), "{:?}", merged.lines);
    assert!(merged.changed.iter().any(|changed| changed.verb == Verb::Revive));
    assert!(now.living().contains(&key));
    // A second revocation holds again.
    now.revoke("phone");
    assert!(now.dead().contains(&key) && now.codex().revoked_keys.contains(&key));
}

#[test]
fn rotated_keys_do_not_come_back_not_even_while_they_overlap() {
    for overlap in [false, true] {
        let mut now = Folder::new();
        now.bond("phone");
        let soul = now.clone();
        now.rotate("phone", overlap);
        let new = now.key("phone");
        assert_eq!(now.restore(&soul, &[]).lines, ["= peer phone keeps its newer key"]);
        assert_eq!(now.key("phone"), new);
        now.now += 3 * 3600;
        now.restore(&soul, &[]);
        assert_eq!(now.living(), [new].into());
    }
}

#[test]
fn an_overlap_that_ended_since_does_not_begin_anew() {
    let mut now = Folder::new();
    now.bond("phone");
    let old = now.key("phone");
    now.rotate("phone", true);
    let soul = now.clone();
    assert!(soul.living().contains(&old));
    now.sources.insert("revoked", format!("{old} phone 1 2026-11-22T20:05:00Z\n"));
    let peer = soul.codex().peers[&"phone".parse::<Name>().unwrap()].clone();
    assert!(peer.overlap.as_ref().is_some_and(|overlap| overlap.public_key == old));
    now.restore(&soul, &[]);
    assert!(!now.living().contains(&old) && now.dead().contains(&old));
}

#[test]
fn who_has_expired_stays_expired_unless_revived() {
    let mut now = Folder::new();
    now.bond("phone");
    let soul = now.clone();
    now.extend("phone", Some(60));
    now.now += 120;
    let mut kept = now.clone();
    assert_eq!(kept.restore(&soul, &[]).lines, ["= peer phone stays expired"]);
    assert!(kept.living().is_empty());
    now.restore(&soul, &["phone"]);
    assert_eq!(now.living(), soul.living());
}

#[test]
fn a_lost_machine_comes_back_with_its_dead() {
    let mut soul = Folder::new();
    for name in ["phone", "laptop", "tv"] {
        soul.bond(name);
    }
    soul.revoke("tv");
    soul.rotate("phone", false);
    // What a new machine is seeded with: an older generation.
    let mut now = Folder::new();
    now.bond("phone");
    now.restore(&soul, &[]);
    assert_eq!(now.living(), soul.living());
    assert!(now.dead().is_superset(&soul.dead()));
    assert_eq!(now.codex().peers, soul.codex().peers);
}

#[test]
fn a_living_key_that_the_snapshot_knows_as_dead_dies() {
    let mut soul = Folder::new();
    soul.bond("phone");
    let key = soul.key("phone");
    let mut now = soul.clone();
    soul.revoke("phone");
    soul.sources.remove("peers/phone.toml");
    let merged = now.restore(&soul, &[]);
    assert_eq!(merged.behind.len(), 1, "not before the peer is a tombstone");
    assert!(now.living().is_empty() && now.dead().contains(&key));
}

#[test]
fn revivals_that_are_none_are_refused() {
    let mut now = Folder::new();
    now.bond("phone");
    let soul = now.clone();
    now.bond("laptop");
    now.revoke("laptop");
    for (name, part) in [("phone", "is bonded"), ("laptop", "no living bond"), ("ghost", "no living bond")] {
        assert!(now.merge(&soul, &[name]).unwrap_err().message.contains(part), "{name}");
    }
    now.revoke("phone");
    now.sources.insert(ledger::LAW_LEDGER, format!("{}\n", soul.key("phone")));
    assert!(now.merge(&soul, &["phone"]).unwrap_err().message.contains("the law itself"));
}

const NAMES: [&str; 4] = ["phone", "laptop", "tv", "wraith"];

#[derive(Debug, Clone)]
enum Step {
    Bond(usize),
    Revoke(usize),
    Rotate(usize, bool),
    Extend(usize, Option<u64>),
    Wait(u64),
    Keep,
    Restore(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => name().prop_map(Step::Bond),
        2 => name().prop_map(Step::Revoke),
        2 => (name(), any::<bool>()).prop_map(|(name, overlap)| Step::Rotate(name, overlap)),
        1 => (name(), proptest::option::of(1_u64..9000)).prop_map(|(name, end)| Step::Extend(name, end)),
        2 => (1_u64..9000).prop_map(Step::Wait),
        3 => Just(Step::Keep),
        3 => (0_usize..8).prop_map(Step::Restore),
    ]
}

/// Plays a life; what is kept on the way. At every step no dead key lives, and the dead stay dead.
fn play(steps: &[Step]) -> (Folder, Vec<Folder>) {
    let mut now = Folder::new();
    let mut kept = vec![now.clone()];
    let mut buried = BTreeSet::new();
    for step in steps {
        match step {
            Step::Bond(name) => drop(now.bond(NAMES[*name])),
            Step::Revoke(name) => drop(now.revoke(NAMES[*name])),
            Step::Rotate(name, overlap) => drop(now.rotate(NAMES[*name], *overlap)),
            Step::Extend(name, end) => drop(now.extend(NAMES[*name], *end)),
            Step::Wait(seconds) => now.now += seconds,
            Step::Keep => kept.push(now.clone()),
            Step::Restore(which) => {
                let soul = kept[which % kept.len()].clone();
                let ledger = now.codex().revoked_keys;
                if let Ok(merged) = now.merge(&soul, &[]) {
                    assert!(merged.codex.revoked_keys.is_superset(&ledger));
                    assert!(merged.codex.revoked_keys.is_superset(&soul.codex().revoked_keys));
                    now.restore(&soul, &[]);
                    assert!(now.merge(&soul, &[]).unwrap().is_empty(), "a second restore changes nothing");
                }
            }
        }
        buried.extend(now.dead());
        assert!(now.dead().is_superset(&buried), "a dead key is forgotten after {step:?}");
        assert!(now.living().is_disjoint(&buried), "a dead key lives after {step:?}");
    }
    (now, kept)
}

proptest! {
    #[test]
    fn no_life_brings_a_dead_key_back(steps in proptest::collection::vec(step(), 1..40)) {
        play(&steps);
    }

    #[test]
    fn two_restores_bury_the_same_in_either_order_and_the_last_one_decides(
        steps in proptest::collection::vec(step(), 1..30), first in 0_usize..8, second in 0_usize..8
    ) {
        let (now, kept) = play(&steps);
        let (one, two) = (&kept[first % kept.len()], &kept[second % kept.len()]);
        let after = |souls: [&Folder; 2]| {
            let mut folder = now.clone();
            for soul in souls {
                let merged = folder.merge(soul, &[]).ok()?;
                folder.sources = merged.sources;
            }
            Some(folder)
        };
        if let (Some(forth), Some(back)) = (after([one, two]), after([two, one])) {
            prop_assert_eq!(forth.dead(), back.dead());
            for (folder, last) in [(forth, two), (back, one)] {
                let known = last.codex().peers;
                let codex = folder.codex().as_of(folder.time());
                prop_assert!(codex.active().all(|(name, _)| known.contains_key(name)));
            }
        }
    }

    #[test]
    fn tombstones_stay_whatever_is_restored(steps in proptest::collection::vec(step(), 1..40)) {
        let (now, kept) = play(&steps);
        for soul in &kept {
            let Ok(merged) = now.merge(soul, &[]) else { continue };
            for (name, peer) in now.codex().peers {
                if peer.state == PeerState::Revoked {
                    prop_assert_eq!(&merged.codex.peers[&name], &peer);
                }
            }
        }
    }
}
