//! `sepulcher explain`: whether somebody reaches something, by which rule, and which line of the Codex says so.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::output::{self, print};
use super::{Failure, Kind, codex};
use crate::codex::{Codex, Sources, locate};
use crate::reach::ask::{NotUnderstood, Question};
use crate::reach::{Cause, Fate, Reach, Source, Verdict};
use crate::sys::clock;

/// Say whether somebody reaches something, and why
///
/// The answer comes from the Codex, by the same model that the rulesets are rendered from. Both answers end with 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sepulcher explain phone oculus:6006
  sepulcher explain forest /a2a/smith
  sepulcher explain forest :51820/udp
  sepulcher explain phone laptop:22")]
pub struct Args {
    /// Who: a peer, `forest` (anybody outside), `host`, `pod` (any container), or an address
    from: String,
    /// What: a service, SERVICE:PORT, PEER:PORT, ADDRESS:PORT, :PORT (each with /tcp or /udp), an address, a path, a peer, a
    /// door (`bonds`, `metrics`, `rebirth`, `snapshots`) or `host`
    to: String,
    /// Folder of a Codex on a workstation [default: that of this appliance]
    #[arg(long, value_name = "DIR")]
    codex: Option<PathBuf>,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (codex, sources) = codex::read(args.codex.as_deref())?;
    let reach = Reach::new(&codex, clock::now());
    let source = reach.source(&args.from)?;
    let questions = reach.questions(&source, &args.to)?;
    let answers = questions.iter().map(|question| (question, reach.verdict(&source, &question.target)));
    if args.json {
        let answers: Vec<Value> =
            answers.map(|(question, verdict)| one(question, &verdict, &codex, &sources)).collect();
        let from = source.to_string();
        return print(&output::json(
            &json!({ "schema": 1, "from": from, "to": args.to, "answers": answers }),
        )?);
    }
    let told: Vec<String> =
        answers.map(|(question, verdict)| told(&source, question, &verdict, &codex, &sources)).collect();
    print(&told.join("\n"))
}

/// An answer for people.
fn told(source: &Source, question: &Question, verdict: &Verdict, codex: &Codex, sources: &Sources) -> String {
    let (guard, chain) = verdict.rule.place();
    let answer = match verdict.fate {
        Fate::Allowed => format!("yes: {source} reaches {}", question.label),
        Fate::Silent => format!("no: {source} does not reach {}; nothing is answered", question.label),
        Fate::Denied => {
            format!(
                "no: {source} does not reach {}; nothing is answered, the attempt is counted",
                question.label
            )
        }
        Fate::Unknown => {
            format!("no: {source} does not reach {}; it is answered like anything unknown", question.label)
        }
    };
    let guard = match chain {
        Some(chain) => format!("{}, chain {chain}: ", guard.word()),
        None => format!("{}: ", guard.word()),
    };
    let mut lines = vec![("why", verdict.why.clone())];
    lines.extend(
        verdict.causes.iter().map(|cause| ("codex", format!("{}: {}", at(cause, sources), cause.says))),
    );
    lines.push(("rule", guard + &verdict.rule.text(codex)));
    lines.extend(verdict.element.iter().map(|element| ("element", element.clone())));
    lines.extend(verdict.remedy.iter().map(|remedy| ("remedy", remedy.clone())));
    let lines = lines.into_iter().map(|(what, text)| format!("  {what:<7}  {text}\n"));
    format!("{answer}\n{}", lines.collect::<String>())
}

/// `services/oculus.toml:8`; the file alone where nothing is written.
fn at(cause: &Cause, sources: &Sources) -> String {
    match line(cause, sources) {
        Some(line) => format!("{}:{line}", cause.file),
        None => cause.file.clone(),
    }
}

fn line(cause: &Cause, sources: &Sources) -> Option<usize> {
    let place = locate(sources, &cause.file, &cause.key)?;
    Some(sources.position(&cause.file, place.span?.0)?.0)
}

fn one(question: &Question, verdict: &Verdict, codex: &Codex, sources: &Sources) -> Value {
    let Verdict { fate, why, rule, element, causes, remedy } = verdict;
    let (guard, chain) = rule.place();
    let cause = |cause: &Cause| {
        let key: String = cause.key.iter().map(ToString::to_string).collect();
        let key = key.trim_start_matches('.');
        json!({ "file": cause.file, "line": line(cause, sources), "key": key, "says": cause.says })
    };
    json!({
        "to": question.label,
        "allowed": verdict.allowed(),
        "fate": fate,
        "why": why,
        "guard": guard.word(),
        "chain": chain,
        "rule": rule.text(codex),
        "element": element,
        "causes": causes.iter().map(cause).collect::<Vec<_>>(),
        "remedy": remedy,
    })
}

impl From<NotUnderstood> for Failure {
    fn from(error: NotUnderstood) -> Self {
        Self::new(Kind::Input, error.to_string()).hint(error.hint)
    }
}
