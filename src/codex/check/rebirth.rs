//! Updates: sources are of use to a body that knows whose signature to ask for.

use std::collections::BTreeMap;

use crate::codex::diagnostic::Diagnostic;
use crate::codex::schema::{Draft, Field, Law};

/// Checks `[rebirth]`.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    let Some(law) = &draft.law else { return };
    patience(law, mistakes);
    let Field::Given(sources) = &law.sources else { return };
    if !law.publisher.is_written() && !sources.value.is_empty() {
        let message = "there are sources of updates, and nobody whose signature makes one good";
        let mistake = Diagnostic::error(message, &sources.place);
        mistakes.push(mistake.hint("write `publisher = ` and the key that `sepulcher keygen` prints"));
    }
    let mut seen = BTreeMap::new();
    for source in &sources.value {
        if let Some(first) = seen.insert(&source.value, &source.place) {
            let mistake = Diagnostic::error("this source is named twice", &source.place);
            mistakes.push(mistake.related(first, "the first").hint("remove one of the two"));
        }
    }
}

/// A body that must be healthy at once never is; one that may take hours keeps a broken machine down for as long.
fn patience(law: &Law, mistakes: &mut Vec<Diagnostic>) {
    let Some(patience) = &law.patience else { return };
    if !(30..=3600).contains(&patience.value.seconds()) {
        let message = "a body proves healthy in no less than 30 seconds and no more than an hour";
        let mistake = Diagnostic::error(message, &patience.place);
        mistakes.push(mistake.hint("write one like patience = \"4m\""));
    }
}
