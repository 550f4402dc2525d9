use std::time::Duration;

use super::*;
use crate::probe::dice::Dice;
use crate::probe::{Scope, plan};

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const CLOSED: What = What::Error(3, 3);

/// A host that answers a question in one way or not at all.
type Answers = fn(&Question, Standing) -> Option<(IpAddr, What)>;

fn promise(whole: bool) -> Promise {
    let forest = BTreeSet::from([(Protocol::Tcp, 80)]);
    let hidden = BTreeSet::from([(Protocol::Tcp, 6006), (Protocol::Udp, 5004)]);
    Promise { tether: 51820, forest, hidden, echo: whole.then_some(false), dark: false, whole }
}

fn judged(whole: bool, answers: Answers) -> Report {
    let promise = promise(whole);
    let scope = Scope { address: HOST, promise: &promise, key: None, rounds: 4, raw: true };
    let questions = plan(&scope, &mut Dice::new([9; 32]));
    let standing = |question: &Question| match question {
        Question::Udp { port, .. } => promise.standing(Protocol::Udp, *port),
        Question::Tcp { port } => promise.standing(Protocol::Tcp, *port),
        Question::Icmp(_) => Standing::Random,
    };
    let mut seen = Vec::new();
    for (question, asked) in questions.iter().enumerate() {
        if let Some((from, what)) = answers(asked, standing(asked)) {
            let after = Duration::from_micros(500 + u64::try_from(question * 7 % 100).unwrap());
            seen.push(Seen { question, after, from, what });
        }
    }
    judge(&Evidence {
        address: HOST,
        promise: &promise,
        questions: &questions,
        seen: &seen,
        neighbour: false,
    })
}

/// Nothing but the forest's port.
fn quiet(question: &Question, _: Standing) -> Option<(IpAddr, What)> {
    matches!(question, Question::Tcp { port: 80 }).then_some((HOST, What::Open))
}

fn leaks(answers: Answers, expected: &[&str]) {
    let report = judged(true, answers);
    assert_eq!(
        report.verdict,
        if expected.is_empty() { Verdict::Silent } else { Verdict::Leak },
        "{report:#?}"
    );
    for part in expected {
        assert!(
            report.leaks.iter().any(|leak| leak.contains(part)),
            "{part:?} is not in {:#?}",
            report.leaks
        );
    }
    assert_eq!(report.leaks.len(), expected.len(), "{:#?}", report.leaks);
}

#[test]
fn a_silent_host_is_silent() {
    leaks(quiet, &[]);
    let report = judged(true, quiet);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(report.comparisons.len(), 1);
    assert!(report.comparisons[0].p > 0.99 && report.comparisons[0].tether.asked == 48);
}

#[test]
fn a_host_that_is_not_there_proves_nothing() {
    let report = judged(true, |_, _| None);
    assert!(report.notes.iter().any(|note| note.contains("nothing came back at all")), "{:?}", report.notes);
    assert_eq!(report.verdict, Verdict::Unreachable, "a port that should be open is not");
    let report = judged(true, |_, _| Some((ROUTER, What::Error(3, 1))));
    assert_eq!(report.verdict, Verdict::Unreachable);
    let report = judged(true, |question, _| match question {
        Question::Udp { shape: Shape::Hops(1), .. } => Some((ROUTER, What::Error(11, 0))),
        question => quiet(question, Standing::Random),
    });
    assert_eq!(report.verdict, Verdict::Silent, "routers on the way do as they should");
}

/// What no answer at all is worth, and whether it is said.
fn unanswered(promise: &Promise, neighbour: bool) -> (Verdict, bool) {
    let report = judge(&Evidence { address: HOST, promise, questions: &[], seen: &[], neighbour });
    let said = report.notes.iter().any(|note| note.contains("nothing came back at all"));
    (report.verdict, said)
}

#[test]
fn an_address_that_nobody_has_is_not_called_silent() {
    let unknown = Promise { tether: 51820, ..Promise::default() };
    assert_eq!(unanswered(&unknown, false), (Verdict::Unreachable, true), "nothing is known of it");
    let all = Promise { echo: Some(false), whole: true, ..unknown.clone() };
    assert_eq!(unanswered(&all, false), (Verdict::Unreachable, true), "nor is it of one without open ports");
    let dark = Promise { dark: true, ..all };
    assert_eq!(unanswered(&dark, false), (Verdict::Silent, true), "a dark one promises just that");
    let open = Promise { forest: BTreeSet::from([(Protocol::Tcp, 80)]), ..dark };
    for neighbour in [false, true] {
        assert_eq!(unanswered(&open, neighbour), (Verdict::Unreachable, true), "unless a port was named");
    }
    assert_eq!(unanswered(&unknown, true), (Verdict::Silent, false), "on the same link it is there");
}

#[test]
fn closed_ports_that_answer_are_named() {
    leaks(
        |question, standing| match (question, standing) {
            (Question::Udp { .. }, Standing::Random | Standing::Hidden) => Some((HOST, CLOSED)),
            (question, standing) => quiet(question, standing),
        },
        &[
            "icmp port unreachable from closed ports, none from the tether's",
            "count of its answers: icmp port unreachable, 0 of 48 against 48 of 48",
        ],
    );
}

#[test]
fn a_tether_that_answers_is_named_and_so_is_one_among_answering_ports() {
    leaks(
        |question, standing| match (question, standing) {
            (Question::Udp { shape: Shape::Empty, .. }, Standing::Tether) => Some((HOST, What::Datagram(12))),
            (question, standing) => quiet(question, standing),
        },
        &["the tether's port answers a datagram (to empty)"],
    );
    leaks(
        |question, standing| match question {
            Question::Udp { .. } => Some((HOST, CLOSED)),
            question => quiet(question, standing),
        },
        &[
            "the tether's port answers icmp port unreachable (to empty; ",
            "closed ports, and the tether's too",
        ],
    );
}

#[test]
fn another_udp_port_that_answers_is_a_leak_only_where_all_are_known() {
    let stray: Answers = |question, standing| match (question, standing) {
        (Question::Udp { shape: Shape::Empty, .. }, Standing::Random) => Some((HOST, What::Elsewhere(53))),
        (question, standing) => quiet(question, standing),
    };
    let told = |sentences: &[String]| {
        let part = "answers a datagram from another port, and is not declared for everybody";
        sentences.iter().any(|sentence| sentence.contains(part))
    };
    assert!(told(&judged(true, stray).leaks));
    let report = judged(false, stray);
    assert!(told(&report.notes) && !told(&report.leaks), "{report:#?}");
    let hidden: Answers = |question, standing| match (question, standing) {
        (Question::Udp { .. }, Standing::Hidden) => Some((HOST, What::Datagram(3))),
        (question, standing) => quiet(question, standing),
    };
    let report = judged(false, hidden);
    assert!(report.leaks[0].starts_with("udp port 5004 answers a datagram"), "{report:#?}");
}

#[test]
fn answers_that_take_another_time_are_told_apart() {
    let promise = promise(true);
    let scope = Scope { address: HOST, promise: &promise, key: None, rounds: 4, raw: false };
    let questions = plan(&scope, &mut Dice::new([9; 32]));
    let seen: Vec<_> = questions
        .iter()
        .enumerate()
        .filter_map(|(question, asked)| {
            let Question::Udp { port, .. } = asked else { return None };
            let micros = if *port == 51820 { 650 } else { 500 } + u64::try_from(question * 7 % 100).ok()?;
            Some(Seen { question, after: Duration::from_micros(micros), from: HOST, what: CLOSED })
        })
        .collect();
    let report = judge(&Evidence {
        address: HOST,
        promise: &promise,
        questions: &questions,
        seen: &seen,
        neighbour: false,
    });
    let told =
        report.leaks.iter().any(|leak| leak.contains("by the time of its answers: icmp port unreachable"));
    assert!(told, "{:#?}", report.leaks);
}

#[test]
fn resets_and_open_ports_are_named() {
    leaks(
        |question, standing| match (question, standing) {
            (Question::Tcp { .. }, Standing::Random) => Some((HOST, What::Reset)),
            (Question::Tcp { port: 6006 }, _) => Some((HOST, What::Open)),
            (question, standing) => quiet(question, standing),
        },
        &["reset instead of drop: tcp ports ", "tcp port 6006 open, and not declared for everybody"],
    );
}

#[test]
fn a_router_behind_the_tether_s_port_is_named() {
    leaks(
        |question, standing| match (question, standing) {
            (Question::Udp { shape: Shape::Hops(3), .. }, Standing::Tether) => {
                Some((HOST, What::Error(11, 0)))
            }
            (question, standing) => quiet(question, standing),
        },
        &["time exceeded for the tether's port alone"],
    );
}

#[test]
fn an_echo_is_a_leak_where_none_is_promised_and_a_note_elsewhere() {
    let echo: Answers = |question, standing| match question {
        Question::Icmp(Ask::Echo) => Some((HOST, What::Answer)),
        question => quiet(question, standing),
    };
    leaks(echo, &["echo answered, and the Codex lets none be"]);
    let report = judged(false, echo);
    assert_eq!((report.verdict, report.notes), (Verdict::Silent, vec!["echo answered".to_owned()]));
    leaks(
        |question, standing| match question {
            Question::Icmp(Ask::Timestamp) => Some((HOST, What::Answer)),
            question => quiet(question, standing),
        },
        &["icmp timestamp: an answer"],
    );
}
