//! The Codex as typed: one struct a file, every value with its place, nothing compared yet.
//!
//! The files are read by hand from a spanned TOML tree, not through serde, because serde stops at the
//! first mistake of a file and a person wants to see them all.

mod law;
mod peer;
pub mod reader;
mod scalar;
mod service;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use toml::de::DeTable;

pub use law::{Addressing, HostService, Law};
pub use peer::{Kind, Overlap, Peer};
pub use reader::{At, Field};
pub use scalar::{Addressed, Dialled, Grant, User};
pub use service::{Hooks, Route, Service, ServicePort, Volume};

use crate::codex::SCHEMA;
use crate::codex::diagnostic::{Diagnostic, Place, Sources};
use crate::codex::key::PublicKey;
use crate::codex::ledger::{self, LAW_LEDGER, LEDGER};
use crate::codex::name::Name;
use reader::{File, Table};

/// Syntax errors shown of one file: behind the first few they follow from one another.
const SYNTAX_ERRORS: usize = 5;

/// All files as typed. A file that cannot be read or parsed still has its name: `None`.
#[derive(Debug, Default)]
pub struct Draft {
    /// `lychd.toml`.
    pub law: Option<Law>,
    /// `services/*.toml`.
    pub services: BTreeMap<Name, Option<Service>>,
    /// `peers/*.toml`. There can be thousands, so that moving them counts.
    pub peers: BTreeMap<Name, Option<Box<Peer>>>,
    /// Keys of the ledger, and where they stand.
    pub revoked: BTreeMap<PublicKey, Place>,
}

/// A Codex of another schema than ours: nothing else that could be said about it is reliable.
pub struct OtherSchema(pub Box<Diagnostic>);

/// Reads every file; mistakes are added to `mistakes`.
pub fn read(sources: &Sources, mistakes: &mut Vec<Diagnostic>) -> Result<Draft, OtherSchema> {
    let mut draft = Draft::default();
    mistakes.extend(sources.unread().cloned());
    if !sources.files().any(|(file, _)| file == LAW) {
        mistakes.push(
            Diagnostic::error(format!("`{LAW}` is missing"), &Place::file(LAW))
                .hint("`sepulcher init DIR` writes a Codex to start from"),
        );
    }
    let mut peers = Vec::new();
    for (file, text) in sources.files() {
        if file == LAW {
            if let Some(other) = text.and_then(other_schema) {
                return Err(other);
            }
            draft.law = parse(file, text, mistakes, law::read);
        } else if let Some(name) = named(file, "services", text, mistakes) {
            draft.services.insert(name, parse(file, text, mistakes, service::read));
        } else if file.starts_with("peers/") {
            peers.push((file, text));
        } else if file == LEDGER || file == LAW_LEDGER {
            let keys = ledger::keys(text.unwrap_or_default());
            draft
                .revoked
                .extend(keys.map(|(key, span)| (key, Place { file: file.into(), span: Some(span) })));
        }
    }
    read_peers(&peers, &mut draft, mistakes);
    Ok(draft)
}

/// How many peers are worth a thread.
const PEERS_PER_THREAD: usize = 512;

/// Reads the files of peers, of which there can be many, by several threads.
fn read_peers(files: &[(&str, Option<&str>)], draft: &mut Draft, mistakes: &mut Vec<Diagnostic>) {
    let some = |files: &[(&str, Option<&str>)]| {
        let (mut peers, mut mistakes) = (Vec::with_capacity(files.len()), Vec::new());
        for (file, text) in files {
            if let Some(name) = named(file, "peers", *text, &mut mistakes) {
                let read = |root: &mut Table<'_>| Box::new(peer::read(root));
                peers.push((name, parse(file, *text, &mut mistakes, read)));
            }
        }
        (peers, mistakes)
    };
    let (peers, told): (Vec<_>, Vec<_>) = in_shares(files, PEERS_PER_THREAD, some).into_iter().unzip();
    draft.peers = peers.into_iter().flatten().collect();
    mistakes.extend(told.into_iter().flatten());
}

/// What `work` makes of `items`, cut into shares of `size`; in their order. Each processor takes the next share when it has
/// done one: equal halves would wait for the slower.
pub(crate) fn in_shares<T: Sync, R: Send>(
    items: &[T],
    size: usize,
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    let shares: Vec<_> = items.chunks(size).collect();
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        while let Some((index, share)) = take(&shares, &next) {
            done.push((index, work(share)));
        }
        done
    };
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..processors.min(shares.len())).map(|_| scope.spawn(some)).collect();
        let mut done = some();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The next share that nobody has taken, and its place.
fn take<'a, T>(shares: &[&'a [T]], next: &AtomicUsize) -> Option<(usize, &'a [T])> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    shares.get(index).map(|share| (index, *share))
}

/// Name of the file that every Codex has.
pub const LAW: &str = "lychd.toml";

/// The name that a file of `folder` gives to what it describes.
fn named(file: &str, folder: &str, text: Option<&str>, mistakes: &mut Vec<Diagnostic>) -> Option<Name> {
    let stem = file.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".toml")?;
    // An unread file is reported already.
    let report = |mistake: Box<Diagnostic>| mistakes.extend(text.map(|_| *mistake));
    file_name(file, folder, stem).map_err(report).ok()
}

/// The name that the file `folder/stem.toml` gives, or the mistake in it.
pub fn file_name(file: &str, folder: &str, stem: &str) -> Result<Name, Box<Diagnostic>> {
    stem.parse().map_err(|reason| {
        let mistake = Diagnostic::error(format!("the file name is not a name: {reason}"), &Place::file(file));
        let hint = format!("rename it to `{folder}/<name>.toml`; a name is like `phone` or `lych-2`");
        Box::new(mistake.hint(hint))
    })
}

fn parse<T>(
    file: &str,
    text: Option<&str>,
    mistakes: &mut Vec<Diagnostic>,
    read: fn(&mut Table<'_>) -> T,
) -> Option<T> {
    let text = text?;
    let reading = File::new(file);
    let (tree, errors) = DeTable::parse_recoverable(text);
    let value = if errors.is_empty() {
        let mut table = Table::root(tree.get_ref(), &reading);
        let value = read(&mut table);
        table.finish();
        Some(value)
    } else {
        for error in errors.iter().take(SYNTAX_ERRORS) {
            let place = error.span().map_or_else(|| reading.whole(), |span| reading.place(span));
            reading.report(Diagnostic::error(format!("TOML syntax: {}", error.message()), &place));
        }
        None
    };
    mistakes.extend(reading.into_mistakes());
    value
}

/// Whether `lychd.toml` says that it is of another schema than ours, newer ones above all.
fn other_schema(text: &str) -> Option<OtherSchema> {
    let (tree, _) = DeTable::parse_recoverable(text);
    let (_, value) = tree.get_ref().iter().find(|(key, _)| key.get_ref() == "schema")?;
    let found = scalar::integer(value.get_ref())?;
    if found <= i128::from(SCHEMA) {
        return None;
    }
    let place = File::new(LAW).place(value.span());
    let message = format!("this Codex is of schema {found}, this program knows {SCHEMA}: upgrade sepulcher");
    Some(OtherSchema(Box::new(
        Diagnostic::error(message, &place).hint("`sepulcher --version` says which one runs here"),
    )))
}

/// What is said when a draft without mistakes is incomplete, which is a defect of the readers here.
pub fn unread_part() -> Diagnostic {
    Diagnostic::error("a part of this Codex was not understood, and no reason is known", &Place::file(LAW))
        .hint("this is a defect of sepulcher: please report it together with the Codex")
}
