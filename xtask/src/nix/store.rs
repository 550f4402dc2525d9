//! Puts what a build fetches into Nix's store, from this machine's caches: a fixed output that is there is not fetched.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use sepulcher::cli::progress::Shown;
use sepulcher::cli::store::StoreArgs;
use sepulcher::image::definition::Definitions;
use xshell::{Shell, cmd};

use super::flake::alone;
use crate::{Result, root};

/// Adds the packages of the images and the crates of Cargo.lock. The names are those of `nix/host`, which are the
/// caches' own: `DIGEST.deb`, `NAME-VERSION.crate`.
pub fn fill(shell: &Shell) -> Result<()> {
    let files: Vec<PathBuf> = packages()?.into_iter().chain(crates(shell)?).collect();
    // One by one would take minutes, all at once may be more than a command line holds.
    for files in files.chunks(200) {
        let alone = alone();
        cmd!(shell, "nix-store {alone...} --add-fixed sha256 {files...}").quiet().ignore_stdout().run()?;
    }
    eprintln!("nix: {} packages and crates in the store", files.len());
    Ok(())
}

/// The packages of every image and of the builder's tools, fetched when the cache has only what was made of them.
fn packages() -> Result<Vec<PathBuf>> {
    let shown = Shown::default();
    let store = StoreArgs::default().store(&shown).map_err(|failure| failure.to_string())?;
    let definitions = Definitions::Embedded;
    let mut wanted = BTreeMap::new();
    for name in definitions.names()? {
        if name == "tools-build" || !name.starts_with("tools-") {
            for package in definitions.image(&name)?.lock.packages() {
                wanted.insert(store.deb(package), package.clone());
            }
        }
    }
    store.fetch_debs(wanted.values())?;
    Ok(wanted.into_keys().collect())
}

/// The crates of Cargo.lock for every platform, as cargo keeps them.
fn crates(shell: &Shell) -> Result<Vec<PathBuf>> {
    cmd!(shell, "cargo fetch --locked --quiet").quiet().run()?;
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let packages = lock.get("package").and_then(toml::Value::as_array).ok_or("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, key: &str| {
        package.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
    };
    let registries: Vec<PathBuf> = fs::read_dir(crate::image::cargo_home()?.join("registry/cache"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    let fetched = packages.iter().filter(|package| package.get("source").is_some());
    fetched
        .map(|package| {
            let name = format!("{}-{}.crate", text(package, "name"), text(package, "version"));
            let found = registries.iter().map(|registry| registry.join(&name)).find(|path| path.is_file());
            found.ok_or_else(|| format!("cargo fetched {name} but it is not in its cache").into())
        })
        .collect()
}
