//! The cache of packages, and how they get into it.
//!
//! ```text
//! debs/SHA256.deb        as fetched, digest checked
//! data/SHA256.tar        its files, decompressed, with their own digest in SHA256.sum
//! indices/SHA256.xz      Packages files
//! toolbox/NAME-DIGEST/   unpacked toolboxes
//! ```

use std::path::PathBuf;

use super::deb;
use super::definition::Image;
use super::fetch::{self, Item, Progress};
use super::layer::{Conflict, Layer};
use super::lock::Package;
use super::mirror::Mirrors;
use crate::sys::http;

/// A cache, and the mirrors that fill it.
pub struct Store<'a> {
    /// Folder of the cache.
    pub cache: PathBuf,
    /// Where to fetch from; `None` when no mirror is known, which matters only once something is missing.
    pub mirrors: Option<Mirrors>,
    /// Use the cache alone.
    pub offline: bool,
    /// Makes requests.
    pub client: http::Client,
    /// Is told how it goes on.
    pub progress: &'a dyn Progress,
}

/// Packages that cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache alone was to be used and does not suffice.
    #[error("{} not in the cache: {}", missing_count(.0.len()), .0.join(", "))]
    Offline(Vec<String>),
    /// No mirror was named and apt's sources name none.
    #[error("no mirror is known to fetch {} from", missing_count(*.0))]
    NoMirror(usize),
    /// Fetching failed.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A package cannot be read.
    #[error(transparent)]
    Deb(#[from] deb::Error),
    /// Two packages do not go together.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

fn missing_count(count: usize) -> String {
    if count == 1 { "1 package".to_owned() } else { format!("{count} packages") }
}

impl Store<'_> {
    /// Path of a package's `.deb` in the cache.
    pub fn deb(&self, package: &Package) -> PathBuf {
        self.cache.join(format!("debs/{}.deb", package.sha256))
    }

    /// Path of a package's decompressed files in the cache.
    pub fn data(&self, package: &Package) -> PathBuf {
        self.cache.join(format!("data/{}.tar", package.sha256))
    }

    /// Whether a package's files are decompressed, and can be told from damaged ones.
    pub fn is_unpacked(&self, package: &Package) -> bool {
        let data = self.data(package);
        data.exists() && deb::sum_of(&data).exists()
    }

    /// Has every package in the cache, as `.deb` or already decompressed.
    pub fn fetch(&self, packages: &[Package]) -> Result<(), Error> {
        self.fetch_debs(packages.iter().filter(|package| !self.is_unpacked(package)))
    }

    /// Has the `.deb` of every package in the cache.
    pub fn fetch_debs<'b>(&self, packages: impl IntoIterator<Item = &'b Package>) -> Result<(), Error> {
        let missing: Vec<&Package> =
            packages.into_iter().filter(|package| !self.deb(package).exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.offline {
            return Err(Error::Offline(missing.into_iter().map(ToString::to_string).collect()));
        }
        let Some(mirrors) = &self.mirrors else { return Err(Error::NoMirror(missing.len())) };
        let item = |package: &&Package| Item {
            label: package.to_string(),
            sha256: package.sha256,
            size: package.size,
            addresses: mirrors.addresses(package.archive, &package.path),
            target: self.deb(package),
        };
        Ok(fetch::all(&self.client, missing.iter().map(item).collect(), self.progress)?)
    }

    /// The files of all packages of an image, merged; fetches what is missing.
    pub fn layer(&self, image: &Image) -> Result<Layer, Error> {
        let packages = image.lock.packages();
        self.fetch(packages)?;
        deb::unpack(self, packages)?;
        let mut merged = Layer::default();
        for package in packages {
            let layer = deb::layer(&self.data(package), package, &|path| image.definition.wants(path))?;
            merged.add_package(&package.name, layer)?;
        }
        merged.check_parents()?;
        Ok(merged)
    }
}
