//! `packages.toml` → `packages.lock`: the archive's signed indices, and apt's own solver over them.
//!
//! The signature is checked here with `gpgv`, digests and expiry by us; the solver then sees plain lists in a
//! private root with nothing installed and never reads the machine's own apt configuration.

mod explain;
mod signature;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, BufReader, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::definition::Definition;
use super::fetch::{self, Item};
use super::index::{self, Release, Stanza};
use super::lock::{self, Archive, Lock};
use super::store::Store;
use super::toolbox::{self, Toolbox};
use crate::sys::cmd::{self, Command};
use crate::sys::{fs, http};

const KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";
const CONFIGURATION: &str = "apt.conf";
const PACKAGES: &str = "main/binary-amd64/Packages.xz";
/// No `InRelease` is larger, in bytes.
const RELEASE_LIMIT: u64 = 4 << 20;
/// No `Packages` is larger, decompressed, in bytes.
const INDEX_LIMIT: u64 = 1 << 30;
/// Requests of one `InRelease`, per address.
const ATTEMPTS: usize = 3;

/// The programs that resolving needs.
#[derive(Debug, Clone)]
pub struct Tools {
    gpgv: Command,
    apt_get: Command,
    keyring: PathBuf,
}

impl Tools {
    /// Out of the toolbox `tools-build`, whose lock pins the archive's keys as well.
    pub fn of_toolbox(toolbox: &Toolbox) -> Result<Self, toolbox::Error> {
        Ok(Self {
            gpgv: toolbox.command("gpgv")?,
            apt_get: toolbox.command("apt-get")?,
            keyring: toolbox.file(KEYRING),
        })
    }

    /// The machine's own: for the first lock, and when the toolbox's packages have left the mirror.
    pub fn of_host() -> Self {
        Self {
            gpgv: Command::new("gpgv").isolated(),
            apt_get: Command::new("apt-get").isolated(),
            keyring: Path::new("/").join(KEYRING),
        }
    }
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No mirror was named and apt's sources name none.
    #[error("no mirror is known to fetch the indices from")]
    NoMirror,
    /// An index cannot be fetched.
    #[error("cannot fetch the index of {suite}")]
    Release {
        /// Which suite.
        suite: String,
        /// Why, at the last mirror that was tried.
        source: http::Error,
    },
    /// An index cannot be read to its end.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Not signed by the archive.
    #[error("the index of {suite} is not signed by a key of the archive's keyring")]
    Signature {
        /// Which suite.
        suite: String,
        /// What is wrong with it.
        source: signature::Error,
    },
    /// The index is of another suite.
    #[error("the index of {expected} is that of {found}")]
    Suite {
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// The index is too old.
    #[error("the index of {0} has expired: the mirror is out of date")]
    Expired(String),
    /// The index is malformed.
    #[error("the index of {suite} is malformed")]
    Index {
        /// Which suite.
        suite: String,
        /// How.
        source: index::Error,
    },
    /// `Packages` cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A file of the cache or of apt's root.
    #[error(transparent)]
    File(#[from] fs::Error),
    /// A program did not run.
    #[error(transparent)]
    Command(#[from] cmd::Error),
    /// The solver found no answer.
    #[error("the packages cannot be had together:\n{0}")]
    Unsolvable(String),
    /// The solver's answer is not in the indices.
    #[error("the solver chose {0}, which no index has")]
    Unknown(String),
    /// The answer does not make a lock.
    #[error(transparent)]
    Lock(#[from] lock::Error),
}

/// The verified indices of one release.
#[derive(Debug)]
pub struct Universe {
    release: String,
    indices: Vec<(Suite, String)>,
    /// Package name → where its stanzas are: number of the index, bytes in its text.
    places: BTreeMap<String, Vec<(usize, Range<usize>)>>,
    /// apt's private roots, by what is omitted in them: apt keeps its index there from one run to the next.
    roots: BTreeMap<Vec<String>, tempfile::TempDir>,
}

#[derive(Debug, Clone)]
struct Suite {
    archive: Archive,
    name: String,
}

fn suites(release: &str) -> [Suite; 3] {
    [
        Suite { archive: Archive::Debian, name: release.to_owned() },
        Suite { archive: Archive::Debian, name: format!("{release}-updates") },
        Suite { archive: Archive::DebianSecurity, name: format!("{release}-security") },
    ]
}

impl Universe {
    /// Fetches and verifies the indices of `release`, its updates and its security updates. With `now` an
    /// index that has expired is an error.
    pub fn fetch(
        store: &Store<'_>,
        tools: &Tools,
        release: &str,
        now: Option<SystemTime>,
    ) -> Result<Self, Error> {
        let mut items = Vec::new();
        for suite in suites(release) {
            let signed = in_release(store, &suite)?;
            let release = verify(tools, &suite.name, signed, now)?;
            items.push((packages_item(store, &suite, &release)?, suite));
        }
        fetch::all(&store.client, items.iter().map(|(item, _)| item.clone()).collect(), store.progress)?;
        let read = |(item, suite): (Item, Suite)| Ok((suite, read_xz(&item.target)?));
        let indices = items.into_iter().map(read).collect::<Result<_, Error>>()?;
        Ok(Self::new(release, indices))
    }

    fn new(release: &str, indices: Vec<(Suite, String)>) -> Self {
        let mut places: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (number, (_, text)) in indices.iter().enumerate() {
            for (range, stanza) in index::stanzas(text) {
                if let Some(name) = stanza.get("Package") {
                    places.entry(name.to_owned()).or_default().push((number, range));
                }
            }
        }
        Self { release: release.to_owned(), indices, places, roots: BTreeMap::new() }
    }

    /// Stanzas of the package `name` in all indices.
    fn stanzas(&self, name: &str) -> impl Iterator<Item = (Archive, Stanza<'_>)> {
        self.places.get(name).into_iter().flatten().map(|(number, range)| {
            let (suite, text) = &self.indices[*number];
            (suite.archive, Stanza::new(&text[range.clone()]))
        })
    }

    /// Resolves a definition with apt's solver: what is asked for and what that depends on, nothing
    /// recommended, nothing taken as essential.
    pub fn resolve(&mut self, tools: &Tools, definition: &Definition) -> Result<Lock, Error> {
        if definition.packages.is_empty() {
            return Ok(Lock::new(&self.release, [])?);
        }
        let root = match self.roots.entry(definition.omit.clone()) {
            Entry::Occupied(root) => root.into_mut(),
            Entry::Vacant(place) => {
                let root = fs::context(tempfile::tempdir(), "create folder in", &std::env::temp_dir())?;
                lay_out(&self.indices, root.path(), &definition.omit)?;
                place.insert(root)
            }
        };
        let configuration = root.path().join(CONFIGURATION);
        let output = tools
            .apt_get
            .clone()
            .args(["install", "--simulate", "-qq", "--no-install-recommends"])
            .args(definition.packages.iter().map(String::as_str))
            .env("APT_CONFIG", configuration)
            .env("LC_ALL", "C")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Unsolvable(format!("{said}{errors}").trim_end().to_owned()));
        }
        self.lock_of(&chosen(&said))
    }

    fn lock_of(&self, chosen: &[Choice]) -> Result<Lock, Error> {
        let take = |choice: &Choice| {
            let is = |stanza: &Stanza<'_>, field, value: &str| stanza.get(field) == Some(value);
            let (archive, stanza) = self
                .stanzas(&choice.name)
                .find(|(_, stanza)| {
                    is(stanza, "Version", &choice.version) && is(stanza, "Architecture", &choice.architecture)
                })
                .ok_or_else(|| Error::Unknown(format!("{} {}", choice.name, choice.version)))?;
            let malformed = |source| Error::Index { suite: self.release.clone(), source };
            stanza.package(archive).map_err(malformed)
        };
        let packages = chosen.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        Ok(Lock::new(&self.release, packages)?)
    }
}

/// Writes apt's private root.
fn lay_out(indices: &[(Suite, String)], root: &Path, omit: &[String]) -> Result<(), Error> {
    for folder in [
        "etc/apt/preferences.d",
        "var/lib/apt/lists/partial",
        "var/lib/dpkg",
        "var/cache/apt/archives/partial",
    ] {
        fs::create_dir_all(&root.join(folder))?;
    }
    let mut sources = String::new();
    for (Suite { name, .. }, text) in indices {
        sources.extend(["deb [trusted=yes] file:/archive ", name, " main\n"]);
        let list = root.join(format!("var/lib/apt/lists/_archive_dists_{name}_main_binary-amd64_Packages"));
        if omit.is_empty() {
            fs::write(&list, 0o644, text.as_bytes())?;
        } else {
            let stanzas: Vec<_> = index::stanzas(text).map(|(_, stanza)| stanza.without(omit)).collect();
            fs::write(&list, 0o644, stanzas.join("\n").as_bytes())?;
        }
    }
    fs::write(&root.join("etc/apt/sources.list"), 0o644, sources.as_bytes())?;
    fs::write(&root.join("var/lib/dpkg/status"), 0o644, b"")?;
    let path = root.display();
    let text = format!(
        "Dir \"{path}/\";\nDir::State::status \"{path}/var/lib/dpkg/status\";\n\
         APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nDebug::NoLocking \"true\";\n"
    );
    Ok(fs::write(&root.join(CONFIGURATION), 0o644, text.as_bytes())?)
}

fn in_release(store: &Store<'_>, suite: &Suite) -> Result<Vec<u8>, Error> {
    let mirrors = store.mirrors.as_ref().ok_or(Error::NoMirror)?;
    let addresses = mirrors.addresses(suite.archive, &format!("dists/{}/InRelease", suite.name));
    let mut last = None;
    for address in addresses.iter().flat_map(|address| std::iter::repeat_n(address, ATTEMPTS)) {
        match store.client.get(address, 0) {
            Ok(answer) => {
                let mut bytes = Vec::new();
                match answer.body.take(RELEASE_LIMIT).read_to_end(&mut bytes) {
                    Ok(_) => return Ok(bytes),
                    Err(source) => last = Some(http::Error::Transport { address: address.clone(), source }),
                }
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(Error::NoMirror, |source| Error::Release { suite: suite.name.clone(), source }))
}

/// Checks signature, suite and expiry; what is read is what gpgv says was signed, not what came.
fn verify(tools: &Tools, suite: &str, signed: Vec<u8>, now: Option<SystemTime>) -> Result<Release, Error> {
    let distrusted = |source| Error::Signature { suite: suite.to_owned(), source };
    signature::check_form(&signed).map_err(distrusted)?;
    let folder = fs::context(tempfile::tempdir(), "create folder in", &std::env::temp_dir())?;
    let text = folder.path().join("Release");
    let gpgv = tools.gpgv.clone().arg("--keyring").arg(&tools.keyring).args(["--status-fd", "1", "--output"]);
    // Its exit code is not asked: a signature of a key that is not known makes it a failure.
    let said = gpgv.arg(&text).stdin(signed).output()?.stdout;
    signature::judge(&String::from_utf8_lossy(&said)).map_err(distrusted)?;
    let verified = fs::read(&text)?;
    let release = Release::parse(&String::from_utf8_lossy(&verified))
        .map_err(|source| Error::Index { suite: suite.to_owned(), source })?;
    if release.codename != suite {
        return Err(Error::Suite { expected: suite.to_owned(), found: release.codename });
    }
    if let (Some(now), Some(until)) = (now, release.valid_until)
        && now > until
    {
        return Err(Error::Expired(suite.to_owned()));
    }
    Ok(release)
}

fn packages_item(store: &Store<'_>, suite: &Suite, release: &Release) -> Result<Item, Error> {
    let mirrors = store.mirrors.as_ref().ok_or(Error::NoMirror)?;
    let (sha256, size) = release.file(PACKAGES).ok_or_else(|| Error::Index {
        suite: suite.name.clone(),
        source: index::Error::Field("SHA256: main/binary-amd64/Packages.xz"),
    })?;
    let base = format!("dists/{}/main/binary-amd64", suite.name);
    // By digest first: under its plain name a mirror may already have the next one.
    let mut addresses = mirrors.addresses(suite.archive, &format!("{base}/by-hash/SHA256/{sha256}"));
    addresses.extend(mirrors.addresses(suite.archive, &format!("{base}/Packages.xz")));
    let target = store.cache.join(format!("indices/{sha256}.xz"));
    Ok(Item { label: format!("the package list of {}", suite.name), sha256, size, addresses, target })
}

fn read_xz(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let decoder = liblzma::read::XzDecoder::new_multi_decoder(BufReader::new(fs::open(path)?));
    decoder
        .take(INDEX_LIMIT)
        .read_to_string(&mut text)
        .map_err(|source| Error::Read { what: path.display().to_string(), source })?;
    Ok(text)
}

/// One line of the solver's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    name: String,
    version: String,
    architecture: String,
}

/// What `apt-get --simulate` would install: `Inst libc6 (2.41-12 Debian:13.1/stable [amd64]) []`.
fn chosen(said: &str) -> Vec<Choice> {
    let choice = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        let inside = rest.split_once('(')?.1.split_once(')')?.0;
        let architecture = inside.rsplit_once('[')?.1.strip_suffix(']')?;
        Some(Choice {
            name: name.split(':').next()?.to_owned(),
            version: inside.split(' ').next()?.to_owned(),
            architecture: architecture.to_owned(),
        })
    };
    said.lines().filter_map(choice).collect()
}

#[cfg(test)]
mod tests;
