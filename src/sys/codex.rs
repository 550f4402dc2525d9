//! Reads the folder of a Codex, with every obstacle as a diagnostic.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::codex::{Diagnostic, LAW, Place, Sources, file_name_mistake};

/// The longest file that is read, in bytes.
pub const FILE_LIMIT: u64 = 1 << 20;

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
    match fs::read_dir(law) {
        Ok(_) => {}
        Err(error) => {
            let mistake = refused("read the folder", law, &error);
            sources.insert_unread(LAW, mistake.hint("`sepulcher init DIR` writes a Codex to start from"));
            return sources;
        }
    }
    top(law, &mut sources);
    let peers = bonds.iter().rev().find(|folder| exists(&folder.join("peers"))).unwrap_or(law);
    folder(law, "services", &mut sources);
    folder(peers, "peers", &mut sources);
    sources
}

/// Missing means absent; anything else that is wrong with the path is reported when it is read.
fn exists(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// `lychd.toml`, and names beside it that look like slips of what would be read.
fn top(law: &Path, sources: &mut Sources) {
    if exists(&law.join(LAW)) {
        file(&law.join(LAW), LAW, sources);
    }
    let Ok(names) = names(law) else { return };
    for name in names {
        let wanted = [LAW].into_iter().chain(FOLDERS);
        for slip in wanted.filter(|wanted| slips(&name, wanted)) {
            let shown = law.join(&name).display().to_string();
            let mistake = Diagnostic::error(format!("`{name}` is not read"), &Place::file(shown));
            sources.insert_unread(name.clone(), mistake.hint(format!("rename it to `{slip}`")));
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
    let files = match names(&path) {
        Ok(files) => files,
        Err(error) => {
            sources.insert_unread(name, refused("read the folder", &path, &error));
            return;
        }
    };
    for entry in files {
        let key = format!("{name}/{entry}");
        let (stem, extension) = entry.rsplit_once('.').unwrap_or((&entry, ""));
        if extension == "toml" {
            if let Some(mistake) = file_name_mistake(&key, name, stem) {
                let mut mistake = mistake;
                mistake.file = path.join(&entry).display().to_string();
                sources.insert_unread(key, mistake);
            } else {
                file(&path.join(&entry), &key, sources);
            }
        } else if slips(extension, "toml") {
            let shown = path.join(&entry).display().to_string();
            let mistake = Diagnostic::error(format!("`{key}` is not read"), &Place::file(shown));
            sources.insert_unread(key, mistake.hint(format!("rename it to `{name}/{stem}.toml`")));
        }
    }
}

/// Names in a folder, hidden ones left out, in byte order.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads one file into the sources, or the reason why not.
fn file(path: &Path, key: &str, sources: &mut Sources) {
    let shown = path.display().to_string();
    match read(path) {
        Ok(text) => sources.insert_shown(key, shown, text),
        Err(mistake) => sources.insert_unread(key, *mistake),
    }
}

fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    let place = Place::file(path.display().to_string());
    let io = |error: &io::Error| Box::new(refused("read", path, error));
    // The type comes first: opening a FIFO would wait for a writer, opening a device may do anything.
    regular(&fs::metadata(path).map_err(|error| io(&error))?, &place)?;
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let open = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path);
    let opened = open.map_err(|error| io(&error))?;
    regular(&opened.metadata().map_err(|error| io(&error))?, &place)?;
    let mut bytes = Vec::new();
    opened.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| io(&error))?;
    if bytes.len() as u64 > FILE_LIMIT {
        let mistake = Diagnostic::error(format!("the file is larger than {FILE_LIMIT} bytes"), &place);
        return Err(Box::new(
            mistake.hint("a file of a Codex is a few lines of TOML; check what this one is"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + String::from_utf8_lossy(&error.as_bytes()[..offset]).matches('\n').count();
        let message = format!("the file is not UTF-8: byte {offset}, in line {line}, begins no character");
        Box::new(Diagnostic::error(message, &place).hint("save it as UTF-8 text"))
    })
}

fn regular(metadata: &fs::Metadata, place: &Place) -> Result<(), Box<Diagnostic>> {
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
    let mistake = Diagnostic::error(format!("this is {what}, not a file"), place);
    Err(Box::new(mistake.hint("put a TOML file in its place, or remove it")))
}

fn refused(action: &str, path: &Path, error: &io::Error) -> Diagnostic {
    let mistake =
        Diagnostic::error(format!("cannot {action}: {error}"), &Place::file(path.display().to_string()));
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "check the path; a symbolic link may point to nothing",
        io::ErrorKind::PermissionDenied => "let your user read it",
        io::ErrorKind::NotADirectory => "name the folder that holds `lychd.toml`",
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "this symbolic link leads back to itself: replace it by the file"
        }
        _ => return mistake,
    };
    mistake.hint(hint)
}
