//! A disk that was provisioned: its first boot takes identity and bonds over, once, and wipes the credential.
//!
//! The credential is copied into the secrets in one step, which commits it; only then it is wiped from the EFI system
//! partition and put to work. A power loss before that step leaves a machine that has taken nothing, one after it a
//! machine whose next boot goes on. The host's key is written last: with it in place nothing is taken any more, so that
//! no credential, old or new, can bring back what was revoked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Seeds;
use crate::cli::provision::credential::{Bond, Credential, LIMIT};
use crate::cli::{Failure, Kind, recovery};
use crate::codex::key::PublicKey;
use crate::codex::migrate::MARKER;
use crate::codex::name::Name;
use crate::codex::{Codex, Diagnostic, PeerState, Sources, plain, preshared_file};
use crate::peer::audit;
use crate::peer::store::{self, Place};
use crate::snapshot::store as snapshot;
use crate::snapshot::{archive, law};
use crate::sys::{self, clock, fs};
use crate::tree::Sha256Digest;

/// Where `sepulcher provision` puts it, and where it waits while it is put to work.
const CREDENTIAL: &str = "efi/EFI/sepulcher/provision.cred";
const JOURNAL: &str = "provision.cred";

/// Puts the bonds in place that a machine begins with.
type Seed<'a> = &'a dyn Fn(Seeds) -> Result<(), Failure>;

/// The folders that a credential concerns.
pub struct Places<'a> {
    /// Root of the machine's files.
    pub root: &'a Path,
    /// Folder of the law.
    pub law: &'a Path,
    /// Folder of the bonds.
    pub bonds: &'a Path,
    /// Folder of the secrets.
    pub secrets: &'a Path,
}

impl Places<'_> {
    fn key(&self) -> PathBuf {
        self.secrets.join("tether.key")
    }

    fn journal(&self) -> PathBuf {
        self.secrets.join(JOURNAL)
    }
}

/// Takes over the credential that waits on the ESP, if there is one. Returns what the console is to be told.
pub fn take_over(places: &Places<'_>, seed: Seed<'_>) -> Result<Vec<String>, Failure> {
    let mut told = Vec::new();
    let waiting = places.root.join(CREDENTIAL);
    let is_awake = fs::exists(&places.key())? || fs::exists(&places.journal())?;
    match fs::read_bounded(&waiting, LIMIT).map(zeroize::Zeroizing::new) {
        Err(error) if error.is_not_found() => {}
        // Whether this machine is to have another identity cannot be known: it must not make one now.
        Err(error) if !is_awake && error.source.kind() != std::io::ErrorKind::FileTooLarge => {
            return Err(Failure::from(error)
                .hint("restart the machine; if this stays, write its image to the disk anew"));
        }
        Err(error) if is_awake => told.push(format!("note: {error}: {}", error.source)),
        read => {
            let judged = match read {
                Err(_) => Err("it is too long".to_owned()),
                Ok(_) if is_awake => Err("this machine has an identity already".to_owned()),
                Ok(bytes) => judge(places, &bytes).map(|()| bytes),
            };
            match judged {
                Ok(bytes) => fs::write_atomic(&places.journal(), 0o600, &bytes)?,
                Err(why) => told.push(format!("the credential on the ESP is refused and wiped: {why}")),
            }
            // Where wiping fails, the next boot tries again: by then there is an identity.
            if let Err(error) = fs::erase(&waiting) {
                told.push(format!("note: {error}: {}", error.source));
            }
        }
    }
    told.extend(finish(places, seed)?);
    Ok(told)
}

/// Whether everything of a credential can be used.
fn judge(places: &Places<'_>, bytes: &[u8]) -> Result<(), String> {
    let credential = Credential::parse(bytes).map_err(|error| error.to_string())?;
    let mut sources = sys::codex::load(&[places.law, places.bonds]);
    let own = credential.host.public();
    let of_law = Codex::parse(&law(&sources)).map_err(|mistakes| disagree(&mistakes))?;
    let appliance = &of_law.appliance.name;
    if *appliance != credential.appliance {
        return Err(format!("it is for {}, this is {appliance}", credential.appliance));
    }
    let unknown = |name: &&Name| !of_law.secrets().any(|(_, wanted)| wanted == *name);
    if let Some(name) = credential.secrets.keys().find(unknown) {
        return Err(format!("no service of the law names the secret `{name}`"));
    }
    if let Some(archived) = &credential.snapshot {
        return heir(places, archived, &sources, own).map_err(|failure| failure.to_string());
    }
    for (name, bond) in &credential.bonds {
        if sources.text(&format!("peers/{name}.toml")).is_some() {
            return Err(format!("{name} is bonded by the law already"));
        }
        sources.insert(format!("peers/{name}.toml"), bond.file.as_str());
    }
    let codex = Codex::parse(&sources).map_err(|mistakes| disagree(&mistakes))?;
    for (name, Bond { preshared, .. }) in &credential.bonds {
        let peer = &codex.peers[name];
        if peer.preshared != preshared.is_some() {
            return Err(format!("the preshared key of {name} does not belong to its bond"));
        }
        if peer.state != PeerState::Active || peer.generation != 1 {
            return Err(format!("the bond of {name} is not a first bond"));
        }
        if peer.public_key == own {
            return Err(format!("{name} has the public key of the host itself"));
        }
    }
    Ok(())
}

fn disagree(mistakes: &[Diagnostic]) -> String {
    let first = mistakes.first().map(|mistake| format!("{}: {}", mistake.file, mistake.message));
    format!("its bonds and the law do not agree: {}", first.unwrap_or_default())
}

/// Names of files of peers that are here.
fn bonded(places: &Places<'_>) -> Result<Vec<PathBuf>, fs::Error> {
    let bonded = fs::list_named(&places.bonds.join("peers"), |name| name != MARKER);
    Ok(fs::if_there(bonded)?.unwrap_or_default())
}

/// Whether a snapshot can be put back here.
fn heir(places: &Places<'_>, archived: &[u8], sources: &Sources, own: PublicKey) -> Result<(), Failure> {
    if !bonded(places)?.is_empty() {
        let hint = "import it on the machine, and restore it there";
        return Err(Failure::new(Kind::Input, "this machine has bonds already").hint(hint));
    }
    let snapshot = archive::read(archived, &mut |_, _, _| Ok(()))?;
    let image = snapshot::image(&Place::appliance(places.root), &snapshot.manifest.appliance)?;
    snapshot::foretell(&snapshot, sources, image.as_ref(), own)?;
    Ok(())
}

/// Puts a committed credential to work, from wherever an earlier boot was cut off.
fn finish(places: &Places<'_>, seed: Seed<'_>) -> Result<Vec<String>, Failure> {
    let journal = places.journal();
    let bytes = fs::if_there(fs::read_bounded(&journal, LIMIT))?.map(zeroize::Zeroizing::new);
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    let mut told = Vec::new();
    if !fs::exists(&places.key())? {
        let credential = Credential::parse(&bytes).map_err(|error| {
            Failure::new(Kind::Input, format!("cannot take over {}: {error}", journal.display()))
                .hint("write the image to the disk anew, and provision it")
        })?;
        seed(if credential.snapshot.is_some() { Seeds::Nothing } else { Seeds::Law })?;
        told.extend(install(places, &credential)?);
    }
    fs::remove_file(&journal)?;
    fs::sync_parent(&journal)?;
    Ok(told)
}

/// Puts secrets, bonds, recovery phrase and, last, the host's key in place. Returns what the console is to be told.
fn install(places: &Places<'_>, credential: &Credential) -> Result<Vec<String>, Failure> {
    for (name, bytes) in &credential.secrets {
        fs::write_atomic(&places.secrets.join(name.as_str()), 0o600, bytes)?;
    }
    let mut told = match &credential.snapshot {
        Some(archived) => put_back(places, archived)?,
        None => bond(places, credential)?,
    };
    told.extend(credential.secrets.keys().map(|name| format!("secret {name} taken over from the disk")));
    let digest = format!("{}\n", credential.recovery);
    fs::write_atomic(&places.secrets.join(recovery::FILE), 0o600, digest.as_bytes())?;
    fs::create_atomic(&places.key(), 0o600, credential.host.to_file().as_bytes())?;
    Ok(told)
}

/// Keeps the snapshot and puts it back, as its verbs do; both are whole or not done, so that a boot that was cut off is
/// followed by one that does the rest.
fn put_back(places: &Places<'_>, archived: &[u8]) -> Result<Vec<String>, Failure> {
    let place = Place::appliance(places.root);
    if bonded(places)?.is_empty() {
        // A boot that was cut off may have written the log and not the bonds that it tells of.
        fs::remove_file(&places.bonds.join(audit::FILE))?;
    }
    let host = snapshot::Host::new(&|_| ());
    let who = store::caller();
    let (name, _) = snapshot::import(&place, &host, &mut &*archived, None, false)?;
    let wish = snapshot::Wish {
        name: Some(&name),
        revive: &BTreeSet::new(),
        identity: false,
        volumes: false,
        dry_run: false,
    };
    let restored = snapshot::restore(&place, &host, &who, wish)?;
    let mut told = vec![format!("identity and bonds taken over from the disk: snapshot {name}")];
    told.extend(restored.plan.iter().map(|line| plain(line)));
    Ok(told)
}

fn bond(places: &Places<'_>, credential: &Credential) -> Result<Vec<String>, Failure> {
    let Places { bonds, secrets, .. } = places;
    let shared = secrets.join("peers");
    fs::create_dir_all(&shared)?;
    fs::set_mode(&shared, 0o700)?;
    for (name, Bond { file, preshared }) in &credential.bonds {
        if let Some(key) = preshared {
            // A first bond has generation 1.
            let text = zeroize::Zeroizing::new(format!("{}\n", *key.to_text()));
            fs::write_atomic(&secrets.join(preshared_file(name, 1)), 0o600, text.as_bytes())?;
        }
        fs::write_atomic(&bonds.join(format!("peers/{name}.toml")), 0o644, file.as_bytes())?;
    }
    on_record(places, credential)?;
    let names: Vec<_> = credential.bonds.keys().map(ToString::to_string).collect();
    Ok(vec![format!("identity and bonds taken over from the disk: {}", names.join(", "))])
}

/// Begins the log of changes with the bonds that were taken over.
fn on_record(places: &Places<'_>, credential: &Credential) -> Result<(), Failure> {
    if fs::exists(&places.bonds.join(audit::FILE))? {
        return Ok(());
    }
    let time = clock::now();
    let entry = |(name, bond): (&Name, &Bond)| audit::Entry {
        time,
        who: store::caller(),
        verb: audit::Verb::Bond,
        peer: name.clone(),
        generation: 1,
        file_sha256: Some(Sha256Digest::of(bond.file.as_bytes())),
    };
    store::record(places.bonds, &credential.bonds.iter().map(entry).collect::<Vec<_>>())?;
    Ok(())
}

#[cfg(test)]
mod tests;
