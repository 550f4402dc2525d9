//! Where in a file of the Codex something is declared.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Place, Sources};

/// One step of the way from a file's root to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A key of a table.
    Key(&'static str),
    /// A table of a list, counted from 0.
    Index(usize),
    /// The element of a list that is this text.
    Word(String),
}

/// Displays as people write it, `port[0].tier`, after another step.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, ".{key}"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Word(word) => write!(f, "[{word:?}]"),
        }
    }
}

/// Where the value at the end of `steps` is written; where a step leads nowhere, because a default is not written,
/// the table around it; `None` for a file that is not there or is no TOML.
pub fn locate(sources: &Sources, file: &str, steps: &[Step]) -> Option<Place> {
    let tree = DeTable::parse(sources.text(file)?).ok()?;
    let mut place = Place::file(file);
    let mut here: Option<&Spanned<DeValue<'_>>> = None;
    for step in steps {
        let next = match (here.map(Spanned::get_ref), step) {
            (None, Step::Key(key)) => tree.get_ref().get(*key),
            (Some(DeValue::Table(table)), Step::Key(key)) => table.get(*key),
            (Some(DeValue::Array(list)), Step::Index(index)) => list.get(*index),
            (Some(DeValue::Array(list)), Step::Word(word)) => {
                list.iter().find(|item| item.get_ref().as_str() == Some(word))
            }
            _ => None,
        };
        let Some(found) = next else { break };
        // A list of tables has no place of its own.
        let span = found.span();
        if !span.is_empty() {
            place.span = Some((span.start, span.end));
        }
        here = Some(found);
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_and_else_what_is_around_it() {
        let text = "x = [\"a\", \"b\"]\n[[port]]\nnumber = 1\n\n[[port]]\nnumber = 2\ntier = \"tether\"\n";
        let sources: Sources = [("a.toml", text)].into_iter().collect();
        let line = |steps: &[Step]| {
            let place = locate(&sources, "a.toml", steps)?;
            Some(sources.position("a.toml", place.span?.0)?.0)
        };
        let second = [Step::Key("port"), Step::Index(1), Step::Key("tier")];
        assert_eq!(line(&second), Some(7));
        assert_eq!(line(&[Step::Key("port"), Step::Index(0), Step::Key("tier")]), Some(2));
        assert_eq!(line(&[Step::Key("x"), Step::Word("b".into())]), Some(1));
        assert_eq!(line(&[Step::Key("nothing")]), None);
        assert_eq!(locate(&sources, "b.toml", &second), None);
        assert_eq!(second.iter().map(ToString::to_string).collect::<String>(), ".port[1].tier");
    }
}
