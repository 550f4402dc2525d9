//! Which bonds are in force when some of their files are broken.
//!
//! A broken file must not hold the others up, nor cut its own peer off: the last good content of that file
//! stays in force until it is mended or removed. A peer whose file was never good is not bonded.

use std::collections::{BTreeMap, BTreeSet};

/// Relative path → text: what is on the disk.
pub type Texts = BTreeMap<String, String>;

/// A file that is not in force as it stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Broken {
    /// Relative path, e.g. `peers/phone.toml`.
    pub file: String,
    /// Whether its last good content is in force in its place.
    pub last_good: bool,
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
    /// The whole report of it.
    pub report: String,
}

/// Finds the texts nearest to `current` that `parse` accepts: each bond as it stands, else as it last was
/// good, else not at all. `unreadable` are bonds that could not even be read.
pub fn settle<C>(
    current: &Texts,
    unreadable: &[Mistake],
    last_good: &Texts,
    parse: impl Fn(&Texts) -> Result<C, Vec<Mistake>>,
) -> Result<Settled<C>, Hopeless> {
    let mut texts = current.clone();
    let mut broken = BTreeMap::new();
    demote(&mut texts, &mut broken, last_good, unreadable);
    loop {
        match parse(&texts) {
            Ok(codex) => return Ok(Settled { codex, texts, broken: broken.into_values().collect() }),
            Err(mistakes) => {
                let report = || mistakes.iter().map(|mistake| mistake.report.as_str()).collect::<Vec<_>>();
                if !demote(&mut texts, &mut broken, last_good, &mistakes) {
                    return Err(Hopeless(report().join("\n")));
                }
            }
        }
    }
}

/// Takes every bond with a mistake one step back; false when there was no step left. Each step is taken
/// once, so the search ends.
fn demote(
    texts: &mut Texts,
    broken: &mut BTreeMap<String, Broken>,
    last_good: &Texts,
    mistakes: &[Mistake],
) -> bool {
    let mut moved = false;
    let mut seen = BTreeSet::new();
    for Mistake { file, report } in mistakes {
        if !file.starts_with("peers/") || !seen.insert(file) {
            continue;
        }
        let good = last_good.get(file);
        match broken.get_mut(file) {
            None => {
                let entry = Broken { file: file.clone(), last_good: good.is_some(), reason: report.clone() };
                broken.insert(file.clone(), entry);
                match good {
                    Some(good) => texts.insert(file.clone(), good.clone()),
                    None => texts.remove(file),
                };
                moved = true;
            }
            Some(entry) if entry.last_good => {
                entry.last_good = false;
                texts.remove(file);
                moved = true;
            }
            Some(_) => {}
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for the Codex: `bad` anywhere is a mistake, and no two files may say the same; the
    /// second one is blamed.
    fn parse(texts: &Texts) -> Result<Texts, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut said = BTreeSet::new();
        for (file, text) in texts {
            if text == "bad" || !said.insert(text) {
                mistakes.push(Mistake { file: file.clone(), report: format!("{file}: {text}") });
            }
        }
        if mistakes.is_empty() { Ok(texts.clone()) } else { Err(mistakes) }
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
        let settled = settle(&now, &[], &good, parse).unwrap();
        assert_eq!(settled.codex["peers/a.toml"], "1");
        assert_eq!(settled.codex["peers/b.toml"], "3");
        assert_eq!(settled.codex["peers/c.toml"], "4");
        let reason = "peers/a.toml: bad".to_owned();
        assert_eq!(settled.broken, [Broken { file: "peers/a.toml".into(), last_good: true, reason }]);
    }

    #[test]
    fn a_bond_that_was_never_good_is_not_in_force() {
        let now = texts(&[("peers/a.toml", "bad"), ("peers/b.toml", "2")]);
        let settled = settle(&now, &[], &Texts::new(), parse).unwrap();
        assert_eq!(settled.codex, texts(&[("peers/b.toml", "2")]));
        assert!(!settled.broken[0].last_good);
    }

    #[test]
    fn a_last_good_state_that_clashes_with_what_is_new_gives_way() {
        let good = texts(&[("peers/b.toml", "2")]);
        let now = texts(&[("peers/a.toml", "2"), ("peers/b.toml", "bad")]);
        let settled = settle(&now, &[], &good, parse).unwrap();
        assert_eq!(settled.codex, texts(&[("peers/a.toml", "2")]));
        assert!(!settled.broken[0].last_good);
    }

    #[test]
    fn a_removed_file_is_gone_and_a_file_that_cannot_be_read_is_not() {
        let good = texts(&[("peers/a.toml", "1"), ("peers/b.toml", "2")]);
        let unreadable = [Mistake { file: "peers/b.toml".into(), report: "not UTF-8".into() }];
        let settled = settle(&Texts::new(), &unreadable, &good, parse).unwrap();
        assert_eq!(settled.codex, texts(&[("peers/b.toml", "2")]));
    }

    #[test]
    fn a_broken_law_is_hopeless() {
        let good = texts(&[("lychd.toml", "law")]);
        let error = settle(&texts(&[("lychd.toml", "bad")]), &[], &good, parse).unwrap_err();
        assert_eq!(error.to_string(), "the Codex is broken:\nlychd.toml: bad");
    }
}
