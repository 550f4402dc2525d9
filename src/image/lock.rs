//! `packages.lock`: the exact packages of an image. Machine-made, committed, independent of any mirror.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::version;
use crate::tree::Sha256Digest;

/// Version of the file format.
const SCHEMA: u32 = 1;
const HEADER: &str = "# Made by `sepulcher lock` from packages.toml beside it; edit that one.\n";

/// Which of the distribution's archives a package lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// The main archive.
    Debian,
    /// The security archive.
    DebianSecurity,
}

impl Archive {
    /// Its name as a path component: `debian` or `debian-security`.
    pub fn as_str(self) -> &'static str {
        match self {
            Archive::Debian => "debian",
            Archive::DebianSecurity => "debian-security",
        }
    }
}

/// One package, pinned to its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name, e.g. `libc6`.
    pub name: String,
    /// Version as the archive writes it, with epoch.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Archive that `path` is relative to.
    pub archive: Archive,
    /// Pool path, e.g. `pool/main/g/glibc/libc6_2.41-12_amd64.deb`.
    pub path: String,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Sha256Digest,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// The packages of an image, each name once, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Release that they were resolved in, e.g. `trixie`.
    pub release: String,
    packages: Vec<Package>,
}

/// A lock that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the TOML that is expected; the source has line and column.
    #[error("the lock is not valid TOML of its format")]
    Syntax(#[source] Box<toml::de::Error>),
    /// Written by another version of this program.
    #[error("the lock has schema {0}, this program reads {SCHEMA}")]
    Schema(u32),
    /// A value that no archive would have.
    #[error("package {package}: `{value}` is not a valid {field}")]
    Field {
        /// Name of the package as written.
        package: String,
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A name twice.
    #[error("package {0} is listed twice")]
    Twice(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    release: String,
    #[serde(default, rename = "package", skip_serializing_if = "Vec::is_empty")]
    packages: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    version: String,
    architecture: String,
    archive: Archive,
    path: String,
    size: u64,
    sha256: String,
}

impl Lock {
    /// A lock of `packages` in any order.
    ///
    /// # Errors
    /// [`Error::Field`] and [`Error::Twice`].
    pub fn new(
        release: impl Into<String>,
        packages: impl IntoIterator<Item = Package>,
    ) -> Result<Self, Error> {
        let mut sorted = BTreeMap::new();
        for package in packages {
            check(&package)?;
            if let Some(first) = sorted.insert(package.name.clone(), package) {
                return Err(Error::Twice(first.name));
            }
        }
        Ok(Self { release: release.into(), packages: sorted.into_values().collect() })
    }

    /// Reads `packages.lock`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let File { schema, release, packages } =
            toml::from_str(text).map_err(|error| Error::Syntax(Box::new(error)))?;
        if schema != SCHEMA {
            return Err(Error::Schema(schema));
        }
        let packages = packages.into_iter().map(Package::try_from).collect::<Result<Vec<_>, _>>()?;
        Self::new(release, packages)
    }

    /// Packages in byte order of their names.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// The package of that name.
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.packages
            .binary_search_by(|package| package.name.as_str().cmp(name))
            .ok()
            .map(|at| &self.packages[at])
    }

    /// Sum of the packages' sizes in bytes.
    pub fn size(&self) -> u64 {
        self.packages.iter().map(|package| package.size).sum()
    }

    /// Digest of the written form.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(self.to_string().as_bytes())
    }

    /// What changes from `self` to `newer`, one line a package: `+ name version`, `- name version`,
    /// `~ name old -> new`.
    pub fn changes(&self, newer: &Lock) -> Vec<String> {
        let mut lines = BTreeMap::new();
        for old in &self.packages {
            match newer.get(&old.name) {
                None => lines.insert(&old.name, format!("- {old}")),
                Some(new) if new.version != old.version => {
                    lines.insert(&old.name, format!("~ {old} -> {}", new.version))
                }
                Some(new) if new != old => {
                    lines.insert(&old.name, format!("~ {old} (same version, other file)"))
                }
                Some(_) => None,
            };
        }
        for new in newer.packages.iter().filter(|new| self.get(&new.name).is_none()) {
            lines.insert(&new.name, format!("+ {new}"));
        }
        lines.into_values().collect()
    }

    /// Packages of which `newer` has a lower version, one line a package: `name old -> new`.
    pub fn lowered(&self, newer: &Lock) -> Vec<String> {
        let line = |old: &Package| {
            let new = newer.get(&old.name)?;
            version::compare(&new.version, &old.version).is_lt().then(|| format!("{old} -> {}", new.version))
        };
        self.packages.iter().filter_map(line).collect()
    }
}

impl fmt::Display for Lock {
    /// The text of `packages.lock`; [`Lock::parse`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = |package: &Package| {
            let Package { name, version, architecture, archive, path, size, sha256 } = package.clone();
            Record { name, version, architecture, archive, path, size, sha256: sha256.to_string() }
        };
        let packages = self.packages.iter().map(record).collect();
        let file = File { schema: SCHEMA, release: self.release.clone(), packages };
        write!(f, "{HEADER}{}", toml::to_string(&file).map_err(|_| fmt::Error)?)
    }
}

impl TryFrom<Record> for Package {
    type Error = Error;

    fn try_from(record: Record) -> Result<Self, Error> {
        let Record { name, version, architecture, archive, path, size, sha256 } = record;
        let Ok(digest) = sha256.parse() else {
            return Err(Error::Field { package: name, field: "SHA-256 digest", value: sha256 });
        };
        Ok(Self { name, version, architecture, archive, path, size, sha256: digest })
    }
}

/// Whether `name` is what the distribution allows as a package name.
pub fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

fn check(package: &Package) -> Result<(), Error> {
    let wrong = |field, value: &str| {
        Err(Error::Field { package: package.name.clone(), field, value: value.to_owned() })
    };
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if !is_package_name(&package.name) {
        return wrong("package name", &package.name);
    }
    if !plain(&package.version, ".+-~:") {
        return wrong("version", &package.version);
    }
    if !matches!(package.architecture.as_str(), "amd64" | "all") {
        return wrong("architecture", &package.architecture);
    }
    let safe = package.path.split('/').all(|part| plain(part, ".+-~_%:") && part != "." && part != "..");
    if !safe || !package.path.starts_with("pool/") || package.path.strip_suffix(".deb").is_none() {
        return wrong("pool path", &package.path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            archive: Archive::Debian,
            path: format!("pool/main/x/{name}_{version}_amd64.deb"),
            size: 7,
            sha256: Sha256Digest::of(name.as_bytes()),
        }
    }

    proptest! {
        #[test]
        fn a_written_lock_reads_back_whatever_order_it_was_made_in(
            names in proptest::collection::btree_set("[a-z0-9][a-z0-9+.-]{1,12}", 0..12),
            version in "[0-9]:[0-9a-z.+~-]{1,12}",
        ) {
            let packages: Vec<_> = names.iter().map(|name| package(name, &version)).collect();
            let lock = Lock::new("trixie", packages.clone()).unwrap();
            let backwards = Lock::new("trixie", packages.into_iter().rev()).unwrap();
            prop_assert_eq!(lock.to_string(), backwards.to_string());
            prop_assert_eq!(Lock::parse(&lock.to_string()).unwrap(), lock);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC*") {
            let _ = Lock::parse(&text);
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let error = Lock::parse("schema = 1\nrelease = \"trixie\"\nsizes = 3\n").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("line 3") && source.contains("sizes"), "{source}");
    }

    #[test]
    fn values_that_could_leave_the_pool_are_refused() {
        let text = Lock::new("trixie", [package("libc6", "2.41")]).unwrap().to_string();
        for (good, bad) in [
            ("pool/main/x/libc6_2.41_amd64.deb", "pool/../../etc/x.deb"),
            ("pool/main/x/libc6_2.41_amd64.deb", "/pool/x.deb"),
            ("pool/main/x/libc6_2.41_amd64.deb", "pool/main/x/libc6.deb?x"),
            ("\"libc6\"", "\"../libc6\""),
            ("\"2.41\"", "\"2.41 evil\""),
            ("\"amd64\"", "\"i386\""),
            ("schema = 1", "schema = 2"),
            ("sha256 = \"", "sha256 = \"z"),
        ] {
            let changed = text.replace(good, bad);
            assert_ne!(changed, text);
            assert!(Lock::parse(&changed).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_twice_is_refused() {
        let twice = [package("libc6", "1"), package("libc6", "2")];
        assert!(matches!(Lock::new("trixie", twice), Err(Error::Twice(name)) if name == "libc6"));
    }

    #[test]
    fn changes_tell_additions_removals_and_versions() {
        let old = Lock::new("trixie", [package("aa", "1"), package("bb", "1"), package("cc", "1")]).unwrap();
        let new = Lock::new("trixie", [package("bb", "2"), package("cc", "1"), package("dd", "1")]).unwrap();
        assert_eq!(old.changes(&new), ["- aa 1", "~ bb 1 -> 2", "+ dd 1"]);
    }

    #[test]
    fn lowered_versions_are_told_and_raised_new_and_gone_ones_are_not() {
        let old = [package("aa", "1:1"), package("bb", "1.10"), package("cc", "1"), package("gone", "1")];
        let new = [package("aa", "2"), package("bb", "1.9"), package("cc", "1+deb13u1"), package("new", "1")];
        let (old, new) = (Lock::new("trixie", old).unwrap(), Lock::new("trixie", new).unwrap());
        assert_eq!(old.lowered(&new), ["aa 1:1 -> 2", "bb 1.10 -> 1.9"]);
        assert!(old.lowered(&old).is_empty());
    }
}
