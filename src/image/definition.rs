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
    #[error("{name}/packages.lock does not match packages.toml: {difference}")]
    Stale {
        /// Name of the definition.
        name: String,
        /// In what.
        difference: String,
    },
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

    /// Reads both files of `name`.
    pub fn image(&self, name: &str) -> Result<Image, Error> {
        let definition = self.definition(name)?;
        let lock = self.lock(name)?.ok_or_else(|| Error::NoLock(name.to_owned()))?;
        if let Some(difference) = difference(&definition, &lock) {
            return Err(Error::Stale { name: name.to_owned(), difference });
        }
        Ok(Image { name: name.to_owned(), definition, lock })
    }

    /// The files that `name` adds to its packages: its folder `tree/`. Programs (below `usr/bin` and `usr/sbin`)
    /// are executable, the rest is not, whatever the modes in the folder are.
    pub fn tree(&self, name: &str) -> Result<Layer, Error> {
        let mut files = Vec::new();
        match self {
            Self::Embedded => {
                let tree = Path::new(name).join("tree");
                if let Some(folder) = EMBEDDED.get_dir(&tree) {
                    embedded_files(folder, &tree, &mut files);
                }
            }
            Self::Folder(folder) => {
                let tree = folder.join(name).join("tree");
                if tree.is_dir() {
                    folder_files(&tree, &tree, &mut files)?;
                }
            }
        }
        let node = |(path, bytes): (PathBuf, Vec<u8>)| {
            let path = path.to_string_lossy().into_owned();
            let program = path.starts_with("usr/bin/") || path.starts_with("usr/sbin/");
            let kind = Kind::File(Content::Bytes(bytes.into()));
            (path, Node { mode: if program { 0o755 } else { 0o644 }, uid: 0, gid: 0, kind })
        };
        Ok(Layer(files.into_iter().map(node).collect()))
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
            Self::Folder(folder) => match fs::read_bounded(&folder.join(&path), LIMIT) {
                Err(error) if error.is_not_found() => None,
                read => Some(read?),
            },
        };
        bytes
            .map(|bytes| String::from_utf8(bytes).map_err(|_| Error::NotUtf8(path.display().to_string())))
            .transpose()
    }
}

/// In what a lock cannot be one of this definition.
fn difference(definition: &Definition, lock: &Lock) -> Option<String> {
    let Definition { release, packages, omit, exclude: _, keep: _ } = definition;
    if *release != lock.release {
        return Some(format!("it locks packages of {}, not of {release}", lock.release));
    }
    if let Some(package) = packages.iter().find(|package| lock.get(package).is_none()) {
        return Some(format!("it lacks the package {package}"));
    }
    let omitted = omit.iter().find(|package| lock.get(package).is_some());
    omitted.map(|package| format!("it holds the package {package}, which is to be omitted"))
}

fn embedded_files(folder: &include_dir::Dir<'_>, tree: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for file in folder.files() {
        if let Ok(path) = file.path().strip_prefix(tree) {
            files.push((path.to_owned(), file.contents().to_vec()));
        }
    }
    folder.dirs().for_each(|folder| embedded_files(folder, tree, files));
}

fn folder_files(folder: &Path, tree: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<(), fs::Error> {
    for path in fs::list(folder)? {
        if path.is_dir() {
            folder_files(&path, tree, files)?;
        } else if let Ok(relative) = path.strip_prefix(tree) {
            files.push((relative.to_owned(), fs::read_bounded(&path, LIMIT)?));
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
    fn a_lock_of_another_definition_is_told_with_the_difference() {
        let lock = Definitions::Embedded.lock("tether").unwrap().unwrap();
        for (text, said) in [
            ("packages = ['nftables', 'caddy']", "it lacks the package caddy"),
            (
                "packages = ['nftables']\nomit = ['libc6']",
                "it holds the package libc6, which is to be omitted",
            ),
            ("packages = []\nrelease = 'forky'", "it locks packages of trixie, not of forky"),
        ] {
            assert_eq!(difference(&Definition::parse(text).unwrap(), &lock).as_deref(), Some(said));
        }
        assert_eq!(difference(&Definition::parse("packages = ['nftables']").unwrap(), &lock), None);
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
