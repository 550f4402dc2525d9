use std::os::unix::fs::symlink;

use super::*;
use crate::codex::time::Timestamp;
use crate::tree::Sha256Digest;

/// A machine with a peer that may.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let place = Place::appliance(root.path());
    fs::create_dir_all(&place.law).unwrap();
    fs::create_dir_all(&place.bonds.join("peers")).unwrap();
    fs::create_dir_all(&root.path().join("var/lib/sepulcher/rebirth")).unwrap();
    fs::create_dir_all(&folder(root.path())).unwrap();
    fs::write(&place.law.join("lychd.toml"), 0o644, b"schema = 1\n[appliance]\nname = \"lychd\"\n").unwrap();
    bond(root.path(), "laptop", 2);
    root
}

/// Bonds a peer that may.
fn bond(root: &Path, name: &str, last: u8) {
    let key = crate::sys::wireguard::SecretKey::generate().public();
    let peer = format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = [\"rebirth\"]\n");
    let file = Place::appliance(root).bonds.join(format!("peers/{name}.toml"));
    fs::write(&file, 0o644, peer.as_bytes()).unwrap();
}

fn wish() -> Wish {
    Wish::Activate { digest: Sha256Digest::of(b"") }
}

fn ask(root: &Path, nonce: &str) -> Result<String, Error> {
    put(root, &laptop(), &nonce.parse().unwrap(), &wish())
}

fn why(reason: &str) -> Why {
    Why { reason: reason.to_owned(), exit_code: 74 }
}

fn laptop() -> Who {
    Who::Peer("laptop".parse().unwrap())
}

/// Takes all that waits; what was carried out, and the states on record.
fn taken(root: &Path, answer: &Result<(), Why>) -> (Vec<Wish>, Vec<State>) {
    let mut carried_out = Vec::new();
    let mut act = |intent: &Intent| {
        carried_out.push(intent.wish.clone());
        Ended { result: answer.clone().map(|()| None), restart: false }
    };
    while !waiting(root).unwrap().is_empty() {
        assert!(!take(&Machine::new(root), &mut act).unwrap());
    }
    (carried_out, records(root).unwrap().into_iter().map(|record| record.state).collect())
}

#[test]
fn an_intent_is_carried_out_once() {
    let root = machine();
    ask(root.path(), "0123456789abcdef").unwrap();
    let path = folder(root.path()).join("0123456789abcdef.json");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(taken(root.path(), &Ok(())), (vec![wish()], vec![State::Taken, State::Done]));
    // The same again, by whatever way it comes.
    assert!(ask(root.path(), "0123456789abcdef").is_err());
    fs::write(&path, 0o600, &bytes).unwrap();
    assert_eq!(taken(root.path(), &Ok(())).0, []);
    assert!(records(root.path()).unwrap()[2].reason.as_ref().unwrap().contains("used before"));
}

#[test]
fn who_carries_it_out_knows_whose_it_is_and_what_came_of_it_is_on_record() {
    let root = machine();
    ask(root.path(), "0123456789abcdef").unwrap();
    let outcome = Some(Outcome::Created { name: "2026-11-29T160000Z".to_owned() });
    let mut act = |intent: &Intent| {
        assert_eq!(intent.who, laptop());
        Ended { result: Ok(outcome.clone()), restart: false }
    };
    take(&Machine::new(root.path()), &mut act).unwrap();
    assert_eq!(records(root.path()).unwrap().pop().unwrap().outcome, outcome);
}

#[test]
fn who_has_waited_longest_comes_first_and_nobody_before_a_restart_that_is_due() {
    let root = machine();
    let nonces = ["f", "8", "0"].map(|digit| digit.repeat(16));
    for (nonce, age) in nonces.iter().zip([60, 30, 0]) {
        ask(root.path(), nonce).unwrap();
        let path = folder(root.path()).join(format!("{nonce}.json"));
        let mut intent = Intent::parse(&fs::read(&path).unwrap()).unwrap();
        intent.at = Timestamp::from_epoch(intent.at.epoch() - age);
        fs::write(&path, 0o600, &serde_json::to_vec(&intent).unwrap()).unwrap();
    }
    let mut order = Vec::new();
    let mut act = |intent: &Intent| {
        order.push(intent.nonce.to_string());
        let result = Err(why("it is done, and its service does not start"));
        Ended { result, restart: order.len() == 2 }
    };
    let restarts = [(); 2].map(|()| take(&Machine::new(root.path()), &mut act).unwrap());
    assert_eq!(restarts, [false, true]);
    assert_eq!(order, nonces[..2]);
    let last = records(root.path()).unwrap().pop().unwrap();
    assert_eq!((last.state, last.exit_code), (State::Failed, Some(74)));
    assert_eq!(waiting(root.path()).unwrap().len(), 1);
    assert_eq!(taken(root.path(), &Ok(())).0.len(), 1);
}

#[test]
fn whoever_waits_for_what_the_machine_stopped_in_is_told_so_once() {
    let root = machine();
    ask(root.path(), "0123456789abcdef").unwrap();
    taken(root.path(), &Ok(()));
    ask(root.path(), "fedcba9876543210").unwrap();
    let died = std::panic::catch_unwind(|| {
        take(&Machine::new(root.path()), &mut |_| panic!("the power went")).unwrap();
    });
    assert!(died.is_err());
    let states = || records(root.path()).unwrap().into_iter().map(|record| record.state).collect::<Vec<_>>();
    assert_eq!(states(), [State::Taken, State::Done, State::Taken]);
    tidy(root.path()).unwrap();
    tidy(root.path()).unwrap();
    assert_eq!(states(), [State::Taken, State::Done, State::Taken, State::Failed]);
    let last = records(root.path()).unwrap().pop().unwrap();
    assert_eq!(last.file, "fedcba9876543210.json");
    assert!(last.reason.unwrap().contains("cut off"));
}

#[test]
fn a_wish_that_would_be_refused_for_its_length_is_not_kept() {
    let root = machine();
    let source = format!("https://a/{}", "x".repeat(5000));
    let wish = Wish::Stage { source, allow_downgrade: false };
    let nonce = "0123456789abcdef".parse().unwrap();
    let refused = put(root.path(), &laptop(), &nonce, &wish).unwrap_err();
    assert!(refused.to_string().contains("longer than 4096"), "{refused}");
    assert!(waiting(root.path()).unwrap().is_empty());
}

#[test]
fn one_that_was_cut_off_is_not_begun_again() {
    let root = machine();
    ask(root.path(), "0123456789abcdef").unwrap();
    let path = folder(root.path()).join("0123456789abcdef.json");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(taken(root.path(), &Err(why("the power went"))).1, [State::Taken, State::Failed]);
    // The power went before the file was gone: the list knows it.
    fs::write(&path, 0o600, &bytes).unwrap();
    assert_eq!(taken(root.path(), &Ok(())).0, []);
}

#[test]
fn whatever_else_lies_there_is_refused_recorded_and_removed() {
    let root = machine();
    let folder = folder(root.path());
    fs::write(&folder.join("a.json"), 0o600, b"{").unwrap();
    fs::write(&folder.join("b.json"), 0o600, &[b' '; 5000]).unwrap();
    symlink("/etc/passwd", folder.join("c.json")).unwrap();
    fs::create_dir_all(&folder.join("d.json/deep")).unwrap();
    fs::write(&folder.join("e"), 0o600, b"").unwrap();
    fs::write(&folder.join(".f.1.tmp"), 0o600, b"").unwrap();
    assert_eq!(taken(root.path(), &Ok(())), (vec![], vec![State::Refused; 5]));
    assert_eq!(fs::list(&folder).unwrap(), [folder.join(".f.1.tmp")]);
}

#[test]
fn a_broken_bond_keeps_nobody_else_from_being_heard_and_nothing_waiting() {
    let root = machine();
    let peers = Place::appliance(root.path()).bonds.join("peers");
    ask(root.path(), "0123456789abcdef").unwrap();
    fs::write(&peers.join("phone.toml"), 0o644, b"public-key = 1\n").unwrap();
    ask(root.path(), "fedcba9876543210").unwrap();
    assert_eq!(taken(root.path(), &Ok(())).0, [wish(), wish()]);
    // Without its own bond, and without any law, it is heard no more.
    for file in [peers.join("laptop.toml"), Place::appliance(root.path()).law.join("lychd.toml")] {
        ask(root.path(), "00000000000000aa").unwrap();
        let before = fs::read(&file).unwrap();
        fs::write(&file, 0o644, b"?").unwrap();
        assert_eq!(taken(root.path(), &Ok(())).0, []);
        let last = records(root.path()).unwrap().pop().unwrap();
        assert_eq!((last.state, last.file.as_str()), (State::Refused, "00000000000000aa.json"));
        fs::write(&file, 0o644, &before).unwrap();
    }
    // What is asked for at the console is of no peer.
    fs::write(&peers.join("laptop.toml"), 0o644, b"?").unwrap();
    let (nonce, leave) = ("00000000000000bb".parse().unwrap(), "2".parse().unwrap());
    put(root.path(), &Who::Console, &nonce, &Wish::Rollback { leave }).unwrap();
    assert_eq!(taken(root.path(), &Ok(())).0.len(), 1);
    assert_eq!(records(root.path()).unwrap().pop().unwrap().peer, None);
    // A tombstone with a slip in it could be what keeps somebody out.
    fs::write(&peers.join("phone.toml"), 0o644, b"state = \"revoked\"\npublic-key = 1\n").unwrap();
    assert!(codex(root.path()).unwrap_err().contains("mistake"));
}

#[test]
fn a_long_reason_is_cut_and_of_a_long_list_the_end_is_kept() {
    let root = machine();
    let long = "  peer ü: Address = 10.88.16.2 → 10.88.16.3\n".repeat(10_000);
    for round in 0..3 {
        ask(root.path(), &format!("{round:016x}")).unwrap();
        taken(root.path(), &Err(why(&long)));
    }
    let kept = records(root.path()).unwrap();
    assert!(kept.iter().all(|record| record.reason.as_ref().is_none_or(|reason| reason.len() < 2100)));
    assert_eq!(kept.len(), 6);
    // What was written before there was a bound.
    let line = serde_json::to_string(&Record { reason: Some(long), ..kept[5].clone() }).unwrap() + "\n";
    fs::write(&list_file(root.path()), 0o600, line.repeat(40).as_bytes()).unwrap();
    let kept = records(root.path()).unwrap();
    assert!((10..40).contains(&kept.len()), "{}", kept.len());
    assert!(kept.iter().all(|record| record.reason.as_ref().is_some_and(|reason| reason.len() < 2100)));
    ask(root.path(), "fedcba9876543210").unwrap();
    assert_eq!(taken(root.path(), &Ok(())).0, [wish()]);
}

#[test]
fn what_killed_writers_left_takes_no_place_and_goes_at_the_next_boot() {
    let root = machine();
    for index in 0..WAITING {
        fs::write(&folder(root.path()).join(format!(".{index}.json.{index}.tmp")), 0o600, b"").unwrap();
    }
    ask(root.path(), "0123456789abcdef").unwrap();
    tidy(root.path()).unwrap();
    assert_eq!(fs::list(&folder(root.path())).unwrap(), waiting(root.path()).unwrap());
    assert_eq!(waiting(root.path()).unwrap().len(), 1);
}

#[test]
fn only_so_many_wait_and_only_so_many_are_remembered() {
    let root = machine();
    for index in 0..SHARE {
        ask(root.path(), &format!("{index:016x}")).unwrap();
    }
    assert!(ask(root.path(), "ffffffffffffffff").unwrap_err().to_string().contains("too many"));
    // Another peer may still ask, until all places are taken; who sits at the console may then, too.
    bond(root.path(), "tablet", 3);
    let tablet = Who::Peer("tablet".parse().unwrap());
    let put = |who: &Who, nonce: &str, wish| put(root.path(), who, &nonce.parse().unwrap(), &wish);
    put(&tablet, "eeeeeeeeeeeeeeee", wish()).unwrap();
    for index in SHARE..WAITING {
        fs::write(&folder(root.path()).join(index.to_string()), 0o600, b"").unwrap();
    }
    assert!(put(&tablet, "dddddddddddddddd", wish()).unwrap_err().to_string().contains("too many"));
    let leave = "2".parse().unwrap();
    let back = Wish::Rollback { leave };
    put(&Who::Console, "cccccccccccccccc", back.clone()).unwrap();
    for index in SHARE..WAITING {
        fs::remove_file(&folder(root.path()).join(index.to_string())).unwrap();
    }
    let (_, next) = first(root.path()).unwrap().unwrap();
    assert_eq!(next.unwrap().wish, back, "it goes before those that came earlier");
    let mut known = records(root.path()).unwrap();
    for index in 0..RECORDS + 10 {
        let file = format!("{index}.json");
        let record = Record {
            at: clock::now(),
            file,
            peer: None,
            state: State::Refused,
            reason: None,
            exit_code: None,
            outcome: None,
        };
        if index < RECORDS + 9 {
            known.push(record);
        } else {
            note(root.path(), &mut known, record).unwrap();
        }
    }
    let kept = records(root.path()).unwrap();
    assert_eq!((kept.len(), kept.last().unwrap().file.as_str()), (RECORDS, "1009.json"));
}
