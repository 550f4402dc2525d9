//! The disk image that is provisioned: whether it can be, and the one file that is put there.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::cli::{Failure, Kind};
use crate::codex::Codex;
use crate::codex::name::Name;
use crate::image::disk::{self, Placed, Role};
use crate::image::esp::{self, Provision};
use crate::image::window::Window;
use crate::rebirth::version::Version;
use crate::render::manifest::{PROGRAM, codex_digest};
use crate::sys::fs;

/// An image that was never booted, held by us alone.
pub struct Target {
    path: PathBuf,
    file: File,
    esp: Placed,
    /// Label of the root's partition.
    root: String,
    provision: Provision,
}

impl Target {
    /// Opens an image and looks at it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        if fs::entry(&fs::canonical(path)?)? != fs::Entry::File {
            return Err(Failure::new(Kind::Input, format!("{shown} is not a file"))
                .hint("provision the image first, then write it to a disk"));
        }
        let file = fs::open_alone(path)?;
        let foreign = |why: String| {
            Failure::new(Kind::Input, format!("{shown} cannot be provisioned: {why}"))
                .hint("name an image as `sepulcher image build` has made it, before it is written to a disk")
        };
        let mut placed = disk::read(&file).map_err(|error| foreign(error.to_string()))?;
        let roles: Vec<_> = placed.iter().filter_map(|one| one.role).collect();
        if !roles.starts_with(&Role::ALL) {
            return Err(foreign("its partitions are not those of a sepulcher image".to_owned()));
        }
        if placed.len() > Role::ALL.len() {
            let message = format!("{shown} has booted already: its machine has an identity");
            return Err(Failure::new(Kind::Input, message)
                .hint("bond at its console, or over the tether; or build the image anew"));
        }
        // In the order of their roles.
        let root = placed[1].label.clone();
        let esp = placed.swap_remove(0);
        let provision = esp::provisioned(Window::new(&file, esp.offset, esp.size));
        let provision = provision.map_err(|error| foreign(error.to_string()))?.ok_or_else(|| {
            Failure::new(Kind::Input, format!("{shown} has no place for a credential"))
                .hint("an older version has made it: build it anew")
        })?;
        Ok(Self { path: path.to_owned(), file, esp, root, provision })
    }

    fn is_of_this_version(&self) -> bool {
        self.provision.origin.starts_with(&format!("{PROGRAM} "))
    }

    /// Refuses an image that another version of this program was built into: what it would take over cannot be told.
    pub fn is_ours(&self) -> Result<(), Failure> {
        if self.is_of_this_version() {
            return Ok(());
        }
        let message =
            format!("another version has built {}: what it takes over cannot be told", self.path.display());
        Err(Failure::new(Kind::Input, message).hint("build the image with this version"))
    }

    /// Version of the image, which its root's partition is called by.
    pub fn image(&self, appliance: &Name) -> Option<Version> {
        self.root.strip_prefix(appliance.as_str())?.strip_prefix('_')?.parse().ok()
    }

    /// Whether an earlier run has put a credential there.
    pub fn is_provisioned(&self) -> bool {
        self.provision.is_provisioned
    }

    /// Refuses an image that was built from another Codex; notes when that cannot be told.
    pub fn check(&self, codex: &Codex, folder: &Path) -> Result<(), Failure> {
        let differs = |what: String| {
            Failure::new(
                Kind::Input,
                format!("{} was not built from {}{what}", self.path.display(), folder.display()),
            )
            .hint("name its Codex with `--codex DIR`; where that has changed since, build the image anew")
        };
        let origin = &self.provision.origin;
        if self.esp.label != format!("{}_esp", codex.appliance.name) {
            return Err(differs(format!(
                ": the one is {}, the other {}",
                self.esp.label.trim_end_matches("_esp"),
                codex.appliance.name
            )));
        }
        if *origin == esp::origin(PROGRAM, &codex_digest(codex).to_string()) {
            return Ok(());
        }
        if self.is_of_this_version() {
            return Err(differs(" as it is now".to_owned()));
        }
        let folder = folder.display();
        eprintln!("note: another version has built this image: whether it was from {folder} cannot be told");
        Ok(())
    }

    /// Puts the credential there, durably.
    pub fn write(&self, credential: &[u8]) -> Result<(), Failure> {
        // From now on the host's private key is in it.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        self.file.set_permissions(private).map_err(|error| Failure::from_error(Kind::Io, &error))?;
        let window = Window::new(&self.file, self.esp.offset, self.esp.size);
        esp::provision(window, credential, || self.file.sync_all()).map_err(|error| {
            Failure::from_error(Kind::Io, &error)
                .hint("nothing has changed there, or it is done: run this again")
        })
    }
}
