use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::codex::PeerState;

const LAW_TEXT: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nnetwork = \"10.88.16.0/28\"\nendpoint = \"lychd.example\"\nfence = \"1h\"\n";
const OCULUS: &str =
    "description = \"traces\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"tether\"\n";
const NOW: u64 = 1_795_000_000;

fn key(number: u8) -> PublicKey {
    PublicKey::try_from([number.max(2); 32]).unwrap()
}

/// A folder of bonds in memory: requests change it as the store does.
struct Bonds {
    sources: Sources,
    now: u64,
}

impl Bonds {
    fn new() -> Self {
        let mut sources = Sources::default();
        sources.insert("lychd.toml", LAW_TEXT);
        sources.insert("services/oculus.toml", OCULUS);
        Self { sources, now: NOW }
    }

    fn codex(&self) -> Codex {
        Codex::parse(&self.sources)
            .unwrap_or_else(|mistakes| panic!("{}", render_all(&mistakes, &self.sources, false)))
    }

    fn plan(&self, request: &Request) -> Result<Change, Refused> {
        let codex = self.codex();
        let now = Timestamp::from_epoch(self.now);
        let situation =
            Situation { codex: &codex, sources: &self.sources, broken: &[], host_key: Some(key(125)), now };
        change(request, &situation, &mut || SharedKey::new([9; 32]).unwrap())
    }

    /// Carries a change out; the folder must then hold exactly what the change promised.
    fn apply(&mut self, request: &Request) -> Result<Change, Refused> {
        let mut after = self.codex();
        let change = self.plan(request)?;
        change.apply(&mut after);
        self.sources.insert(change.file.clone(), change.text.clone());
        let mut ledger = self.sources.text("revoked").unwrap_or_default().to_owned();
        for entry in &change.ledger {
            ledger += &format!("{entry}\n");
        }
        self.sources.insert("revoked", ledger);
        assert_eq!(self.codex(), after);
        assert_eq!(self.codex().peers[&change.name], change.peer);
        assert_eq!(missing_entries(&after, Timestamp::from_epoch(self.now)), []);
        Ok(change)
    }
}

fn bond(name: &str, number: u8) -> Request {
    Request::Bond(Bond {
        name: name.parse().unwrap(),
        public_key: key(number),
        address: None,
        address6: None,
        kind: Kind::Device,
        grants: vec!["oculus".into()],
        expires: None,
        preshared: true,
        dial: None,
        client: false,
    })
}

fn revoke(name: &str) -> Request {
    Request::Revoke(Revoke { name: name.parse().unwrap(), reason: Some("lost".into()) })
}

fn rotate(name: &str, number: u8, overlap: Option<u64>) -> Request {
    let overlap = overlap.map(Length::from_seconds);
    Request::Rotate(Rotate {
        name: name.parse().unwrap(),
        public_key: key(number),
        preshared: true,
        overlap,
        dial: None,
        client: false,
    })
}

fn granting(name: &str, words: &[&str]) -> Granting {
    Granting { name: name.parse().unwrap(), grants: words.iter().map(ToString::to_string).collect() }
}

#[test]
fn a_bond_takes_the_lowest_free_address_and_its_preshared_key_comes_before_it() {
    let mut bonds = Bonds::new();
    let phone = bonds.apply(&bond("phone", 3)).unwrap();
    assert_eq!(phone.preshared.as_ref().unwrap().0, "peers/phone.1.psk");
    assert_eq!(phone.lines[0], format!("+ peer phone 10.88.16.2 {}", key(3)));
    assert_eq!(bonds.apply(&bond("laptop", 4)).unwrap().peer.address.to_string(), "10.88.16.3");
}

#[test]
fn a_revoked_peer_leaves_a_tombstone_and_its_address_rests_behind_the_fence() {
    let mut bonds = Bonds::new();
    bonds.apply(&bond("phone", 3)).unwrap();
    let gone = bonds.apply(&revoke("phone")).unwrap();
    assert_eq!(gone.peer.state, PeerState::Revoked);
    assert_eq!(gone.stale, ["peers/phone.1.psk"]);
    assert_eq!(gone.ledger.len(), 1);
    assert_eq!(bonds.apply(&bond("tablet", 4)).unwrap().peer.address.to_string(), "10.88.16.3");
    bonds.now += 3600;
    assert_eq!(bonds.apply(&bond("watch", 5)).unwrap().peer.address.to_string(), "10.88.16.2");
    let hint = bonds.plan(&revoke("phone")).unwrap_err().hint.unwrap();
    assert!(hint.contains("never returns"), "{hint}");
}

#[test]
fn a_restored_file_of_a_revoked_peer_is_refused_by_its_ledger() {
    let mut bonds = Bonds::new();
    let before = bonds.apply(&bond("phone", 3)).unwrap().text;
    bonds.apply(&revoke("phone")).unwrap();
    bonds.sources.insert("peers/phone.toml", before);
    let mistakes = Codex::parse(&bonds.sources).unwrap_err();
    assert!(mistakes[0].message.contains("was revoked"), "{}", mistakes[0].message);
}

#[test]
fn a_rotation_keeps_name_and_address_and_buries_the_old_key() {
    let mut bonds = Bonds::new();
    let first = bonds.apply(&bond("phone", 3)).unwrap();
    let second = bonds.apply(&rotate("phone", 4, None)).unwrap();
    assert_eq!((second.peer.address, second.peer.generation), (first.peer.address, 2));
    assert_eq!(second.stale, ["peers/phone.1.psk"]);
    assert!(bonds.codex().revoked_keys.contains(&key(3)));
    assert!(bonds.plan(&rotate("phone", 3, None)).is_err());
    assert!(bonds.plan(&bond("other", 3)).is_err());
}

#[test]
fn an_overlap_keeps_the_old_key_until_its_end_and_no_longer() {
    let mut bonds = Bonds::new();
    bonds.apply(&bond("phone", 3)).unwrap();
    let rotated = bonds.apply(&rotate("phone", 4, Some(600))).unwrap();
    assert_eq!((rotated.stale.len(), rotated.ledger.len()), (0, 0));
    let end = Timestamp::from_epoch(NOW + 600);
    let codex = bonds.codex();
    assert_eq!(codex.next_change(Timestamp::from_epoch(NOW)), Some(end));
    let name = "phone".parse().unwrap();
    assert!(codex.as_of(Timestamp::from_epoch(NOW + 599)).peers[&name].overlap.is_some());
    assert!(codex.as_of(end).peers[&name].overlap.is_none());
    // The file names the key until the peer's next change, and may not name one of the ledger.
    assert_eq!(missing_entries(&codex, end), []);
    assert!(bonds.plan(&bond("other", 3)).is_err());
    let gone = bonds.apply(&revoke("phone")).unwrap();
    assert_eq!(gone.stale, ["peers/phone.2.psk", "peers/phone.1.psk"]);
    assert_eq!(gone.ledger.len(), 2);
}

#[test]
fn expiry_is_in_the_future_and_can_be_extended() {
    let mut bonds = Bonds::new();
    bonds.apply(&bond("phone", 3)).unwrap();
    let ends = |ending| Request::Extend(Extend { name: "phone".parse().unwrap(), expires: Some(ending) });
    let extend = |at: u64| ends(Ending::At(Timestamp::from_epoch(at)));
    assert!(bonds.plan(&extend(NOW)).unwrap_err().message.contains("past"));
    bonds.apply(&extend(NOW + 60)).unwrap();
    bonds.now += 60;
    assert!(bonds.codex().as_of(Timestamp::from_epoch(bonds.now)).peers.is_empty());
    bonds.apply(&extend(bonds.now + 60)).unwrap();
    assert_eq!(bonds.codex().as_of(Timestamp::from_epoch(bonds.now)).peers.len(), 1);
    // A length counts from the time of the machine that holds the bonds, whenever it was asked for.
    bonds.now += 600;
    let length = bonds.apply(&ends(Ending::In(Length::from_seconds(30)))).unwrap();
    assert_eq!(length.peer.expires, Some(Timestamp::from_epoch(bonds.now + 30)));
    assert!(bonds.plan(&ends(Ending::In(Length::from_seconds(0)))).is_err());
}

#[test]
fn an_edit_keeps_what_a_person_wrote() {
    let mut bonds = Bonds::new();
    let text = format!(
        "# The magus's phone.\ngrants = [ \"oculus\" ] # traces\n\naddress = \"10.88.16.9\"\npublic-key = \"{}\" # of 2026\n",
        key(3)
    );
    bonds.sources.insert("peers/phone.toml", text.clone());
    let granted = bonds.apply(&Request::Grant(granting("phone", &["bonds"]))).unwrap();
    assert_eq!(granted.text, text.replace("\"oculus\" ]", "\"oculus\" , \"bonds\"]"));
    let back = bonds.apply(&Request::Ungrant(granting("phone", &["bonds"]))).unwrap();
    assert!(back.text.contains("# traces") && back.text.contains("# The magus's phone."), "{}", back.text);
    let rotated = bonds.apply(&rotate("phone", 4, None)).unwrap();
    assert!(rotated.text.contains(&format!("public-key = \"{}\" # of 2026", key(4))), "{}", rotated.text);
}

#[test]
fn a_service_of_the_host_is_granted_beside_all_and_stays_when_all_comes() {
    let mut bonds = Bonds::new();
    let law = bonds.sources.text("lychd.toml").unwrap().to_owned();
    bonds.sources.insert("lychd.toml", law + "\n[[host]]\nname = \"ssh\"\nport = 22\n");
    bonds.apply(&bond("phone", 3)).unwrap();
    for word in ["ssh", "*"] {
        bonds.apply(&Request::Grant(granting("phone", &[word]))).unwrap();
    }
    let granted = |bonds: &Bonds| bonds.codex().peers[&"phone".parse().unwrap()].grants.clone();
    assert!(granted(&bonds).every_service);
    assert_eq!(granted(&bonds).services.iter().map(Name::as_str).collect::<Vec<_>>(), ["ssh"]);
    bonds.apply(&Request::Ungrant(granting("phone", &["ssh"]))).unwrap();
    bonds.apply(&Request::Grant(granting("phone", &["ssh"]))).unwrap();
    assert!(granted(&bonds).every_service && granted(&bonds).services.len() == 1);
}

#[test]
fn grants_name_services_doors_or_all() {
    let mut bonds = Bonds::new();
    bonds.apply(&bond("phone", 3)).unwrap();
    let refused = bonds.plan(&Request::Grant(granting("phone", &["oculuss"]))).unwrap_err();
    assert!(refused.report.unwrap().contains("did you mean `oculus`?"));
    bonds.apply(&Request::Grant(granting("phone", &["*", "metrics"]))).unwrap();
    let grants = bonds.codex().peers[&"phone".parse().unwrap()].grants.clone();
    assert!(grants.every_service && grants.services.is_empty() && grants.doors.len() == 1);
    assert!(bonds.plan(&Request::Grant(granting("phone", &["oculus"]))).is_err());
    assert!(
        bonds
            .plan(&Request::Ungrant(granting("phone", &["oculus"])))
            .unwrap_err()
            .hint
            .unwrap()
            .contains('*')
    );
    assert!(bonds.plan(&Request::Grant(granting("phone", &[]))).is_err());
}

#[test]
fn a_peer_is_granted_another_one_that_is_bonded() {
    let mut bonds = Bonds::new();
    bonds.apply(&bond("phone", 3)).unwrap();
    let grant = |words: &[&str]| Request::Grant(granting("phone", words));
    bonds.apply(&grant(&["*"])).unwrap();
    let refused = bonds.plan(&grant(&["peer:crypt"])).unwrap_err();
    assert_eq!((refused.message.as_str(), refused.hint.is_some()), ("there is no peer `crypt`", true));
    let itself = bonds.plan(&grant(&["peer:phone"])).unwrap_err();
    assert!(itself.report.unwrap().contains("`phone` is granted itself"));
    let Request::Bond(mut crypt) = bond("crypt", 4) else { unreachable!() };
    let routes = vec!["10.99.7.0/24".to_owned()];
    crypt.kind = Kind::Lych { endpoint: None, keepalive: None, routes };
    bonds.apply(&Request::Bond(crypt)).unwrap();
    let refused = bonds.plan(&grant(&["peer:krypt"])).unwrap_err();
    assert_eq!(refused.hint.unwrap(), "did you mean `crypt`?");
    // Neither side needs the other one's file to be read.
    let granted = bonds.apply(&grant(&["peer:crypt"])).unwrap();
    assert_eq!(
        granted.lines,
        ["+ grant phone peer:crypt", "~ 10.99.7.0/24 belongs into the AllowedIPs of phone"]
    );
    assert!(bonds.plan(&grant(&["peer:crypt"])).unwrap_err().message.contains("already"));
    bonds.apply(&Request::Grant(granting("crypt", &["peer:phone"]))).unwrap();
    bonds.apply(&revoke("crypt")).unwrap();
    let grants = &bonds.codex().peers[&"phone".parse().unwrap()].grants;
    assert!(grants.every_service && grants.peers.len() == 1, "a revocation touches nobody else's file");
    bonds.apply(&Request::Ungrant(granting("phone", &["peer:crypt"]))).unwrap();
    assert!(bonds.plan(&grant(&["peer:crypt"])).unwrap_err().message.contains("is revoked"));
}

#[test]
fn keys_that_are_somebody_elses_are_refused() {
    let mut bonds = Bonds::new();
    bonds.apply(&bond("phone", 3)).unwrap();
    for (request, words) in [
        (bond("laptop", 3), "`phone`'s"),
        (bond("laptop", 125), "the appliance's own"),
        (rotate("phone", 3, None), "`phone`'s"),
        (bond("phone", 4), "is taken"),
        (revoke("fone"), "no peer"),
    ] {
        let refused = bonds.plan(&request).unwrap_err();
        assert!(refused.message.contains(words), "{}", refused.message);
    }
    assert_eq!(bonds.plan(&revoke("fone")).unwrap_err().hint.unwrap(), "did you mean `phone`?");
}

#[test]
fn a_full_network_says_when_an_address_comes_free() {
    let mut bonds = Bonds::new();
    for number in 0..13 {
        bonds.apply(&bond(&format!("p{number}"), 3 + number)).unwrap();
    }
    assert!(bonds.plan(&bond("late", 100)).unwrap_err().hint.unwrap().contains("larger"));
    bonds.apply(&revoke("p4")).unwrap();
    let refused = bonds.plan(&bond("late", 100)).unwrap_err();
    assert!(refused.hint.unwrap().contains("comes free"), "{}", refused.message);
    bonds.now += 3600;
    assert_eq!(bonds.apply(&bond("late", 100)).unwrap().peer.address.to_string(), "10.88.16.6");
}

#[test]
fn a_request_reads_back_from_its_json_and_unknown_keys_are_refused() {
    let request = bond("phone", 3);
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    let short = format!("{{\"verb\":\"bond\",\"name\":\"phone\",\"public_key\":\"{}\"}}", key(3));
    assert!(serde_json::from_str::<Request>(&short).is_ok());
    assert!(serde_json::from_str::<Request>(&short.replace("name", "nom")).is_err());
    assert!(serde_json::from_str::<Request>("{\"verb\":\"list\"}").is_ok());
    // A moment is written as it always was; older appliances refuse a length, which they would not understand.
    for (text, ending) in [
        ("2026-12-31T18:00:00Z", Ending::At(Timestamp::from_epoch(1_798_740_000))),
        ("30days", Ending::In(Length::from_seconds(30 * 86400))),
    ] {
        let extend = Request::Extend(Extend { name: "phone".parse().unwrap(), expires: Some(ending) });
        let json = format!("{{\"verb\":\"extend\",\"name\":\"phone\",\"expires\":\"{text}\"}}");
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), extend);
    }
}

#[derive(Debug, Clone)]
enum Move {
    Bond(u8),
    Revoke(u8),
    Rotate(u8, Option<u64>),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..8u8).prop_map(Move::Bond),
        2 => (0..8u8).prop_map(Move::Revoke),
        2 => ((0..8u8), prop_oneof![Just(None), (1..2000u64).prop_map(Some)]).prop_map(|(peer, overlap)| Move::Rotate(peer, overlap)),
        1 => (1..4000u64).prop_map(Move::Wait),
    ];
    proptest::collection::vec(one, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is asked for in whatever order: no key serves twice, no address has two holders, generations only
    /// grow, and the folder stays valid.
    #[test]
    fn no_history_revives_a_key(moves in moves()) {
        let mut bonds = Bonds::new();
        let mut keys = 2u8;
        let mut dead = BTreeSet::new();
        for step in moves {
            let before = bonds.codex();
            keys += 1;
            let done = match step {
                Move::Bond(peer) => bonds.apply(&bond(&format!("p{peer}"), keys)),
                Move::Revoke(peer) => bonds.apply(&revoke(&format!("p{peer}"))),
                Move::Rotate(peer, overlap) => bonds.apply(&rotate(&format!("p{peer}"), keys, overlap)),
                Move::Wait(seconds) => { bonds.now += seconds; continue }
            };
            let Ok(done) = done else { continue };
            if let Some(old) = before.peers.get(&done.name) {
                prop_assert_eq!(old.address, done.peer.address);
                prop_assert!(done.peer.generation >= old.generation);
            }
            let after = bonds.codex();
            dead.extend(after.revoked_keys.iter().copied());
            let now = after.as_of(Timestamp::from_epoch(bonds.now));
            let mut addresses = BTreeSet::new();
            for (_, peer) in now.active() {
                prop_assert!(addresses.insert(peer.address));
                prop_assert!(!dead.contains(&peer.public_key));
                prop_assert!(peer.overlap.as_ref().is_none_or(|overlap| !dead.contains(&overlap.public_key)));
            }
        }
        prop_assert!(bonds.codex().revoked_keys.is_superset(&dead));
    }
}
