//! `sepulcher init`: a commented Codex to start from.

use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, Kind};
use crate::codex::LAW;
use crate::codex::name::Name;
use crate::sys::{self, fs};

/// Write a commented Codex to start from
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write; it must be empty or not exist
    dir: PathBuf,
    /// Name of the appliance
    #[arg(long, default_value = "lychd")]
    name: Name,
}

const LAW_TEXT: &str = include_str!("init/lychd.toml");
const HELLO: &str = include_str!("init/hello.toml");
const PEERS: &str = include_str!("init/peers.md");

/// Files of a new Codex, relative name and text.
fn files(name: &Name) -> [(&'static str, String); 3] {
    let law = LAW_TEXT.replacen("name = \"lychd\"", &format!("name = \"{name}\""), 1);
    [(LAW, law), ("services/hello.toml", HELLO.to_owned()), ("peers/README.md", PEERS.to_owned())]
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dir = args.dir.as_path();
    match fs::list(dir) {
        Ok(entries) if entries.is_empty() => fill(dir, &args.name)?,
        Ok(entries) => {
            let found = entries[0].file_name().unwrap_or_default().to_string_lossy().into_owned();
            let message = format!("{} is not empty: it holds {found}", dir.display());
            return Err(Failure::new(Kind::Input, message).hint("name a new folder, or an empty one"));
        }
        Err(error) if error.is_not_found() => create(dir, &args.name)?,
        Err(error) if error.source.kind() == io::ErrorKind::NotADirectory => {
            let message = format!("{} is a file, not a folder", dir.display());
            return Err(Failure::new(Kind::Input, message).hint("name a new folder, or an empty one"));
        }
        Err(error) => return Err(error.into()),
    }
    eprintln!("wrote a Codex to {}", dir.display());
    eprintln!("hint: edit it, then run `sepulcher check {}`", dir.display());
    Ok(())
}

/// Writes a folder that does not exist: beside its place, then one rename.
fn create(dir: &Path, name: &Name) -> Result<(), Failure> {
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    let stage = stage(parent)?;
    // Inside the stage, because the stage itself is private to this user.
    let made = stage.path().join("codex");
    write(&made, name)?;
    Ok(fs::rename(&made, dir)?)
}

/// Fills a folder that exists, keeping its owner and mode; `lychd.toml`, which makes it a Codex, comes last.
fn fill(dir: &Path, name: &Name) -> Result<(), Failure> {
    let stage = stage(dir)?;
    write(stage.path(), name)?;
    let parts = ["peers", "services", LAW];
    for (done, part) in parts.iter().enumerate() {
        if let Err(error) = fs::rename(&stage.path().join(part), &dir.join(part)) {
            for moved in &parts[..done] {
                fs::remove_dir_all(&dir.join(moved))?;
            }
            return Err(error.into());
        }
    }
    Ok(())
}

/// A hidden folder that is removed again whatever happens.
fn stage(parent: &Path) -> Result<tempfile::TempDir, Failure> {
    let stage = tempfile::Builder::new().prefix(".sepulcher-init.").tempdir_in(parent);
    Ok(sys::fs::context(stage, "create a folder in", parent)?)
}

fn write(root: &Path, name: &Name) -> Result<(), Failure> {
    for (file, text) in files(name) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write_atomic(&path, 0o644, text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::{Codex, Sources};

    fn sources(edit: impl Fn(&str) -> String) -> Sources {
        let peer = PEERS.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let law_and_service = files(&"tomb".parse().unwrap()).into_iter().take(2);
        let files = law_and_service.chain([("peers/phone.toml", peer.to_owned())]);
        files.map(|(file, text)| (file, edit(&text))).collect()
    }

    /// Turns every `# key = value` and `# [[table]]` into what it shows.
    fn uncommented(text: &str) -> String {
        let line = |line: &str| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let key = bare.split(" = ").next().unwrap();
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let shows = bare.starts_with('[') || (bare.contains(" = ") && key.bytes().all(word));
            if shows { bare.to_owned() } else { line.to_owned() }
        };
        text.lines().map(|text| line(text) + "\n").collect()
    }

    #[test]
    fn what_init_writes_is_valid_with_the_given_name_and_its_bond_too() {
        let codex = Codex::parse(&sources(str::to_owned)).unwrap();
        assert_eq!(codex.appliance.name.as_str(), "tomb");
        assert_eq!(codex.peers.len(), 1);
    }

    #[test]
    fn a_default_shown_in_a_comment_is_the_default() {
        let without =
            ["addresses", "gateways", "dns", "domain", "endpoint", "network6", "address6", "routes"];
        let without =
            [without.as_slice(), &["image", "secrets", "LOG", "path", "kind", "keepalive"]].concat();
        let without = [without.as_slice(), &["publisher", "sources"]].concat();
        let without = [without.as_slice(), &["created", "expires", "replaced", "revoked", "reason"]].concat();
        let shown = |text: &str| {
            let kept = |line: &&str| !without.contains(&line.split(" = ").next().unwrap());
            let text = uncommented(text);
            // Tables that have no default are cut off with all that follows.
            let cut = ["\n[[host]]", "\n[[route]]", "\n[overlap]"];
            let text = cut.iter().fold(text.as_str(), |text, mark| text.split(mark).next().unwrap());
            text.lines().filter(kept).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(Codex::parse(&sources(shown)).unwrap(), Codex::parse(&sources(str::to_owned)).unwrap());
    }

    /// A key of the schema that `init` does not show would be reported here as missing from the text.
    #[test]
    fn every_key_of_the_schema_is_shown() {
        let tables = [
            (
                "lychd.toml",
                "zzz = 1\n[appliance]\nzzz = 1\n[uplink]\nzzz = 1\n[pod]\nzzz = 1\n[tether]\nzzz = 1\n[rebirth]\nzzz = 1\n[state]\nzzz = 1\n[[host]]\nzzz = 1\n",
            ),
            ("services/hello.toml", "zzz = 1\n[[port]]\nzzz = 1\n[[route]]\nzzz = 1\n[[volume]]\nzzz = 1\n"),
            ("peers/phone.toml", "zzz = 1\n[overlap]\nzzz = 1\n"),
        ];
        let shown = sources(uncommented);
        let mistakes = Codex::parse(&tables.into_iter().collect()).unwrap_err();
        let mut keys = 0;
        for mistake in mistakes.iter().filter(|mistake| mistake.message.contains("unknown key")) {
            let text = shown.text(&mistake.file).unwrap();
            for key in mistake.hint.as_ref().unwrap().split('`').skip(1).step_by(2) {
                let there = |line: &str| {
                    line.starts_with(&format!("{key} = ")) || line.trim_matches(['[', ']']) == key
                };
                assert!(text.lines().any(there), "{key} is not shown in {}", mistake.file);
                keys += 1;
            }
        }
        assert!(keys > 40, "{keys}");
    }
}
