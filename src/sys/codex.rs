//! Reads the folder of a Codex, with every obstacle as a diagnostic.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::fs::{Error, context, if_there, read_bounded};
use crate::codex::ledger::{LAW_LEDGER, LEDGER};
use crate::codex::{Diagnostic, LAW, Place, SCHEMA, Sources, Text, file_name, in_shares, migrate};

/// The longest file that is read, in bytes.
pub const FILE_LIMIT: u64 = 1 << 20;

/// The longest ledger that is read, in bytes: some hundred thousand keys.
pub const LEDGER_LIMIT: u64 = 64 << 20;

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
        sources.insert_shown(LAW, law.display().to_string(), Err(mistake));
        return sources;
    }
    top(law, &mut sources);
    // First, because what dies leaves its file before it comes into the ledger: read behind the files, the ledger could hold
    // the key of a file that was read before it was changed. Revocations add up: those of the law hold wherever the bonds come from.
    let ledgers = match bonds.last() {
        Some(bonds) => vec![(LEDGER, bonds), (LAW_LEDGER, law)],
        None => vec![(LEDGER, law)],
    };
    let peers = bonds.iter().rev().find(|folder| exists(&folder.join("peers"))).unwrap_or(law);
    while !folder(law, "services", &mut sources) {}
    loop {
        for (name, folder) in &ledgers {
            let path = folder.join(LEDGER);
            if exists(&path) {
                file(&path, name, LEDGER_LIMIT, &mut sources);
            }
        }
        if let Some(why) = other_schema(&peers.join("peers")) {
            // What another body wrote is nothing to guess at.
            sources.insert_shown("peers", peers.join("peers").display().to_string(), Err(why));
            return sources;
        }
        if folder(peers, "peers", &mut sources) {
            return sources;
        }
    }
}

/// The schema that a folder of peers is written in. Folders from before there were two do not say it.
///
/// # Errors
/// What it says is no number.
pub fn schema(peers: &Path) -> Result<u32, Error> {
    let path = peers.join(migrate::MARKER);
    let Some(bytes) = if_there(read_bounded(&path, 16))? else { return Ok(1) };
    let schema = str::from_utf8(&bytes).ok().and_then(migrate::marked);
    let none = || io::Error::new(io::ErrorKind::InvalidData, "it holds no schema, like `1`");
    context(schema.ok_or_else(none), "use", &path)
}

/// Why these peers cannot be read, if they are another schema's.
fn other_schema(peers: &Path) -> Option<Box<Diagnostic>> {
    let found = match schema(peers) {
        Ok(SCHEMA) => return None,
        // Reading the folder tells that better.
        Err(_) if fs::read_dir(peers).is_err() => return None,
        Err(error) => {
            let message = format!("the schema of these bonds is not known: {error}: {}", error.source);
            return Some(mistake(message, "remove that file if they are of schema 1"));
        }
        Ok(found) => found,
    };
    let hint = if found > SCHEMA {
        "return to the body that wrote them, or take a newer one"
    } else {
        "`journalctl -b -u sepulcher-awaken` tells why this body did not bring them forward"
    };
    Some(mistake(format!("these bonds are of schema {found}, this program knows {SCHEMA}"), hint))
}

/// Missing means absent; anything else that is wrong with the path is reported when it is read.
fn exists(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A mistake whose place the sources fill in.
fn mistake(message: impl Into<String>, hint: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(message, &Place::file("")).hint(hint))
}

/// `lychd.toml`, and names beside it that look like slips of what would be read.
fn top(law: &Path, sources: &mut Sources) {
    if exists(&law.join(LAW)) {
        file(&law.join(LAW), LAW, FILE_LIMIT, sources);
    } else {
        let hint = "`sepulcher init DIR` writes a Codex to start from";
        let mistake = mistake(format!("`{LAW}` is missing"), hint);
        sources.insert_shown(LAW, law.join(LAW).display().to_string(), Err(mistake));
    }
    let Ok(names) = names(law) else { return };
    for name in names {
        let wanted = [LAW].into_iter().chain(FOLDERS);
        for slip in wanted.filter(|wanted| slips(&name, wanted)) {
            let mistake = mistake(format!("`{name}` is not read"), format!("rename it to `{slip}`"));
            sources.insert_shown(name.clone(), law.join(&name).display().to_string(), Err(mistake));
        }
    }
}

/// Whether `name` is nearly, but not quite, `wanted`.
fn slips(name: &str, wanted: &str) -> bool {
    name != wanted
        && (name.eq_ignore_ascii_case(wanted) || crate::codex::edits(name, wanted) == 1)
        && !name.ends_with('~')
}

/// Reads a folder of files; `false`, and nothing of it, when it was exchanged for another one meanwhile.
fn folder(root: &Path, name: &str, sources: &mut Sources) -> bool {
    let path = root.join(name);
    if !exists(&path) {
        return true;
    }
    let read = whole(&path, |handle| {
        let Entries { seen, hidden } = entries(&path)?;
        let some = |files: &[(String, bool)]| {
            let found = files.iter().filter_map(|(file, regular)| {
                entry(root, name, file, || regular.then(|| quick(handle, file)).flatten())
            });
            found.collect::<Vec<_>>()
        };
        Ok((in_shares(&seen, FILES_PER_THREAD, some), hidden))
    });
    let (files, hidden) = match read {
        Ok(Some(read)) => read,
        Ok(None) => return false,
        Err(error) => {
            let mistake = refused("read the folder", &error);
            sources.insert_shown(name, path.display().to_string(), Err(mistake));
            return true;
        }
    };
    sources.insert_folder(name, root, files.into_iter().flatten());
    if name == "peers" {
        sources.pass_over(hidden);
    }
    true
}

/// What `read` makes of the folder at `path`, given a handle of it. A restore exchanges the folder of peers for another one
/// and empties the old one: what was read of that may be half of it, and is nothing.
fn whole<T>(path: &Path, read: impl FnOnce(&OwnedFd) -> io::Result<T>) -> io::Result<Option<T>> {
    let handle = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let found = read(&handle)?;
    Ok(is_at(&handle, path)?.then_some(found))
}

/// Whether an open folder is the one at `path`: while it is open, no other one has its number.
fn is_at(handle: &OwnedFd, path: &Path) -> io::Result<bool> {
    let (ours, there) = (rustix::fs::fstat(handle)?, rustix::fs::stat(path)?);
    Ok((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
}

/// Key and text of one entry of a folder; `None` when it is nobody's business here.
fn entry(
    root: &Path,
    folder: &str,
    entry: &str,
    quick: impl FnOnce() -> Option<String>,
) -> Option<(String, Text)> {
    let key = [folder, "/", entry].concat();
    let (stem, extension) = entry.rsplit_once('.').unwrap_or((entry, ""));
    let text = if extension == "toml" {
        file_name(&key, folder, stem)
            .and_then(|_| quick().map_or_else(|| read(&root.join(&key), FILE_LIMIT), Ok))
    } else if slips(extension, "toml") {
        Err(mistake(format!("`{key}` is not read"), format!("rename it to `{folder}/{stem}.toml`")))
    } else {
        return None;
    };
    Some((key, text))
}

/// Names in a folder, hidden ones left out, in byte order.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    Ok(entries(folder)?.seen.into_iter().map(|(name, _)| name).collect())
}

/// What is in a folder.
#[derive(Default)]
struct Entries {
    /// Names in byte order, and whether they are regular files'.
    seen: Vec<(String, bool)>,
    /// Names that begin with a dot.
    hidden: Vec<String>,
}

fn entries(folder: &Path) -> io::Result<Entries> {
    let mut entries = Entries::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            entries.hidden.push(name);
        } else {
            entries.seen.push((name, entry.file_type().is_ok_and(|kind| kind.is_file())));
        }
    }
    entries.seen.sort();
    Ok(entries)
}

/// Reads one file into the sources, or the reason why not.
fn file(path: &Path, key: &str, limit: u64, sources: &mut Sources) {
    sources.insert_shown(key, path.display().to_string(), read(path, limit));
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

fn read(path: &Path, limit: u64) -> Text {
    let obstacle = |error: io::Error| refused("read", &error);
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
        let hint = "a file of a Codex is a few lines of TOML; check what this one is";
        return Err(mistake(format!("the file is larger than {limit} bytes"), hint));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + String::from_utf8_lossy(&error.as_bytes()[..offset]).matches('\n').count();
        let message = format!("the file is not UTF-8: byte {offset}, in line {line}, begins no character");
        mistake(message, "save it as UTF-8 text")
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
    Err(mistake(format!("this is {what}, not a file"), "put a TOML file in its place, or remove it"))
}

fn refused(action: &str, error: &io::Error) -> Box<Diagnostic> {
    let mistake = Diagnostic::error(format!("cannot {action}: {error}"), &Place::file(""));
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "check the path, or that a symbolic link leads somewhere; `sepulcher init DIR` writes a new Codex"
        }
        io::ErrorKind::PermissionDenied => "let your user read it",
        io::ErrorKind::NotADirectory => "name the folder that holds `lychd.toml`",
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "this symbolic link leads back to itself: replace it by the file"
        }
        _ => return Box::new(mistake),
    };
    Box::new(mistake.hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fs, tree};

    #[test]
    fn a_folder_that_is_exchanged_while_it_is_read_is_not_taken_for_whole() {
        let codex = tempfile::tempdir().unwrap();
        let [peers, shadow] = ["peers", "shadow"].map(|name| codex.path().join(name));
        for folder in [&peers, &shadow] {
            fs::create_dir_all(folder).unwrap();
            fs::write(&folder.join("phone.toml"), 0o600, b"").unwrap();
        }
        let restored = whole(&peers, |_| {
            tree::exchange(&shadow, &peers).unwrap();
            fs::remove_dir_all(&shadow).unwrap();
            Ok(())
        });
        assert_eq!(restored.unwrap(), None);
        assert_eq!(whole(&peers, |_| names(&peers)).unwrap().unwrap(), ["phone.toml"]);
    }
}
