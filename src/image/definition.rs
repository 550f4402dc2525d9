//! Image definitions: `images/<name>/packages.toml` (by hand) and `packages.lock` (by `sepulcher lock`).
//! They are embedded in the program; another folder can be used instead.

use std::path::{Path, PathBuf};

use glob::Pattern;
use serde::Deserialize;

use super::layer::{Content, Kind, Layer, Node};
use super::lock::{self, Lock};
use crate::sys::fs;
use crate::tree::Sha256Digest;

static EMBEDDED: include_dir::Dir<'static> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/images");

/// No definition or lock is larger than this, in bytes.
const LIMIT: u64 = 4 << 20;

/// What goes into an image or a toolbox, as written by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Release, e.g. `trixie`.
    pub release: String,
    /// Packages asked for; what they depend on follows.
    pub packages: Vec<String>,
    /// Packages that no dependency may pull in: a dependency that names one, as an alternative too, is dropped.
    pub omit: Vec<String>,
    exclude: Vec<Pattern>,
    keep: Vec<Pattern>,
}

/// Definition and lock under their name.
#[derive(Debug, Clone)]
pub struct Image {
    /// Name of its folder.
    pub name: String,
    /// What was asked for.
    pub definition: Definition,
    /// What that resolved to.
    pub lock: Lock,
}

impl Image {
    /// Digest of all that decides the unpacked content: the locked packages and what is left out of them.
    pub fn digest(&self) -> Sha256Digest {
        let mut text = self.lock.to_string();
        for (sign, patterns) in [('-', &self.definition.exclude), ('+', &self.definition.keep)] {
            for pattern in patterns {
                text.push(sign);
                text.push_str(pattern.as_str());
                text.push('\n');
            }
        }
        Sha256Digest::of(text.as_bytes())
    }
}

/// A definition that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder of that name.
    #[error("no image definition is named {name}; there are {}", known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names that exist.
        known: Vec<String>,
    },
    /// `packages.lock` is missing.
    #[error("{0}/packages.lock does not exist")]
    NoLock(String),
    /// `packages.lock` was made from another `packages.toml`.
    #[error("{name}/packages.lock does not match {name}/packages.toml: {difference}")]
    Outdated {
        /// Name of the definition.
        name: String,
        /// The first thing that does not match.
        difference: String,
    },
    /// In `tree/` is what an image cannot hold.
    #[error("cannot seal {}: it is neither a file nor a folder nor a link", .0.display())]
    Node(PathBuf),
    /// `tree` is not a folder itself.
    #[error("cannot seal {}: it is not a folder", .0.display())]
    NoFolder(PathBuf),
    /// A link in `tree/` whose target is not UTF-8.
    #[error("cannot seal {}: its target is not UTF-8", .0.display())]
    Link(PathBuf),
    /// A file is missing, unreadable or too large.
    #[error(transparent)]
    Read(#[from] fs::Error),
    /// Not UTF-8.
    #[error("{0} is not UTF-8")]
    NotUtf8(String),
    /// `packages.toml` is not what is expected.
    #[error("cannot read {place}")]
    Definition {
        /// Which file.
        place: String,
        /// What is wrong in it.
        source: Mistake,
    },
    /// `packages.lock` is not what is expected.
    #[error("cannot read {place}")]
    Lock {
        /// Which file.
        place: String,
        /// What is wrong in it.
        source: lock::Error,
    },
}

/// A mistake in `packages.toml`.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// Not the TOML that is expected, with line and column.
    #[error(transparent)]
    Syntax(Box<toml::de::Error>),
    /// A value in `packages` or `omit`.
    #[error("`{0}` is not a package name")]
    Name(String),
    /// A value of `release`.
    #[error("`{0}` is not a release name")]
    Release(String),
    /// A value in `exclude` or `keep`.
    #[error("`{pattern}` is not a glob")]
    Glob {
        /// The pattern.
        pattern: String,
        /// Why.
        source: glob::PatternError,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    packages: Vec<String>,
    #[serde(default = "trixie")]
    release: String,
    #[serde(default)]
    omit: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    keep: Vec<String>,
}

fn trixie() -> String {
    "trixie".to_owned()
}

impl Definition {
    /// Reads `packages.toml`.
    ///
    /// ```toml
    /// packages = ["caddy"]                   # what is asked for; may be empty
    /// release = "trixie"                     # default
    /// omit = ["libllvm19"]                   # dependencies to do without
    /// exclude = ["usr/share/doc/**"]         # paths that are not unpacked
    /// keep = ["usr/share/doc/*/copyright"]   # exceptions from `exclude`
    /// ```
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let File { packages, release, omit, exclude, keep } =
            toml::from_str(text).map_err(|error| Mistake::Syntax(Box::new(error)))?;
        if let Some(name) = packages.iter().chain(&omit).find(|name| !lock::is_package_name(name)) {
            return Err(Mistake::Name(name.clone()));
        }
        if release.is_empty() || !release.chars().all(|c| c.is_ascii_lowercase()) {
            return Err(Mistake::Release(release));
        }
        let globs = |patterns: Vec<String>| {
            patterns
                .into_iter()
                .map(|pattern| Pattern::new(&pattern).map_err(|source| Mistake::Glob { pattern, source }))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { release, packages, omit, exclude: globs(exclude)?, keep: globs(keep)? })
    }

    /// Whether the file or link at `path` (relative, without a leading `./`) is unpacked.
    pub fn wants(&self, path: &str) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let any = |patterns: &[Pattern]| patterns.iter().any(|glob| glob.matches_with(path, options));
        !any(&self.exclude) || any(&self.keep)
    }

    /// Why `lock` cannot be one of this definition; `None` when it can.
    fn difference(&self, lock: &Lock) -> Option<String> {
        if lock.release != self.release {
            return Some(format!("it is of {} instead of {}", lock.release, self.release));
        }
        let locked = |name: &&String| lock.get(name).is_some();
        let missing = self.packages.iter().find(|name| !locked(name));
        let omitted = self.omit.iter().find(locked);
        missing
            .map(|name| format!("{name} is asked for and not locked"))
            .or_else(|| omitted.map(|name| format!("{name} is omitted and locked")))
    }
}

/// Where definitions come from.
#[derive(Debug, Clone)]
pub enum Definitions {
    /// From the program itself.
    Embedded,
    /// From a folder of folders.
    Folder(PathBuf),
}

impl Definitions {
    /// Names of all definitions, sorted.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = match self {
            Self::Embedded => EMBEDDED
                .dirs()
                .filter(|folder| folder.contains(folder.path().join("packages.toml")))
                .map(|folder| folder.path().to_string_lossy().into_owned())
                .collect(),
            Self::Folder(folder) => fs::list(folder)?
                .into_iter()
                .filter(|path| path.join("packages.toml").is_file())
                .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
                .collect(),
        };
        names.sort();
        Ok(names)
    }

    /// Reads `packages.toml` of `name`.
    pub fn definition(&self, name: &str) -> Result<Definition, Error> {
        let Some(text) = self.text(name, "packages.toml")? else {
            return Err(Error::Unknown { name: name.to_owned(), known: self.names()? });
        };
        Definition::parse(&text)
            .map_err(|source| Error::Definition { place: format!("{name}/packages.toml"), source })
    }

    /// Reads `packages.lock` of `name`; `None` when there is none yet.
    pub fn lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        let parse = |text: String| {
            Lock::parse(&text)
                .map_err(|source| Error::Lock { place: format!("{name}/packages.lock"), source })
        };
        self.text(name, "packages.lock")?.map(parse).transpose()
    }

    /// Reads both files of `name`, which must match.
    pub fn image(&self, name: &str) -> Result<Image, Error> {
        let image = self.image_to_renew(name)?;
        match image.definition.difference(&image.lock) {
            Some(difference) => Err(Error::Outdated { name: image.name, difference }),
            None => Ok(image),
        }
    }

    /// Reads both files of `name`, which need not match: for what makes the next lock with this one's programs.
    pub fn image_to_renew(&self, name: &str) -> Result<Image, Error> {
        let definition = self.definition(name)?;
        let lock = self.lock(name)?.ok_or_else(|| Error::NoLock(name.to_owned()))?;
        Ok(Image { name: name.to_owned(), definition, lock })
    }

    /// The files that `name` adds to its packages: its folder `tree/`. Programs (below `usr/bin` and `usr/sbin`)
    /// are executable, the rest is not, whatever the modes in the folder are. A link is sealed as a link, never as
    /// what it leads to. What editors leave behind (`*~`, `.*.swp`, `.#*`) is no part of it.
    pub fn tree(&self, name: &str) -> Result<Layer, Error> {
        let mut nodes = Vec::new();
        match self {
            Self::Embedded => {
                let tree = Path::new(name).join("tree");
                if let Some(folder) = EMBEDDED.get_dir(&tree) {
                    embedded_files(folder, &tree, &mut nodes);
                }
            }
            Self::Folder(folder) => {
                let tree = folder.join(name).join("tree");
                match fs::if_there(fs::entry(&tree))? {
                    None => {}
                    Some(fs::Entry::Folder) => folder_files(&tree, &tree, &mut nodes)?,
                    Some(_) => return Err(Error::NoFolder(tree)),
                }
            }
        }
        let node = |(path, kind): (PathBuf, Kind)| {
            let path = path.to_string_lossy().into_owned();
            let program = path.starts_with("usr/bin/") || path.starts_with("usr/sbin/");
            let mode = match kind {
                Kind::Link(_) => 0o777,
                _ if program => 0o755,
                _ => 0o644,
            };
            (path, Node { mode, uid: 0, gid: 0, kind })
        };
        Ok(Layer(nodes.into_iter().filter(|(path, _)| !is_leftover(path)).map(node).collect()))
    }

    /// Reads another file of `name`, e.g. `initrd.toml`; `None` when there is none.
    pub fn text(&self, name: &str, file: &str) -> Result<Option<String>, Error> {
        // A name is one path component, so that no definition is read from elsewhere.
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Ok(None);
        }
        let path = Path::new(name).join(file);
        let bytes = match self {
            Self::Embedded => EMBEDDED.get_file(&path).map(|file| file.contents().to_vec()),
            Self::Folder(folder) => fs::if_there(fs::read_bounded(&folder.join(&path), LIMIT))?,
        };
        bytes
            .map(|bytes| String::from_utf8(bytes).map_err(|_| Error::NotUtf8(path.display().to_string())))
            .transpose()
    }
}

/// What editors leave beside the files that they edit.
fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b"~") || name.starts_with(b".#") || (name.starts_with(b".") && name.ends_with(b".swp"))
}

fn embedded_files(folder: &include_dir::Dir<'_>, tree: &Path, nodes: &mut Vec<(PathBuf, Kind)>) {
    for file in folder.files() {
        if let Ok(path) = file.path().strip_prefix(tree) {
            nodes.push((path.to_owned(), Kind::File(Content::Bytes(file.contents().into()))));
        }
    }
    folder.dirs().for_each(|folder| embedded_files(folder, tree, nodes));
}

fn folder_files(folder: &Path, tree: &Path, nodes: &mut Vec<(PathBuf, Kind)>) -> Result<(), Error> {
    for path in fs::list(folder)? {
        let kind = match fs::entry(&path)? {
            fs::Entry::Folder => {
                folder_files(&path, tree, nodes)?;
                continue;
            }
            fs::Entry::File => Kind::File(Content::Bytes(fs::read_bounded(&path, LIMIT)?.into())),
            fs::Entry::Link(to) => {
                Kind::Link(to.into_os_string().into_string().map_err(|_| Error::Link(path.clone()))?)
            }
            fs::Entry::Other => return Err(Error::Node(path)),
        };
        if let Ok(relative) = path.strip_prefix(tree) {
            nodes.push((relative.to_owned(), kind));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_definition_has_a_lock_of_its_release() {
        let names = Definitions::Embedded.names().unwrap();
        assert!(names.iter().any(|name| name == "tools-build"), "{names:?}");
        for name in names {
            Definitions::Embedded.image(&name).unwrap();
        }
    }

    #[test]
    fn a_lock_of_another_definition_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let demo = folder.path().join("demo");
        fs::create_dir_all(&demo).unwrap();
        let lock = format!(
            "schema = 1\nrelease = 'trixie'\n[[package]]\nname = 'libc6'\nversion = '1'\narchitecture = 'all'\n\
             archive = 'debian'\npath = 'pool/x.deb'\nsize = 1\nsha256 = '{}'\n",
            Sha256Digest::of(b"")
        );
        fs::write(&demo.join("packages.lock"), 0o644, lock.as_bytes()).unwrap();
        for (definition, told) in [
            ("packages = ['libc6']", None),
            ("packages = ['libc6']\nrelease = 'forky'", Some("it is of trixie instead of forky")),
            ("packages = ['libc6', 'bash']", Some("bash is asked for and not locked")),
            ("packages = []\nomit = ['libc6']", Some("libc6 is omitted and locked")),
        ] {
            fs::write(&demo.join("packages.toml"), 0o644, definition.as_bytes()).unwrap();
            let image = Definitions::Folder(folder.path().to_owned()).image("demo");
            let told_now = match image {
                Ok(_) => None,
                Err(Error::Outdated { difference, .. }) => Some(difference),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(told_now.as_deref(), told);
        }
    }

    #[test]
    fn a_link_is_sealed_as_a_link_and_leftovers_are_not_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("demo/tree");
        let definitions = Definitions::Folder(folder.path().to_owned());
        assert!(definitions.tree("demo").unwrap().0.is_empty(), "no folder adds nothing");
        fs::create_dir_all(&tree.join("etc")).unwrap();
        for name in ["etc/real", "etc/real~", "etc/.real.swp", "etc/.#real"] {
            fs::write(&tree.join(name), 0o644, b"x").unwrap();
        }
        for (target, name) in [("/etc/passwd", "etc/passwd"), ("../etc", "etc/loop")] {
            std::os::unix::fs::symlink(target, tree.join(name)).unwrap();
        }
        let sealed = definitions.tree("demo").unwrap().0;
        assert_eq!(sealed.keys().collect::<Vec<_>>(), ["etc/loop", "etc/passwd", "etc/real"]);
        for (name, target) in [("etc/passwd", "/etc/passwd"), ("etc/loop", "../etc")] {
            assert!(matches!(&sealed[name].kind, Kind::Link(to) if to == target), "{name}");
        }
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("etc/socket")).unwrap();
        assert!(matches!(definitions.tree("demo"), Err(Error::Node(path)) if path.ends_with("etc/socket")));
    }

    #[test]
    fn excludes_have_exceptions_and_stars_stop_at_slashes() {
        let definition = Definition::parse(
            "packages = []\nexclude = ['usr/share/doc/**', 'usr/*/x']\nkeep = ['usr/share/doc/*/copyright']",
        )
        .unwrap();
        assert!(definition.wants("usr/bin/true"));
        assert!(!definition.wants("usr/share/doc/bash/README"));
        assert!(definition.wants("usr/share/doc/bash/copyright"));
        assert!(!definition.wants("usr/lib/x"));
        assert!(definition.wants("usr/lib/y/x"));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, said) in [
            ("packages = ['../x']", "not a package name"),
            ("packages = []\nomit = ['X']", "not a package name"),
            ("packages = []\nrelease = '../x'", "not a release name"),
            ("packages = []\nexclude = ['a**b']", "not a glob"),
            ("package = []", "line 1"),
        ] {
            let error = Definition::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        for name in ["tools-bild", "../images/tools-build", ""] {
            let error = Definitions::Embedded.image(name).unwrap_err().to_string();
            assert!(error.contains("tools-build"), "{error}");
        }
    }
}
