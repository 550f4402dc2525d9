//! `sepulcher tether`: the agent, and a look at what it keeps.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use indicatif::HumanBytes;

use super::{Failure, Kind, output};
use crate::codex::name::Name;
use crate::codex::{Backend, Codex};
use crate::sync::{Observed, ObservedPeer};
use crate::sys;
use crate::tether::{self, Error, Options, door, passes, source, status};

/// Verbs of `sepulcher tether`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Keep WireGuard and the pod's ruleset in step with the bonds, until SIGTERM
    Run(Run),
    /// Show the peers that the interface holds, their last handshakes and their traffic
    Status(Status),
}

/// Where the Codex and the interface are.
#[derive(Debug, clap::Args)]
struct Place {
    /// Folder of the law
    #[arg(long, value_name = "DIR", default_value = "/usr/share/sepulcher/codex")]
    law: PathBuf,
    /// Folder of the bonds
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sepulcher/codex")]
    bonds: PathBuf,
    /// WireGuard implementation instead of the Codex's
    #[arg(long, value_enum)]
    backend: Option<Implementation>,
    /// Name of the WireGuard interface
    #[arg(long, default_value = "wg0", hide = true)]
    interface: String,
}

/// Arguments of `sepulcher tether run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    place: Place,
    /// Folder of secrets, with the preshared keys in `peers/`
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sepulcher/secrets")]
    secrets: PathBuf,
    /// File with the host's private key
    #[arg(long, value_name = "FILE", default_value = "/run/credentials/tether.key")]
    key: PathBuf,
    /// Ruleset to load instead of the one that the Codex renders
    #[arg(long, value_name = "FILE")]
    ruleset: Option<PathBuf>,
    /// The nft program
    #[arg(long, value_name = "PATH", default_value = "nft")]
    nft: OsString,
    /// Where to write the status
    #[arg(long, value_name = "FILE", default_value = status::PATH)]
    status: PathBuf,
    /// Seconds between two looks when nothing changes
    #[arg(long, value_name = "SECONDS", default_value_t = tether::RECHECK.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    recheck: u64,
    /// Folder in which the Veil looks who may ask for pinned routes
    #[arg(long, value_name = "DIR", default_value = passes::PATH)]
    veil: PathBuf,
    /// Socket to answer the host on
    #[arg(long, value_name = "PATH", default_value = door::PATH)]
    door: PathBuf,
    /// Socket of the host that changes bonds
    #[arg(long, value_name = "PATH", default_value = door::CONTROL)]
    control: PathBuf,
}

/// Arguments of `sepulcher tether status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    place: Place,
    /// Print JSON: an object with `interface`, `public_key`, `listen_port` and a list of `peers`
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Implementation {
    /// The kernel's
    Kernel,
    /// A program's, through its UAPI socket
    Userspace,
}

impl From<Implementation> for Backend {
    fn from(implementation: Implementation) -> Self {
        match implementation {
            Implementation::Kernel => Self::Kernel,
            Implementation::Userspace => Self::Userspace,
        }
    }
}

/// Runs a verb of `sepulcher tether`.
pub fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Run(args) => agent(args),
        Verb::Status(args) => show(&args),
    }
}

fn agent(args: Run) -> Result<(), Failure> {
    let Run { place, secrets, key, ruleset, nft, status, recheck, veil, door, control } = args;
    let Place { law, bonds, backend, interface } = place;
    let options = Options {
        law,
        bonds,
        secrets,
        key,
        ruleset,
        nft,
        backend: backend.map(Into::into),
        interface,
        status,
        recheck: Duration::from_secs(recheck),
        veil,
        door,
        control,
    };
    tether::run(options, &mut |line| eprintln!("tether: {line}"))?;
    Ok(())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        failure(&error)
    }
}

fn failure(error: &Error) -> Failure {
    let failure = Failure::from_error(kind(error), error);
    match error.remedy() {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    }
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Key { .. } | Error::Codex(_) | Error::NoBonds(_) | Error::NotOurs { .. } => Kind::Input,
        Error::Nft(_) | Error::Link(_) | Error::WireGuard(_) => Kind::Unavailable,
        Error::Render(_) | Error::NoTable | Error::NotTaken { .. } => Kind::Internal,
        Error::File(error) if error.is_not_found() => Kind::Input,
        Error::File(_) | Error::Wait(_) | Error::Door { .. } => Kind::Io,
        Error::NotCut { ruleset, .. } => kind(ruleset),
    }
}

fn show(args: &Status) -> Result<(), Failure> {
    let codex = source::in_force(&args.place.law, &args.place.bonds)?;
    let backend = args.place.backend.map_or(codex.tether.backend, Into::into);
    let name = &args.place.interface;
    let observed = tether::observe(name, backend)?;
    if observed.link.is_none() {
        return Err(Failure::new(Kind::Unavailable, format!("there is no {name} in this network namespace"))
            .hint("on the appliance, run it in the agent's container: podman exec <appliance>-vpn sepulcher tether status"));
    }
    if args.json {
        return output::print(&format!("{}\n", json(name, &codex, &observed)));
    }
    output::print(&table(name, &codex, &observed, sys::clock::epoch_seconds()))
}

/// Held peers with their names, ordered by name; a key that the Codex does not know has none.
fn named<'a>(codex: &'a Codex, observed: &'a Observed) -> Vec<(Option<&'a Name>, String, &'a ObservedPeer)> {
    let names = codex.names_by_key();
    let mut peers: Vec<_> =
        observed.peers.iter().map(|(key, peer)| (names.get(key).copied(), key.to_string(), peer)).collect();
    peers.sort_by(|left, right| (left.0, &left.1).cmp(&(right.0, &right.1)));
    peers
}

fn json(interface: &str, codex: &Codex, observed: &Observed) -> serde_json::Value {
    let peers: Vec<_> = named(codex, observed)
        .into_iter()
        .map(|(name, key, peer)| {
            serde_json::json!({
                "name": name.map(Name::as_str),
                "public_key": key,
                "allowed_ips": peer.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "endpoint": peer.endpoint.map(|endpoint| endpoint.to_string()),
                "last_handshake": peer.traffic.last_handshake,
                "received_bytes": peer.traffic.received,
                "sent_bytes": peer.traffic.sent,
            })
        })
        .collect();
    serde_json::json!({
        "interface": interface,
        "public_key": observed.public_key.map(|key| key.to_string()),
        "listen_port": observed.listen_port,
        "peers": peers,
    })
}

fn table(interface: &str, codex: &Codex, observed: &Observed, now: u64) -> String {
    let key = observed.public_key.map_or("none".to_owned(), |key| key.to_string());
    let port = observed.listen_port.map_or("none".to_owned(), |port| port.to_string());
    let row = |(name, key, peer): (Option<&Name>, String, &ObservedPeer)| {
        let handshake = peer.traffic.last_handshake;
        vec![
            name.map_or("(unknown)".to_owned(), Name::to_string),
            key,
            handshake.map_or("never".to_owned(), |at| output::age(now.saturating_sub(at))),
            HumanBytes(peer.traffic.received).to_string(),
            HumanBytes(peer.traffic.sent).to_string(),
        ]
    };
    let headings = ["NAME", "PUBLIC KEY", "HANDSHAKE", "RECEIVED", "SENT"].map(str::to_owned).to_vec();
    let rows: Vec<_> = [headings].into_iter().chain(named(codex, observed).into_iter().map(row)).collect();
    format!("interface {interface}  port {port}  public key {key}\n{}", output::table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Sources;
    use crate::codex::key::PublicKey;

    #[test]
    fn both_keys_of_a_peer_that_has_two_have_its_name_and_a_strangers_has_none() {
        let key = |number: u8| PublicKey::try_from([number; 32]).unwrap();
        let phone = format!(
            "public-key = \"{}\"\naddress = \"10.88.16.2\"\ngrants = []\ngeneration = 2\n\
             [overlap]\npublic-key = \"{}\"\nuntil = 2033-05-18T03:33:20Z\n",
            key(3),
            key(2)
        );
        let law = "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned();
        let sources: Sources = [("lychd.toml", law), ("peers/phone.toml", phone)].into_iter().collect();
        let codex = Codex::parse(&sources).unwrap();
        let observed = Observed {
            peers: [2, 3, 4].map(|number| (key(number), ObservedPeer::default())).into(),
            ..Observed::default()
        };
        let told = json("wg0", &codex, &observed);
        let name = |number| {
            let peers = told["peers"].as_array().unwrap();
            peers.iter().find(|peer| peer["public_key"] == key(number).to_string()).unwrap()["name"].clone()
        };
        assert_eq!([2, 3, 4].map(name), ["phone".into(), "phone".into(), serde_json::Value::Null]);
        let shown = table("wg0", &codex, &observed, 0);
        assert_eq!((shown.matches("phone").count(), shown.matches("(unknown)").count()), (2, 1), "{shown}");
    }
}
