//! Reads a spanned TOML tree key by key and collects every mistake instead of stopping at the first.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::suggest::nearest;

/// Mistakes that are kept of one file.
const LIMIT: usize = 1000;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it was written; without a span it is a default of that file.
    pub place: Place,
}

/// A key that need not be there.
#[derive(Debug, Clone)]
pub enum Field<T> {
    /// Not written.
    Absent,
    /// Written wrong; already reported.
    Wrong,
    /// Written. Few keys of a peer are, and its size counts where there are thousands.
    Given(Box<At<T>>),
}

impl<T> Field<T> {
    /// The value, unless absent or wrong.
    pub fn given(self) -> Option<At<T>> {
        match self {
            Self::Given(at) => Some(*at),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// Whether the key was written, right or wrong.
    pub fn is_written(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// One file while it is read: its name and the mistakes so far.
pub struct File {
    name: Arc<str>,
    mistakes: RefCell<Vec<Diagnostic>>,
}

impl File {
    /// A file without mistakes yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), mistakes: RefCell::default() }
    }

    /// The mistakes.
    pub fn into_mistakes(self) -> Vec<Diagnostic> {
        self.mistakes.into_inner()
    }

    /// A place in the file.
    pub fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.name.clone(), span: Some((span.start, span.end)) }
    }

    /// The file as a whole.
    pub fn whole(&self) -> Place {
        Place { file: self.name.clone(), span: None }
    }

    /// Reports a mistake; those after the first thousand are left out, as nobody will be told of them.
    pub fn report(&self, diagnostic: Diagnostic) {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.len() < LIMIT {
            mistakes.push(diagnostic);
        }
    }
}

/// A value of the Codex that TOML can hold.
pub trait FromToml: Sized {
    /// What TOML type is wanted, with its article: `a string`.
    const EXPECTED: &'static str;

    /// Reads the value; `None` when it is wrong, after reporting that. `key` is its name for people.
    fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self>;
}

/// Reports a value of another type than `expected`.
pub fn wrong_type(value: &DeValue<'_>, place: &Place, key: &str, expected: &str, file: &File) {
    let text = value.as_str().unwrap_or_default();
    let hint = if expected == "a string" && !value.is_array() && !value.is_table() {
        "put it in quotes".into()
    } else if text.parse::<u64>().is_ok() || text.parse::<bool>().is_ok() {
        format!("write {text}, without quotes")
    } else if expected == "a list" && !value.is_table() {
        "put it in brackets, like `[1, 2]`".into()
    } else if expected == "a table" {
        format!("write it as `[{key}]`, with its keys in the lines below")
    } else if expected == "a list of tables" {
        format!("write it as `[[{key}]]`, with its keys in the lines below")
    } else {
        format!("write {expected} in its place")
    };
    let message = format!("`{key}` must be {expected}, not {}", type_name(value));
    file.report(Diagnostic::error(message, place).hint(hint));
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What is written is wrong, and already reported.
struct Wrong;

/// A table while it is read. Every key is asked for once; [`Table::finish`] reports those nobody asked for.
pub struct Table<'a> {
    title: Title,
    entries: Entries<'a>,
    place: Place,
    file: &'a File,
    known: Vec<&'static str>,
    missing: Vec<(&'static str, Diagnostic)>,
}

/// How a table is headed.
#[derive(Clone, Copy)]
enum Title {
    Root,
    Section(&'static str),
    OfList(&'static str),
}

/// Displays as what follows the name of a key.
impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Section(key) => write!(f, " in `[{key}]`"),
            Self::OfList(key) => write!(f, " in `[[{key}]]`"),
        }
    }
}

#[derive(Clone, Copy)]
enum Entries<'a> {
    /// Not written: every key is absent.
    Absent,
    /// Something else was written; already reported, so that every key counts as wrong.
    Wrong,
    /// Written.
    Given(&'a DeTable<'a>),
}

impl<'a> Table<'a> {
    /// The root table of a file.
    pub fn root(entries: &'a DeTable<'a>, file: &'a File) -> Self {
        Self::new(Title::Root, Entries::Given(entries), file.whole(), file)
    }

    fn new(title: Title, entries: Entries<'a>, place: Place, file: &'a File) -> Self {
        // No table has more keys than these.
        Self { title, entries, place, file, known: Vec::with_capacity(16), missing: Vec::new() }
    }

    /// Where the table was written.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The file that it is in.
    pub fn file(&self) -> &'a File {
        self.file
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        match self.entries {
            Entries::Given(entries) => entries.get(key),
            Entries::Absent | Entries::Wrong => None,
        }
    }

    /// A key, where it is written.
    fn key<T: FromToml>(&mut self, key: &'static str) -> Result<Option<At<T>>, Wrong> {
        let Some(value) = self.value(key) else {
            return if matches!(self.entries, Entries::Wrong) { Err(Wrong) } else { Ok(None) };
        };
        let place = self.file.place(value.span());
        let value = T::from_toml(value.get_ref(), &place, key, self.file).ok_or(Wrong)?;
        Ok(Some(At { value, place }))
    }

    /// A key that need not be there.
    pub fn optional<T: FromToml>(&mut self, key: &'static str) -> Field<T> {
        match self.key(key) {
            Ok(None) => Field::Absent,
            Ok(Some(at)) => Field::Given(at.into()),
            Err(Wrong) => Field::Wrong,
        }
    }

    /// A key with a default; `None` when it is written wrong.
    pub fn defaulted<T: FromToml>(&mut self, key: &'static str, default: T) -> Option<At<T>> {
        let at = self.key(key).ok()?;
        Some(at.unwrap_or_else(|| At { value: default, place: self.file.whole() }))
    }

    /// A key that must be there; `example` is what the remedy shows behind `key = `.
    pub fn required<T: FromToml>(&mut self, key: &'static str, example: &str) -> Option<At<T>> {
        let at = self.key(key).ok()?;
        if at.is_none() {
            let mistake = Diagnostic::error(format!("`{key}` is missing{}", self.title), &self.place);
            let mistake = mistake.hint(format!("write `{key} = {example}`{}", self.title));
            self.missing.push((key, mistake));
        }
        at
    }

    /// A table of its own; an absent one reads as empty.
    pub fn section(&mut self, key: &'static str) -> Table<'a> {
        let title = Title::Section(key);
        let Some(value) = self.value(key) else {
            return Self::new(title, Entries::Absent, self.file.whole(), self.file);
        };
        let place = self.file.place(value.span());
        let entries = if let DeValue::Table(entries) = value.get_ref() {
            Entries::Given(entries)
        } else {
            wrong_type(value.get_ref(), &place, key, "a table", self.file);
            Entries::Wrong
        };
        Self::new(title, entries, place, self.file)
    }

    /// A table of its own that need not be there.
    pub fn optional_section(&mut self, key: &'static str) -> Option<Table<'a>> {
        let section = self.section(key);
        (!matches!(section.entries, Entries::Absent)).then_some(section)
    }

    /// The tables of a list, written `[[key]]`.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let wrong = |value: &Spanned<DeValue<'a>>| {
            let place = self.file.place(value.span());
            wrong_type(value.get_ref(), &place, key, "a list of tables", self.file);
        };
        let DeValue::Array(items) = value.get_ref() else {
            wrong(value);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(entries) => {
                    let place = self.file.place(item.span());
                    tables.push(Self::new(Title::OfList(key), Entries::Given(entries), place, self.file));
                }
                _ => wrong(item),
            }
        }
        tables
    }

    /// Keys and values of a table whose keys are free.
    pub fn map<T: FromToml>(&mut self, key: &'static str) -> Vec<(At<String>, At<T>)> {
        let Entries::Given(entries) = self.section(key).entries else { return Vec::new() };
        let mut pairs = Vec::new();
        for (name, value) in entries {
            let place = self.file.place(value.span());
            let at_name = At { value: name.get_ref().to_string(), place: self.file.place(name.span()) };
            if let Some(value) = T::from_toml(value.get_ref(), &place, name.get_ref(), self.file) {
                pairs.push((at_name, At { value, place }));
            }
        }
        pairs
    }

    /// Reports the keys that nobody asked for, and those that are missing unless one of the former is meant.
    pub fn finish(mut self) {
        if let Entries::Given(entries) = self.entries {
            for (key, _) in entries {
                let name: &str = key.get_ref();
                if !self.known.contains(&name) {
                    self.unknown(name, &self.file.place(key.span()));
                }
            }
        }
        for (_, mistake) in self.missing {
            self.file.report(mistake);
        }
    }

    fn unknown(&mut self, name: &str, place: &Place) {
        let message = format!("unknown key `{name}`{}", self.title);
        let mistake = Diagnostic::error(message, place).label("unknown");
        let near = nearest(name, self.known.iter().copied());
        self.missing.retain(|(key, _)| Some(*key) != near);
        self.file.report(match near {
            Some(near) => mistake.hint(format!("did you mean `{near}`?")),
            None => mistake.hint(format!("remove it; the keys here are {}", listed(&self.known))),
        });
    }
}

/// `a`, `b` and `c`, each in backquotes.
pub fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => String::from("none"),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
