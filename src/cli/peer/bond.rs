//! Verbs that give a peer a key and show its configuration: bond, rotate.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::deliver::{Delivery, Outputs};
use super::expiry::Expiry;
use super::{Changing, Failure, Transport};
use crate::codex::key::PublicKey;
use crate::codex::name::Name;
use crate::codex::time::Length;
use crate::peer::store::Reply;
use crate::peer::{self, Kind, Request};
use crate::sys::wireguard::SecretKey;

/// Add a peer and show its configuration, once
///
/// Best is a key pair that the peer makes itself: give its public half with --public-key, and no private key ever
/// leaves the peer. Without it a pair is made here, shown with the configuration, and kept nowhere.
#[derive(Debug, clap::Args)]
pub struct Bond {
    /// Name of the new peer
    name: Name,
    #[command(flatten)]
    key: Key,
    /// What the peer may reach: services by name, `*` for all of them; `bonds` to manage bonds, `metrics` for the agent's
    /// figures, `rebirth` for updates, `snapshots` for snapshots; `peer:NAME` to open connections to another peer
    #[arg(long = "grant", value_name = "WHAT", num_args = 1..)]
    grants: Vec<String>,
    /// When the peer is cut off: a length of time (30d), a moment (2026-12-31T18:00:00Z), or never
    #[arg(long, value_name = "WHEN", default_value = "never")]
    expires: Expiry,
    /// Tunnel address [default: the lowest that is free]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Ipv4Addr>,
    /// IPv6 tunnel address [default: the lowest that is free, where the tether has such a network]
    #[arg(long, value_name = "ADDRESS")]
    address6: Option<Ipv6Addr>,
    /// What the peer is
    #[arg(long, value_enum, default_value = "device")]
    kind: KindWord,
    /// Where to dial a lych, HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    remote: Option<String>,
    /// Seconds between keepalives to a lych; 0 is off
    #[arg(long, value_name = "SECONDS")]
    keepalive: Option<u16>,
    /// Network behind a lych; may be repeated
    #[arg(long = "route", value_name = "NETWORK")]
    routes: Vec<String>,
    #[command(flatten)]
    changing: Changing,
}

/// Give a peer a new key at the same name and address, and show its configuration, once
///
/// The old key never comes back. Without --overlap it ends at once.
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// Name of the peer
    name: Name,
    #[command(flatten)]
    key: Key,
    /// How long the old key stays accepted beside the new one, like 10m [default: not at all]
    #[arg(long, value_name = "TIME")]
    overlap: Option<Length>,
    #[command(flatten)]
    changing: Changing,
}

/// The peer's key, and where its configuration goes.
#[derive(Debug, clap::Args)]
struct Key {
    /// The peer's own public key, as `wg pubkey` prints it; without it a key pair is made
    #[arg(long = "public-key", id = "public_key", value_name = "KEY")]
    public: Option<PublicKey>,
    /// Make no preshared key
    #[arg(long)]
    no_preshared: bool,
    /// What the peer dials, a name or an address [default: `endpoint` in `[tether]` of lychd.toml]
    #[arg(long, value_name = "HOST")]
    endpoint: Option<String>,
    /// The appliance's public key, for a Codex on a workstation [default: that of its secrets/tether.key]
    #[arg(id = "host-key", long, value_name = "KEY")]
    host: Option<PublicKey>,
    /// Show no configuration: the peer writes its own
    #[arg(long, requires = "public_key", conflicts_with_all = ["conf", "png", "svg"])]
    no_config: bool,
    #[command(flatten)]
    to: Outputs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum KindWord {
    /// A phone, a laptop: dials the appliance
    Device,
    /// Another appliance or site: may be dialled, may route networks
    Lych,
}

/// Runs `sepulcher peer bond`.
pub fn bond(args: &Bond) -> Result<(), Failure> {
    let kind = args.kind()?;
    let Bond { name, key, grants, expires, address, address6, changing, .. } = args;
    key.carry_out(changing, name, |public_key| {
        Request::Bond(peer::Bond {
            name: name.clone(),
            public_key,
            address: *address,
            address6: *address6,
            kind: kind.clone(),
            grants: grants.clone(),
            expires: expires.0,
            preshared: !key.no_preshared,
            dial: key.endpoint.clone(),
            client: !key.no_config,
        })
    })
}

/// Runs `sepulcher peer rotate`.
pub fn rotate(args: &Rotate) -> Result<(), Failure> {
    let Rotate { name, key, overlap, changing } = args;
    key.carry_out(changing, name, |public_key| {
        Request::Rotate(peer::Rotate {
            name: name.clone(),
            public_key,
            preshared: !key.no_preshared,
            overlap: *overlap,
            dial: key.endpoint.clone(),
            client: !key.no_config,
        })
    })
}

impl Bond {
    fn kind(&self) -> Result<Kind, Failure> {
        let Self { kind, remote, keepalive, routes, .. } = self;
        match kind {
            KindWord::Lych => {
                Ok(Kind::Lych { endpoint: remote.clone(), keepalive: *keepalive, routes: routes.clone() })
            }
            KindWord::Device if remote.is_none() && keepalive.is_none() && routes.is_empty() => {
                Ok(Kind::Device)
            }
            KindWord::Device => {
                let message = "--remote, --keepalive and --route belong to another appliance or site";
                Err(Failure::new(super::Kind::Input, message).hint("add `--kind lych`, or leave them out"))
            }
        }
    }
}

impl Key {
    /// Makes the key pair where the peer brings none, has the request carried out, and hands the configuration over.
    fn carry_out(
        &self,
        changing: &Changing,
        name: &Name,
        request: impl FnOnce(PublicKey) -> Request,
    ) -> Result<(), Failure> {
        let transport = Transport::open(&changing.place)?.with_host_key(self.host);
        let secret = self.public.is_none().then(SecretKey::generate);
        let Some(public) = self.public.or_else(|| secret.as_ref().map(SecretKey::public)) else {
            return Ok(());
        };
        let request = request(public);
        if changing.dry_run {
            let replies = changing.send(&transport, &[request])?;
            // A preshared key that is thrown away is not worth showing.
            return replies
                .into_iter()
                .try_for_each(|reply| changing.answer(&Reply { client: None, ..reply }));
        }
        let delivery = Delivery::prepare(&self.to, changing.json)?;
        let mut replies = changing.send(&transport, &[request])?;
        let Some(mut reply) = replies.pop() else { return Ok(()) };
        delivery.hand_over(name, &mut reply, secret.as_ref())?;
        changing.answer(&reply)
    }
}
