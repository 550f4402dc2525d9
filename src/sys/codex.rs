//! Reads the folder of a Codex, with every obstacle as a diagnostic.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::codex::ledger::{LAW_LEDGER, LEDGER};
use crate::codex::{Diagnostic, LAW, Place, Sources, file_name_mistake, in_shares};

/// The longest file that is read, in bytes.
pub const FILE_LIMIT: u64 = 1 << 20;

/// The longest ledger that is read, in bytes: some hundred thousand keys.
pub const LEDGER_LIMIT: u64 = 16 << 20;

/// How many files are worth a thread.
const FILES_PER_THREAD: usize = 256;

/// Folders of one file each service or peer.
const FOLDERS: [&str; 2] = ["services", "peers"];

/// Reads a Codex: the law's folder, then folders whose `peers/`, where it is there, takes the place of the
/// one before (the bonds on the appliance).
///
/// Never fails: what cannot be read is in the result as a mistake, for
/// [`Codex::parse`](crate::codex::Codex::parse) to report together with all others. Reads `lychd.toml`,
/// `services/*.toml` and `peers/*.toml`; other files are left alone, unless their name looks like a slip.
pub fn load(folders: &[&Path]) -> Sources {
    let mut sources = Sources::default();
    let Some((law, bonds)) = folders.split_first() else { return sources };
    if let Err(error) = fs::read_dir(law) {
        let mistake = refused("read the folder", &error);
        sources.insert_unread(LAW, law.display().to_string(), mistake);
        return sources;
    }
    top(law, &mut sources);
    let peers = bonds.iter().rev().find(|folder| exists(&folder.join("peers"))).unwrap_or(law);
    folder(law, "services", &mut sources);
    folder(peers, "peers", &mut sources);
    // Revocations add up: those of the law hold wherever the bonds come from.
    let ledgers = match bonds.last() {
        Some(bonds) => vec![(LEDGER, bonds), (LAW_LEDGER, law)],
        None => vec![(LEDGER, law)],
    };
    for (name, folder) in ledgers {
        let path = folder.join(LEDGER);
        if exists(&path) {
            file(&path, name, LEDGER_LIMIT, &mut sources);
        }
    }
    sources
}

/// Missing means absent; anything else that is wrong with the path is reported when it is read.
fn exists(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A mistake whose place the sources fill in.
fn mistake(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(message, &Place::file(""))
}

/// `lychd.toml`, and names beside it that look like slips of what would be read.
fn top(law: &Path, sources: &mut Sources) {
    if exists(&law.join(LAW)) {
        file(&law.join(LAW), LAW, FILE_LIMIT, sources);
    } else {
        let mistake = mistake(format!("`{LAW}` is missing"));
        let hint = "`sepulcher init DIR` writes a Codex to start from";
        sources.insert_unread(LAW, law.join(LAW).display().to_string(), mistake.hint(hint));
    }
    let Ok(names) = names(law) else { return };
    for name in names {
        let wanted = [LAW].into_iter().chain(FOLDERS);
        for slip in wanted.filter(|wanted| slips(&name, wanted)) {
            let mistake = mistake(format!("`{name}` is not read")).hint(format!("rename it to `{slip}`"));
            sources.insert_unread(name.clone(), law.join(&name).display().to_string(), mistake);
        }
    }
}

/// Whether `name` is nearly, but not quite, `wanted`.
fn slips(name: &str, wanted: &str) -> bool {
    name != wanted
        && (name.eq_ignore_ascii_case(wanted) || crate::codex::edits(name, wanted) == 1)
        && !name.ends_with('~')
}

fn folder(root: &Path, name: &str, sources: &mut Sources) {
    let path = root.join(name);
    if !exists(&path) {
        return;
    }
    let (handle, entries) = match opened(&path) {
        Ok(opened) => opened,
        Err(error) => {
            let mistake = refused("read the folder", &error);
            sources.insert_unread(name, path.display().to_string(), mistake);
            return;
        }
    };
    let some = |files: &[(String, bool)]| {
        let found = files.iter().filter_map(|(file, regular)| {
            entry(root, name, file, || regular.then(|| quick(&handle, file)).flatten())
        });
        found.collect::<Vec<_>>()
    };
    for file in in_shares(&entries, FILES_PER_THREAD, some).into_iter().flatten() {
        file.put(sources);
    }
}

/// A file as it was found.
struct Found {
    key: String,
    shown: String,
    text: Result<String, Box<Diagnostic>>,
}

impl Found {
    fn put(self, sources: &mut Sources) {
        match self.text {
            Ok(text) => sources.insert_shown(self.key, self.shown, text),
            Err(mistake) => sources.insert_unread(self.key, self.shown, *mistake),
        }
    }
}

/// Reads one entry of a folder; `None` when it is nobody's business here.
fn entry(root: &Path, folder: &str, entry: &str, quick: impl FnOnce() -> Option<String>) -> Option<Found> {
    let key = format!("{folder}/{entry}");
    let path = root.join(&key);
    let (stem, extension) = entry.rsplit_once('.').unwrap_or((entry, ""));
    let text = if extension == "toml" {
        match file_name_mistake(&key, folder, stem) {
            Some(mistake) => Err(Box::new(mistake)),
            None => quick().map_or_else(|| read(&path, FILE_LIMIT), Ok),
        }
    } else if slips(extension, "toml") {
        let mistake = mistake(format!("`{key}` is not read"));
        Err(Box::new(mistake.hint(format!("rename it to `{folder}/{stem}.toml`"))))
    } else {
        return None;
    };
    Some(Found { shown: path.display().to_string(), key, text })
}

/// Names in a folder, hidden ones left out, in byte order.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    Ok(entries(folder)?.into_iter().map(|(name, _)| name).collect())
}

/// A folder and what is in it.
fn opened(folder: &Path) -> io::Result<(OwnedFd, Vec<(String, bool)>)> {
    let handle = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((handle, entries(folder)?))
}

/// Names in a folder, hidden ones left out, in byte order, and whether they are regular files'.
fn entries(folder: &Path) -> io::Result<Vec<(String, bool)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.push((name, entry.file_type().is_ok_and(|kind| kind.is_file())));
        }
    }
    entries.sort();
    Ok(entries)
}

/// Reads one file into the sources, or the reason why not.
fn file(path: &Path, key: &str, limit: u64, sources: &mut Sources) {
    Found { key: key.to_owned(), shown: path.display().to_string(), text: read(path, limit) }.put(sources);
}

/// What most bonds fit in, in bytes.
const SMALL: usize = 2048;

/// Reads a small regular file with the fewest system calls, because there may be thousands; `None` in any doubt: then
/// [`read`] looks closer.
fn quick(folder: &OwnedFd, name: &str) -> Option<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?;
    let mut bytes = [0; SMALL];
    // Nothing but its end makes a read of a regular file short.
    let length = rustix::io::read(&file, &mut bytes).ok().filter(|length| (1..SMALL).contains(length))?;
    str::from_utf8(&bytes[..length]).ok().map(str::to_owned)
}

fn read(path: &Path, limit: u64) -> Result<String, Box<Diagnostic>> {
    let obstacle = |error: io::Error| Box::new(refused("read", &error));
    // The type comes first: opening a FIFO would wait for a writer, opening a device may do anything.
    regular(&fs::metadata(path).map_err(obstacle)?)?;
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(obstacle)?;
    let metadata = opened.metadata().map_err(obstacle)?;
    regular(&metadata)?;
    // Room for one byte more tells the end without another call for more room.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(limit)).unwrap_or(0) + 1);
    opened.take(limit + 1).read_to_end(&mut bytes).map_err(obstacle)?;
    if bytes.len() as u64 > limit {
        let mistake = mistake(format!("the file is larger than {limit} bytes"));
        return Err(Box::new(
            mistake.hint("a file of a Codex is a few lines of TOML; check what this one is"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + String::from_utf8_lossy(&error.as_bytes()[..offset]).matches('\n').count();
        let message = format!("the file is not UTF-8: byte {offset}, in line {line}, begins no character");
        Box::new(mistake(message).hint("save it as UTF-8 text"))
    })
}

fn regular(metadata: &fs::Metadata) -> Result<(), Box<Diagnostic>> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let mistake = mistake(format!("this is {what}, not a file"));
    Err(Box::new(mistake.hint("put a TOML file in its place, or remove it")))
}

fn refused(action: &str, error: &io::Error) -> Diagnostic {
    let mistake = mistake(format!("cannot {action}: {error}"));
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "check the path, or that a symbolic link leads somewhere; `sepulcher init DIR` writes a new Codex"
        }
        io::ErrorKind::PermissionDenied => "let your user read it",
        io::ErrorKind::NotADirectory => "name the folder that holds `lychd.toml`",
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "this symbolic link leads back to itself: replace it by the file"
        }
        _ => return mistake,
    };
    mistake.hint(hint)
}
