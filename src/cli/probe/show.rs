//! What is going to be sent, and what came of it, for people.

use std::net::IpAddr;

use super::{Args, Plan};
use crate::cli::output::{length, table};
use crate::probe::verdict::{Comparison, Report, Row, Verdict};
use crate::probe::{Question, duration};

/// Said before the first packet leaves.
pub fn plan(plan: &Plan, args: &Args, others: &[IpAddr]) -> String {
    let count = |of: fn(&Question) -> bool| plan.questions.iter().filter(|question| of(question)).count();
    let datagrams = count(|question| matches!(question, Question::Udp { .. }));
    let segments = count(|question| matches!(question, Question::Tcp { .. }));
    let messages = count(|question| matches!(question, Question::Icmp(_)));
    let pages = plan.pairs.len() * 3;
    let time = duration(&plan.questions, plan.pace.rate, plan.pace.wait).as_secs() + 1;
    let mut text = format!(
        "asking {}{}: {datagrams} datagrams (the tether's port is {}), {segments} SYNs, {messages} ICMP messages\n\
         at most {} packets a second to that address alone, {}",
        plan.address,
        if plan.address.to_string() == args.host { String::new() } else { format!(" ({})", args.host) },
        plan.promise.tether,
        plan.pace.rate,
        length(time),
    );
    if pages > 0 {
        text.push_str(&format!("; then {pages} pages, at most 5 s each"));
    }
    text.push('\n');
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(ToString::to_string).collect();
        text.push_str(&format!("not asked: {}, which the name has too\n", others.join(", ")));
    }
    text
}

/// The whole report.
pub fn report(report: &Report) -> String {
    let Report { schema: _, address, verdict, leaks, notes, asked, comparisons } = report;
    let mut text = table(&rows(asked));
    text.push('\n');
    text.push_str(&table(&compared(comparisons)));
    text.push('\n');
    for leak in leaks {
        text.push_str(&format!("LEAK  {leak}\n"));
    }
    for note in notes {
        text.push_str(&format!("note  {note}\n"));
    }
    text.push_str(&match verdict {
        Verdict::Silent => format!("{address} is silent\n"),
        Verdict::Leak => format!("{address} leaks\n"),
        Verdict::Unreachable => format!("{address} was not reached\n"),
    });
    text
}

fn rows(asked: &[Row]) -> Vec<Vec<String>> {
    let heading = ["ASKED", "PORT", "SENT", "ANSWERED", "BY", "MEDIAN"].map(str::to_owned).to_vec();
    let row = |row: &Row| {
        let Row { question, port, sent, answered, by, median_ms } = row;
        let port = port.map(|port| format!("{port:?}").to_lowercase()).unwrap_or_default();
        let by: Vec<_> = by.iter().map(|(words, count)| format!("{words} ({count})")).collect();
        let by = if by.is_empty() { "-".to_owned() } else { by.join(", ") };
        vec![question.clone(), port, sent.to_string(), answered.to_string(), by, milliseconds(*median_ms)]
    };
    std::iter::once(heading).chain(asked.iter().map(row)).collect()
}

fn compared(comparisons: &[Comparison]) -> Vec<Vec<String>> {
    let heading = ["COMPARED", "ANSWER", "TETHER", "CLOSED", "P"].map(str::to_owned).to_vec();
    let row = |comparison: &Comparison| {
        let Comparison { of, answer, tether, closed, p } = comparison;
        let side = |group: &crate::probe::verdict::Group| match *of {
            "time" => milliseconds(group.median_ms),
            _ => format!("{} of {}", group.answered, group.asked),
        };
        let p = if *p < 0.001 { format!("{p:.0e}") } else { format!("{p:.3}") };
        vec![(*of).to_owned(), answer.clone(), side(tether), side(closed), p]
    };
    std::iter::once(heading).chain(comparisons.iter().map(row)).collect()
}

fn milliseconds(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.2} ms")).unwrap_or_default()
}
