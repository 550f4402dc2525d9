//! `cargo xtask e2e`: sealed images boot, and peers and outsiders in namespaces of their own try them.

mod around;
mod fault;
#[path = "../../tests/namespaces/low_order.rs"]
mod low_order;
mod noise;
mod peer;
mod restarts;
mod rig;
mod session;
mod site;
mod stream;
mod tamper;
mod tether;
mod ways;

use std::fmt::Write as _;
use std::time::Duration;

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
        Self { name, result: check().map_err(|error| error.to_string()) }
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What bonded peers reach, and what nobody else does
    Peers,
    /// The first bond, and bonds over the tether
    Ways,
    /// Parts of the machine that restart, and the machine
    Restarts,
    /// Images with a changed byte
    Damage,
}

/// Runs all claims.
pub fn all() -> Result<()> {
    run(&Args::default())
}

/// Runs claims, prints the table and the boot's timeline, and fails when one did not hold.
pub fn run(Args { parts }: &Args) -> Result<()> {
    let wanted = |part: Part| parts.is_empty() || parts.contains(&part);
    let site = site::Site::build()?;
    let mut claims =
        vec![Claim::check("the image is whole and holds what its Codex renders", || site.verified())];
    let mut timeline = None;
    if wanted(Part::Peers) {
        let (told, times) = peer::claims(&site)?;
        claims.extend(told);
        timeline = Some(times);
    }
    if wanted(Part::Ways) {
        claims.extend(ways::claims(&site)?);
    }
    if wanted(Part::Restarts) {
        claims.extend(restarts::claims(&site)?);
    }
    if wanted(Part::Damage) {
        claims.extend(tamper::claims(&site));
    }
    println!("{}", table(&claims));
    if let Some(timeline) = timeline {
        println!("boot, seconds since power-on:\n{timeline}");
    }
    let failed = claims.iter().filter(|claim| claim.result.is_err()).count();
    println!("{} passed, {failed} failed", claims.len() - failed);
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} claims did not hold", claims.len()).into()) }
}

fn table(claims: &[Claim]) -> String {
    let width = claims.iter().map(|claim| claim.name.len()).max().unwrap_or(0);
    claims.iter().fold(String::new(), |mut text, Claim { name, result }| {
        let (word, seen) = match result {
            Ok(seen) => ("held", seen),
            Err(why) => ("FAILED", why),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:width$}  {word:6}  {}", seen.replace('\n', "\n    "));
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
