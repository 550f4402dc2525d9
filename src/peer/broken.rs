//! Bonds whose files hold mistakes, and what can be read out of them all the same: that is nobody else's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Refused;
use crate::codex::key::PublicKey;
use crate::codex::name::Name;
use crate::codex::{Diagnostic, Sources, Tether, render_all};

/// Mistakes of one file that are told in few words.
const REASONS: usize = 3;
/// So much of each, in characters: a file may hold anything.
const REASON: usize = 160;

/// A bond that is not in force as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Its file, `peers/phone.toml`.
    pub file: String,
    /// What is wrong with it, the first few mistakes.
    pub reasons: Vec<String>,
    /// Words in it that are public keys.
    pub public_keys: Vec<PublicKey>,
    /// Words in it that are addresses.
    pub addresses: Vec<IpAddr>,
    /// All mistakes, laid out; does not travel.
    #[serde(skip)]
    report: String,
}

impl Broken {
    /// The bonds that these mistakes are in. `text` is what a file of `sources` says, as far as that can be read.
    pub fn all(
        mistakes: Vec<Diagnostic>,
        sources: &Sources,
        text: impl Fn(&str) -> Option<String>,
    ) -> Vec<Self> {
        let mut files: BTreeMap<String, Vec<Diagnostic>> = BTreeMap::new();
        for mistake in mistakes {
            files.entry(mistake.file.clone()).or_default().push(mistake);
        }
        let broken = |(file, mistakes): (String, Vec<Diagnostic>)| {
            let text = text(&file).unwrap_or_default();
            Self {
                reasons: mistakes.iter().take(REASONS).map(|one| short(&one.message)).collect(),
                public_keys: public_keys(&text),
                addresses: addresses(&text),
                report: render_all(&mistakes, sources, false),
                file,
            }
        };
        files.into_iter().map(broken).collect()
    }

    /// Whose bond it is; `None` where the file's name is none.
    pub fn name(&self) -> Option<Name> {
        self.file.strip_prefix("peers/")?.strip_suffix(".toml")?.parse().ok()
    }

    /// What is wrong, in one sentence.
    pub fn why(&self) -> String {
        format!("{} is broken: {}", self.file, self.reasons.join("; "))
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self.name() {
            Some(name) => format!("mend that file, or end the bond: `sepulcher peer revoke {name}`"),
            None => "mend that file, or take it away".to_owned(),
        }
    }

    /// Why something is refused because of it.
    pub(super) fn refused(&self, what: &str) -> Refused {
        let report = (!self.report.is_empty()).then(|| self.report.clone());
        Refused { message: format!("{what}: {}", self.why()), hint: Some(self.remedy()), report }
    }

    /// Its IPv4 address, as far as can be told: the first in the tether's network.
    pub(super) fn address(&self, tether: &Tether) -> Option<Ipv4Addr> {
        let mut inside = self.inside(tether);
        inside.find_map(|address| if let IpAddr::V4(address) = address { Some(address) } else { None })
    }

    /// Its IPv6 address, in the same way.
    pub(super) fn address6(&self, tether: &Tether) -> Option<Ipv6Addr> {
        let mut inside = self.inside(tether);
        inside.find_map(|address| if let IpAddr::V6(address) = address { Some(address) } else { None })
    }

    fn inside(&self, tether: &Tether) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(|address| tether.contains(*address) && !tether.is_own(*address))
    }

    /// Whether a key can be read out of it.
    pub(super) fn has_key(&self) -> bool {
        !self.public_keys.is_empty()
    }

    /// Whether an address can be read out of it, of each family that the tether has.
    pub(super) fn has_addresses(&self, tether: &Tether) -> bool {
        self.address(tether).is_some() && (tether.network6.is_none() || self.address6(tether).is_some())
    }
}

fn short(message: &str) -> String {
    match message.char_indices().nth(REASON) {
        None => message.to_owned(),
        Some((end, _)) => format!("{}…", &message[..end]),
    }
}

/// Words of a text that are public keys, each once, in their order. What a line says of private or preshared keys is
/// left alone: what is found here is put into the ledger, which everybody may read.
fn public_keys(text: &str) -> Vec<PublicKey> {
    let is_secret = |line: &str| {
        let line = line.to_ascii_lowercase();
        ["private", "preshared", "secret", "psk"].iter().any(|word| line.contains(word))
    };
    let in_word = |letter: char| letter.is_ascii_alphanumeric() || "+/".contains(letter);
    let lines = text.lines().filter(|line| !is_secret(line));
    let words = lines.flat_map(|line| line.split(move |letter| !in_word(letter)));
    // Base64 of 32 bytes has one letter more, which is always the same.
    each_once(words.filter(|word| word.len() == 43).filter_map(|word| format!("{word}=").parse().ok()))
}

/// Words of a text that are addresses, each once, in their order.
fn addresses(text: &str) -> Vec<IpAddr> {
    let in_word = |letter: char| letter.is_ascii_hexdigit() || ".:".contains(letter);
    each_once(text.split(|letter| !in_word(letter)).filter_map(|word| word.parse().ok()))
}

fn each_once<T: Copy + Ord>(found: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    found.filter(|one| seen.insert(*one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";
    const OTHER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    #[test]
    fn keys_and_addresses_are_found_in_whatever_a_file_holds() {
        for text in [
            format!("public-key = \"{KEY}\"\naddress = \"10.88.16.7\"\nreplaced = [\"{OTHER}\"]\n"),
            format!("public-key=={KEY}\nreplaced={OTHER}\u{fffd}address \"10.88.16.7/32"),
            format!("\0[[[ {KEY}{{'{OTHER}'\n10.88.16.7,{KEY}"),
        ] {
            assert_eq!(public_keys(&text), [KEY, OTHER].map(|key| key.parse().unwrap()), "{text:?}");
            assert_eq!(addresses(&text), [IpAddr::from([10, 88, 16, 7])], "{text:?}");
        }
        assert_eq!(addresses("address6 = \"fd88::7\""), ["fd88::7".parse::<IpAddr>().unwrap()]);
        assert!(addresses("until = 2033-05-18T03:33:20Z, 1.2.3, x").is_empty());
    }

    #[test]
    fn a_secret_that_was_put_into_a_bond_is_no_public_key() {
        for line in
            [format!("PrivateKey = {OTHER}"), format!("psk = \"{OTHER}\""), format!("PRESHARED {OTHER}")]
        {
            assert_eq!(
                public_keys(&format!("{line}\nPublicKey = {KEY}\n")),
                [KEY.parse().unwrap()],
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_few_words() {
        let place = crate::codex::Place::file("peers/phone.toml");
        let mistakes = (0..9).map(|_| Diagnostic::error("ä".repeat(1000), &place)).collect();
        let broken = Broken::all(mistakes, &Sources::default(), |_| None);
        assert_eq!(broken[0].reasons.len(), REASONS);
        assert!(broken[0].why().chars().count() < 600 && !broken[0].has_key());
        assert_eq!(broken[0].name(), Some("phone".parse().unwrap()));
        let slip = Broken { file: "peers/Phone.toml".to_owned(), ..broken[0].clone() };
        assert!(slip.name().is_none() && slip.remedy().contains("take it away"));
    }
}
