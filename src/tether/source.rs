//! Where the agent's Codex comes from: two folders on disk, read and parsed.

use std::path::Path;

use super::Error;
use super::bonds::{self, Broken, Hopeless, Mistake, Settled, Texts};
use crate::codex::{Codex, Diagnostic, Parse, Sources, is_tombstone};
use crate::render::nftables;
use crate::sys;

/// Reads law and bonds: texts, and files that cannot be read.
///
/// # Errors
/// Without a folder of bonds: the law's own peers are seeds for a first boot, and a bond that was revoked
/// since must not come back with them.
pub fn load(law: &Path, bonds: &Path) -> Result<(Texts, Vec<Mistake>), Error> {
    let peers = bonds.join("peers");
    if !sys::fs::exists(&peers)? {
        return Err(Error::NoBonds(peers));
    }
    let sources = sys::codex::load(&[law, bonds]);
    // It may have been swapped for another one meanwhile; then the next look comes at once.
    if !sys::fs::exists(&peers)? {
        return Err(Error::NoBonds(peers));
    }
    let texts = sources.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    let mistakes = sources.unread().map(|why| Mistake {
        file: why.file.clone(),
        related: Vec::new(),
        report: why.render(&sources, false),
    });
    Ok((texts, mistakes.collect()))
}

/// Texts → Codex, or every mistake in them.
fn parsed(texts: &Texts, parse: Parse) -> Result<Codex, Vec<Mistake>> {
    let sources: Sources = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    parse(&sources).map_err(|all| all.iter().map(|one| mistake(one, &sources)).collect())
}

/// The bonds in force: see [`bonds::settle`]. One that has no last good state and only names what this body's law does not
/// have, because another body made it, is in force without that, and told to be broken.
///
/// # Errors
/// See [`Hopeless`].
pub fn settle(
    current: &Texts,
    unreadable: &[Mistake],
    last_good: &Texts,
) -> Result<Settled<Codex>, Hopeless> {
    let settled = |texts: &Texts, parse| {
        bonds::settle(texts, unreadable, last_good, is_tombstone, |texts| parsed(texts, parse))
    };
    // Whoever is granted a peer whose bond is left out stays bonded.
    let strict = settled(current, Codex::parse_part)?;
    if strict.broken.iter().all(|broken| broken.last_good) {
        return Ok(strict);
    }
    // The same rules once more, for those that are left out.
    let left_out = strict.broken.iter().filter(|broken| !broken.last_good);
    let left_out = left_out.filter_map(|broken| current.get_key_value(&broken.file));
    let texts: Texts =
        strict.texts.iter().chain(left_out).map(|(file, text)| (file.clone(), text.clone())).collect();
    let settled = settled(&texts, Codex::parse_living)?;
    let broken = strict.broken.into_iter().map(|broken| {
        match settled.broken.iter().find(|still| still.file == broken.file) {
            _ if broken.last_good => broken,
            Some(still) => Broken { last_good: still.last_good, ..broken },
            None => Broken { in_force: true, ..broken },
        }
    });
    Ok(Settled { broken: broken.collect(), ..settled })
}

fn mistake(diagnostic: &Diagnostic, sources: &Sources) -> Mistake {
    Mistake {
        file: diagnostic.file.clone(),
        related: diagnostic.related.iter().map(|(place, _)| place.file.to_string()).collect(),
        report: diagnostic.render(sources, false),
    }
}

/// The pod's ruleset.
pub fn ruleset(codex: &Codex) -> Result<String, Error> {
    Ok(nftables::pod(codex)?)
}

/// The Codex of both folders as it stands, with broken bonds left out.
pub fn in_force(law: &Path, bonds: &Path) -> Result<Codex, Error> {
    let (texts, unreadable) = load(law, bonds)?;
    Ok(settle(&texts, &unreadable, &Texts::new())?.codex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";

    #[test]
    fn who_is_granted_a_peer_whose_bond_is_broken_stays_bonded() {
        let phone = format!("public-key = \"{KEY}\"\naddress = \"10.88.16.2\"\ngrants = [\"peer:crypt\"]\n");
        let now: Texts = [
            ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n"),
            ("peers/crypt.toml", "state = \"revoked\"\nslip\n"),
            ("peers/phone.toml", &phone),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
        let settled = settle(&now, &[], &Texts::new()).unwrap();
        assert_eq!(
            settled.codex.peers.keys().map(crate::codex::name::Name::as_str).collect::<Vec<_>>(),
            ["phone"]
        );
        assert!(crate::reach::between(&settled.codex).is_empty());
    }

    #[test]
    fn a_bond_of_a_body_with_more_is_in_force_without_that_unless_it_was_good_before() {
        let texts = |grants: &str| -> Texts {
            let bond = |key: &str, last: u8| {
                format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = [{grants}]\n")
            };
            let other = crate::sys::wireguard::SecretKey::generate().public().to_string();
            [
                ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
                ("peers/phone.toml", bond(KEY, 2)),
                // These two are at odds: none of them is in force.
                ("peers/tablet.toml", bond(&other, 3)),
                ("peers/thief.toml", bond(&other, 4)),
            ]
            .map(|(name, text)| (name.to_owned(), text))
            .into()
        };
        let now = texts("\"gone\", \"bonds\"");
        let settled = settle(&now, &[], &Texts::new()).unwrap();
        let names: Vec<_> = settled.codex.peers.keys().map(crate::codex::name::Name::as_str).collect();
        assert_eq!(names, ["phone"]);
        let told = settled.broken.iter().map(|broken| (broken.file.as_str(), broken.in_force));
        let told: Vec<_> = told.collect();
        let expected =
            [("peers/phone.toml", true), ("peers/tablet.toml", false), ("peers/thief.toml", false)];
        assert_eq!(told, expected);
        // Again the same, and a slip in what was in force changes nothing, nor does whoever claims its address.
        assert_eq!(settle(&now, &[], &settled.texts).unwrap(), settled);
        let mut later = now.clone();
        later.insert("peers/phone.toml".to_owned(), "slip".to_owned());
        assert_eq!(settle(&later, &[], &settled.texts).unwrap().texts, settled.texts);
        later = now.clone();
        let claim = now["peers/tablet.toml"].replace("10.88.16.3", "10.88.16.2");
        later.insert("peers/claimant.toml".to_owned(), claim);
        assert_eq!(settle(&later, &[], &settled.texts).unwrap().texts, settled.texts);
        let mut good = texts("\"bonds\"");
        good.remove("peers/thief.toml");
        let slip = settle(&now, &[], &good).unwrap();
        assert_eq!(slip.texts["peers/phone.toml"], good["peers/phone.toml"]);
    }

    #[test]
    fn a_tombstone_is_one_whatever_else_is_in_it() {
        for text in [
            "state = \"revoked\"\n",
            "state=\"revoked\" # lost\nslip\n",
            "slip\n state = 'revoked'\n",
            "state = revoked\n",
        ] {
            assert!(is_tombstone(text), "{text}");
        }
        for text in ["state = \"active\"\n", "slip\n", "note = \"revoked\"\nslip\n", "state\nrevoked\n"] {
            assert!(!is_tombstone(text), "{text}");
        }
    }

    #[test]
    fn a_revoked_key_does_not_come_back_under_another_name_after_a_restart() {
        let bond = |last: u8, state: &str| {
            format!(
                "public-key = \"{KEY}\"\naddress = \"10.88.16.{last}\"\ngrants = []\nstate = \"{state}\"\n"
            )
        };
        for again in ["peers/again.toml", "peers/zombie.toml"] {
            let now: Texts = [
                ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
                ("peers/phone.toml", bond(2, "revoked")),
                (again, bond(3, "active")),
            ]
            .map(|(name, text)| (name.to_owned(), text))
            .into();
            let settled = settle(&now, &[], &Texts::new()).unwrap();
            assert_eq!(settled.codex.peers.len(), 1, "{again}");
            assert!(settled.codex.peers.contains_key(&"phone".parse().unwrap()), "{again}");
            assert_eq!(settled.broken[0].file, again);
        }
    }
}
