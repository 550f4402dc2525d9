use super::*;
use crate::codex::PeerState;
use crate::codex::migrate::Migration;
use crate::sys::wireguard::SecretKey;

const LAW: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n";
/// To 2: a comment stands in for whatever a schema may change, so that the real reader reads both.
const STEPS: &[Migration] = &[Migration {
    from: 1,
    change: |documents| {
        for document in documents.values_mut() {
            document.set_trailing("# of schema 2\n");
        }
    },
}];
const TWO: Forms<'static> = Forms { own: 2, steps: STEPS };
const ONE: Forms<'static> = Forms { own: 1, steps: &[] };

fn key() -> PublicKey {
    SecretKey::generate().public()
}

fn bond(key: PublicKey, last: u8) -> String {
    format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = []\n")
}

fn texts(files: &[(&str, &str)]) -> Texts {
    files.iter().map(|(name, text)| (format!("peers/{name}.toml"), (*text).to_owned())).collect()
}

fn decided(forms: Forms<'_>, held: Held<'_>, ledger: &str) -> Result<Next, Refused> {
    let law = [("lychd.toml", LAW), (LEDGER, ledger)].into_iter().collect();
    next(forms, held, &law, Timestamp::from_epoch(0))
}

fn held<'a>(schema: u32, now: &'a Texts, kept: Option<&'a Texts>, base: Option<&'a Texts>) -> Held<'a> {
    Held { schema, now, kept, base }
}

#[test]
fn every_bond_goes_forward() {
    let now = texts(&[("phone", &bond(key(), 2)), ("desk", &bond(key(), 3))]);
    let next = decided(TWO, held(1, &now, None, None), "").unwrap();
    assert_eq!(next.texts["peers/phone.toml"], format!("{}# of schema 2\n", now["peers/phone.toml"]));
    assert_eq!(next.codex.peers.len(), 2);
}

#[test]
fn a_law_that_does_not_hold_the_bonds_is_told_with_their_place() {
    let now = texts(&[("phone", &bond(key(), 2).replace("10.88.16", "10.99.0"))]);
    let refused = decided(TWO, held(1, &now, None, None), "").unwrap_err();
    assert!(refused.report.unwrap().contains("peers/phone.toml:2"));
}

#[test]
fn back_the_kept_bonds_return_and_nobody_who_was_revoked_since() {
    let (phone, desk, lost) = (key(), key(), key());
    let kept = texts(&[("phone", &bond(phone, 2)), ("desk", &bond(desk, 3)), ("lost", &bond(lost, 4))]);
    // Only the tombstone's file was written when the power was lost: its key is not in the ledger yet.
    let tomb = format!("{}state = \"revoked\"\n# of schema 2\n", bond(desk, 3));
    let now = texts(&[("phone", "unreadable here"), ("desk", &tomb), ("tablet", "bonded since")]);
    let next = decided(ONE, held(2, &now, Some(&kept), None), &format!("{lost} lost 1\n")).unwrap();
    let states: Vec<_> = next.codex.peers.iter().map(|(name, peer)| (name.as_str(), peer.state)).collect();
    let [active, revoked] = [PeerState::Active, PeerState::Revoked];
    assert_eq!(states, [("desk", revoked), ("lost", revoked), ("phone", active)]);
    assert_eq!(next.texts["peers/phone.toml"], kept["peers/phone.toml"]);
    assert_eq!(next.lines.len(), 2);
}

#[test]
fn newer_bonds_without_kept_ones_are_refused_with_the_way_out() {
    let refused = decided(ONE, held(2, &texts(&[]), None, None), "").unwrap_err();
    assert!(refused.message.contains("schema 2") && refused.message.contains("none of schema 1 were kept"));
    assert!(refused.hint.unwrap().contains("whose schema is 2"));
    assert!(decided(Forms { own: 2, steps: &[] }, held(1, &texts(&[]), None, None), "").is_err());
}

#[test]
fn forward_again_the_side_wins_that_changed_a_bond_and_the_dead_stay_dead() {
    let keys: Vec<PublicKey> = (0..7).map(|_| key()).collect();
    let text = |index: u8| bond(keys[usize::from(index)], index + 2);
    let granted = |index: u8, word: &str| text(index).replace("[]", &format!("[\"{word}\"]"));
    let tomb = |index: u8| format!("{}state = \"revoked\"\n", text(index));
    let base = texts(&[
        ("here", &text(0)),
        ("there", &text(1)),
        ("dead-here", &text(2)),
        ("dead-there", &text(3)),
        ("gone-there", &text(6)),
    ]);
    let now = texts(&[
        ("here", &granted(0, "metrics")),
        ("there", &text(1)),
        ("dead-here", &tomb(2)),
        ("dead-there", &granted(3, "metrics")),
        ("gone-there", &text(6)),
        ("new-here", &text(4)),
    ]);
    let kept = texts(&[
        ("here", &text(0)),
        ("there", &granted(1, "bonds")),
        ("dead-here", &text(2)),
        ("dead-there", &tomb(3)),
        ("new-there", &text(5)),
    ]);
    let next = decided(TWO, held(1, &now, Some(&kept), Some(&base)), "").unwrap();
    let names: Vec<_> = next.codex.peers.keys().map(Name::as_str).collect();
    assert_eq!(names, ["dead-here", "dead-there", "here", "new-here", "new-there", "there"]);
    assert_eq!(next.codex.active().count(), 4);
    assert!(next.texts["peers/here.toml"].contains("metrics"));
    assert!(next.texts["peers/there.toml"].contains("bonds"));
    assert!(is_tombstone(&next.texts["peers/dead-here.toml"]));
    assert!(is_tombstone(&next.texts["peers/dead-there.toml"]));
}

#[test]
fn one_address_that_two_bodies_gave_away_stays_with_the_bond_in_force() {
    // Whichever of the two the reader names first.
    for (own, other) in [("amber", "zinc"), ("zinc", "amber")] {
        let now = texts(&[(own, &bond(key(), 2))]);
        let kept = texts(&[(other, &bond(key(), 2))]);
        let base = Texts::new();
        let next = decided(TWO, held(1, &now, Some(&kept), Some(&base)), "").unwrap();
        assert_eq!(next.codex.peers.keys().map(Name::as_str).collect::<Vec<_>>(), [own]);
        assert!(next.lines[0].contains(&format!("peers/{other}.toml")), "{:?}", next.lines);
    }
}
