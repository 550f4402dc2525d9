//! `sepulcher probe`: what can be found of a host from outside.

mod show;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use super::output::{json, print};
use super::{Failure, Kind, codex};
use crate::codex::Protocol;
use crate::codex::key::PublicKey;
use crate::codex::net::Port;
use crate::probe::dice::Dice;
use crate::probe::verdict::{self, Evidence, Report, Verdict};
use crate::probe::web::{self, Outcome, Pair};
use crate::probe::{self, Promise, Question, Scope};
use crate::sys::probe::{Error as SendError, Pace, Raw, is_own, is_there, make_room};
use crate::sys::{self, http, random};

/// UDP port of a Tether that says nothing else.
const TETHER: u16 = 51820;
/// A page costs that many packets, roughly.
const PAGE_PACKETS: u32 = 10;
/// One page may take that long.
const PAGE: Duration = Duration::from_secs(5);

/// Find out what a host shows to people outside
///
/// Sends UDP to the Tether's port and to random others, SYNs to declared ports and to random others, and ICMP where this
/// process has CAP_NET_RAW, to one address at a bounded rate, and says so first. Whether the Tether's port can be told
/// from closed ones is judged by exact tests. Ask your own machines only, from outside: a Codex that is given with
/// --codex makes everything a leak that it does not declare. The exit code is 1 when something leaks, and 69 when nothing came
/// back at all and nothing else shows that somebody was there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or address of the host; a name is looked up once, and its first address is asked
    #[arg(id = "target", value_name = "HOST")]
    host: String,
    /// UDP port of the Tether [default: the Codex's, else 51820]
    #[arg(long)]
    port: Option<Port>,
    /// Public key of the host, as somebody may have it who has seen a configuration
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
    /// TCP ports that are meant to be open
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    tcp: Vec<Port>,
    /// Codex of the host: its ports and routes are compared with what is found
    #[arg(long, value_name = "DIR")]
    codex: Option<PathBuf>,
    /// Packets a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=30))]
    wait: u8,
    /// How often each kind of datagram is sent
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Print the report as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// All that is going to be asked.
struct Plan {
    address: IpAddr,
    promise: Promise,
    questions: Vec<Question>,
    pairs: Vec<Pair>,
    /// The host as pages are asked for.
    name: String,
    pace: Pace,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (address, others) = resolve(&args.host)?;
    let mut dice = Dice::new(random::bytes());
    let id = u16::try_from(dice.below(1 << 16)).unwrap_or_default();
    let raw = Raw::open(address, id).map_err(|source| no_way(&SendError::Send { address, source }))?;
    let plan = prepare(args, address, raw.is_some(), &mut dice)?;
    make_room(plan.pace).map_err(|error| {
        Failure::from_error(Kind::Unavailable, &error).hint("lower --rate or --wait, or raise `ulimit -n`")
    })?;
    eprint!("{}", show::plan(&plan, args, &others));
    let seen = sys::probe::ask(address, &plan.questions, plan.pace, raw.as_ref(), &mut dice);
    let seen = seen.map_err(|error| no_way(&error))?;
    let neighbour = is_there(address);
    let evidence =
        Evidence { address, promise: &plan.promise, questions: &plan.questions, seen: &seen, neighbour };
    let mut report = verdict::judge(&evidence);
    compare_pages(&plan, &evidence, &mut report);
    if is_own(address) {
        report
            .notes
            .push("this machine asked itself: only what comes from outside meets its rulesets".to_owned());
    }
    report.notes.extend(unasked(args, raw.is_some()));
    print(&if args.json { json(&report)? } else { show::report(&report) })?;
    verdict_of(&report)
}

fn prepare(args: &Args, address: IpAddr, raw: bool, dice: &mut Dice) -> Result<Plan, Failure> {
    let codex = args.codex.as_deref().map(|folder| codex::open(&[folder])).transpose()?;
    let mut promise = match &codex {
        Some(codex) => Promise::of(codex),
        None => Promise { tether: TETHER, ..Promise::default() },
    };
    if let Some(port) = args.port {
        promise.tether = port.get();
    }
    for port in &args.tcp {
        promise.hidden.remove(&(Protocol::Tcp, port.get()));
        promise.forest.insert((Protocol::Tcp, port.get()));
    }
    let scope = Scope { address, promise: &promise, key: args.key.as_ref(), rounds: args.rounds.into(), raw };
    let questions = probe::plan(&scope, dice);
    let pairs = codex.as_ref().map(|codex| web::pairs(codex, dice)).unwrap_or_default();
    let domain = codex.and_then(|codex| codex.appliance.domain).map(|domain| domain.to_string());
    let name = domain.unwrap_or_else(|| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    });
    let pace = Pace { rate: args.rate, wait: Duration::from_secs(args.wait.into()) };
    Ok(Plan { address, promise, questions, pairs, name, pace })
}

/// The first address of a host, and the others.
fn resolve(host: &str) -> Result<(IpAddr, Vec<IpAddr>), Failure> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found = (bare, 0_u16).to_socket_addrs().map_err(|error| {
        Failure::new(Kind::Unavailable, format!("cannot look `{host}` up: {error}"))
            .hint("check the name, or give the address")
    })?;
    let mut addresses: Vec<IpAddr> = found.map(|address: SocketAddr| address.ip()).collect();
    addresses.dedup();
    let Some(first) = addresses.first().copied() else {
        return Err(Failure::new(Kind::Unavailable, format!("`{host}` has no address")));
    };
    let nobody = first.is_unspecified() || first.is_multicast();
    if nobody || matches!(first, IpAddr::V4(address) if address.is_broadcast()) {
        return Err(Failure::new(Kind::Input, format!("{first} is not the address of one host"))
            .hint("give the address of the machine that is to be asked"));
    }
    addresses.remove(0);
    Ok((first, addresses))
}

fn no_way(error: &SendError) -> Failure {
    Failure::from_error(Kind::Unavailable, error)
        .hint("look for a route to it (`ip route get`), and at this machine's own packet filter")
}

/// Asks open ports for pinned routes and unknown paths, no faster than anything else.
fn compare_pages(plan: &Plan, evidence: &Evidence, report: &mut Report) {
    let client = http::fixed::Client::new(plan.address, PAGE);
    for pair in &plan.pairs {
        if !evidence.is_open(pair.port) {
            report.notes.push(format!("the pinned route {pair} was not asked for: the port is not open"));
            continue;
        }
        let pages = pair.paths().map(|path| {
            std::thread::sleep(Duration::from_secs(1) * PAGE_PACKETS / plan.pace.rate);
            // One that does not come is told of by the judgement.
            client.page(&format!("{}://{}:{}{path}", pair.scheme, plan.name, pair.port)).ok()
        });
        match web::judge(pair, pages.each_ref().map(Option::as_ref)) {
            Outcome::Alike => {}
            Outcome::Note(note) => report.notes.push(note),
            Outcome::Leak(leak) => {
                report.leaks.push(leak);
                report.verdict = Verdict::Leak;
            }
        }
    }
}

/// What a better equipped scanner would have asked.
fn unasked(args: &Args, raw: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !raw {
        notes.push("ICMP was not asked: that needs CAP_NET_RAW (run it as root)".to_owned());
    }
    if args.key.is_none() {
        notes.push(
            "initiations with a right mac1 were not sent: that needs the host's public key (--key)".into(),
        );
    }
    if args.codex.is_none() {
        notes.push("pinned routes were not asked for: that needs the Codex (--codex)".to_owned());
    }
    notes
}

fn verdict_of(report: &Report) -> Result<(), Failure> {
    match report.verdict {
        Verdict::Silent => Ok(()),
        Verdict::Unreachable => Err(Failure::new(
            Kind::Unavailable,
            format!("{} was not reached: nothing is proven", report.address),
        )
        .hint("look that the host is up and that there is a way to it; a port that is meant to be open proves that (--tcp)")),
        Verdict::Leak => {
            let count = report.leaks.len();
            let noun = if count == 1 { "leak" } else { "leaks" };
            Err(Failure::new(Kind::Input, format!("{count} {noun} found at {}", report.address)))
        }
    }
}
