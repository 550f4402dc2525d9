//! Where law, bonds and secrets are.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Error;
use crate::codex::key::PublicKey;
use crate::sys::fs;
use crate::sys::wireguard::SecretKey;

/// A key file is 45 bytes long.
const KEY_LIMIT: u64 = 4096;

/// The folders of one appliance, or of one Codex on a workstation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Folder of the law.
    pub law: PathBuf,
    /// Folder of the bonds: `peers/`, the ledger, the log of changes.
    pub bonds: PathBuf,
    /// Folder of the secrets: `tether.key`, `peers/*.psk`.
    pub secrets: PathBuf,
    /// The appliance's public key, where it is known from elsewhere.
    pub host_key: Option<PublicKey>,
}

impl Place {
    /// Whether the root `root` is an appliance's: it holds a sealed law.
    pub fn is_appliance(root: &Path) -> Result<bool, fs::Error> {
        fs::exists(&Self::appliance(root).law)
    }

    /// The folders of the appliance whose root is `root`.
    pub fn appliance(root: &Path) -> Self {
        let state = root.join("var/lib/sepulcher");
        Self {
            law: root.join("usr/share/sepulcher/codex"),
            bonds: state.join("codex"),
            secrets: state.join("secrets"),
            host_key: None,
        }
    }

    /// A Codex on a workstation: everything in one folder.
    pub fn folder(folder: &Path) -> Self {
        Self {
            law: folder.to_owned(),
            bonds: folder.to_owned(),
            secrets: folder.join("secrets"),
            host_key: None,
        }
    }

    /// The folders that the Codex is read from.
    pub fn folders(&self) -> Vec<&Path> {
        let bonds = (self.bonds != self.law).then_some(self.bonds.as_path());
        [self.law.as_path()].into_iter().chain(bonds).collect()
    }

    /// The appliance's public key, as far as it is known here.
    pub(crate) fn host_key(&self) -> Result<Option<PublicKey>, Error> {
        if self.host_key.is_some() {
            return Ok(self.host_key);
        }
        let path = self.secrets.join("tether.key");
        let bytes = fs::if_there(fs::read_bounded(&path, KEY_LIMIT))?.map(Zeroizing::new);
        let Some(bytes) = bytes else { return Ok(None) };
        let secret = SecretKey::parse(&bytes);
        secret
            .map(|secret| Some(secret.public()))
            .map_err(|error| Error::HostKey(format!("{} is unusable: {error}", path.display())))
    }

    /// Refuses a folder that does not exist before a lock file would be made for it.
    pub(crate) fn writable(&self) -> Result<(), Error> {
        // A workstation's Codex may have had no peer yet; on the appliance this folder is there since the first boot.
        let law = self.law.join(crate::codex::LAW);
        if fs::exists(&law)? && fs::exists(&self.bonds)? {
            return Ok(());
        }
        super::load(self).map(|_| ())
    }

    /// Makes the folder of preshared keys for its owner alone.
    pub(crate) fn make_secrets(&self) -> Result<(), fs::Error> {
        let peers = self.secrets.join("peers");
        fs::create_dir_all(&peers)?;
        fs::set_mode(&self.secrets, 0o700)?;
        fs::set_mode(&peers, 0o700)?;
        // Codexes are kept in version control; this folder is not.
        let ignore = self.secrets.join(".gitignore");
        if self.secrets.parent() == Some(self.law.as_path()) && !fs::exists(&ignore)? {
            fs::write_atomic(&ignore, 0o600, b"*\n")?;
        }
        fs::sync_parent(&peers)?;
        fs::sync_parent(&self.secrets)
    }
}
