//! `sepulcher provision`: identity and first bonds of a machine that has not booted yet.

pub mod credential;
mod heir;
pub mod secrets;
mod target;

use std::path::{Path, PathBuf};

use credential::{Bond, Credential};
use secrets::Secrets;
use target::Target;

use super::peer::deliver::{Delivery, Outputs};
use super::recovery::Phrase;
use super::{Failure, Kind};
use crate::codex::key::PublicKey;
use crate::codex::name::Name;
use crate::codex::{Codex, Sources};
use crate::peer::store::{self, Reply};
use crate::peer::{self, Change, Request, Situation};
use crate::sys::wireguard::SecretKey;
use crate::sys::{self, clock};

/// Bond a device to a machine before its first boot, or have it take the place of a lost one
///
/// Makes the machine's identity and its first bond, or takes both from the exported snapshot of a machine that is lost,
/// and puts them on the disk image, beside the sealed root. The first boot takes them over and wipes them from there.
/// Until then, whoever holds the disk holds the machine's key: write it to the machine's disk, and keep no copy.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Disk image to provision, as `sepulcher image build` has made it; its checksums do not hold any more then
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// Folder of the Codex that the image was built from
    #[arg(long, value_name = "DIR", default_value = ".")]
    codex: PathBuf,
    /// Name of the device to bond
    #[arg(long, value_name = "NAME", required_unless_present = "snapshot")]
    bond: Option<Name>,
    /// What it may reach, as `sepulcher peer bond` takes it: services by name, `*` for all of them; `bonds` to manage bonds,
    /// `rebirth` for updates, … [default: * bonds]
    #[arg(long = "grant", value_name = "WHAT", num_args = 1..)]
    grants: Vec<String>,
    /// What it dials, a name or an address [default: `endpoint` in `[tether]` of lychd.toml]
    #[arg(long, value_name = "HOST")]
    endpoint: Option<String>,
    /// The device's own public key, as `wg pubkey` prints it; without it a key pair is made
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// Make no preshared key
    #[arg(long)]
    no_preshared: bool,
    /// What `sepulcher snapshot export` wrote of a machine whose place this one takes: its bonds, who is revoked, and its
    /// private key where the export holds that; volumes stay out
    #[arg(
        long,
        value_name = "FILE",
        requires = "identity",
        conflicts_with_all = ["bond", "grants", "endpoint", "public_key", "no_preshared", "conf", "png", "svg"]
    )]
    snapshot: Option<PathBuf>,
    /// File with the age key of a recipient of that snapshot, as `age-keygen` writes it
    #[arg(long, value_name = "FILE", requires = "snapshot")]
    identity: Option<PathBuf>,
    /// A secret that a service names, and the file that holds it; may be repeated
    #[arg(long = "secret", value_name = "NAME=FILE")]
    secrets: Vec<secrets::Given>,
    /// Replace what an earlier run has put there
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    to: Outputs,
}

/// What the disk gets.
enum Gift<'a> {
    /// A bond for a device of that name.
    Bond(&'a Name),
    /// An exported snapshot, and the file with the key that opens it.
    Snapshot(&'a Path, &'a Path),
}

/// Provisions the image, then hands the device's configuration over, if there is one.
pub fn run(args: &Args) -> Result<(), Failure> {
    let target = Target::open(&args.disk)?;
    if target.is_provisioned() && !args.again {
        let message = format!("{} is provisioned already", args.disk.display());
        return Err(Failure::new(Kind::Input, message)
            .hint("`--again` replaces identity and bonds; what was shown before is void then"));
    }
    let (sources, codex) = law(&args.codex)?;
    target.check(&codex, &args.codex)?;
    let (secrets, missing) = secrets::read(&args.secrets, &codex)?;
    let phrase = Phrase::generate();
    let host_key = match args.gift()? {
        Gift::Bond(name) => args.bond(&target, (&sources, &codex), name, &phrase, secrets)?,
        Gift::Snapshot(file, identity) => {
            let (mut credential, plan) =
                heir::of(&target, (&sources, &codex), file, identity, phrase.digest())?;
            for line in plan {
                eprintln!("{line}");
            }
            credential.secrets = secrets;
            put(&target, &credential)?;
            credential.host.public()
        }
    };
    for line in missing {
        eprintln!("{line}");
    }
    eprintln!("tether public key: {host_key}");
    eprintln!(
        "Recovery phrase for the console, for the day when no bonded device is at hand: write it down."
    );
    eprintln!("recovery phrase: {phrase}");
    Ok(())
}

fn put(target: &Target, credential: &Credential) -> Result<(), Failure> {
    let bytes = credential.to_bytes().map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    if bytes.len() as u64 > credential::LIMIT {
        let message = format!(
            "snapshot and secrets make a credential of {} bytes, and {} fit",
            bytes.len(),
            credential::LIMIT
        );
        return Err(Failure::new(Kind::Input, message)
            .hint("on a machine with a shell, or a NixOS host, `sepulcher snapshot import` takes it"));
    }
    target.write(&bytes)
}

fn law(folder: &Path) -> Result<(Sources, Codex), Failure> {
    let sources = sys::codex::load(&[folder]);
    match Codex::parse(&sources) {
        Ok(codex) => Ok((sources, codex)),
        Err(mistakes) => Err(super::codex::refused(&mistakes, &sources)),
    }
}

impl Args {
    fn gift(&self) -> Result<Gift<'_>, Failure> {
        match (&self.bond, &self.snapshot, &self.identity) {
            (Some(name), ..) => Ok(Gift::Bond(name)),
            (None, Some(snapshot), Some(identity)) => Ok(Gift::Snapshot(snapshot, identity)),
            _ => Err(Failure::new(Kind::Input, "there is nothing to put on the disk")
                .hint("name a device, `--bond NAME`, or a snapshot, `--snapshot FILE --identity FILE`")),
        }
    }

    /// Puts a new identity and a bond on the disk, and hands its configuration over; the host's public key.
    fn bond(
        &self,
        target: &Target,
        (sources, codex): (&Sources, &Codex),
        name: &Name,
        phrase: &Phrase,
        secrets: Secrets,
    ) -> Result<PublicKey, Failure> {
        let host = SecretKey::generate();
        let secret = self.public_key.is_none().then(SecretKey::generate);
        let (change, mut reply) = self.decide(name, codex, sources, &host, secret.as_ref())?;
        let host_key = host.public();
        let bond = Bond { file: change.text, preshared: change.preshared.map(|(_, key)| key) };
        let credential = Credential {
            appliance: codex.appliance.name.clone(),
            host,
            bonds: [(change.name, bond)].into(),
            recovery: phrase.digest(),
            snapshot: None,
            secrets,
        };
        let delivery = Delivery::prepare(&self.to, false)?;
        put(target, &credential)?;
        reply.plan.iter().for_each(|line| eprintln!("{line}"));
        let handed = delivery.hand_over(name, &mut reply, secret.as_ref());
        handed.map_err(|failure| {
            failure.hint("the disk is provisioned, the configuration is lost: run this with `--again`")
        })?;
        Ok(host_key)
    }

    /// What the bond is, and the device's configuration.
    fn decide(
        &self,
        name: &Name,
        codex: &Codex,
        sources: &Sources,
        host: &SecretKey,
        secret: Option<&SecretKey>,
    ) -> Result<(Change, Reply), Failure> {
        let Self { grants, endpoint, public_key, no_preshared, .. } = self;
        let given = || Failure::new(Kind::Internal, "there is no public key");
        let public_key = public_key.or_else(|| secret.map(SecretKey::public)).ok_or_else(given)?;
        let all = || ["*", "bonds"].map(str::to_owned).to_vec();
        let request = Request::Bond(peer::Bond {
            name: name.clone(),
            public_key,
            address: None,
            address6: None,
            kind: peer::Kind::Device,
            grants: if grants.is_empty() { all() } else { grants.clone() },
            expires: None,
            preshared: !no_preshared,
            dial: endpoint.clone(),
            client: true,
        });
        let now = clock::now();
        let situation = Situation { codex, sources, broken: &[], host_key: Some(host.public()), now };
        Ok(store::prepare(&request, &situation)?)
    }
}

#[cfg(test)]
pub mod tests;
