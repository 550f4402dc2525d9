//! Locks that the mirrors have outlived: as with Cargo's, used as they are when they can be, else renewed in
//! the open.
#![expect(clippy::disallowed_methods, reason = "the clock is read at this edge")]

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::store::StoreArgs;
use super::{Failure, Kind};
use crate::image::definition::{Definitions, Image};
use crate::image::lock::Lock;
use crate::image::resolve::{Tools, Universe};
use crate::image::store::{self, Store};
use crate::image::toolbox::Toolbox;
use crate::image::{fetch, lock};
use crate::sys::fs;

/// Toolbox that holds the solver.
const TOOLBOX: &str = "tools-build";

impl StoreArgs {
    /// The image or toolbox `name`, with all its packages in the cache. When one of them has left the mirrors,
    /// the definition is resolved anew, what changes is told on standard error, and the new lock is kept: in
    /// its place when definitions come from a folder, in the cache when they are the program's own. With
    /// `--locked` that is an error instead.
    pub fn image(&self, store: &Store<'_>, name: &str) -> Result<Image, Failure> {
        let definitions = self.definitions();
        let mut image = definitions.image(name)?;
        let kept = kept(&definitions, store, &image);
        if !self.locked()
            && let Some(renewed) = renewed_before(&definitions, &kept)?
        {
            eprintln!("{name}: using the lock that was renewed in {}", kept.display());
            image.lock = renewed;
        }
        match store.fetch(image.lock.packages()) {
            Err(store::Error::Fetch(fetch::Error::Gone { label, .. })) if !self.locked() => {
                eprintln!("{name}: {label} has left the mirror; resolving anew");
                let tools = tools(store, &definitions)?;
                let release = &image.definition.release;
                let mut universe = Universe::fetch(store, &tools, release, Some(SystemTime::now()))?;
                let newer = universe.resolve(&tools, &image.definition)?;
                not_lowered(name, &image.lock, &newer)?;
                for line in image.lock.changes(&newer) {
                    eprintln!("  {line}");
                }
                store.fetch(newer.packages())?;
                if let Some(folder) = kept.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write_atomic(&kept, 0o644, newer.to_string().as_bytes())?;
                eprintln!("{name}: renewed lock written to {}", kept.display());
                image.lock = newer;
            }
            fetched => fetched?,
        }
        Ok(image)
    }
}

/// A mirror that is older than the lock, or that someone has turned back, must not bring old defects back unasked.
fn not_lowered(name: &str, old: &Lock, newer: &Lock) -> Result<(), Failure> {
    let lowered = old.lowered(newer);
    if lowered.is_empty() {
        return Ok(());
    }
    let list = lowered.join("\n  ");
    let sentence = format!("{name} is not renewed: the mirror has lower versions than the lock:\n  {list}");
    let hint = format!("use another mirror; if the lower versions are wanted, run `sepulcher lock {name}`");
    Err(Failure::new(Kind::Unavailable, sentence).hint(hint))
}

/// Where the renewed lock of an image is kept.
fn kept(definitions: &Definitions, store: &Store<'_>, image: &Image) -> PathBuf {
    match definitions {
        Definitions::Folder(folder) => folder.join(&image.name).join("packages.lock"),
        // The old lock's digest is in the name: a newer program with a newer lock starts from that one.
        Definitions::Embedded => {
            let digest = image.lock.digest().to_string();
            store.cache.join(format!("locks/{}-{}.lock", image.name, &digest[..16]))
        }
    }
}

fn renewed_before(definitions: &Definitions, kept: &Path) -> Result<Option<Lock>, Failure> {
    if matches!(definitions, Definitions::Folder(_)) {
        return Ok(None);
    }
    let Some(bytes) = fs::if_there(fs::read(kept))? else { return Ok(None) };
    let parsed = Lock::parse(&String::from_utf8_lossy(&bytes));
    let hint = || format!("remove {}", kept.display());
    Ok(Some(parsed.map_err(|error: lock::Error| Failure::from_error(Kind::Input, &error).hint(hint()))?))
}

/// The programs to resolve with: the locked ones; this machine's when their packages have left the mirror, or
/// when there is no lock of them yet.
pub fn tools(store: &Store<'_>, definitions: &Definitions) -> Result<Tools, Failure> {
    let failure: Failure = match definitions.image_to_renew(TOOLBOX) {
        Err(error) => error.into(),
        Ok(image) if image.lock.packages().is_empty() => {
            Failure::new(Kind::Unavailable, format!("{TOOLBOX}/packages.lock is empty"))
        }
        Ok(image) => match store.fetch(image.lock.packages()) {
            Err(error @ store::Error::Fetch(fetch::Error::Gone { .. })) => error.into(),
            fetched => {
                fetched?;
                return Ok(Tools::of_toolbox(&Toolbox::open(store, &image)?)?);
            }
        },
    };
    eprint!("the locked toolbox cannot be used; using this machine's apt-get and gpgv\n{failure}");
    Ok(Tools::of_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_with_lower_versions_renews_nothing_and_the_remedy_is_told() {
        let lock = |version: &str| {
            let text = format!(
                "schema = 1\nrelease = 'trixie'\n[[package]]\nname = 'demo'\nversion = '{version}'\n\
                 architecture = 'all'\narchive = 'debian'\npath = 'pool/x.deb'\nsize = 1\nsha256 = '{}'\n",
                "0".repeat(64)
            );
            Lock::parse(&text).unwrap()
        };
        not_lowered("demo", &lock("1.9"), &lock("1.10")).unwrap();
        let failure = not_lowered("demo", &lock("1.10"), &lock("1.9")).unwrap_err();
        for word in ["demo 1.10 -> 1.9", "`sepulcher lock demo`"] {
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }
}
