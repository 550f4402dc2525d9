use super::*;
use crate::codex::key::PublicKey;
use crate::codex::migrate::{FORMS, Migration};
use crate::codex::{PeerState, is_tombstone};
use crate::peer::audit::{FILE, Log};
use crate::peer::{Bond, Request, Revoke};
use crate::sys::wireguard::SecretKey;

/// To 2: a comment, so that the real reader reads both.
const STEPS: &[Migration] = &[Migration {
    from: 1,
    change: |documents| {
        for document in documents.values_mut() {
            document.set_trailing("# of schema 2\n");
        }
    },
}];
const TWO: Forms<'static> = Forms { own: 2, steps: STEPS };

/// A machine with one bond of schema 1, or what a body of `schema` wrote.
fn machine(text: &str) -> (tempfile::TempDir, Place) {
    let root = tempfile::tempdir().unwrap();
    let place = Place::appliance(root.path());
    fs::create_dir_all(&place.law).unwrap();
    fs::create_dir_all(&place.bonds.join("peers")).unwrap();
    let law = b"schema = 1\n[appliance]\nname = \"lychd\"\n";
    fs::write_atomic(&place.law.join("lychd.toml"), 0o644, law).unwrap();
    fs::write_atomic(&place.bonds.join("peers/phone.toml"), 0o644, text.as_bytes()).unwrap();
    (root, place)
}

fn bond(key: PublicKey, last: u8) -> String {
    format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = []\n")
}

fn key() -> PublicKey {
    SecretKey::generate().public()
}

/// What is in force: schema and texts.
fn in_force(place: &Place) -> (u32, Texts) {
    let peers = place.bonds.join("peers");
    (files::schema(&peers).unwrap(), texts(&peers).unwrap().unwrap())
}

fn change(place: &Place, request: &Request) {
    super::super::execute(place, &Who::Console, request, false).unwrap();
}

fn bonding(name: &str, key: PublicKey) -> Request {
    Request::Bond(Bond {
        name: name.parse().unwrap(),
        public_key: key,
        address: None,
        address6: None,
        kind: crate::peer::Kind::Device,
        grants: Vec::new(),
        expires: None,
        preshared: true,
        dial: None,
        client: false,
    })
}

#[test]
fn old_bonds_come_forward_by_all_steps_and_stay_beside() {
    let old = format!("# mine\nkey = \"{}\"\naddress = \"10.88.16.2\"\n", key());
    let (_root, place) = machine(&old);
    let forms = Forms { own: 3, steps: crate::codex::migrate::tests::STEPS };
    let told = bring(&place, &Who::Console, forms).unwrap();
    assert_eq!(told, ["schema migration: 1 → 3, 1 bond(s)"]);
    let (schema, new) = in_force(&place);
    assert_eq!(schema, 3);
    assert!(
        new["peers/phone.toml"].contains("public-key") && new["peers/phone.toml"].contains("grants = []")
    );
    assert_eq!(texts(&kept(&place, 1)).unwrap().unwrap()["peers/phone.toml"], old);
    assert_eq!(bring(&place, &Who::Console, forms).unwrap(), Vec::<String>::new());
    let log = Log::read(&fs::read(&place.bonds.join(FILE)).unwrap()).unwrap();
    let verbs: Vec<_> = log.records.iter().map(|(record, _)| (record.verb, record.peer.as_str())).collect();
    assert_eq!(verbs, [(Verb::Migrate, "phone")]);
}

#[test]
fn a_power_loss_behind_any_effect_leaves_old_or_new_and_the_next_boot_does_the_rest() {
    let text = bond(key(), 2);
    for done in 0..=EFFECTS.len() {
        let (_root, place) = machine(&text);
        let (plan, _) = Change::decide(&place, &Who::Console, TWO).unwrap();
        EFFECTS[..done].iter().for_each(|effect| effect(&place, &plan).unwrap());
        let (schema, there) = in_force(&place);
        let new = format!("{text}# of schema 2\n");
        assert_eq!(there["peers/phone.toml"], if schema == 1 { &text } else { &new }.as_str(), "{done}");
        assert_eq!(schema, if done < 4 { 1 } else { 2 }, "{done}");
        bring(&place, &Who::Console, TWO).unwrap();
        assert_eq!(in_force(&place), (2, [("peers/phone.toml".to_owned(), new)].into()), "{done}");
        assert_eq!(texts(&kept(&place, 1)).unwrap().unwrap()["peers/phone.toml"], text, "{done}");
        for left in [SHADOW, WHOLE] {
            assert!(!fs::exists(&place.bonds.join(left)).unwrap(), "{done}: {left}");
        }
    }
}

#[test]
fn a_power_loss_on_the_way_forward_does_no_harm_to_the_old_body() {
    let text = bond(key(), 2);
    for done in 0..=EFFECTS.len() {
        let (_root, place) = machine(&text);
        let (plan, _) = Change::decide(&place, &Who::Console, TWO).unwrap();
        EFFECTS[..done].iter().for_each(|effect| effect(&place, &plan).unwrap());
        // The boot loader may choose the old body next.
        bring(&place, &Who::Console, FORMS).unwrap();
        assert_eq!(in_force(&place), (1, [("peers/phone.toml".to_owned(), text.clone())].into()), "{done}");
        change(&place, &bonding("tablet", key()));
        bring(&place, &Who::Console, TWO).unwrap();
        assert_eq!(in_force(&place).1.len(), 2, "{done}");
    }
}

#[test]
fn there_and_back_and_there_again_keeps_every_bond_and_every_revocation() {
    let [phone, stolen, since, meanwhile] = [key(), key(), key(), key()];
    let (_root, place) = machine(&bond(phone, 2));
    change(&place, &bonding("stolen", stolen));
    bring(&place, &Who::Console, TWO).unwrap();
    // Under the new body, whose program writes files and ledger: one is bonded, one is revoked.
    let peers = place.bonds.join("peers");
    let path = peers.join("stolen.toml");
    let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    fs::write_atomic(&path, 0o644, format!("state = \"revoked\"\n{text}").as_bytes()).unwrap();
    super::super::add_to_ledger(&place.bonds, &[format!("{stolen} stolen 1")]).unwrap();
    let shared = place.secrets.join("peers/since.1.psk");
    fs::write_atomic(&shared, 0o600, b"for the newer body\n").unwrap();
    let text = format!("preshared = true\n{}", bond(since, 9));
    fs::write_atomic(&peers.join("since.toml"), 0o644, text.as_bytes()).unwrap();
    // Back in the old one.
    bring(&place, &Who::Console, FORMS).unwrap();
    let (_, codex) = super::super::load(&place).unwrap();
    let state = |name: &str| codex.peers.get(&name.parse().unwrap()).map(|peer| peer.state);
    assert_eq!(state("phone"), Some(PeerState::Active));
    assert_eq!(state("stolen"), Some(PeerState::Revoked));
    assert_eq!(state("since"), None);
    change(&place, &bonding("meanwhile", meanwhile));
    let revoke = Revoke { name: "phone".parse().unwrap(), reason: None };
    change(&place, &Request::Revoke(revoke));
    assert!(fs::exists(&shared).unwrap(), "the preshared key of a bond that waits was removed");
    // And forward again.
    bring(&place, &Who::Console, TWO).unwrap();
    let (schema, all) = in_force(&place);
    let dead: Vec<_> = all.values().map(|text| is_tombstone(text)).collect();
    let names: Vec<_> = all.keys().map(String::as_str).collect();
    assert_eq!(schema, 2);
    let wanted = ["meanwhile", "phone", "since", "stolen"].map(|name| format!("peers/{name}.toml"));
    assert_eq!(names, wanted.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(dead, [false, true, false, true]);
    assert!(Log::read(&fs::read(&place.bonds.join(FILE)).unwrap()).is_ok());
}

#[test]
fn newer_bonds_without_kept_ones_are_left_alone_and_nobody_reads_them() {
    let (_root, place) = machine("of the future");
    let marker_file = place.bonds.join("peers").join(MARKER);
    fs::write_atomic(&marker_file, 0o644, marker(9).as_bytes()).unwrap();
    let error = bring(&place, &Who::Console, FORMS).unwrap_err();
    assert!(error.to_string().contains("of schema 9"), "{error}");
    assert_eq!(in_force(&place).0, 9);
    assert_eq!(in_force(&place).1["peers/phone.toml"], "of the future");
    let Err(Error::Broken(_, report)) = super::super::load(&place) else { panic!("they were read") };
    assert!(report.contains("these bonds are of schema 9, this program knows 1"), "{report}");
    // The agent holds nobody, and health says why.
    let health = crate::tether::source::in_force(&place.law, &place.bonds).unwrap_err();
    assert!(health.to_string().contains("schema 9"), "{health}");
    fs::write_atomic(&marker_file, 0o644, b"nine").unwrap();
    assert!(bring(&place, &Who::Console, FORMS).is_err());
}
