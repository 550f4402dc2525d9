//! What was asked, and what answered, a row a kind.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Evidence;
use crate::codex::Protocol;
use crate::probe::payload::Shape;
use crate::probe::statistics::median;
use crate::probe::{Question, Standing};

/// A kind of question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// In words.
    pub question: String,
    /// What is known of the ports; `None` for what has none.
    pub port: Option<Standing>,
    /// How many were asked.
    pub sent: usize,
    /// How many were answered.
    pub answered: usize,
    /// By what, and how often.
    pub by: BTreeMap<String, usize>,
    /// Median time to the first answer in milliseconds.
    pub median_ms: Option<f64>,
}

/// All rows, in order.
pub fn all(evidence: &Evidence) -> Vec<Row> {
    let mut rows: BTreeMap<(u8, String, Option<Standing>), Vec<usize>> = BTreeMap::new();
    for (index, question) in evidence.questions.iter().enumerate() {
        rows.entry(key(evidence, question)).or_default().push(index);
    }
    rows.into_iter().map(|((_, question, port), asked)| row(evidence, question, port, &asked)).collect()
}

/// Where a question belongs: UDP first, then TCP, then ICMP.
fn key(evidence: &Evidence, question: &Question) -> (u8, String, Option<Standing>) {
    match question {
        Question::Udp { port, shape, .. } => {
            let words = match shape {
                Shape::Hops(_) => "udp few hops".to_owned(),
                shape => format!("udp {shape}"),
            };
            (0, words, Some(evidence.promise.standing(Protocol::Udp, *port)))
        }
        Question::Tcp { port } => match evidence.promise.standing(Protocol::Tcp, *port) {
            Standing::Random => (1, "tcp".to_owned(), Some(Standing::Random)),
            standing => (1, format!("tcp {port}"), Some(standing)),
        },
        Question::Icmp(ask) => (2, format!("icmp {ask}"), None),
    }
}

fn row(evidence: &Evidence, question: String, port: Option<Standing>, asked: &[usize]) -> Row {
    let asked: BTreeSet<usize> = asked.iter().copied().collect();
    let mut by = BTreeMap::new();
    let mut first = BTreeMap::new();
    for seen in evidence.seen.iter().filter(|seen| asked.contains(&seen.question)) {
        *by.entry(evidence.words(seen)).or_default() += 1;
        first.entry(seen.question).or_insert(seen.after.as_secs_f64() * 1000.0);
    }
    let times: Vec<f64> = first.values().copied().collect();
    Row { question, port, sent: asked.len(), answered: first.len(), by, median_ms: median(&times) }
}
