//! Which bonds are in force when some of their files are broken.
//!
//! A broken file must not hold the others up, nor cut its own peer off: the last good content of that file
//! stays in force until it is mended or removed. A peer whose file was never good is not bonded.

use std::collections::{BTreeMap, BTreeSet};

/// Relative path → text: what is on the disk.
pub type Texts = BTreeMap<String, String>;

/// A file with a mistake in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Broken {
    /// Relative path, e.g. `peers/phone.toml`.
    pub file: String,
    /// Whether its last good content is in force in its place.
    pub last_good: bool,
    /// Whether it is in force as it stands, without what this body's law does not have.
    #[serde(default)]
    pub in_force: bool,
    /// What is wrong with it, as `sepulcher check` tells it.
    pub reason: String,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled<C> {
    /// The Codex.
    pub codex: C,
    /// The texts it was read from; to be given back as `last_good` next time.
    pub texts: Texts,
    /// Files that are not in force as they stand.
    pub broken: Vec<Broken>,
}

/// Why nothing can be in force: mistakes in the law, or in no file at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Codex is broken:\n{0}")]
pub struct Hopeless(pub String);

/// A mistake as the parser reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// File that it is about.
    pub file: String,
    /// Other files that are part of it, e.g. the other claimant of an address.
    pub related: Vec<String>,
    /// The whole report of it.
    pub report: String,
}

/// Finds the texts nearest to `current` that `parse` accepts: each bond as it stands, else as it last was
/// good, else not at all. `unreadable` are bonds that could not even be read; `revoked` tells a tombstone from
/// its text.
pub fn settle<C>(
    current: &Texts,
    unreadable: &[Mistake],
    last_good: &Texts,
    revoked: fn(&str) -> bool,
    parse: impl Fn(&Texts) -> Result<C, Vec<Mistake>>,
) -> Result<Settled<C>, Hopeless> {
    let mut search = Search { texts: current.clone(), broken: BTreeMap::new(), last_good, revoked };
    // An unreadable folder is no folder without bonds.
    if unreadable.iter().any(|mistake| !is_bond(&mistake.file)) {
        return Err(hopeless(unreadable));
    }
    for mistake in unreadable {
        search.restore(&mistake.file, &mistake.report);
    }
    loop {
        match parse(&search.texts) {
            Ok(codex) => {
                let Search { texts, broken, .. } = search;
                return Ok(Settled { codex, texts, broken: broken.into_values().collect() });
            }
            Err(mistakes) if search.step_back(&mistakes) => {}
            Err(mistakes) => return Err(hopeless(&mistakes)),
        }
    }
}

fn hopeless(mistakes: &[Mistake]) -> Hopeless {
    let reports: Vec<_> = mistakes.iter().map(|mistake| mistake.report.trim_end()).collect();
    Hopeless(reports.join("\n"))
}

pub(super) fn is_bond(file: &str) -> bool {
    file.starts_with("peers/")
}

/// Texts on their way to something that parses. Each bond goes from how it stands to how it last was good,
/// and from there to nothing, and never back: the search ends.
struct Search<'a> {
    texts: Texts,
    broken: BTreeMap<String, Broken>,
    last_good: &'a Texts,
    revoked: fn(&str) -> bool,
}

impl Search<'_> {
    /// Takes the bonds behind each mistake one step back; false when there was no step left.
    fn step_back(&mut self, mistakes: &[Mistake]) -> bool {
        let mut culprits = BTreeMap::new();
        for mistake in mistakes {
            for file in self.culprits(mistake) {
                culprits.entry(file).or_insert(&mistake.report);
            }
        }
        let mut moved = false;
        for (file, report) in culprits {
            moved |= self.restore(&file, report);
        }
        moved
    }

    /// Who gives way when bonds are at odds, whichever of them the parser names first: living ones before
    /// tombstones, so that nothing revoked comes back; then those that are new or changed before those that
    /// were good. Living ones of equal rank all give way: nothing says which of them is right.
    fn culprits(&self, mistake: &Mistake) -> BTreeSet<String> {
        let files = mistake.related.iter().chain([&mistake.file]);
        let (dead, living): (BTreeSet<_>, BTreeSet<_>) =
            files.filter(|file| is_bond(file)).cloned().partition(|file| self.is_tombstone(file));
        let buried = !dead.is_empty();
        let (settled, new): (BTreeSet<_>, BTreeSet<_>) =
            if living.is_empty() { dead } else { living }.into_iter().partition(|file| self.is_settled(file));
        match (settled.is_empty(), new.is_empty()) {
            // One of two tombstones is enough to keep what both claim buried.
            _ if buried && new.contains(&mistake.file) && self.is_tombstone(&mistake.file) => {
                BTreeSet::from([mistake.file.clone()])
            }
            (false, true) => settled,
            _ => new,
        }
    }

    fn is_settled(&self, file: &str) -> bool {
        self.texts.get(file) == self.last_good.get(file)
    }

    fn is_tombstone(&self, file: &str) -> bool {
        self.texts.get(file).is_some_and(|text| (self.revoked)(text))
    }

    /// Puts the last good text in place of the one that is in force, or nothing when it is that already.
    fn restore(&mut self, file: &str, report: &str) -> bool {
        let good = self.last_good.get(file).filter(|good| self.texts.get(file) != Some(good));
        // Whatever else is wrong with a tombstone: its peer does not come back.
        let good = good.filter(|good| !self.is_tombstone(file) || (self.revoked)(good));
        let had = self.texts.contains_key(file);
        match good {
            Some(good) => self.texts.insert(file.to_owned(), good.clone()),
            None => self.texts.remove(file),
        };
        let last_good = good.is_some();
        let entry = Broken { file: file.to_owned(), last_good, in_force: false, reason: report.to_owned() };
        self.broken.entry(file.to_owned()).or_insert(entry).last_good = last_good;
        had || last_good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for the Codex: `bad` anywhere is a mistake, and no two files may claim the same in their first
    /// word; the second one is named first.
    fn parse(texts: &Texts) -> Result<Texts, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut said = BTreeMap::new();
        for (file, text) in texts {
            let first = said.insert(text.split(' ').next(), file);
            if text == "bad" || first.is_some() {
                mistakes.push(mistake(file, first.into_iter().cloned().collect(), text));
            }
        }
        if mistakes.is_empty() { Ok(texts.clone()) } else { Err(mistakes) }
    }

    fn revoked(text: &str) -> bool {
        text.ends_with(" revoked")
    }

    fn mistake(file: &str, related: Vec<String>, text: &str) -> Mistake {
        Mistake { file: file.into(), related, report: format!("{file}: {text}") }
    }

    fn texts(files: &[(&str, &str)]) -> Texts {
        files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_broken_bond_keeps_its_last_good_state_and_the_others_move_on() {
        let good = texts(&[("lychd.toml", "law"), ("peers/a.toml", "1"), ("peers/b.toml", "2")]);
        let now = texts(&[
            ("lychd.toml", "law"),
            ("peers/a.toml", "bad"),
            ("peers/b.toml", "3"),
            ("peers/c.toml", "4"),
        ]);
        let settled = settle(&now, &[], &good, revoked, parse).unwrap();
        assert_eq!(settled.codex["peers/a.toml"], "1");
        assert_eq!(settled.codex["peers/b.toml"], "3");
        assert_eq!(settled.codex["peers/c.toml"], "4");
        let reason = "peers/a.toml: bad".to_owned();
        let broken = Broken { file: "peers/a.toml".into(), last_good: true, in_force: false, reason };
        assert_eq!(settled.broken, [broken]);
    }

    #[test]
    fn a_bond_that_was_never_good_is_not_in_force() {
        let now = texts(&[("peers/a.toml", "bad"), ("peers/b.toml", "2")]);
        let settled = settle(&now, &[], &Texts::new(), revoked, parse).unwrap();
        assert_eq!(settled.codex, texts(&[("peers/b.toml", "2")]));
        assert!(!settled.broken[0].last_good);
    }

    #[test]
    fn a_newcomer_that_claims_what_is_taken_is_refused_wherever_it_stands() {
        let good = texts(&[("peers/b.toml", "2")]);
        for intruder in ["peers/a.toml", "peers/c.toml"] {
            let now = texts(&[(intruder, "2"), ("peers/b.toml", "2")]);
            let settled = settle(&now, &[], &good, revoked, parse).unwrap();
            assert_eq!(settled.codex, good);
            assert_eq!(settled.broken[0].file, intruder);
            let now = texts(&[(intruder, "2"), ("peers/b.toml", "bad")]);
            assert_eq!(settle(&now, &[], &good, revoked, parse).unwrap().codex, good);
        }
    }

    #[test]
    fn of_two_newcomers_at_odds_none_is_bonded_and_the_others_are() {
        let now = texts(&[("peers/a.toml", "2"), ("peers/b.toml", "2"), ("peers/c.toml", "3")]);
        let settled = settle(&now, &[], &Texts::new(), revoked, parse).unwrap();
        assert_eq!(settled.codex, texts(&[("peers/c.toml", "3")]));
        assert_eq!(settled.broken.len(), 2);
    }

    #[test]
    fn a_tombstone_outlives_whoever_claims_its_key_under_any_name() {
        let dead = ("peers/m.toml", "2 revoked");
        for name in ["peers/a.toml", "peers/z.toml"] {
            let now = texts(&[dead, (name, "2"), ("peers/x.toml", "3")]);
            // After a restart, and where the claimant was good until the tombstone came.
            for good in [Texts::new(), texts(&[(name, "2")])] {
                let settled = settle(&now, &[], &good, revoked, parse).unwrap();
                assert_eq!(settled.codex, texts(&[dead, ("peers/x.toml", "3")]), "{name}");
                assert_eq!(settled.broken[0].file, name);
            }
        }
    }

    #[test]
    fn a_tombstone_with_a_slip_in_it_does_not_bring_its_peer_back() {
        fn parse(texts: &Texts) -> Result<Texts, Vec<Mistake>> {
            let slip = texts.iter().find(|(_, text)| text.contains("slip"));
            slip.map_or(Ok(texts.clone()), |(file, text)| Err(vec![mistake(file, vec![], text)]))
        }
        let good = texts(&[("peers/a.toml", "1"), ("peers/b.toml", "2")]);
        let now = texts(&[("peers/a.toml", "slip revoked"), ("peers/b.toml", "2")]);
        let settled = settle(&now, &[], &good, revoked, parse).unwrap();
        assert_eq!(settled.codex, texts(&[("peers/b.toml", "2")]));
        assert!(!settled.broken[0].last_good);
    }

    #[test]
    fn of_two_tombstones_at_odds_one_stays() {
        let now =
            texts(&[("peers/a.toml", "2 revoked"), ("peers/b.toml", "2 revoked"), ("peers/c.toml", "2")]);
        let settled = settle(&now, &[], &Texts::new(), revoked, parse).unwrap();
        assert_eq!(settled.codex.len(), 1);
        assert!(revoked(settled.codex.values().next().unwrap()));
    }

    #[test]
    fn a_removed_file_is_gone_and_a_file_that_cannot_be_read_is_not() {
        let good = texts(&[("peers/a.toml", "1"), ("peers/b.toml", "2")]);
        let unreadable = [mistake("peers/b.toml", vec![], "not UTF-8"), mistake("peers/x.tml", vec![], "?")];
        let settled = settle(&Texts::new(), &unreadable, &good, revoked, parse).unwrap();
        assert_eq!(settled.codex, texts(&[("peers/b.toml", "2")]));
        assert_eq!(settled.broken.len(), 2);
    }

    #[test]
    fn an_unreadable_folder_is_hopeless_and_not_empty() {
        let good = texts(&[("peers/a.toml", "1")]);
        assert!(settle(&Texts::new(), &[mistake("peers", vec![], "EIO")], &good, revoked, parse).is_err());
    }

    #[test]
    fn a_broken_law_is_hopeless() {
        let good = texts(&[("lychd.toml", "law")]);
        let error = settle(&texts(&[("lychd.toml", "bad")]), &[], &good, revoked, parse).unwrap_err();
        assert_eq!(error.to_string(), "the Codex is broken:\nlychd.toml: bad");
    }
}
