//! Mistakes in a Codex, each with its place and remedy.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// Lines that are longer, in bytes, are shown around the mistake alone.
const LONG_LINE: usize = 512;
/// How much of a long line is shown before and behind a mistake, in bytes.
const WINDOW: usize = 48;
/// Messages and remedies that are longer, in bytes, are shown without their middle.
const LONG_TEXT: usize = 1024;

/// The files of a Codex: relative name (`lychd.toml`, `services/oculus.toml`, `peers/phone.toml`) → text,
/// or the reason why there is no text.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: BTreeMap<String, Text>,
    /// Paths under which people see single files.
    shown: BTreeMap<String, String>,
    /// Where people see the folders, `peers` for example.
    folders: BTreeMap<String, PathBuf>,
    hidden: Vec<String>,
}

/// What a file says, or why that is not known.
pub type Text = Result<String, Box<Diagnostic>>;

impl Sources {
    /// Adds a file that people see under its relative name, or below the path of its folder.
    pub fn insert(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.files.insert(name.into(), Ok(text.into()));
    }

    /// Adds a file that diagnostics show under another path, e.g. `codex/lychd.toml`. One that cannot be read is a
    /// mistake, which is reported together with all others.
    pub fn insert_shown(&mut self, name: impl Into<String>, shown: impl Into<String>, text: Text) {
        let name = name.into();
        self.shown.insert(name.clone(), shown.into());
        self.insert_all([(name, text)]);
    }

    /// Adds the files of a folder, which diagnostics show below the path `root`. There can be thousands.
    pub fn insert_folder(
        &mut self,
        folder: impl Into<String>,
        root: impl Into<PathBuf>,
        files: impl IntoIterator<Item = (String, Text)>,
    ) {
        self.folders.insert(folder.into(), root.into());
        self.insert_all(files);
    }

    /// Notes hidden files beside the bonds, which no Codex holds.
    pub fn pass_over(&mut self, hidden: impl IntoIterator<Item = String>) {
        self.hidden.extend(hidden);
    }

    /// Names of hidden files beside the bonds: what killed commands left is among them.
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }

    fn insert_all(&mut self, files: impl IntoIterator<Item = (String, Text)>) {
        let placed = files.into_iter().map(|(name, mut text)| {
            if let Err(why) = &mut text {
                why.file.clone_from(&name);
            }
            (name, text)
        });
        self.files = std::mem::take(&mut self.files).into_iter().chain(placed).collect();
    }

    /// Takes a file out.
    pub fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// The text of a file.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.files.get(name)?.as_deref().ok()
    }

    /// Relative name of every file, in byte order, and its text if it was read.
    pub fn files(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_deref().ok()))
    }

    /// Relative name and text of every file that was read, in byte order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter_map(|(name, text)| Some((name, text?)))
    }

    /// Mistakes that kept files from being read.
    pub fn unread(&self) -> impl Iterator<Item = &Diagnostic> {
        self.files.values().filter_map(|text| text.as_ref().err()).map(Box::as_ref)
    }

    /// The path under which people see a file.
    pub fn shown<'a>(&'a self, name: &'a str) -> Cow<'a, str> {
        let folder = || self.folders.get(name.split_once('/')?.0);
        match (self.shown.get(name), folder()) {
            (Some(shown), _) => shown.into(),
            (None, Some(root)) => root.join(name).display().to_string().into(),
            (None, None) => name.into(),
        }
    }

    /// Line and column (in characters) of a byte offset, both counted from 1.
    pub fn position(&self, name: &str, offset: usize) -> Option<(usize, usize)> {
        let text = self.text(name)?;
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some((1 + before.matches('\n').count(), 1 + before[line_start..].chars().count()))
    }
}

impl<N: Into<String>, T: Into<String>> FromIterator<(N, T)> for Sources {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(files: I) -> Self {
        let mut sources = Self::default();
        files.into_iter().for_each(|(name, text)| sources.insert(name, text));
        sources
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The Codex cannot be used.
    Error,
    /// The Codex can be used.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A file and, where it is known, the bytes in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Name in [`Sources`].
    pub file: Arc<str>,
    /// Bytes `start..end`; `None` is the file as a whole.
    pub span: Option<(usize, usize)>,
}

impl Place {
    /// The file as a whole.
    pub fn file(file: impl Into<Arc<str>>) -> Self {
        Self { file: file.into(), span: None }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// Name in [`Sources`].
    pub file: String,
    /// Bytes of the file that are wrong; `None` when it is the file as a whole.
    pub span: Option<Range<usize>>,
    /// A few words beside the caret; may be empty.
    pub label: String,
    /// Other places that belong to the mistake, each with a few words.
    pub related: Vec<(Place, String)>,
    /// Sentences that explain.
    pub notes: Vec<String>,
    /// The remedy.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(message: impl Into<String>, place: &Place) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            file: place.file.to_string(),
            span: place.span.map(|(start, end)| start..end),
            label: String::new(),
            related: Vec::new(),
            notes: Vec::new(),
            hint: None,
        }
    }

    /// Adds words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds another place that belongs to the mistake.
    #[must_use]
    pub fn related(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.related.push((place.clone(), label.into()));
        self
    }

    /// Adds a sentence that explains.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Sets the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Order of reports: by file, then by position.
    pub fn order(&self) -> (&str, Option<usize>, &str) {
        (&self.file, self.span.as_ref().map(|span| span.start), &self.message)
    }

    /// Lays the mistake out: message, `file:line:col`, an excerpt with a caret, notes, `help:`.
    ///
    /// Control characters of the Codex are shown as symbols, so that a hostile text cannot drive a terminal.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut report = Group::with_title(level.primary_title(brief(&self.message)));
        for (file, marks) in self.marks() {
            let path = plain(&sources.shown(file));
            let Some(excerpt) = sources.text(file).and_then(|text| Excerpt::around(text, &marks)) else {
                report = report.element(Origin::path(path));
                continue;
            };
            if excerpt.text.split('\n').all(|line| line.len() <= LONG_LINE) {
                let shown = |mark: &Mark<'_>| Some(mark.annotation(excerpt.within(mark.span?)));
                let snippet = Snippet::source(excerpt.text).line_start(excerpt.line).path(path);
                report = report.element(snippet.annotations(marks.iter().filter_map(shown)));
                continue;
            }
            for (mark, span) in marks.iter().filter_map(|mark| Some((mark, mark.span?))) {
                let (line, column) = sources.position(file, span.0).unwrap_or((1, 1));
                let (text, span) = excerpt.window(span);
                let snippet = Snippet::source(text).line_start(line).annotation(mark.annotation(span));
                report = report.element(Origin::path(path.clone()).line(line).char_column(column));
                report = report.element(snippet);
            }
        }
        for note in &self.notes {
            report = report.element(Level::NOTE.message(brief(note)));
        }
        if let Some(hint) = &self.hint {
            report = report.element(Level::HELP.message(brief(hint)));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(&[report])
    }

    /// All places by file: the primary one's file first, then in order of mention.
    fn marks(&self) -> Vec<(&str, Vec<Mark<'_>>)> {
        let span = self.span.as_ref().map(|span| (span.start, span.end));
        let mut files = vec![(self.file.as_str(), vec![Mark { span, label: &self.label, primary: true }])];
        for (place, label) in &self.related {
            let mark = Mark { span: place.span, label, primary: false };
            match files.iter_mut().find(|(file, _)| **file == *place.file) {
                Some((_, marks)) => marks.push(mark),
                None => files.push((&place.file, vec![mark])),
            }
        }
        files
    }
}

/// Lays out many mistakes, a blank line between them.
pub fn render_all(diagnostics: &[Diagnostic], sources: &Sources, color: bool) -> String {
    let rendered: Vec<String> =
        diagnostics.iter().map(|diagnostic| diagnostic.render(sources, color)).collect();
    rendered.join("\n\n")
}

struct Mark<'a> {
    span: Option<(usize, usize)>,
    label: &'a str,
    primary: bool,
}

impl Mark<'_> {
    fn annotation<'t>(&self, span: Range<usize>) -> Annotation<'t> {
        let kind = if self.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(span);
        if self.label.is_empty() { annotation } else { annotation.label(brief(self.label)) }
    }
}

/// The lines of a file that hold some marks: a report about one line must not cost a walk over the file.
struct Excerpt<'a> {
    text: &'a str,
    line: usize,
    offset: usize,
}

impl<'a> Excerpt<'a> {
    fn around(text: &'a str, marks: &[Mark<'_>]) -> Option<Self> {
        let spans = || marks.iter().filter_map(|mark| mark.span);
        let first = text.floor_char_boundary(spans().map(|(start, _)| start).min()?);
        let last = text.floor_char_boundary(spans().map(|(start, _)| start).max()?);
        let offset = text[..first].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[last..].find('\n').map_or(text.len(), |newline| last + newline);
        Some(Self { text: &text[offset..end], line: 1 + text[..offset].matches('\n').count(), offset })
    }

    /// The mark's bytes in the excerpt, cut at the end of its first line.
    fn within(&self, (start, end): (usize, usize)) -> Range<usize> {
        let start = self.text.floor_char_boundary(start.saturating_sub(self.offset));
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let end = self.text.ceil_char_boundary(end.saturating_sub(self.offset)).clamp(start, line_end);
        start..end
    }

    /// What is left and right of a mark in its line, and the mark in that: laying out a whole line of a mebibyte
    /// takes long, and nobody reads it.
    fn window(&self, span: (usize, usize)) -> (String, Range<usize>) {
        let Range { start, end } = self.within(span);
        let line = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[end..].find('\n').map_or(self.text.len(), |newline| end + newline);
        let left = self.text.floor_char_boundary(start.saturating_sub(WINDOW)).max(line);
        let end = self.text.floor_char_boundary(end.min(start + WINDOW)).max(start);
        let right = self.text.floor_char_boundary((end + WINDOW).min(line_end));
        let [before, after] = [left > line, right < line_end].map(|cut| if cut { "…" } else { "" });
        let shift = before.len();
        let text = format!("{before}{}{after}", &self.text[left..right]);
        (text, start - left + shift..end - left + shift)
    }
}

/// What a person reads of a text that may be as long as a file: its beginning and its end.
fn brief(text: &str) -> String {
    if text.len() <= LONG_TEXT {
        return plain(text);
    }
    let start = &text[..text.floor_char_boundary(LONG_TEXT / 2)];
    let end = &text[text.ceil_char_boundary(text.len() - LONG_TEXT / 4)..];
    plain(&format!("{start} … {end}"))
}

/// Text with its control characters made visible.
pub fn plain(text: &str) -> String {
    annotate_snippets::normalize_untrusted_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, span: (usize, usize)) -> (Sources, Diagnostic) {
        let place = Place { file: "a.toml".into(), span: Some(span) };
        ([("a.toml", text)].into_iter().collect(), Diagnostic::error("it is wrong", &place))
    }

    #[test]
    fn a_mistake_shows_line_column_caret_and_help() {
        let (sources, diagnostic) = one("x = 1\ny = 22\n", (10, 12));
        let shown = diagnostic.label("here").note("because").hint("mend it").render(&sources, false);
        for part in
            ["error: it is wrong", "a.toml:2:5", "2 | y = 22", "^^ here", "note: because", "help: mend it"]
        {
            assert!(shown.contains(part), "{part:?} is missing from\n{shown}");
        }
    }

    #[test]
    fn a_mistake_without_a_span_names_the_file() {
        let diagnostic = Diagnostic::error("it is missing", &Place::file("codex/lychd.toml"));
        let shown = diagnostic.render(&Sources::default(), false);
        assert!(shown.contains("codex/lychd.toml"), "{shown}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let (sources, mut diagnostic) = one("x = \"\u{1b}[2J\"\n", (4, 5));
        diagnostic.message = "bad \u{1b}[2J name\r".into();
        diagnostic.hint = Some("\u{7}".into());
        let shown = diagnostic.render(&sources, false);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }

    #[test]
    fn of_a_long_line_only_the_neighbourhood_is_shown() {
        let text = format!("a = 1\nx = [{}, \"wrong\", {}]\n", "1, ".repeat(9000), "\"é\", ".repeat(9000));
        let at = text.find("\"wrong").unwrap();
        let (sources, diagnostic) = one(&text, (at, at + 7));
        let place = Place { file: "a.toml".into(), span: Some((6, 7)) };
        let shown = diagnostic.label("here").related(&place, "and here").render(&sources, false);
        assert!(shown.len() < 1000, "{shown}");
        for part in
            ["a.toml:2:27008\n", "a.toml:2:1\n", "^^^^^^^ here", "- and here", "1, , \"wrong\", \"é\""]
        {
            assert!(shown.contains(part), "{part:?} is missing from\n{shown}");
        }
    }

    #[test]
    fn of_a_long_message_the_beginning_and_the_end_are_shown() {
        let (sources, mut diagnostic) = one("x = 1\n", (0, 1));
        diagnostic.message = format!("`{}` is wrong", "é".repeat(1 << 20));
        let shown = diagnostic.render(&sources, false);
        assert!(
            shown.len() < 2000 && shown.contains("error: `éé") && shown.contains("` is wrong"),
            "{shown}"
        );
    }

    #[test]
    fn any_span_over_any_text_renders() {
        let long = format!("é\n{}\r\nz", "é\u{301}x".repeat(LONG_LINE));
        for (text, step) in
            [("", 1), ("\n", 1), ("é", 1), ("a\r\n\u{2028}é\n", 1), ("x\n\n\n", 1), (&long, 37)]
        {
            for start in (0..=text.len() + 2).step_by(step) {
                for end in (start..=text.len() + 2).step_by(step) {
                    let (sources, diagnostic) = one(text, (start, end));
                    assert!(diagnostic.render(&sources, true).contains("wrong"));
                    assert!(sources.position("a.toml", start).is_some());
                }
            }
        }
    }
}
