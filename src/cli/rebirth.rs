//! `sepulcher rebirth`: one body takes the place of another, behind a gate that somebody opens by hand.

mod preview;
mod remote;
mod sign;
mod verify;

use std::path::{Path, PathBuf};

use super::output::{json, print, table};
use super::{Failure, Kind};
use crate::codex::plain;
use crate::rebirth::bundle;
use crate::rebirth::entry::Tries;
use crate::rebirth::intent::Outcome;
use crate::rebirth::machine::Machine;
use crate::rebirth::record::{Activated, Staged, Verdict};
use crate::rebirth::status::{self, Slot, Status};
use crate::rebirth::store::{self, Wish};
use crate::rebirth::version::Version;
use crate::rebirth::{Error, attempt, rollback};
use crate::tree::Sha256Digest;

/// Verbs of `sepulcher rebirth`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    Preview(preview::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    /// Check an update and write it to the slot that does not run
    Stage(Stage),
    /// Make the staged body the next one to boot, and restart
    Activate(Activate),
    /// Show both slots, and what was and will be
    Status(Told),
    /// Go back to the other body, and restart
    Rollback(Told),
    /// Restart for another attempt when this boot is not healthy (a unit starts it)
    #[command(hide = true)]
    FallBack(Told),
    /// Keep the status where the agent's requests find it (a unit starts it)
    #[command(hide = true)]
    Publish(Told),
}

impl Verb {
    /// Whether a machine is asked for it over the tether.
    pub fn is_asked_for(&self) -> bool {
        match self {
            Self::Stage(_) | Self::Activate(_) | Self::Status(_) | Self::Rollback(_) => true,
            Self::Preview(_) | Self::Sign(_) | Self::Verify(_) | Self::FallBack(_) | Self::Publish(_) => {
                false
            }
        }
    }
}

/// Check an update and write it to the slot that does not run
///
/// Checked are the publisher's signature, every digest, the version, the room, and whether the new law still holds
/// everybody who is bonded. Nothing changes for the body that runs; the one that was staged before is overwritten.
#[derive(Debug, clap::Args)]
pub struct Stage {
    /// A folder, a tar archive of it, or the address of one below a source that the law allows
    source: String,
    /// Take a body that is older than the one that runs
    #[arg(long)]
    allow_downgrade: bool,
    #[command(flatten)]
    told: Told,
}

/// Make the staged body the next one to boot, and restart
///
/// A snapshot of the bonds is made first; volumes stay as they are, also when the machine comes back. The new body has three
/// attempts to prove healthy; then the machine returns to this one by itself.
#[derive(Debug, clap::Args)]
pub struct Activate {
    /// The digest that `stage` printed
    digest: Sha256Digest,
    /// Do not restart now
    #[arg(long)]
    at_next_boot: bool,
    #[command(flatten)]
    told: Told,
}

/// Which machine, and how it is told.
#[derive(Debug, clap::Args)]
pub struct Told {
    /// Root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
    /// Appliance to ask over the tether, by its tunnel address or name; may stand before `rebirth` too
    #[arg(long, value_name = "HOST[:PORT]")]
    host: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refused) => refused.into(),
            Error::Bundle(error) => error.into(),
            Error::Bonds(error) => error.into(),
            Error::File(error) => error.into(),
            Error::Http(_) => Self::from_error(Kind::Unavailable, &error)
                .hint("see whether the update is there; a source in the tether needs its peer online"),
            Error::Locked(_) => Self::from_error(Kind::Unavailable, &error)
                .hint("somebody changes bodies: try again when that is done"),
            Error::Command(_) | Error::Sysupdate(_) => Self::from_error(Kind::Unavailable, &error)
                .hint("nothing runs of it: try again; `sepulcher health` tells more"),
            Error::Archive { .. } => {
                Self::from_error(Kind::Input, &error).hint("fetch the update anew, from its publisher")
            }
            Error::Listing(_) | Error::Record { .. } | Error::Untold(_) => Self::from_error(Kind::Io, &error),
        }
    }
}

impl From<bundle::Error> for Failure {
    fn from(error: bundle::Error) -> Self {
        match error {
            bundle::Error::Refused(refused) => refused.into(),
            bundle::Error::File(error) => error.into(),
        }
    }
}

/// Runs a verb of `sepulcher rebirth`.
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Preview(args) => preview::run(args),
        Verb::Sign(args) => sign::run(args),
        Verb::Verify(args) => verify::run(args),
        Verb::Stage(args) => stage(args),
        Verb::Activate(args) => activate(args),
        Verb::Status(told) => tell(told, &looked(told)?),
        Verb::Rollback(told) => rollback(told),
        Verb::FallBack(told) => fall_back(&Machine::new(&told.root)),
        Verb::Publish(told) => Ok(status::publish(&Machine::new(&told.root)).map(drop)?),
    }
}

fn tell(told: &Told, status: &Status) -> Result<(), Failure> {
    // What comes over the tether drives no terminal.
    print(&if told.json { json(status)? } else { plain(&shown(status)) })
}

fn stage(args: &Stage) -> Result<(), Failure> {
    let Stage { source, allow_downgrade, told } = args;
    let (status, version, digest) = if let Some(host) = &told.host {
        let (status, outcome) = remote::stage(host, source, *allow_downgrade)?;
        let Some(Outcome::Staged { version, digest, takes }) = outcome else {
            return Err(Failure::new(Kind::Unavailable, "the machine does not tell what it staged")
                .hint("ask it: `sepulcher --host HOST rebirth status`"));
        };
        for line in &takes {
            eprintln!("{}", plain(line));
        }
        (Some(status), version, digest)
    } else {
        let staged = stage_now(&Machine::new(&told.root), source, *allow_downgrade)?;
        (None, staged.version, staged.digest)
    };
    if told.json {
        return tell(told, &status.map_or_else(|| looked(told), Ok)?);
    }
    eprintln!("body {version} is staged; `sepulcher rebirth activate` wants this digest:");
    print(&format!("{digest}\n"))
}

fn activate(args: &Activate) -> Result<(), Failure> {
    if let Some(host) = &args.told.host {
        if args.at_next_boot {
            return Err(Failure::new(Kind::Input, "over the tether a machine restarts at once")
                .hint("leave `--at-next-boot` out"));
        }
        return tell(&args.told, &remote::activate(host, args.digest)?);
    }
    let machine = Machine::new(&args.told.root);
    activate_now(&machine, args.digest)?;
    let told = looked(&args.told).and_then(|status| tell(&args.told, &status));
    if !args.at_next_boot {
        machine.reboot()?;
    }
    told
}

/// Stages on this machine.
pub fn stage_now(machine: &Machine, source: &str, downgrade: bool) -> Result<Staged, Failure> {
    let staged = store::stage(machine, Wish { source, downgrade }, &mut |line| eprintln!("{}", plain(line)));
    publish(machine);
    Ok(staged?)
}

/// The same for activating, which leaves the restart to the caller.
pub fn activate_now(machine: &Machine, digest: Sha256Digest) -> Result<Activated, Failure> {
    let activated = store::activate(machine, digest);
    publish(machine);
    Ok(activated?)
}

/// Keeps the status where the agent's requests find it. What was done is done, whether it can be told or not.
pub fn publish(machine: &Machine) {
    if let Err(error) = status::publish(machine) {
        eprint!("note: the status cannot be told: {}", Failure::from(error));
    }
}

fn looked(told: &Told) -> Result<Status, Failure> {
    match &told.host {
        Some(host) => remote::status(host),
        None => Ok(status::look(&Machine::new(&told.root))?),
    }
}

fn rollback(told: &Told) -> Result<(), Failure> {
    if let Some(host) = &told.host {
        return tell(told, &remote::rollback(host)?);
    }
    let machine = Machine::new(&told.root);
    let (activated, needs_restart) = rollback_now(&machine, None)?;
    let told = if told.json {
        looked(told).and_then(|status| tell(told, &status))
    } else {
        print(&format!("{activated}\n"))
    };
    if needs_restart {
        machine.reboot()?;
    }
    told
}

/// Rolls back on this machine. Whether a restart, which is left to the caller, is needed.
pub fn rollback_now(machine: &Machine, leave: Option<&Version>) -> Result<(Activated, bool), Failure> {
    let done = rollback::rollback(machine, leave);
    publish(machine);
    Ok(done?)
}

/// Asked when health failed, and when it should long have come to a verdict.
fn fall_back(machine: &Machine) -> Result<(), Failure> {
    let verdict = status::health(machine)?;
    let healthy = verdict.as_ref().is_some_and(|verdict| verdict.failed.is_empty());
    if healthy || !attempt::should_end(machine)? {
        return Ok(());
    }
    println!("sepulcher: this body does not prove healthy: restarting for another attempt");
    if verdict.is_none() { Ok(machine.reboot_at_once()?) } else { Ok(machine.reboot()?) }
}

/// Notes that this boot has begun, and tells what became of the last Rebirth. No obstacle keeps a machine from booting.
pub fn note_boot(root: &Path) {
    let machine = Machine::new(root);
    if !machine.is_sealed() {
        return;
    }
    let begun = attempt::begin(&machine).and_then(|lines| {
        status::publish(&machine)?;
        Ok(lines)
    });
    match begun {
        Ok(lines) => lines.iter().for_each(|line| println!("sepulcher: {}", plain(line))),
        Err(error) => eprint!("{}", Failure::from(error)),
    }
}

/// Notes what `sepulcher health` found.
pub fn note_health(root: &Path, failed: Vec<String>) -> Result<(), Failure> {
    let machine = Machine::new(root);
    if machine.is_sealed() {
        attempt::found(&machine, failed)?;
        status::publish(&machine)?;
    }
    Ok(())
}

fn shown(status: &Status) -> String {
    let row = |slot: &Slot| {
        let version = slot.version.as_ref().map_or_else(|| "(empty)".to_owned(), ToString::to_string);
        let tries = match slot.tries {
            _ if slot.entry.is_none() => "no boot entry".to_owned(),
            None => "proven".to_owned(),
            Some(Tries { left, done }) => format!("{left} left, {done} done"),
        };
        let hash = slot.root_hash.map(|hash| hash.to_string()).unwrap_or_default();
        vec![slot.device.clone(), version, if slot.running { "yes" } else { "" }.to_owned(), tries, hash]
    };
    let headings = ["SLOT", "BODY", "RUNS", "TRIES", "ROOT HASH"].map(str::to_owned).to_vec();
    let mut text = table(&[headings].into_iter().chain(status.slots.iter().map(row)).collect::<Vec<_>>());
    text.push_str(&format!("health: {}\n", health(status.health.as_ref())));
    if let Some(rebirth) = &status.rebirth {
        text.push_str(&format!("last: {rebirth}\n"));
        for reason in rebirth.reasons().iter().filter(|_| rebirth.outcome.is_some()) {
            text.push_str(&format!("  {reason}\n"));
        }
    }
    text.push_str(&format!("next: {}\n", status.next));
    text
}

fn health(verdict: Option<&Verdict>) -> String {
    match verdict {
        None => "not known yet".to_owned(),
        Some(verdict) if verdict.failed.is_empty() => "ok".to_owned(),
        Some(verdict) => verdict.failed.join("; "),
    }
}
