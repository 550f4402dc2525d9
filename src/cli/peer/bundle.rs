//! Bonds as one TOML text, to take them elsewhere: public parts only.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Changing, Failure, Kind, Transport, Where};
use crate::cli::output::{json, print};
use crate::codex::key::PublicKey;
use crate::codex::name::Name;
use crate::codex::time::Timestamp;
use crate::codex::{Codex, Grants, Peer, PeerKind, PeerState};
use crate::peer::{Bond, Ending, Granting, PeerView, Request, StateWord, store};
use crate::sys::codex::LEDGER_LIMIT;
use crate::sys::{clock, fs};

/// The version of exports that this program writes and reads.
const SCHEMA: u32 = 1;
const HEAD: &str = "# Bonds, from `sepulcher peer export`: public keys alone. `sepulcher peer import` bonds them elsewhere.\n";

/// Where to look who can be exported.
const BONDED: &str = "`sepulcher peer list` tells who is bonded";

/// Print bonds as TOML, without anything secret
///
/// Revoked and expired peers are left out. Neither private keys nor preshared keys are in it.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Peers to export [default: all]
    names: Vec<Name>,
    #[command(flatten)]
    place: Where,
    /// Print JSON instead of TOML
    #[arg(long)]
    json: bool,
}

/// Bond the peers of an export, all or none
///
/// Peers that are bonded already, with the same key, are passed over. Peers that had a preshared key need a new
/// configuration: rotate them afterwards. --json prints a list of answers, one for each change.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// What `sepulcher peer export` printed
    file: PathBuf,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    schema: u32,
    #[serde(default)]
    peer: Vec<Exported>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Exported {
    name: Name,
    public_key: PublicKey,
    address: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address6: Option<Ipv6Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lych: Option<Lych>,
    grants: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    #[serde(default)]
    preshared: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Lych {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    keepalive: u16,
    routes: Vec<String>,
}

/// Runs `sepulcher peer export`.
pub fn export(args: &Export) -> Result<(), Failure> {
    let (_, codex) = store::load(&args.place.local()?)?;
    let now = clock::now();
    let mut peer = Vec::new();
    for name in chosen(&codex, &args.names, now)? {
        peer.extend(codex.peers.get(name).map(|peer| Exported::of(name, peer, &codex, now)));
    }
    let bundle = Bundle { schema: SCHEMA, peer };
    if args.json {
        return print(&json(&bundle)?);
    }
    let text = toml::to_string(&bundle).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
    print(&format!("{HEAD}{text}"))
}

/// The peers asked for, which must be bonded; all that are without any.
fn chosen<'a>(codex: &'a Codex, names: &'a [Name], now: Timestamp) -> Result<Vec<&'a Name>, Failure> {
    if names.is_empty() {
        let (expired, chosen): (Vec<_>, Vec<_>) = codex.active().partition(|(_, peer)| peer.is_expired(now));
        for (name, _) in expired {
            eprintln!("{name} is left out, its time is over: `sepulcher peer extend {name}` comes first");
        }
        return Ok(chosen.into_iter().map(|(name, _)| name).collect());
    }
    for name in names {
        let (what, hint) = match codex.peers.get(name) {
            Some(peer) if peer.is_expired(now) => (
                format!("the time of `{name}` is over: it would be bonded nowhere"),
                format!("give it more: `sepulcher peer extend {name} --expires 30d`"),
            ),
            Some(peer) if peer.state == PeerState::Active => continue,
            Some(_) => (format!("`{name}` is revoked: it is bonded nowhere"), BONDED.to_owned()),
            None => (format!("there is no peer `{name}`"), BONDED.to_owned()),
        };
        return Err(Failure::new(Kind::Input, what).hint(hint));
    }
    Ok(names.iter().collect())
}

/// Runs `sepulcher peer import`.
pub fn import(args: &Import) -> Result<(), Failure> {
    let Import { file, changing } = args;
    let bundle = read(file)?;
    let transport = Transport::open(&changing.place)?;
    let (known, _) = transport.list()?;
    let there = |exported: &Exported| {
        let same = |peer: &&PeerView| peer.name == exported.name && peer.public_key == exported.public_key;
        known.iter().find(same).is_some_and(|peer| peer.state != StateWord::Revoked)
    };
    let (old, new): (Vec<_>, Vec<_>) = bundle.peer.into_iter().partition(there);
    for exported in &old {
        eprintln!("{} is bonded already", exported.name);
    }
    for exported in new.iter().filter(|exported| exported.preshared) {
        let name = &exported.name;
        eprintln!(
            "{name} had a preshared key, which does not travel: `sepulcher peer rotate {name}` before it connects"
        );
    }
    // Peers that are granted each other are there before the grants are.
    let grants: Vec<_> = new.iter().filter_map(Exported::granting).collect();
    let requests: Vec<_> = new.into_iter().map(Exported::bond).chain(grants).collect();
    let replies = changing.send(&transport, &requests)?;
    if changing.json { print(&json(&replies)?) } else { Ok(()) }
}

fn read(file: &std::path::Path) -> Result<Bundle, Failure> {
    let unusable = |reason: String| {
        Failure::new(Kind::Input, format!("{} is no export of bonds: {reason}", file.display()))
            .hint("`sepulcher peer export` prints one")
    };
    let bytes = fs::read_bounded(file, LEDGER_LIMIT)?;
    let text = str::from_utf8(&bytes).map_err(|_| unusable("it is not UTF-8".to_owned()))?;
    let bundle: Bundle = toml::from_str(text).map_err(|error| unusable(error.to_string()))?;
    if bundle.schema == SCHEMA {
        return Ok(bundle);
    }
    Err(unusable(format!("it is of schema {}, this program knows {SCHEMA}", bundle.schema)))
}

impl Exported {
    fn of(name: &Name, peer: &Peer, codex: &Codex, now: Timestamp) -> Self {
        // A grant of a peer that is bonded no more is worth nothing, and that one does not travel.
        let mut living = peer.clone();
        let bonded = |peer: &Peer| peer.state == PeerState::Active && !peer.is_expired(now);
        living.grants.peers.retain(|name| codex.peer(name).is_some_and(bonded));
        let lych = match &peer.kind {
            PeerKind::Device => None,
            PeerKind::Lych { endpoint, keepalive, routes } => Some(Lych {
                endpoint: endpoint.as_ref().map(|(host, port)| crate::render::wireguard::dial(host, *port)),
                keepalive: *keepalive,
                routes: routes.iter().map(ToString::to_string).collect(),
            }),
        };
        Self {
            name: name.clone(),
            public_key: peer.public_key,
            address: peer.address,
            address6: peer.address6,
            lych,
            grants: PeerView::grants(&living),
            expires: peer.expires,
            preshared: peer.preshared,
        }
    }

    /// What it is granted of other peers.
    fn granting(&self) -> Option<Request> {
        let grants: Vec<_> = self.grants.iter().filter(|word| is_peer(word)).cloned().collect();
        (!grants.is_empty()).then(|| Request::Grant(Granting { name: self.name.clone(), grants }))
    }

    /// Its bond, with all other grants.
    fn bond(self) -> Request {
        let Self { name, public_key, address, address6, lych, mut grants, expires, preshared: _ } = self;
        grants.retain(|word| !is_peer(word));
        let kind = lych.map_or(crate::peer::Kind::Device, |Lych { endpoint, keepalive, routes }| {
            crate::peer::Kind::Lych { endpoint, keepalive: Some(keepalive), routes }
        });
        let address = Some(address);
        Request::Bond(Bond {
            name,
            public_key,
            address,
            address6,
            kind,
            grants,
            expires: expires.map(Ending::At),
            preshared: false,
            dial: None,
            client: false,
        })
    }
}

fn is_peer(word: &str) -> bool {
    Grants::peer_named(word).is_some()
}
