//! The agent that keeps the kernel in step with the bonds.
//!
//! The order is what keeps the port silent: the pod's ruleset is loaded before `wg0` exists, `wg0` is
//! complete before it is brought up, and the agent says ready only after it has read everything back.
//! A bond that is broken is reported and holds nobody else up; whatever was changed behind the agent's
//! back is put right at the next look.

pub mod bonds;
pub mod health;
mod interface;
mod rules;
mod ruleset;
pub mod source;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::codex::key::PublicKey;
use crate::codex::{Backend, Codex, PeerState, Protocol};
use crate::sync::{Desired, Observed, Plan};
use crate::sys;
use crate::sys::wake::{Wake, Waker};
use crate::sys::wireguard::SecretKey;
use bonds::{Broken, Texts};
use rules::Rules;
use ruleset::Ruleset;
use status::{Peers, Status};

pub use interface::observe;

/// After a look that failed the next one comes after this long, then twice as long, up to
/// [`Options::recheck`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Where the agent finds what it works with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the law: `lychd.toml`, `services/`.
    pub law: PathBuf,
    /// Folder of the bonds: `peers/`.
    pub bonds: PathBuf,
    /// File with the host's private key.
    pub key: PathBuf,
    /// Ruleset to load instead of the one that the Codex renders.
    pub ruleset: Option<PathBuf>,
    /// The `nft` program.
    pub nft: OsString,
    /// WireGuard implementation instead of the Codex's.
    pub backend: Option<Backend>,
    /// Interface name.
    pub interface: String,
    /// Where to write the status; its folder must exist.
    pub status: PathBuf,
    /// Time between two looks when nothing happens.
    pub recheck: Duration,
}

/// Why the agent gives up, or why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error(transparent)]
    File(#[from] sys::fs::Error),
    /// The key file does not hold a private key.
    #[error("cannot use the private key in {}", path.display())]
    Key {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: sys::wireguard::NotASecret,
    },
    /// The law.
    #[error(transparent)]
    Codex(#[from] bonds::Hopeless),
    /// There is no folder of bonds.
    #[error("there is no folder {}", .0.display())]
    NoBonds(PathBuf),
    /// The ruleset cannot be rendered.
    #[error("cannot render the ruleset of the pod")]
    Render(#[from] crate::render::RenderError),
    /// The ruleset.
    #[error(transparent)]
    Nft(#[from] sys::nft::Error),
    /// The ruleset is loaded and yet not there.
    #[error("the ruleset was loaded, but table {} is not there", sys::nft::TABLE)]
    NoTable,
    /// The link.
    #[error(transparent)]
    Link(#[from] sys::link::Error),
    /// The WireGuard device.
    #[error(transparent)]
    WireGuard(#[from] sys::wireguard::Error),
    /// Everything was applied and something is still missing.
    #[error("{interface} does not take what it was given; still to do:\n{plan}")]
    NotTaken {
        /// Interface name.
        interface: String,
        /// The plan that ought to be empty.
        plan: String,
    },
    /// Waiting.
    #[error("cannot wait for changes")]
    Wait(#[source] std::io::Error),
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Link(error) => error.remedy(),
            Self::NoBonds(_) => Some("`sepulcher awaken` makes it; a snapshot restores it"),
            Self::Key { .. } => Some("move the file away; `sepulcher awaken` makes a new key"),
            _ => None,
        }
    }
}

/// Runs until SIGTERM, which leaves interface and ruleset as they are. `say` gets one line an event.
///
/// # Errors
/// When the first look fails: without ruleset and key there is nothing to serve, and the service manager
/// starts us anew. Later failures are reported and tried again.
pub fn run(options: Options, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let mut waker =
        Waker::new(vec![options.bonds.clone(), options.bonds.join("peers")]).map_err(Error::Wait)?;
    let recheck = options.recheck;
    let mut agent = Agent::new(options)?;
    let mut wake = Wake::Changed;
    let mut retry = FIRST_RETRY;
    loop {
        let first = agent.last.is_none();
        let result = agent.look(wake, &waker, say);
        agent.tell(&result, first, say)?;
        let pause = match result {
            Err(error) if first => return Err(error),
            Err(_) => {
                let pause = retry.min(recheck);
                retry = retry.saturating_mul(2);
                pause
            }
            // Services that are still starting are looked after sooner, but not for ever.
            Ok(()) if !agent.silent.is_empty() && retry < recheck => {
                let pause = retry;
                retry = retry.saturating_mul(2);
                pause
            }
            Ok(()) => {
                retry = FIRST_RETRY;
                recheck
            }
        };
        wake = waker.wait(pause).map_err(Error::Wait)?;
        if wake == Wake::Stop {
            notify(sys::notify::stopping(), say);
            say("stopping; the interface stays as it is");
            return Ok(());
        }
    }
}

/// A service manager that does not listen is worth a line and nothing more.
fn notify(result: std::io::Result<()>, say: &mut dyn FnMut(&str)) {
    if let Err(error) = result {
        say(&format!("cannot notify the service manager: {error}"));
    }
}

/// What the agent remembers from one look to the next.
struct Agent {
    options: Options,
    secret: SecretKey,
    public_key: PublicKey,
    ruleset: Ruleset,
    resolver: sys::resolve::Resolver,
    /// Texts that were in force at the last look.
    texts: Texts,
    broken: Vec<Broken>,
    /// Endpoints that were asked for.
    dialled: BTreeMap<PublicKey, SocketAddr>,
    drift: u64,
    /// Declared ports without a listener.
    silent: Vec<String>,
    /// What the last successful look found.
    last: Option<Last>,
}

struct Last {
    desired: Desired,
    peers: Peers,
}

impl Agent {
    fn new(options: Options) -> Result<Self, Error> {
        let bytes = zeroize::Zeroizing::new(sys::fs::read_bounded(&options.key, 4096)?);
        let secret =
            SecretKey::parse(&bytes).map_err(|source| Error::Key { path: options.key.clone(), source })?;
        Ok(Self {
            public_key: secret.public(),
            ruleset: Ruleset::new(&options.nft),
            options,
            secret,
            resolver: sys::resolve::Resolver::default(),
            texts: Texts::new(),
            broken: Vec::new(),
            dialled: BTreeMap::new(),
            drift: 0,
            silent: Vec::new(),
            last: None,
        })
    }

    /// Reads the Codex, compares, repairs, and reads back.
    fn look(&mut self, wake: Wake, waker: &Waker, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let codex = self.read(say)?;
        let names = crate::sync::dialled_names(&codex);
        self.resolver.known();
        self.resolver.look_up(names, wake == Wake::Tick, waker.nudger().map_err(Error::Wait)?);
        let desired = Desired::of(&codex, self.public_key, self.resolver.known());
        // A ruleset that cannot be changed denies newcomers; it must not keep a revoked peer in.
        let (ruled, reloaded) = match self.load_ruleset(&codex) {
            Ok(ruleset::Outcome::Repaired) => (Ok(()), true),
            Ok(_) => (Ok(()), false),
            Err(error) if self.ruleset.is_loaded() => (Err(error), false),
            Err(error) => return Err(error),
        };
        let backend = self.options.backend.unwrap_or(codex.tether.backend);
        let name = &self.options.interface;
        let plan = interface::plan(name, backend, &desired, &self.dialled)?;
        if !plan.is_empty() {
            say(&excerpt(&plan));
        }
        let observed = interface::apply(name, backend, &desired, &self.dialled, &plan, &self.secret)?;
        let unasked = self.last.as_ref().is_some_and(|last| last.desired == desired);
        if reloaded || (unasked && !plan.is_empty()) {
            self.drift += 1;
            say("something was changed behind the agent's back and has been put right");
        }
        self.remember(&codex, desired, &observed);
        self.silent = silent(&codex, &sys::sockets::listening()?);
        ruled
    }

    /// The Codex in force: bonds as they stand, or as they last were good.
    fn read(&mut self, say: &mut dyn FnMut(&str)) -> Result<Codex, Error> {
        let (texts, unreadable) = source::load(&self.options.law, &self.options.bonds)?;
        let settled = bonds::settle(&texts, &unreadable, &self.texts, source::is_tombstone, source::parse)?;
        for broken in &settled.broken {
            if !self.broken.contains(broken) {
                let state =
                    if broken.last_good { "its last good state stays in force" } else { "it is not bonded" };
                say(&format!("{} is broken; {state}\n{}", broken.file, broken.reason.trim_end()));
            }
        }
        self.broken = settled.broken;
        self.texts = settled.texts;
        Ok(settled.codex)
    }

    fn load_ruleset(&mut self, codex: &Codex) -> Result<ruleset::Outcome, Error> {
        self.ruleset.ensure(match &self.options.ruleset {
            Some(path) => Rules::fixed(String::from_utf8_lossy(&sys::fs::read(path)?).into_owned()),
            None => Rules::of(codex)?,
        })
    }

    fn remember(&mut self, codex: &Codex, desired: Desired, observed: &Observed) {
        self.dialled = desired.peers.iter().filter_map(|(key, peer)| Some((*key, peer.endpoint?))).collect();
        let active = codex.peers.values().filter(|peer| peer.state == PeerState::Active).count();
        let peers = Peers {
            declared: codex.peers.len(),
            active,
            held: observed.peers.len(),
            digest: observed.peers_digest().to_string(),
        };
        self.last = Some(Last { desired, peers });
    }

    /// Tells the host, the service manager and the journal how the look went.
    fn tell(&self, result: &Result<(), Error>, first: bool, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let error = result.as_ref().err().map(|error| explain(error));
        let last = self.last.as_ref();
        let status = Status {
            schema: 1,
            ready: error.is_none(),
            error,
            written_ms: u64::try_from(sys::clock::since_boot().as_millis()).unwrap_or(u64::MAX),
            interface: self.options.interface.clone(),
            public_key: self.public_key.to_string(),
            listen_port: last.map_or(0, |last| last.desired.listen_port.get()),
            ruleset: self.ruleset.digest().map(|digest| digest.to_string()).unwrap_or_default(),
            peers: last.map(|last| last.peers.clone()).unwrap_or_default(),
            broken: self.broken.clone(),
            silent: self.silent.clone(),
            drift: self.drift,
        };
        if let Some(error) = &status.error {
            say(error);
        }
        let line = status.line();
        notify(
            if first && status.ready { sys::notify::ready(&line) } else { sys::notify::status(&line) },
            say,
        );
        if first && status.ready {
            say(&format!("ready: {line}"));
        }
        write_status(&self.options.status, &status)
    }
}

/// Ports of services that nobody listens on.
fn silent(codex: &Codex, listening: &BTreeSet<(Protocol, u16)>) -> Vec<String> {
    let mut silent = Vec::new();
    for (name, service) in &codex.services {
        for port in
            service.ports.iter().filter(|port| !listening.contains(&(port.protocol, port.number.get())))
        {
            silent.push(format!(
                "{name} {} {}",
                crate::render::nftables::protocol(port.protocol),
                port.number
            ));
        }
    }
    silent
}

fn write_status(path: &std::path::Path, status: &Status) -> Result<(), Error> {
    let mut text = serde_json::to_string(status).map_err(|source| sys::fs::Error {
        action: "write",
        path: path.to_owned(),
        source: source.into(),
    })?;
    text.push('\n');
    Ok(sys::fs::write_atomic(path, 0o644, text.as_bytes())?)
}

/// A plan for the journal: its first lines, and how many more there are.
fn excerpt(plan: &Plan) -> String {
    const LINES: usize = 20;
    let mut lines: Vec<_> = plan.steps.iter().take(LINES).map(ToString::to_string).collect();
    if plan.steps.len() > LINES {
        lines.push(format!("and {} more", plan.steps.len() - LINES));
    }
    lines.join("\n")
}

/// An error with its causes, in one paragraph.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
