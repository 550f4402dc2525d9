//! Arguments that say where packages come from and are kept, shared by the verbs that need packages.
#![expect(clippy::disallowed_methods, reason = "the environment is read at this edge")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, Kind};
use crate::codex::Codex;
use crate::image::build;
use crate::image::definition::{self, Definitions, Image};
use crate::image::fetch::{self, Progress};
use crate::image::mirror::Mirrors;
use crate::image::store::{self, Store};
use crate::image::{resolve, toolbox};
use crate::sys::{fs, http};

const NAME_A_MIRROR: &str =
    "name a Debian mirror: --mirror URL or SEPULCHER_MIRROR=URL (an address that ends in /debian)";
const GONE: &str = "the lock is older than the mirror: run `sepulcher lock NAME` to renew it, or use a mirror that \
    keeps old packages, --mirror URL of a snapshot";

/// Where packages come from.
#[derive(Debug, Clone, Default, Args)]
pub struct MirrorArgs {
    /// Debian mirror to fetch from, e.g. one that ends in /debian; may be repeated, tried in order
    /// [default: $SEPULCHER_MIRROR, else what this machine's apt uses]
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
}

/// Where packages come from, and whether the network may be used.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    #[command(flatten)]
    mirror: MirrorArgs,
    /// Use the cache alone
    #[arg(long)]
    offline: bool,
    /// Fail when a locked package has left the mirror, instead of renewing the lock
    #[arg(long)]
    locked: bool,
    /// Folder of image definitions [default: those of this program]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
}

impl StoreArgs {
    /// The store that these arguments describe.
    pub fn store<'a>(&self, progress: &'a dyn Progress) -> Result<Store<'a>, Failure> {
        Ok(Store { offline: self.offline, ..self.mirror.store(progress)? })
    }

    /// Whether locks must be used as they are.
    pub(super) fn locked(&self) -> bool {
        self.locked
    }

    /// The images that go into an appliance of `codex`, and the builder's tools, with their locks.
    pub fn images_of(&self, store: &Store<'_>, codex: &Codex) -> Result<BTreeMap<String, Image>, Failure> {
        let names = build::sealed(codex).into_iter().chain([build::TOOLS.to_owned()]);
        names.map(|name| Ok((name.clone(), self.image(store, &name)?))).collect()
    }

    /// The image definitions that these arguments describe.
    pub fn definitions(&self) -> Definitions {
        self.images.clone().map_or(Definitions::Embedded, Definitions::Folder)
    }
}

impl MirrorArgs {
    /// A store in the user's cache that fetches from the mirrors that these arguments describe.
    pub fn store<'a>(&self, progress: &'a dyn Progress) -> Result<Store<'a>, Failure> {
        let mirrors = self.mirrors()?;
        Ok(Store { cache: cache()?, mirrors, offline: false, client: http::Client::default(), progress })
    }

    fn mirrors(&self) -> Result<Option<Mirrors>, Failure> {
        let from_environment = std::env::var("SEPULCHER_MIRROR").unwrap_or_default();
        let named: Vec<&str> = match self.mirrors.as_slice() {
            [] => from_environment.split_whitespace().collect(),
            mirrors => mirrors.iter().map(String::as_str).collect(),
        };
        if named.is_empty() {
            return apt_mirrors(Path::new("/etc/apt"));
        }
        let mirrors = Mirrors::named(named);
        Ok(Some(mirrors.map_err(|error| Failure::from_error(Kind::Input, &error).hint(NAME_A_MIRROR))?))
    }
}

/// The mirrors of apt's source files below `folder`; files that are missing name none.
fn apt_mirrors(folder: &Path) -> Result<Option<Mirrors>, Failure> {
    let mut files = vec![folder.join("sources.list")];
    let listed = fs::if_there(fs::list(&folder.join("sources.list.d")))?.unwrap_or_default();
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "list" || end == "sources");
    files.extend(listed.into_iter().filter(is_source));
    let mut texts = Vec::new();
    for file in files {
        let bytes = fs::if_there(fs::read_bounded(&file, 1 << 20))?;
        texts.extend(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(Mirrors::from_apt_sources(texts.iter().map(String::as_str)))
}

fn cache() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SEPULCHER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("sepulcher")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/sepulcher")))
        .ok_or_else(|| {
            Failure::new(Kind::Input, "no folder is known for the cache")
                .hint("set SEPULCHER_CACHE to a folder")
        })
}

impl From<definition::Error> for Failure {
    fn from(error: definition::Error) -> Self {
        let failure = Self::from_error(Kind::Input, &error);
        match error {
            definition::Error::NoLock(name) => failure.hint(format!("make it with `sepulcher lock {name}`")),
            definition::Error::Outdated { name, .. } => {
                failure.hint(format!("renew it with `sepulcher lock {name}`"))
            }
            _ => failure,
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let (kind, hint) = advice(&error);
        with_hint(Self::from_error(kind, &error), hint)
    }
}

impl From<toolbox::Error> for Failure {
    fn from(error: toolbox::Error) -> Self {
        let (kind, hint) = match &error {
            toolbox::Error::Store { source, .. } => advice(source),
            toolbox::Error::Program { .. } => {
                (Kind::Input, Some("its programs lie in the folder that `sepulcher toolbox NAME` prints"))
            }
            toolbox::Error::File(_) => (Kind::Io, None),
        };
        with_hint(Self::from_error(kind, &error), hint)
    }
}

impl From<resolve::Error> for Failure {
    fn from(error: resolve::Error) -> Self {
        use resolve::Error as E;
        let (kind, hint) = match &error {
            E::NoMirror => (Kind::Unavailable, Some(NAME_A_MIRROR)),
            E::Expired(_) => (
                Kind::Unavailable,
                Some("use another mirror; for a snapshot, which is old on purpose, add --allow-expired"),
            ),
            E::Fetch(error) => fetch_advice(error),
            E::File(_) => (Kind::Io, None),
            E::Unsolvable(_) | E::Lock(_) => (Kind::Input, None),
            _ => (Kind::Unavailable, None),
        };
        with_hint(Self::from_error(kind, &error), hint)
    }
}

fn with_hint(failure: Failure, hint: Option<&str>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn advice(error: &store::Error) -> (Kind, Option<&'static str>) {
    match error {
        store::Error::Offline(_) => (Kind::Unavailable, Some("run once without --offline to fetch them")),
        store::Error::NoMirror(_) => (Kind::Unavailable, Some(NAME_A_MIRROR)),
        store::Error::Fetch(error) => fetch_advice(error),
        store::Error::Deb(crate::image::deb::Error::File(_)) => (Kind::Io, None),
        store::Error::Deb(crate::image::deb::Error::Damaged { .. }) => {
            (Kind::Io, Some("run again to fetch it anew; if it happens again, check the disk"))
        }
        store::Error::Deb(_) | store::Error::Conflict(_) => (Kind::Input, None),
    }
}

fn fetch_advice(error: &fetch::Error) -> (Kind, Option<&'static str>) {
    match error {
        fetch::Error::Gone { .. } => (Kind::Unavailable, Some(GONE)),
        fetch::Error::Digest { .. } => {
            (Kind::Unavailable, Some("the mirror or something on the way changed it: try another mirror"))
        }
        fetch::Error::NoMirror(_) => (Kind::Unavailable, Some(NAME_A_MIRROR)),
        fetch::Error::Http { .. } => (Kind::Unavailable, Some("check the network, or try another mirror")),
        fetch::Error::File(_) => (Kind::Io, Some("the cache can be moved with SEPULCHER_CACHE=DIR")),
    }
}
