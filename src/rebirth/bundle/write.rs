//! Writes an update, whole or not at all.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::{
    Bundle, Description, Error, Names, Part, SCHEMA, SIGNATURE, SMALL, Sums, damaged, open_unsigned,
    signature,
};
use crate::codex::name::Name;
use crate::codex::{self, Sources};
use crate::image::build::Body;
use crate::image::disk;
use crate::image::manifest::SUMS;
use crate::image::window::Window;
use crate::peer::Refused;
use crate::rebirth::publisher::SigningKey;
use crate::rebirth::version::Version;
use crate::sys::stage::Staged;
use crate::sys::{fs, tree};
use crate::tree::Sha256Digest;

/// How unfinished updates are named.
const LITTER: &str = ".update-";

/// An update that lies beside its place, proven, under a hidden name until [`Ready::commit`] says so.
#[derive(Debug)]
pub struct Ready {
    work: fs::Scratch,
    bundle: Bundle,
}

impl Ready {
    /// Puts it in its place, in that of an older build of the same version where there is one.
    ///
    /// # Errors
    /// The system refuses; what was there stays.
    pub fn commit(self) -> Result<Bundle, Error> {
        let Self { work, bundle } = self;
        // After an exchange the older build lies in the folder of work, and goes with it.
        tree::swap(&made_in(&work), &bundle.folder)?;
        Ok(bundle)
    }
}

fn made_in(work: &fs::Scratch) -> PathBuf {
    work.path().join("update")
}

/// Where the update beside an image goes: `dir/lychd.raw` → `dir/lychd_2.update`.
pub fn beside(image: &Path, name: &Name, version: &Version) -> PathBuf {
    image.with_file_name(format!("{name}_{version}.update"))
}

/// Whether an update can be written there: nothing is there, or an update of the same name and version.
///
/// # Errors
/// Something else is there.
pub fn check_place(folder: &Path, name: &Name, version: &Version) -> Result<(), Error> {
    if !fs::exists(folder)? {
        return Ok(());
    }
    let taken = |reason: String| {
        let message = format!("cannot replace {}: {reason}", folder.display());
        Error::from(Refused::new(message, "remove it yourself, or write the image elsewhere: --out FILE"))
    };
    if fs::entry(folder)? != fs::Entry::Folder {
        return Err(taken("it is not a folder".into()));
    }
    let stem = format!("{name}_{version}");
    for path in fs::list(folder)? {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let part = file.strip_prefix(&stem).is_some_and(|rest| rest.starts_with(['_', '.']));
        if !part && ![SUMS, SIGNATURE].contains(&file.as_str()) {
            return Err(taken(format!(
                "it holds `{}`, which is no part of {name} {version}",
                codex::plain(&file)
            )));
        }
    }
    Ok(())
}

/// Writes an update of `body` that is to go to `folder`, signs it where there is a key, and opens it as a machine would.
///
/// # Errors
/// The system refuses, or what was written does not open: then nothing is left of it.
pub fn write(
    folder: &Path,
    (name, version): (&Name, &Version),
    law: &Sources,
    body: &Body,
    key: Option<&SigningKey>,
) -> Result<Ready, Error> {
    check_place(folder, name, version)?;
    let size = fs::context(body.root.metadata(), "read", folder)?.len();
    let description = described(name, law, version, body, size);
    let json = description.to_json().map_err(|error| defect(&error))?;
    let work = fs::Scratch::new(fs::folder_of(folder), LITTER)?;
    let made = made_in(&work);
    fs::create_dir_all(&made)?;
    fs::set_mode(&made, 0o755)?;
    let Names { root, verity, kernel, description: file } = Names::new(name, version, body.root_hash);
    let mut sums = BTreeMap::new();
    let root_bytes = Window::new(&body.root, 0, size);
    let parts: [(String, &mut dyn Read); 4] = [
        (root, &mut root_bytes.truncated(size)),
        (verity, &mut body.verity.as_slice()),
        (kernel, &mut body.kernel.as_slice()),
        (file, &mut json.as_bytes()),
    ];
    for (file, content) in parts {
        let digest = put(&made.join(&file), content)?;
        sums.insert(file, digest);
    }
    let sums = Sums::new(sums).to_text();
    put(&made.join(SUMS), &mut sums.as_bytes())?;
    let mut bundle = match key {
        Some(key) => sign(&made, key)?,
        None => open_unsigned(&made)?,
    };
    folder.clone_into(&mut bundle.folder);
    Ok(Ready { work, bundle })
}

/// Signs the update in `folder`, whose parts are checked first, in place of who signed it before.
///
/// # Errors
/// It is no whole update, or the system refuses: then its signature is what it was.
pub fn sign(folder: &Path, key: &SigningKey) -> Result<Bundle, Error> {
    let bundle = open_unsigned(folder)?;
    let sums = fs::read_bounded(&folder.join(SUMS), SMALL)?;
    if Sha256Digest::of(&sums) != bundle.digest {
        return Err(damaged(format!("{SUMS} changed while it was read")).into());
    }
    let signature = key.sign(&sums, &bundle.description.title()).map_err(|error| defect(&error))?;
    signature::verify(&key.public(), &sums, signature.as_bytes())?;
    put(&folder.join(SIGNATURE), &mut signature.as_bytes())?;
    Ok(bundle)
}

fn described(name: &Name, law: &Sources, version: &Version, body: &Body, size: u64) -> Description {
    let names = Names::new(name, version, body.root_hash);
    let law = law.iter().filter(|(file, _)| codex::is_law(file));
    Description {
        schema: SCHEMA,
        name: name.clone(),
        version: version.clone(),
        root_hash: body.root_hash,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        codex_schema: codex::SCHEMA,
        root: Part { file: names.root, size },
        verity: Part { file: names.verity, size: body.verity.len() as u64 },
        kernel: Part { file: names.kernel, size: body.kernel.len() as u64 },
        law: law.map(|(file, text)| (file.to_owned(), text.to_owned())).collect(),
    }
}

/// Writes a new file, durably, and returns its digest.
fn put(path: &Path, content: &mut dyn Read) -> Result<Sha256Digest, Error> {
    let staged = Staged::create(path)?;
    let mut file = staged.file();
    fs::context(io::copy(content, &mut file).and_then(|_| file.flush()), "write", path)?;
    let digest = fs::context(disk::digest(staged.file()), "read", path)?;
    staged.commit(0o644)?;
    Ok(digest)
}

fn defect(error: &dyn std::error::Error) -> Refused {
    Refused::new(format!("the update cannot be written: {error}"), "this is a defect: please report it")
}
