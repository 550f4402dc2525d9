//! The agent that keeps the kernel in step with the bonds.
//!
//! The order is what keeps the port silent: the pod's ruleset is loaded before `wg0` exists, `wg0` is
//! complete before it is brought up, and the agent says ready only after it has read everything back.
//! A bond that is broken is reported and holds nobody else up; whatever was changed behind the agent's
//! back is put right at the next look.
//!
//! Grants and peers change in an order in which nobody ever reaches more than either the old or the new bonds
//! say. First the ruleset, in one transaction: grants that go are gone before the peer is, and grants that come
//! stand for an address that nobody has yet. An address that somebody still holds who is to lose it has no grants
//! at all in that transaction ([`crate::sync::contested`]). Then WireGuard, in one update. Then, for such addresses
//! alone, the ruleset again, with the grants of the next holder. When the ruleset cannot be changed, peers are cut
//! off and none is added. The Veil's passes go before all of it and come behind all of it ([`passes`]).
//!
//! Time is the wall clock's: a peer is cut at the second at which it expires, and when the clock is set, everything
//! is looked at by the new time.

mod agent;
mod answers;
mod board;
pub mod bonds;
pub mod door;
pub mod fit;
pub mod health;
mod interface;
mod memory;
pub mod passes;
mod rules;
mod ruleset;
pub mod source;
pub mod status;
mod withheld;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::codex::Backend;
use crate::codex::key::PublicKey;
use crate::sys;
use crate::sys::wake::{Wake, Waker};
use agent::Agent;

pub use interface::observe;

/// After a look that failed the next one comes after this long, then twice as long, up to
/// [`Options::recheck`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// [`Options::recheck`] where nobody says otherwise.
pub const RECHECK: Duration = Duration::from_secs(30);

/// While a peer has two keys, this often it is looked which of them is in use.
const GLANCE: Duration = Duration::from_secs(1);

/// Where the agent finds what it works with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the law: `lychd.toml`, `services/`.
    pub law: PathBuf,
    /// Folder of the bonds: `peers/`.
    pub bonds: PathBuf,
    /// Folder of secrets: preshared keys in `peers/`.
    pub secrets: PathBuf,
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
    /// Where to write the status; its folder must exist. The bonds that were in force last are kept beside it.
    pub status: PathBuf,
    /// Time between two looks when nothing happens.
    pub recheck: Duration,
    /// Folder of the Veil's passes; it is made when it is not there.
    pub veil: PathBuf,
    /// Socket for the host's questions; its folder must exist.
    pub door: PathBuf,
    /// Socket to which requests of peers are passed on.
    pub control: PathBuf,
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
    /// Somebody else has set the interface up.
    #[error("{interface} exists and is not ours: it holds the key of {public_key}")]
    NotOurs {
        /// Interface name.
        interface: String,
        /// Public half of the key that it holds.
        public_key: PublicKey,
    },
    /// The ruleset cannot be changed, and neither can the peers be cut off that are bonded no more.
    #[error("{}; and who is bonded no more cannot be cut off: {}", explain(.ruleset), explain(.cut))]
    NotCut {
        /// What is wrong with the ruleset.
        ruleset: Box<Error>,
        /// What is wrong with the interface.
        cut: Box<Error>,
    },
    /// Everything was applied and something is still missing.
    #[error("{interface} does not take what it was given; still to do:\n{plan}")]
    NotTaken {
        /// Interface name.
        interface: String,
        /// The plan that ought to be empty.
        plan: String,
    },
    /// The door cannot be opened on the host's side.
    #[error("cannot listen on {}", path.display())]
    Door {
        /// Path of the socket.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
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
            Self::WireGuard(error) => error.remedy(),
            Self::Nft(error) => error.remedy(),
            Self::NotCut { ruleset, cut } => ruleset.remedy().or_else(|| cut.remedy()),
            Self::NotOurs { .. } => Some(
                "`ip link delete` removes it when nobody needs it; after the host's own key was replaced, reboot",
            ),
            Self::NoBonds(_) => Some("`sepulcher awaken` makes it; a snapshot restores it"),
            Self::Key { .. } => Some("move the file away; `sepulcher awaken` makes a new key"),
            _ => None,
        }
    }
}

/// A pause, which is twice as long the next time.
fn longer(pause: &mut Duration) -> Duration {
    let now = *pause;
    *pause = pause.saturating_mul(2);
    now
}

/// Runs until SIGTERM, which leaves interface and ruleset as they are. `say` gets one line an event.
///
/// # Errors
/// When the first look fails: without ruleset and key there is nothing to serve, and the service manager
/// starts us anew. Later failures are reported and tried again.
pub fn run(options: Options, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let folders = vec![options.bonds.clone(), options.bonds.join("peers"), options.secrets.join("peers")];
    let mut waker = Waker::new(folders).map_err(Error::Wait)?;
    let recheck = options.recheck;
    let mut agent = Agent::new(options)?;
    let (mut after_error, mut for_services) = (FIRST_RETRY, FIRST_RETRY);
    loop {
        let first = agent.is_new();
        let result = agent.look(&waker, say);
        if let Err(error) = agent.tell(&result, first, say) {
            // Health notices that the status is old; peers need none.
            say(&explain(&error));
        }
        agent.keep_in_mind(say);
        let pause = match result {
            Err(error) if first => return Err(error),
            Err(_) => longer(&mut after_error),
            Ok(()) => {
                after_error = FIRST_RETRY;
                // Services that do not answer yet are looked after sooner, but not for ever.
                if agent.awaits_services() {
                    longer(&mut for_services)
                } else {
                    for_services = FIRST_RETRY;
                    recheck
                }
            }
        };
        let pause = pause.min(recheck);
        if rest(&mut agent, &mut waker, pause, say)? == Wake::Stop {
            notify(sys::notify::stopping(), say);
            say("stopping; the interface stays as it is");
            return Ok(());
        }
    }
}

/// Waits until the next look is due: something changed, a bond's time has come, or `pause` is over.
fn rest(
    agent: &mut Agent,
    waker: &mut Waker,
    pause: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<Wake, Error> {
    let end = Instant::now() + pause;
    loop {
        notify(sys::notify::alive(), say);
        if let Some(fault) = waker.new_fault() {
            say(fault);
        }
        let left = end.saturating_duration_since(Instant::now());
        let step = if agent.is_overlapping() { left.min(GLANCE) } else { left };
        let wake = waker.wait(step, agent.next_change()).map_err(Error::Wait)?;
        if wake != Wake::Tick || Instant::now() >= end {
            return Ok(wake);
        }
        match agent.glance(say) {
            Ok(false) => {}
            // A look finds the same, and tells and repairs it.
            Ok(true) | Err(_) => return Ok(Wake::Changed),
        }
    }
}

/// A service manager that does not listen is worth a line and nothing more.
fn notify(result: std::io::Result<()>, say: &mut dyn FnMut(&str)) {
    if let Err(error) = result {
        say(&format!("cannot notify the service manager: {error}"));
    }
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
