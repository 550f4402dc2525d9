//! Which address a new peer gets, whatever became of those before it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sepulcher::codex::key::{PublicKey, SharedKey};
use sepulcher::codex::time::Timestamp;
use sepulcher::codex::{Codex, Sources};
use sepulcher::peer::{self, Bond, Kind, Request, Situation};

const NOW: u64 = 1_800_000_000;
/// How long the address of a revoked peer rests.
const FENCE: u64 = 3600;
/// The first and the last address that a peer can have, counted from the network's own.
const ADDRESSES: std::ops::RangeInclusive<u8> = 2..=14;

/// What became of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Bonded,
    Expired,
    /// Revoked so many seconds ago.
    Revoked(u64),
    /// Revoked by hand: nobody knows when.
    Buried,
}

impl Fate {
    /// Whether nobody else may have the address.
    fn holds(self) -> bool {
        match self {
            Fate::Bonded | Fate::Expired | Fate::Buried => true,
            Fate::Revoked(ago) => ago < FENCE,
        }
    }

    fn toml(self) -> String {
        match self {
            Fate::Bonded => String::new(),
            Fate::Expired => format!("expires = {}\n", Timestamp::from_epoch(NOW - 1)),
            Fate::Revoked(ago) => {
                format!("state = \"revoked\"\nrevoked = {}\n", Timestamp::from_epoch(NOW - ago))
            }
            Fate::Buried => "state = \"revoked\"\n".to_owned(),
        }
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    // Around the end of the fence, where a second decides.
    let revoked = prop_oneof![0..10_000_u64, FENCE - 1..=FENCE + 1].prop_map(Fate::Revoked);
    prop_oneof![2 => Just(Fate::Bonded), 1 => Just(Fate::Expired), 3 => revoked, 1 => Just(Fate::Buried)]
}

fn key(number: u8) -> PublicKey {
    PublicKey::try_from([number; 32]).unwrap()
}

fn folder(peers: &BTreeMap<u8, Fate>) -> Sources {
    let law = format!(
        "schema = 1\n[appliance]\nname = \"lab\"\n[tether]\nnetwork = \"10.88.16.0/28\"\nnetwork6 = \"fd88::/64\"\nfence = \"{FENCE}s\"\n"
    );
    let mut sources = Sources::default();
    sources.insert("lychd.toml", law);
    for (last, fate) in peers {
        let key = key(100 + last);
        let own = format!(
            "public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\naddress6 = \"fd88::{last:x}\"\ngrants = []\n"
        );
        sources.insert(format!("peers/p{last}.toml"), own + &fate.toml());
    }
    sources
}

proptest! {
    #[test]
    fn a_new_peer_gets_the_lowest_address_that_nobody_holds(
        peers in proptest::collection::btree_map(ADDRESSES, fate(), 0..14)
    ) {
        let sources = folder(&peers);
        let codex = Codex::parse(&sources).unwrap();
        let situation =
            Situation { codex: &codex, sources: &sources, broken: &[], host_key: None, now: Timestamp::from_epoch(NOW) };
        let bond = Request::Bond(Bond {
            name: "new".parse().unwrap(),
            public_key: key(99),
            address6: None,
            address: None,
            kind: Kind::Device,
            grants: Vec::new(),
            expires: None,
            preshared: false,
            dial: None,
            client: false,
        });
        let got = peer::change(&bond, &situation, &mut || SharedKey::new([9; 32]).unwrap());
        let free = |last: &u8| peers.get(last).is_none_or(|fate| !fate.holds());
        if let Some(last) = ADDRESSES.into_iter().find(free) {
            let peer = got.unwrap().peer;
            prop_assert_eq!(peer.address.octets(), [10, 88, 16, last]);
            prop_assert_eq!(peer.address6, Some(format!("fd88::{last:x}").parse().unwrap()));
        } else {
            prop_assert_eq!(got.unwrap_err().message, "every address of 10.88.16.0/28 is taken");
        }
    }
}
