use std::io::{Read as _, Write as _};

use super::*;

const NAME: &str = "lychd";

fn manifest() -> Manifest {
    Manifest {
        schema: SCHEMA,
        body: BODY.to_owned(),
        image: None,
        codex_schema: crate::codex::SCHEMA,
        appliance: NAME.parse().unwrap(),
        law: Sha256Digest::of(b"law"),
        created: Timestamp::from_epoch(1_795_000_000),
        note: Some("before the move".to_owned()),
        generation: 3,
        audit_head: None,
        host_key: None,
        identity: false,
        not_contained: vec!["volume data".to_owned()],
        parts: Vec::new(),
        volumes: Vec::new(),
    }
}

fn snapshot() -> Snapshot {
    let part = |path: &str, text: &str| (path.to_owned(), Zeroizing::new(text.as_bytes().to_vec()));
    let parts = [
        part("peers/phone.toml", "public-key"),
        part("revoked", ""),
        part(IDENTITY, "secret"),
        part("secrets/peers/phone.1.psk", "psk"),
    ];
    Snapshot::new(parts.into(), manifest())
}

#[test]
fn what_is_packed_is_unpacked_and_is_the_same_bytes_each_time() {
    let snapshot = snapshot();
    let bytes = archive::pack(&snapshot).unwrap();
    assert_eq!(bytes, archive::pack(&snapshot).unwrap());
    assert_eq!(archive::unpack(&bytes).unwrap(), snapshot);
    assert_eq!(archive::manifest(bytes.as_slice()).unwrap(), snapshot.manifest);
}

#[test]
fn a_changed_or_missing_byte_is_noticed_wherever_it_is() {
    let bytes = archive::pack(&snapshot()).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        if let Ok(same) = archive::unpack(&changed) {
            // A bit of a header that says nothing about the content, like a window's size.
            assert_eq!(same, snapshot(), "byte {at}");
        }
        assert!(archive::unpack(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn parts_that_the_manifest_does_not_say_or_that_lead_elsewhere_are_refused() {
    let mut other = snapshot();
    other.parts.insert("revoked".to_owned(), Zeroizing::new(b"x".to_vec()));
    let refused = archive::unpack(&archive::pack(&other).unwrap()).unwrap_err();
    assert!(refused.message.contains("revoked is not as the manifest says"), "{refused}");
    let stray = Zeroizing::new(b"root".to_vec());
    let mut parts = snapshot().parts;
    parts.insert("peers/Passwd".to_owned(), stray);
    let refused = archive::unpack(&archive::pack(&Snapshot::new(parts, manifest())).unwrap()).unwrap_err();
    assert!(refused.message.contains("belongs in no snapshot"), "{refused}");
    for path in ["peers/../revoked", "/revoked", "secrets/peers/a.psk", "peers/a/b.toml", "secrets/x"] {
        assert!(!is_part(path), "{path}");
    }
}

#[test]
fn a_soul_that_is_newer_than_its_body_is_refused_with_the_way_forward() {
    let aligned = |body: &str| Manifest { body: body.to_owned(), ..manifest() }.aligned("1.2.3", None);
    for body in ["1.2.3", "0.9.9", "1.2.3-rc1"] {
        aligned(body).unwrap();
    }
    for body in ["1.2.4", "1.10.0", "2.0.0"] {
        let refused = aligned(body).unwrap_err();
        assert!(refused.hint.is_some_and(|hint| hint.contains(&format!("install {body} or later"))));
    }
    assert!(aligned("new").is_err());
    let codex_schema = crate::codex::SCHEMA + 1;
    assert!(Manifest { codex_schema, ..manifest() }.aligned(BODY, None).is_err());
    // Whatever else a later schema says.
    let refused = Manifest::read(br#"{"schema": 3, "body": "9.0.0", "soul": []}"#).unwrap_err();
    assert!(refused.message.contains("of body 9.0.0"), "{refused}");
}

#[test]
fn the_host_s_key_leaves_with_its_part() {
    let without = snapshot().without_identity();
    assert!(!without.manifest.identity && without.manifest.part(IDENTITY).is_none());
    assert_eq!(without.parts.len(), 3);
    assert_eq!(archive::unpack(&archive::pack(&without).unwrap()).unwrap(), without);
}

#[test]
fn only_the_recipients_open_an_export() {
    let keys = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
    let other = age::x25519::Identity::generate();
    let recipients: Vec<seal::Recipient> =
        keys.iter().map(|key| key.to_public().to_string().parse().unwrap()).collect();
    let mut writer = seal::seal(Vec::new(), &recipients).unwrap();
    writer.write_all(b"soul").unwrap();
    let sealed = writer.finish().unwrap();
    let open = |sealed: &[u8], identities: &str| {
        let mut soul = Vec::new();
        let read = |mut reader: age::stream::StreamReader<&[u8]>| reader.read_to_end(&mut soul);
        let read = seal::open(sealed, identities).map(read)?;
        read.map(|_| soul).map_err(|error| damaged(&error.to_string()))
    };
    let text = |key: &age::x25519::Identity| {
        use age::secrecy::ExposeSecret as _;
        format!("# created\n{}\n", key.to_string().expose_secret())
    };
    for key in &keys {
        assert_eq!(open(&sealed, &text(key)).unwrap().as_slice(), b"soul");
    }
    assert!(open(&sealed, &text(&other)).unwrap_err().message.contains("no key"));
    assert!(open(&sealed, "nothing").unwrap_err().message.contains("holds no age key"));
    for cut in 0..sealed.len() {
        assert!(open(&sealed[..cut], &text(&keys[0])).is_err(), "cut at {cut}");
    }
    assert!("age1nobody".parse::<seal::Recipient>().is_err());
}

#[test]
fn bonds_of_an_older_schema_come_forward_before_they_are_put_back() {
    let part = |path: &str, text: &str| (path.to_owned(), Zeroizing::new(text.as_bytes().to_vec()));
    let parts = [part("peers/phone.toml", "key = \"K\"\n"), part("revoked", "dead\n")];
    let old = Snapshot::new(parts.into(), manifest());
    let law: Sources = [("lychd.toml", "schema = 1\n"), ("peers/now.toml", "")].into_iter().collect();
    let steps = crate::codex::migrate::tests::STEPS;
    let sources = old.sources(&law, Forms { own: 3, steps }).unwrap();
    let texts: Vec<_> = sources.iter().collect();
    let phone = ("peers/phone.toml", "public-key = \"K\"\ngrants = []\n");
    assert_eq!(texts, [("lychd.toml", "schema = 1\n"), phone, ("revoked", "dead\n")]);
    let refused = old.sources(&law, Forms { own: 3, steps: &[] }).unwrap_err();
    assert!(refused.message.contains("from bonds of schema 1 to schema 3"), "{refused}");
}

/// An archive with one volume of these entries, and what its manifest says.
fn with_volume(entries: &[(volume::Item, &[u8])], change: impl Fn(&mut volume::Volume)) -> Vec<u8> {
    let (name, service) = ("data".parse().unwrap(), "phylactery".parse().unwrap());
    let mut tail = archive::Tail::new(Vec::new()).unwrap();
    let mut tally = volume::Tally::default();
    for (item, mut content) in entries.iter().cloned() {
        tail.add(&name, &item, &mut content, &mut tally).unwrap();
    }
    let mut described = tally.volume(&name, &service, 0);
    change(&mut described);
    let room = archive::room(&snapshot(), &[(name, service)]).unwrap();
    let head = archive::head(&snapshot().with_volumes(vec![described])).unwrap();
    let mut bytes = Vec::new();
    bytes.write_all(&archive::filled(head, room).unwrap()).unwrap();
    assert_eq!(bytes.len() as u64, room);
    bytes.extend(tail.end().unwrap());
    bytes
}

/// Entries with their content.
type Entries = Vec<(volume::Item, Vec<u8>)>;

/// A snapshot with what its volume holds.
fn whole(bytes: &[u8]) -> Result<(Snapshot, Entries), String> {
    let mut found = Vec::new();
    let read = archive::read(bytes, &mut |volume, item, content| {
        assert_eq!(volume.name.as_str(), "data");
        let mut text = Vec::new();
        content.read_to_end(&mut text).map_err(|error| damaged(&error.to_string()))?;
        found.push((item.clone(), text));
        Ok(())
    });
    Ok((read.map_err(|error| error.to_string())?, found))
}

fn entries() -> Vec<(volume::Item, &'static [u8])> {
    use volume::{Item, Kind};
    let item = |path: &str, kind: Kind| Item { path: path.into(), kind, mode: 0o700, uid: 999, gid: 998 };
    let long = "x".repeat(150);
    vec![
        (item("", Kind::Folder), b""),
        (item("17", Kind::Folder), b""),
        (item("17/base", Kind::File { size: 4, modified: 7 }), b"rows"),
        (item(&format!("17/{long}"), Kind::File { size: 0, modified: 7 }), b""),
        (item("17/wal", Kind::Link(long.into())), b""),
    ]
}

#[test]
fn volumes_are_read_as_they_were_written_and_a_snapshot_without_any_is_what_it_was() {
    let bytes = with_volume(&entries(), |_| {});
    assert_eq!(bytes, with_volume(&entries(), |_| {}), "the same bytes each time");
    let (read, found) = whole(&bytes).unwrap();
    assert_eq!(
        found.iter().map(|(item, text)| (item.clone(), text.as_slice())).collect::<Vec<_>>(),
        entries()
    );
    let [described] = &read.manifest.volumes[..] else { panic!("{:?}", read.manifest) };
    assert_eq!((described.entries, described.size), (5, 4));
    assert!(read.manifest.schema == 2 && read.manifest.not_contained.is_empty());
    assert_eq!(archive::manifest(bytes.as_slice()).unwrap(), read.manifest);
    let without = read.with_volumes(Vec::new());
    assert_eq!(without, snapshot());
    assert!(
        without.manifest.schema == 1
            && !serde_json::to_string(&without.manifest).unwrap().contains("volumes")
    );
}

#[test]
fn a_volume_that_is_not_as_the_manifest_says_or_leads_elsewhere_is_refused() {
    use volume::Item;
    let refused = |entries: &[(Item, &[u8])], change: fn(&mut volume::Volume)| {
        archive::unpack(&with_volume(entries, change)).unwrap_err().message
    };
    for change in [
        |volume: &mut volume::Volume| volume.size += 1,
        |volume: &mut volume::Volume| volume.size -= 1,
        |volume: &mut volume::Volume| volume.entries += 1,
        |volume: &mut volume::Volume| volume.sha256.0[0] ^= 1,
        |volume: &mut volume::Volume| volume.name = "other".parse().unwrap(),
    ] {
        let message = refused(&entries(), change);
        assert!(message.contains("is not as the manifest says"), "{message}");
    }
    let message = refused(&entries(), |volume| volume.entries -= 1);
    assert!(message.contains("is not"), "{message}");
    let bytes = with_volume(&entries(), |_| {});
    for at in (0..bytes.len()).filter(|at| !(600..bytes.len() - 600).contains(at)) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        // What fills up the room in between says nothing, and zeros are zeros wherever they are copied from.
        if let Ok(same) = whole(&changed) {
            assert_eq!(same, whole(&bytes).unwrap(), "byte {at}");
        }
        assert!(archive::unpack(&bytes[..at]).is_err(), "cut at {at}");
    }
}
