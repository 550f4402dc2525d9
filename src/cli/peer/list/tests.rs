//! Bonds and kernel in every combination.

use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

fn key(number: u8) -> PublicKey {
    PublicKey::try_from([number; 32]).unwrap()
}

fn view(name: &str, number: u8, state: StateWord) -> PeerView {
    PeerView {
        name: name.parse().unwrap(),
        public_key: key(number),
        address: format!("10.88.16.{number}").parse().unwrap(),
        address6: None,
        kind: "device".into(),
        routes: Vec::new(),
        grants: vec!["oculus".into()],
        state,
        generation: 1,
        preshared: true,
        created: None,
        expires: None,
        revoked: None,
        reason: None,
        overlap_until: None,
        overlap_public_key: None,
    }
}

/// What the door tells, as the agent writes it.
fn observed(peers: &[(u8, Option<u64>)]) -> Observed {
    let peers: Vec<_> = peers
        .iter()
        .map(|(number, ago)| {
            json!({
                "public_key": key(*number).to_string(), "endpoint": format!("192.0.2.{number}:51820"),
                "last_handshake": ago.map(|ago| NOW - ago), "received": 1536, "sent": 10, "denied": 3, "held": true,
            })
        })
        .collect();
    let told = json!({ "schema": 1, "interface": "wg0", "public_key": key(9).to_string(), "now": NOW, "peers": peers });
    parse(told.to_string().as_bytes()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_epoch(NOW)
}

#[test]
fn declared_and_observed_are_told_apart() {
    let declared = vec![
        view("absent", 2, StateWord::Active),
        view("expired", 3, StateWord::Expired),
        view("ghost", 4, StateWord::Revoked),
        view("here", 5, StateWord::Active),
        view("new", 6, StateWord::Active),
    ];
    let overview =
        join((declared, Vec::new()), Some(observed(&[(4, None), (5, Some(70)), (6, None), (8, Some(5))])));
    let expected = format!(
        "\
NAME                                          ADDRESS     KIND    GRANTS  STATE                        HANDSHAKE  ENDPOINT         RECEIVED  SENT  DENIED
absent                                        10.88.16.2  device  oculus  declared, not in the kernel  -          -                -         -     -
expired                                       10.88.16.3  device  oculus  expired                      -          -                -         -     -
ghost                                         10.88.16.4  device  oculus  revoked, still in the kernel  never      192.0.2.4:51820  1.50 KiB  10 B  3
here                                          10.88.16.5  device  oculus  active                       1 min ago  192.0.2.5:51820  1.50 KiB  10 B  3
new                                           10.88.16.6  device  oculus  active                       never      192.0.2.6:51820  1.50 KiB  10 B  3
{}  -           -       -       in the kernel, not declared  5 s ago    192.0.2.8:51820  1.50 KiB  10 B  3
",
        key(8)
    );
    let squeezed = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| {
                line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>().join("|")
            })
            .collect()
    };
    assert_eq!(squeezed(&overview.table(now())), squeezed(&expected));
}

#[test]
fn without_an_agent_nothing_is_said_of_the_kernel() {
    let overview = join((vec![view("phone", 2, StateWord::Active)], Vec::new()), None);
    assert_eq!(
        overview.table(now()),
        "NAME   ADDRESS     KIND    GRANTS  STATE\nphone  10.88.16.2  device  oculus  active\n"
    );
    let told = serde_json::to_value(&overview).unwrap();
    assert_eq!(told["observed"], false);
    for unknown in ["held", "last_handshake", "endpoint", "received", "sent", "denied"] {
        assert_eq!(told["peers"][0].get(unknown), Some(&json!(null)), "{unknown}");
    }
}

#[test]
fn the_kernel_is_told_as_json_beside_the_bond() {
    let told = join(
        (vec![view("phone", 2, StateWord::Active)], Vec::new()),
        Some(observed(&[(2, Some(0)), (8, None)])),
    );
    let told = serde_json::to_value(&told).unwrap();
    let phone = &told["peers"][0];
    assert_eq!(
        (&phone["name"], &phone["state"], &phone["held"]),
        (&json!("phone"), &json!("active"), &json!(true))
    );
    assert_eq!(phone["last_handshake"], "2027-01-15T08:00:00Z");
    assert_eq!((&phone["received"], &phone["denied"]), (&json!(1536), &json!(3)));
    assert_eq!(told["undeclared"][0]["public_key"], key(8).to_string());
}

#[test]
fn two_keys_of_one_peer_are_one_row() {
    let mut phone = view("phone", 2, StateWord::Active);
    phone.overlap_public_key = Some(key(3));
    phone.overlap_until = Some(Timestamp::from_epoch(NOW + 600));
    let overview = join((vec![phone], Vec::new()), Some(observed(&[(2, None), (3, Some(20))])));
    assert_eq!(overview.undeclared, []);
    let Some(Found::Sound(row)) = overview.find("phone") else { panic!("no phone") };
    assert_eq!(row.state(now()), "active, old key for 10 min");
    assert_eq!(
        (row.endpoint.as_deref(), row.received, row.denied),
        (Some("192.0.2.3:51820"), Some(3072), Some(3))
    );
}

#[test]
fn details_tell_all_that_is_known_and_nothing_else() {
    let mut phone = view("phone", 2, StateWord::Revoked);
    phone.reason = Some("lost\n\u{1b}[2J".into());
    let overview =
        join((vec![phone, view("laptop", 3, StateWord::Active)], Vec::new()), Some(observed(&[(3, None)])));
    let phone = overview.find("phone").unwrap().details(now());
    assert!(phone.contains("reason          lost␊␛[2J\n") && !phone.contains("endpoint"), "{phone}");
    let laptop = overview.find("laptop").unwrap().details(now());
    assert!(laptop.contains("handshake       never\n") && laptop.contains("packets denied  3\n"), "{laptop}");
    assert!(overview.find("pad").is_none());
}

#[test]
fn a_long_list_of_grants_is_cut_in_the_table() {
    let long = "a,".repeat(40);
    assert_eq!(shortened(&long).chars().count(), GRANTS + 1);
    assert_eq!((shortened(""), shortened("*")), ("-".to_owned(), "*".to_owned()));
}

#[test]
fn an_answer_of_another_kind_is_told() {
    assert!(parse(b"<html>").unwrap_err().to_string().contains("of different versions"));
}

#[test]
fn no_agent_is_no_failure_and_a_silent_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let door = folder.path().join("door.sock");
    assert_eq!(observe(&door).unwrap(), None);
    // The socket of an agent that was killed stays.
    drop(std::os::unix::net::UnixListener::bind(&door).unwrap());
    let failure = observe(&door).unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable);
    assert!(failure.to_string().contains("door.sock") && failure.to_string().contains("hint: "), "{failure}");
}

#[test]
fn ages_go_by_the_clock_of_whoever_looked() {
    let here = || vec![view("here", 5, StateWord::Active)];
    let wrong = Timestamp::from_epoch(NOW - 86400);
    let overview = join((here(), Vec::new()), Some(observed(&[(5, Some(70))])));
    let table = overview.table(overview.time(wrong));
    assert!(table.contains("1 min ago"), "{table}");
    assert_eq!(serde_json::to_value(&overview).unwrap()["now"], now().to_string());
    assert_eq!(join((here(), Vec::new()), None).time(wrong), wrong);
}

#[test]
fn a_broken_bond_is_marked_and_what_the_kernel_holds_of_it_is_no_strangers() {
    let place = crate::codex::Place::file("peers/wraith.toml");
    let mistake = crate::codex::Diagnostic::error("a slip\nin it", &place);
    let text = format!("public-key = \"{}\"\naddress = \"10.88.16.7\"\nslip", key(7));
    let broken = Broken::all(vec![mistake], &crate::codex::Sources::default(), |_| Some(text.clone()));
    let overview =
        join((vec![view("here", 5, StateWord::Active)], broken), Some(observed(&[(5, None), (7, Some(70))])));
    assert!(overview.undeclared.is_empty());
    let table = overview.table(now());
    let row = table.lines().find(|line| line.starts_with("wraith ")).unwrap();
    assert!(row.contains("broken: a slip␊in it") && row.contains("1 min ago"), "{table}");
    let told = overview.find("wraith").unwrap();
    let shown = told.details(now());
    for part in ["peers/wraith.toml", "10.88.16.7", &key(7).to_string(), "peer revoke wraith"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json = serde_json::to_value(told).unwrap();
    assert_eq!((&json["file"], &json["held"]), (&"peers/wraith.toml".into(), &true.into()));
}
