//! What must hold whatever is fed. The fuzz targets call it, and so do the tests, with the corpus.

use sepulcher::codex::{Codex, Diagnostic, Sources, render_all};
use sepulcher::image::deb;
use sepulcher::render::render;

/// Begins a file in a case of [`codex`]: `#: services/oculus.toml`. To TOML it is a comment.
pub const FILE: &str = "#: ";
/// Bytes that the data of a fed package may decompress to.
const DATA_LIMIT: u64 = 1 << 20;

/// Parses a Codex whose files follow one another in `case`, and renders it, or lays its mistakes out.
pub fn codex(case: &str) {
    let sources = files(case);
    match Codex::parse(&sources) {
        Ok(codex) => {
            let trees = [(); 2].map(|()| render(&codex));
            assert!(matches!(&trees, [Ok(one), Ok(two)] if one == two), "not the same tree twice: {trees:?}");
        }
        Err(mistakes) => laid_out(&mistakes, &sources, case.len()),
    }
}

/// The files of a case.
fn files(case: &str) -> Sources {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in case.split_inclusive('\n') {
        match (line.strip_prefix(FILE), files.last_mut()) {
            (Some(name), _) => files.push((name.trim_end().to_owned(), String::new())),
            (None, Some((_, text))) => text.push_str(line),
            (None, None) => files.push(("lychd.toml".to_owned(), line.to_owned())),
        }
    }
    files.into_iter().collect()
}

fn laid_out(mistakes: &[Diagnostic], sources: &Sources, fed: usize) {
    assert!(!mistakes.is_empty(), "refused without a mistake");
    assert!(mistakes.is_sorted_by(|one, next| one.order() <= next.order()), "mistakes out of order");
    for mistake in mistakes {
        let Some(span) = &mistake.span else { continue };
        assert!(span.start <= span.end, "{span:?} of {}", mistake.file);
        assert!(sources.position(&mistake.file, span.start).is_some(), "no place for {mistake:?}");
    }
    let plain = render_all(mistakes, sources, false);
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!plain.contains(control), "a control character reaches the terminal: {plain:?}");
    assert!(render_all(mistakes, sources, true).len() >= plain.len());
    // A report grows with what was fed, never with its square.
    assert!(plain.len() <= 4096 + 512 * fed, "{} bytes of report about {fed} bytes", plain.len());
}

/// Reads a package from memory, and its control fields.
pub fn package(bytes: &[u8]) {
    let _ = deb::check("fed", bytes, DATA_LIMIT);
    let _ = deb::control("fed", bytes);
}
