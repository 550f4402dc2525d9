//! `sepulcher keygen`: the key pair that signs updates.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::output::print;
use super::{Failure, Kind, passphrase};
use crate::rebirth::publisher::{NoKey, SigningKey};
use crate::sys::fs;

/// A key file holds two lines.
const LIMIT: u64 = 4 << 10;

/// Make the key pair that signs updates, and print the line that names it in a Codex
///
/// The format is minisign's. Keep the secret key off the appliance and off shared disks: whoever has it can publish
/// updates. Without it no more updates can be made for machines that name it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File of the secret key, mode 0600; the public one is FILE.pub. Neither is ever replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Ask for a passphrase that the secret key is of no use without (on standard input when that is no terminal)
    #[arg(long)]
    passphrase: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { out, passphrase } = args;
    let mut public = out.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    for path in [out, &public] {
        if fs::exists(path)? {
            return Err(Failure::new(Kind::Input, format!("{} is there already", path.display()))
                .hint("name another file: a key that is gone cannot be made again"));
        }
    }
    let passphrase = passphrase.then(passphrase::choose).transpose()?;
    let key = SigningKey::generate()?;
    let text = key.to_text(passphrase.as_ref().map(|text| text.as_str()))?;
    fs::create_atomic(out, 0o600, text.as_bytes())?;
    if let Err(error) = fs::create_atomic(&public, 0o644, key.public_text().as_bytes()) {
        fs::remove_file(out)?;
        return Err(error.into());
    }
    print(&format!("publisher = \"{}\"\n", key.public()))?;
    eprintln!("wrote the secret key to {}, the public one to {}", out.display(), public.display());
    eprintln!(
        "hint: write the line above under `[rebirth]` in lychd.toml, and keep a copy of the secret key elsewhere"
    );
    Ok(())
}

/// Reads the file of a secret key, and asks for its passphrase where it has one.
pub fn open_key(file: &Path) -> Result<SigningKey, Failure> {
    let bytes = Zeroizing::new(fs::read_bounded(file, LIMIT)?);
    let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    let passphrase = SigningKey::is_locked(&text)?
        .then(|| passphrase::ask("passphrase of the secret key: "))
        .transpose()?;
    Ok(SigningKey::parse(&text, passphrase.as_ref().map(|text| text.as_str()))?)
}

impl From<NoKey> for Failure {
    fn from(error: NoKey) -> Self {
        Self::from_error(Kind::Internal, &error)
    }
}
