use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::codex::{Codex, Sources};
use crate::peer::store::may;

const NOW: u64 = 1_800_000_000;

fn codex() -> Codex {
    let peer = |last: u8, grants: &str, more: &str| {
        let key = crate::sys::wireguard::SecretKey::generate().public();
        format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = [{grants}]\n{more}")
    };
    let sources: Sources = [
        ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
        ("peers/laptop.toml", peer(2, "\"rebirth\"", "")),
        ("peers/phone.toml", peer(3, "\"*\", \"bonds\"", "")),
        ("peers/archivist.toml", peer(5, "\"snapshots\"", "")),
        ("peers/guest.toml", peer(4, "\"rebirth\"", "expires = 2001-01-01T00:00:00Z\n")),
    ]
    .into_iter()
    .collect();
    Codex::parse(&sources).unwrap()
}

fn intent(peer: &str, wish: Wish) -> Intent {
    of(Who::Peer(peer.parse().unwrap()), wish)
}

fn of(who: Who, wish: Wish) -> Intent {
    let nonce = "0123456789abcdef".parse().unwrap();
    Intent { schema: SCHEMA, nonce, who, at: Timestamp::from_epoch(NOW), wish }
}

fn rollback() -> Wish {
    Wish::Rollback { leave: "2~rc1".parse().unwrap() }
}

fn stage(source: &str) -> Wish {
    Wish::Stage { source: source.to_owned(), allow_downgrade: false }
}

fn create() -> Wish {
    Wish::CreateSnapshot(Create { note: Some("before the move".to_owned()), ..Create::default() })
}

fn verify() -> Wish {
    Wish::VerifySnapshot(Named::default())
}

fn prune() -> Wish {
    Wish::PruneSnapshots(Prune { keep: NonZeroUsize::MIN })
}

fn restore() -> Wish {
    let revive = ["phone".parse().unwrap()].into();
    Wish::RestoreSnapshot(Restore { revive, with_volumes: true, ..Restore::default() })
}

fn judged(intent: &Intent, used: &[&str], now: u64) -> Result<(), String> {
    let used = used.iter().map(|&file| file.to_owned()).collect();
    let now = Timestamp::from_epoch(now);
    let codex = codex();
    intent.judge(
        &intent.file(),
        &used,
        |door| may(&intent.who, door, &codex, now).map_err(|refused| refused.message),
        now,
    )
}

#[test]
fn an_intent_reads_back_as_it_was_written() {
    let activate = Wish::Activate { digest: Sha256Digest::of(b"") };
    let wishes = [stage("https://a/"), activate, rollback(), create(), verify(), restore()];
    let intents = wishes.map(|wish| intent("laptop", wish));
    for intent in intents.into_iter().chain([of(Who::Console, rollback())]) {
        assert_eq!(Intent::parse(&serde_json::to_vec(&intent).unwrap()).unwrap(), intent);
    }
}

#[test]
fn only_who_holds_the_grant_is_heard_and_only_once_and_soon() {
    let good = intent("laptop", stage("https://updates.example/2.tar"));
    judged(&good, &[], NOW).unwrap();
    judged(&good, &["fedcba9876543210.json"], NOW + 3600).unwrap();
    let why = |intent: &Intent, used: &[&str], now| judged(intent, used, now).unwrap_err();
    assert!(why(&good, &["0123456789abcdef.json"], NOW).contains("used before"));
    for now in [NOW + 3601, NOW - 301] {
        assert!(why(&good, &[], now).contains("which is not now"));
    }
    for peer in ["phone", "guest", "nobody"] {
        assert!(why(&intent(peer, stage("https://a/b")), &[], NOW).contains("the grant `rebirth`"));
    }
    for source in ["/etc/passwd", "updates", "../x.tar"] {
        assert!(why(&intent("laptop", stage(source)), &[], NOW).contains("not a path"));
    }
    let other = good.judge("other.json", &BTreeSet::new(), |_| Ok(()), Timestamp::from_epoch(NOW));
    assert!(other.unwrap_err().contains("nonce"));
}

#[test]
fn at_the_console_there_is_only_the_way_back() {
    judged(&of(Who::Console, rollback()), &[], NOW).unwrap();
    judged(&of(Who::Console, rollback()), &[], NOW + 7200).unwrap();
    assert!(judged(&of(Who::Console, rollback()), &["0123456789abcdef.json"], NOW).is_err());
    assert!(judged(&of(Who::Uid(0), rollback()), &[], NOW).unwrap_err().contains("uid 0 has no such"));
    for wish in [stage("https://a/"), create(), verify(), restore(), prune()] {
        assert!(judged(&of(Who::Console, wish), &[], NOW).unwrap_err().contains("console has no such"));
    }
}

#[test]
fn each_wish_needs_the_grant_of_its_own_door() {
    for (peer, door, wishes) in [
        ("laptop", "snapshots", [stage("https://a/"), create(), verify(), restore(), prune()]),
        ("archivist", "rebirth", [create(), stage("https://a/"), verify(), restore(), prune()]),
    ] {
        for wish in wishes {
            let held = (wish.door() == Door::Rebirth) == (peer == "laptop");
            match judged(&intent(peer, wish), &[], NOW) {
                Ok(()) => assert!(held, "{peer}"),
                Err(why) => assert!(!held && why.contains(&format!("the grant `{door}`")), "{why}"),
            }
        }
    }
}

#[test]
fn of_a_long_plan_the_beginning_is_kept_however_often_it_is_read() {
    let restored = |plan| {
        let (name, before) = ("2026-11-29T160000Z".to_owned(), Some("2026-11-29T160100Z".to_owned()));
        let outcome = Some(Outcome::Restored(Restored { name, plan, before }));
        let (at, file) = (Timestamp::from_epoch(NOW), "0123456789abcdef.json".to_owned());
        Record { at, file, peer: None, state: State::Done, reason: None, exit_code: None, outcome }.bounded()
    };
    let plan = |record: &Record| match &record.outcome {
        Some(Outcome::Restored(restored)) => restored.plan.clone(),
        other => panic!("{other:?}"),
    };
    let short = vec!["+ peer phone".to_owned(); 3];
    assert_eq!(plan(&restored(short.clone())), short);
    for long in [vec!["+ peer phone".to_owned(); 10_000], vec!["x".repeat(1000); 3]] {
        let cut = restored(long);
        assert!(plan(&cut).last().unwrap() == "…" && serde_json::to_vec(&cut).unwrap().len() < 4096);
        assert_eq!(records(&serde_json::to_string(&cut).unwrap()), [cut]);
    }
}

#[test]
fn what_a_newer_body_has_to_tell_of_a_wish_is_left_out_and_that_it_is_done_is_not() {
    let line = |outcome: &str| {
        format!(
            r#"{{"at":"2026-11-29T16:00:00Z","file":"0123456789abcdef.json","peer":"laptop","state":"done","reason":null,"outcome":{outcome}}}"#
        )
    };
    let read = records(&[line(r#"{"washed":{"name":"x"}}"#), line(r#"{"created":{"name":"x"}}"#)].join("\n"));
    let outcomes: Vec<_> = read.iter().map(|record| (record.state, record.outcome.is_some())).collect();
    assert_eq!(outcomes, [(State::Done, false), (State::Done, true)]);
}

#[test]
fn of_many_removed_snapshots_the_others_are_counted() {
    let removed = vec!["2026-11-29T160000Z".to_owned(); 100];
    let cut = Outcome::Pruned { removed, more: 0 }.bounded();
    let Outcome::Pruned { removed, more } = &cut else { panic!("another outcome") };
    assert!(*more > 0 && removed.len() + more == 100);
    assert_eq!(cut.clone().bounded(), cut, "however often it is read");
}

#[test]
fn of_each_of_the_latest_intents_the_last_is_told() {
    let record = |index: usize, state| {
        let (at, file) = (Timestamp::from_epoch(NOW), format!("{index}.json"));
        Record { at, file, peer: None, state, reason: None, exit_code: None, outcome: None }
    };
    let all = (0..100).flat_map(|index| [record(index, State::Taken), record(index, State::Done)]);
    let told = latest(all.chain([record(100, State::Taken)]).collect());
    let told: Vec<_> = told.iter().map(|record| (record.file.as_str(), record.state)).collect();
    assert_eq!(told.len(), TOLD);
    assert_eq!(told[TOLD - 2..], [("99.json", State::Done), ("100.json", State::Taken)]);
}

#[test]
fn what_is_not_known_is_no_intent() {
    let good = serde_json::to_value(intent("laptop", stage("https://a/"))).unwrap();
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = good.clone();
        changed[key] = value;
        Intent::parse(changed.to_string().as_bytes()).unwrap_err()
    };
    assert!(with("schema", 2.into()).contains("schema 2"));
    assert!(with("wish", serde_json::json!({"run": {"command": "sh"}})).contains("unknown variant"));
    assert!(
        with("wish", serde_json::json!({"stage": {"source": "https://a/", "as": "root"}}))
            .contains("unknown field")
    );
    assert!(with("wish", serde_json::json!({"create-snapshot": {"to": "/etc"}})).contains("unknown field"));
    assert!(with("shell", "sh".into()).contains("unknown field"));
    for nonce in ["", "0123456789abcde", "../../../../etc/x", "0123456789ABCDEF"] {
        assert!(with("nonce", nonce.into()).contains("a nonce is"), "{nonce}");
    }
    assert!(with("who", "laptop".into()).contains("who asks is written"));
    assert!(with("who", "x".repeat(5000).into()).contains("longer than"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Intent::parse(&bytes);
        let _ = records(&String::from_utf8_lossy(&bytes));
    }
}
