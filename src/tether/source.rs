//! Where the agent's Codex comes from: two folders on disk, read and parsed.

use std::path::Path;

use super::Error;
use super::bonds::{Mistake, Texts};
pub use crate::codex::is_tombstone;
use crate::codex::{Codex, Diagnostic, Sources};
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

/// Texts → Codex, or every mistake in them. Whoever is granted a peer whose bond is left out stays bonded.
pub fn parse(texts: &Texts) -> Result<Codex, Vec<Mistake>> {
    let sources: Sources = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    Codex::parse_part(&sources).map_err(|all| all.iter().map(|one| mistake(one, &sources)).collect())
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
    Ok(super::bonds::settle(&texts, &unreadable, &Texts::new(), is_tombstone, parse)?.codex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tether::bonds::settle;

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
        let settled = settle(&now, &[], &Texts::new(), is_tombstone, parse).unwrap();
        assert_eq!(
            settled.codex.peers.keys().map(crate::codex::name::Name::as_str).collect::<Vec<_>>(),
            ["phone"]
        );
        assert!(crate::reach::between(&settled.codex).is_empty());
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
            let settled = settle(&now, &[], &Texts::new(), is_tombstone, parse).unwrap();
            assert_eq!(settled.codex.peers.len(), 1, "{again}");
            assert!(settled.codex.peers.contains_key(&"phone".parse().unwrap()), "{again}");
            assert_eq!(settled.broken[0].file, again);
        }
    }
}
