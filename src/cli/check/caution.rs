//! What a valid Codex may still give away.

use crate::codex::{Codex, Diagnostic, Place, Severity, Sources, Step, locate};
use crate::reach::{Owned, sheltered};

/// A warning for each pinned route that its own service answers outside.
pub fn cautions(codex: &Codex, sources: &Sources) -> Vec<Diagnostic> {
    sheltered(codex).into_iter().map(|(pinned, around)| one(pinned, around, sources)).collect()
}

fn one(pinned: Owned<'_>, around: Owned<'_>, sources: &Sources) -> Diagnostic {
    let (owner, (path, port)) = (pinned.0, (&pinned.2.path, pinned.2.port));
    let (outer, outer_port) = (&around.2.path, around.2.port);
    let place = |(_, index, _): Owned<'_>| {
        let file = format!("services/{owner}.toml");
        let key = [Step::Key("route"), Step::Index(index), Step::Key("path")];
        locate(sources, &file, &key).unwrap_or_else(|| Place::file(file))
    };
    let (message, note, hint) = if port == outer_port {
        (
            format!("`{owner}` itself answers the forest for the pinned route `{path}`"),
            "it is asked for another path then, which shows where answers repeat it: in pages that are not \
             there, in redirects"
                .to_owned(),
            "give the pinned route a port of its own".to_owned(),
        )
    } else {
        (
            format!(
                "port {outer_port} of `{owner}` is asked by the forest for the pinned route `{path}`, too"
            ),
            format!("the route `{outer}` covers it, and what is pinned is port {port}"),
            format!("make sure that nothing is served below `{path}` at port {outer_port}"),
        )
    };
    let warning = Diagnostic { severity: Severity::Warning, ..Diagnostic::error(message, &place(pinned)) };
    warning.label("pinned").related(&place(around), "public").note(note).hint(hint)
}
