//! The Tether's port beside closed ones: are the same answers as frequent, and as quick?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::Evidence;
use crate::codex::Protocol;
use crate::probe::payload::Shape;
use crate::probe::statistics::{fisher, median, ranks};
use crate::probe::{Question, Standing};

/// Fewer answers than that say nothing of their time.
const TIMED: usize = 4;

/// All answers together, whatever they are.
const ANY: &str = "any answer";

/// One group of questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Group {
    /// How many were answered like this.
    pub answered: usize,
    /// How many were asked.
    pub asked: usize,
    /// Median time of these answers in milliseconds.
    pub median_ms: Option<f64>,
}

/// The two groups, and how likely they differ as much by chance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What is compared: `count` (Fisher's exact test) or `time` (rank test of Wilcoxon, Mann and Whitney).
    pub of: &'static str,
    /// Which answer, in words.
    pub answer: String,
    /// The Tether's port.
    pub tether: Group,
    /// Closed ports.
    pub closed: Group,
    /// The chance that is called p.
    pub p: f64,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, answer, tether, closed, p } = self;
        write!(f, "the tether's port can be told from closed ones by the {of} of its answers: {answer}, ")?;
        if *of == "time" {
            let ms = |group: &Group| group.median_ms.unwrap_or_default();
            write!(f, "median {:.3} ms against {:.3} ms", ms(tether), ms(closed))?;
        } else {
            let share = |group: &Group| format!("{} of {}", group.answered, group.asked);
            write!(f, "{} against {}", share(tether), share(closed))?;
        }
        write!(f, " (p = {p:.1e})")
    }
}

/// Times of the answers by their words, and how many were asked.
#[derive(Debug, Default)]
struct Side {
    asked: usize,
    times: BTreeMap<String, Vec<f64>>,
}

impl Side {
    fn times(&self, words: &str) -> &[f64] {
        self.times.get(words).map_or(&[], Vec::as_slice)
    }

    fn group(&self, words: &str) -> Group {
        let times = self.times(words);
        Group { answered: times.len(), asked: self.asked, median_ms: median(times) }
    }
}

/// Every answer's count, and its time where both sides gave it often enough.
pub fn all(evidence: &Evidence) -> Vec<Comparison> {
    let (tether, closed) = sides(evidence);
    let mut words: BTreeSet<&String> = tether.times.keys().chain(closed.times.keys()).collect();
    words.retain(|words| *words != ANY);
    // Silence is compared too: it is what everybody should show. One kind of answer is as good as any.
    let any = ANY.to_owned();
    if words.len() != 1 {
        words.insert(&any);
    }
    let mut comparisons = Vec::new();
    for words in words {
        let compare = |of, p| Comparison {
            of,
            answer: words.clone(),
            tether: tether.group(words),
            closed: closed.group(words),
            p,
        };
        let (one, other) = (tether.times(words), closed.times(words));
        comparisons.push(compare("count", fisher((one.len(), tether.asked), (other.len(), closed.asked))));
        if one.len().min(other.len()) >= TIMED {
            comparisons.extend(ranks(one, other).map(|p| compare("time", p)));
        }
    }
    comparisons
}

/// Datagrams of all shapes but those with few hops. Hidden ports are closed ones.
fn sides(evidence: &Evidence) -> (Side, Side) {
    let mut sides = (Side::default(), Side::default());
    let side_of = |question: &Question| match question {
        Question::Udp { shape: Shape::Hops(_), .. } | Question::Tcp { .. } | Question::Icmp(_) => None,
        Question::Udp { port, .. } => Some(evidence.promise.standing(Protocol::Udp, *port)),
    };
    for question in evidence.questions {
        match side_of(question) {
            Some(Standing::Tether) => sides.0.asked += 1,
            Some(_) => sides.1.asked += 1,
            None => {}
        }
    }
    // One answer of a kind counts for each question, the first.
    let mut counted = BTreeSet::new();
    for (question, seen) in evidence.telling() {
        let side = match side_of(question) {
            Some(Standing::Tether) => &mut sides.0,
            Some(_) => &mut sides.1,
            None => continue,
        };
        for words in [evidence.words(seen), ANY.to_owned()] {
            if counted.insert((seen.question, words.clone())) {
                side.times.entry(words).or_default().push(seen.after.as_secs_f64() * 1000.0);
            }
        }
    }
    sides
}
