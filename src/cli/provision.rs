//! `sepulcher provision`: identity and first bond of a machine that has not booted yet.

pub mod credential;
mod target;

use std::path::{Path, PathBuf};

use credential::{Bond, Credential};
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

/// Bond a device to a machine before its first boot
///
/// Makes the machine's identity and its first bond, and puts both on the disk image, beside the sealed root. The first
/// boot takes them over and wipes them from there. Until then, whoever holds the disk holds the machine's key: write it
/// to the machine's disk, and keep no copy.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Disk image to provision, as `sepulcher image build` has made it; its checksums do not hold any more then
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// Folder of the Codex that the image was built from
    #[arg(long, value_name = "DIR", default_value = ".")]
    codex: PathBuf,
    /// Name of the device to bond
    #[arg(long, value_name = "NAME")]
    bond: Name,
    /// What it may reach: services by name, `*` for all of them; `bonds` to manage bonds [default: * bonds]
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
    /// Replace what an earlier run has put there
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    to: Outputs,
}

/// Provisions the image, then hands the device's configuration over.
pub fn run(args: &Args) -> Result<(), Failure> {
    let target = Target::open(&args.disk)?;
    if target.is_provisioned() && !args.again {
        let message = format!("{} is provisioned already", args.disk.display());
        return Err(Failure::new(Kind::Input, message)
            .hint("`--again` replaces identity and bond; what was shown before is void then"));
    }
    let (sources, codex) = law(&args.codex)?;
    target.check(&codex, &args.codex)?;
    let host = SecretKey::generate();
    let secret = args.public_key.is_none().then(SecretKey::generate);
    let (change, mut reply) = args.decide(&codex, &sources, &host, secret.as_ref())?;
    let phrase = Phrase::generate();
    let host_key = host.public();
    let credential = Credential {
        appliance: codex.appliance.name,
        host,
        bonds: [(change.name, Bond { file: change.text, preshared: change.preshared.map(|(_, key)| key) })]
            .into(),
        recovery: phrase.digest(),
    };
    let bytes = credential.to_bytes().map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    let delivery = Delivery::prepare(&args.to, false)?;
    target.write(&bytes)?;
    reply.plan.iter().for_each(|line| eprintln!("{line}"));
    let handed = delivery.hand_over(&args.bond, &mut reply, secret.as_ref());
    handed.map_err(|failure| {
        failure.hint("the disk is provisioned, the configuration is lost: run this with `--again`")
    })?;
    eprintln!("tether public key: {host_key}");
    eprintln!(
        "Recovery phrase for the console, for the day when no bonded device is at hand: write it down."
    );
    eprintln!("recovery phrase: {phrase}");
    Ok(())
}

fn law(folder: &Path) -> Result<(Sources, Codex), Failure> {
    let sources = sys::codex::load(&[folder]);
    match Codex::parse(&sources) {
        Ok(codex) => Ok((sources, codex)),
        Err(mistakes) => Err(super::codex::refused(&mistakes, &sources)),
    }
}

impl Args {
    /// What the bond is, and the device's configuration.
    fn decide(
        &self,
        codex: &Codex,
        sources: &Sources,
        host: &SecretKey,
        secret: Option<&SecretKey>,
    ) -> Result<(Change, Reply), Failure> {
        let Self { bond, grants, endpoint, public_key, no_preshared, .. } = self;
        let given = || Failure::new(Kind::Internal, "there is no public key");
        let public_key = public_key.or_else(|| secret.map(SecretKey::public)).ok_or_else(given)?;
        let all = || ["*", "bonds"].map(str::to_owned).to_vec();
        let request = Request::Bond(peer::Bond {
            name: bond.clone(),
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
mod tests;
