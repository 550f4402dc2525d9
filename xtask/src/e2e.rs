//! `cargo xtask e2e`: sealed images boot, and peers and outsiders in namespaces of their own try them.

mod around;
mod bodies;
mod defects;
mod depot;
mod encryption;
mod fault;
mod losses;
#[path = "../../tests/namespaces/low_order.rs"]
mod low_order;
mod noise;
mod peer;
pub mod rebirth;
mod restarts;
mod rig;
mod scene;
mod session;
pub mod site;
mod snapshot;
mod stream;
mod tamper;
mod tether;
mod ways;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;

use crate::{Result, vm};

/// One claim and whether it held.
pub struct Claim {
    name: &'static str,
    result: std::result::Result<String, String>,
}

impl Claim {
    /// Runs one check; its text is what was seen.
    pub fn check(name: &'static str, check: impl FnOnce() -> Result<String>) -> Self {
        eprintln!("e2e: {name} …");
        let start = Instant::now();
        let result = check().map_err(|error| error.to_string());
        // The table comes in the end, which may be hours away.
        let why = result.as_ref().err().map_or_else(String::new, |error| format!(": {error}"));
        eprintln!("e2e: … {} after {:.1} s{why}", word(&result), start.elapsed().as_secs_f32());
        Self { name, result }
    }
}

/// How long one boot may take under emulation on a busy machine.
pub const BOOT: Duration = Duration::from_secs(300);

/// Size of the disk that an image grows into on first boot.
pub const DISK: u64 = 4 << 30;

/// Which claims to try.
#[derive(Default, clap::Args)]
pub struct Args {
    /// Parts to try [default: all]
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How often the power is lost in each act of `losses`
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    points: u32,
    /// An act of `losses` to try; may be repeated [default: all]
    #[arg(long = "act", value_enum, value_name = "ACT")]
    acts: Vec<losses::Loss>,
}

/// Parts, those that say most first: where the time is short, what is last is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What bonded peers reach, and what nobody else does
    Peers,
    /// The first bond, and bonds over the tether
    Ways,
    /// Parts of the machine that restart, and the machine
    Restarts,
    /// Bonds that are put back, on the machine and on another one
    Snapshot,
    /// Bodies that take the place of others
    Rebirth,
    /// Images with a changed byte
    Damage,
    /// A state that is encrypted to the machine's TPM
    Encryption,
    /// Bodies that are not healthy, each tried three times
    Falls,
    /// Power that is lost in the middle of everything that changes bonds and bodies
    Losses,
}

impl Part {
    /// Whether it is for those who name it: what waits for machines that do not come up, or powers on a hundred times.
    fn is_long(self) -> bool {
        matches!(self, Self::Falls | Self::Losses)
    }

    /// As it is named on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What was seen.
#[derive(Default)]
struct Seen {
    claims: Vec<Claim>,
    timeline: Option<String>,
    /// Parts for which there was no time.
    left: Vec<String>,
}

/// Runs all claims, but for the long ones; begins with no part once the time is up, and returns those.
pub fn all(until: Instant) -> Result<Vec<String>> {
    run_until(&Args::default(), Some(until))
}

/// Runs claims, prints the table and the boot's timeline, and fails when one did not hold.
pub fn run(args: &Args) -> Result<()> {
    run_until(args, None).map(drop)
}

fn run_until(args: &Args, until: Option<Instant>) -> Result<Vec<String>> {
    let Seen { claims, timeline, left } = tried(args, until)?;
    println!("{}", table(&claims));
    if let Some(timeline) = timeline {
        println!("boot, seconds since power-on:\n{timeline}");
    }
    if args.parts.is_empty() {
        println!(
            "not tried: bodies that are not healthy, but for one (`cargo xtask e2e falls`, half an hour); power losses \
             (`cargo xtask e2e losses`, over two hours)"
        );
    }
    let failed = claims.iter().filter(|claim| claim.result.is_err()).count();
    println!("{} passed, {failed} failed", claims.len() - failed);
    match failed {
        0 => Ok(left),
        _ => Err(format!("{failed} of {} claims did not hold", claims.len()).into()),
    }
}

fn tried(Args { parts, points, acts }: &Args, until: Option<Instant>) -> Result<Seen> {
    let site = site::Site::build()?;
    let mut seen = Seen::default();
    seen.claims.push(Claim::check("the image is whole and holds what its Codex renders", || site.verified()));
    let wanted = |part: &&Part| parts.contains(part) || (parts.is_empty() && !part.is_long());
    for part in Part::value_variants().iter().filter(wanted) {
        // However slow the machine is, the peers are tried.
        if *part != Part::Peers && until.is_some_and(|until| Instant::now() > until) {
            seen.left.push(part.name());
            continue;
        }
        eprintln!("e2e: {}", part.name());
        seen.claims.extend(match part {
            Part::Peers => {
                let (claims, timeline) = peer::claims(&site)?;
                seen.timeline = Some(timeline);
                claims
            }
            Part::Ways => ways::claims(&site)?,
            Part::Restarts => restarts::claims(&site)?,
            Part::Snapshot => snapshot::claims(&site)?,
            Part::Rebirth => rebirth::claims(&site)?,
            Part::Damage => tamper::claims(&site),
            Part::Encryption => encryption::claims(&site)?,
            Part::Falls => rebirth::falls(&site)?,
            Part::Losses => losses::claims(&site, acts, *points)?,
        });
    }
    Ok(seen)
}

fn word<T, E>(result: &std::result::Result<T, E>) -> &'static str {
    if result.is_ok() { "held" } else { "FAILED" }
}

fn table(claims: &[Claim]) -> String {
    let width = claims.iter().map(|claim| claim.name.len()).max().unwrap_or(0);
    claims.iter().fold(String::new(), |mut text, Claim { name, result }| {
        let (Ok(seen) | Err(seen)) = result;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:width$}  {:6}  {}", word(result), seen.replace('\n', "\n    "));
        text
    })
}

/// Moments of a boot worth a line in the timeline: label, what the console shows then.
const MOMENTS: [(&str, &str); 8] = [
    ("firmware hands over", "BdsDxe: starting"),
    ("initrd", "Booting initrd of"),
    ("root opened through dm-verity", "Finished systemd-veritysetup@root"),
    ("sealed root runs", "Welcome to"),
    ("firewall loaded", "Finished sepulcher-firewall"),
    ("identity and bonds", "tether public key"),
    ("agent ready", "Started lychd-vpn.service"),
    ("healthy, boot complete", "sepulcher: health ok"),
];

/// The first time each moment showed on the console.
pub fn timeline(running: &vm::Running) -> String {
    MOMENTS.iter().fold(String::new(), |mut text, (label, mark)| {
        let first = running.log.iter().find(|(_, line)| line.contains(mark));
        let at = first.map_or_else(|| "-".to_owned(), |(at, _)| format!("{:.1}", at.as_secs_f32()));
        let _ = writeln!(text, "{at:>8}  {label}");
        text
    })
}
