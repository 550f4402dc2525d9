//! `cargo xtask bench`: figures of this machine, medians of one run. Documentation quotes nothing else.

mod grants;
mod lab;
mod tether;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use sepulcher::codex::key::PublicKey;
use sepulcher::codex::{Backend, Codex, Sources};
use sepulcher::image::disk::Role;
use sepulcher::image::toolbox::Toolbox;
use sepulcher::image::verity;
use sepulcher::image::window::Window;
use sepulcher::render::render;

use crate::e2e::rebirth;
use crate::e2e::site::Site;
use crate::reproduce::downloads_only;
use crate::vm::{Machine, Start, Uplink, disk_from};
use crate::{Result, guest, image, root};
use lab::Lab;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// The part [default: rendering, bonding and building]
    #[arg(value_enum)]
    part: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The default, and the time to each moment of a boot
    Boot,
    /// A Rebirth there and back: the update's size, and the times to stage, activate, be back and roll back
    Rebirth,
    /// Changes among 10 and 10,000 peers with a userspace WireGuard, the idle agent
    Tether,
    /// The same changes in the appliance's kernel, and what a peer's packets pay for the grants of others
    Kernel,
    /// We are the only program of such a kernel
    #[value(hide = true)]
    Guest,
}

/// How long the measurements in an emulated machine may take.
const GUEST: Duration = Duration::from_secs(3600);

/// Runs all measurements and prints a line each.
pub fn run(args: &Args) -> Result<()> {
    if cfg!(debug_assertions) {
        let part = args.part.and_then(|part| part.to_possible_value());
        let words = ["bench"].into_iter().chain(part.iter().map(clap::builder::PossibleValue::get_name));
        return image::cargo_release("run", "xtask", &words.collect::<Vec<_>>());
    }
    let folder = tempfile::Builder::new().prefix("sepulcher-bench-").tempdir()?;
    match args.part {
        Some(Part::Kernel) => return guest::run("bench guest", GUEST),
        Some(Part::Guest) => {
            let tools = Toolbox::unpacked("guest", Path::new("/"));
            let lab = Lab::new(tools, guest::PROGRAM.into(), Backend::Kernel, folder.path());
            tether::changes(&lab)?;
            return grants::measure(&lab);
        }
        Some(Part::Tether) => {
            let tools = image::toolbox("tools-topology")?;
            let lab = Lab::new(tools, image::program()?, Backend::Userspace, folder.path());
            tether::changes(&lab)?;
            return tether::idle(&lab);
        }
        Some(Part::Rebirth) => return reborn(),
        Some(Part::Boot) | None => {}
    }
    rendering()?;
    bonding(folder.path())?;
    let built = building(folder.path())?;
    if args.part == Some(Part::Boot) {
        booting(folder.path(), &built)?;
    }
    Ok(())
}

fn line(what: &str, target: &str, value: &str) {
    println!("{what:<44} {value:>10}   (target {target})");
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn ratio(upper: Duration, lower: Duration) -> String {
    format!("{:.1}", upper.as_secs_f64() / lower.as_secs_f64())
}

/// Median time of `runs` calls.
fn median(runs: usize, mut call: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed());
    }
    Ok(middle(times, Ord::cmp))
}

/// The median.
fn middle<T: Copy>(mut values: Vec<T>, order: impl FnMut(&T, &T) -> std::cmp::Ordering) -> T {
    values.sort_by(order);
    values[values.len() / 2]
}

fn rendering() -> Result<()> {
    let example = example_sources();
    let many = with_peers(&example, 10_000)?;
    let cases = [("example", example, 51, "5 ms"), ("example with 10,000 peers", many, 9, "150 ms")];
    for (name, sources, runs, target) in cases {
        let codex = parsed(&sources)?;
        let check = median(runs, || parsed(&sources).map(drop))?;
        let rendered = median(runs, || Ok(render(&codex).map(drop)?))?;
        line(&format!("check, {name}"), "none", &ms(check));
        line(&format!("render, {name}"), target, &ms(rendered));
    }
    Ok(())
}

fn parsed(sources: &Sources) -> Result<Codex> {
    Codex::parse(sources).map_err(|mistakes| sepulcher::codex::render_all(&mistakes, sources, false).into())
}

fn example_sources() -> Sources {
    sepulcher::sys::codex::load(&[&root().join("examples/lychd")])
}

/// Adds `count` peers with made-up keys, in an address space that holds them.
fn with_peers(sources: &Sources, count: u32) -> Result<Sources> {
    let mut many: Sources =
        sources.iter().filter(|(name, _)| !name.starts_with("peers/")).map(owned).collect();
    let mut law: toml::Table = sources.text("lychd.toml").unwrap_or_default().parse()?;
    let tether =
        law.get_mut("tether").and_then(toml::Value::as_table_mut).ok_or("the example has no [tether]")?;
    tether.insert("network".to_owned(), "10.89.0.0/16".into());
    many.insert("lychd.toml", law.to_string());
    for index in 0..count {
        many.insert(format!("peers/p{index}.toml"), peer_file(index));
    }
    Ok(many)
}

/// The bond of a made-up peer.
fn peer_file(index: u32) -> String {
    let (key, address) = (made_up_key(index), peer_address(index));
    format!("public-key = \"{key}\"\naddress = \"{address}\"\ngrants = [\"oculus\"]\n")
}

/// The address of a made-up peer.
fn peer_address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 89, 1, 0).to_bits() + index)
}

/// A public key that nobody has the private one of.
fn made_up_key(index: u32) -> String {
    let mut key = [0x42; 32];
    key[..4].copy_from_slice(&index.to_le_bytes());
    PublicKey::try_from(key).map(|key| key.to_string()).unwrap_or_default()
}

fn owned((name, text): (&str, &str)) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

/// Time of `sepulcher peer bond` on a Codex of 10,000 peers, from start to end of the program.
fn bonding(folder: &Path) -> Result<()> {
    let (program, codex) = (image::program()?, folder.join("many"));
    for (name, text) in with_peers(&example_sources(), 10_000)?.iter() {
        let path = codex.join(name);
        fs::create_dir_all(path.parent().ok_or("a file has a folder")?)?;
        fs::write(path, text)?;
    }
    let mut turn = 0_u8;
    let bond = median(9, || {
        turn += 1;
        let key = PublicKey::try_from([0x60 | turn; 32])?.to_string();
        let words = ["peer", "bond", &format!("new-{turn}"), "--public-key", &key, "--no-config", "--codex"];
        let run = Command::new(&program).args(words).arg(&codex).output()?;
        if run.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&run.stderr).into()) }
    })?;
    let read = median(9, || reading(&codex.join("peers")))?;
    line("reading 10,000 files, nothing else", "none", &ms(read));
    line("peer bond, 10,000 peers", "60 ms", &format!("{:.0} ms", bond.as_secs_f64() * 1e3));
    Ok(())
}

/// Opens, reads and closes every file of a folder, by a thread for each of two processors: what reading costs anyone.
fn reading(folder: &Path) -> Result<()> {
    let names: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let all = |paths: &[std::path::PathBuf]| paths.iter().try_for_each(|path| fs::read(path).map(drop));
    let (some, others) = names.split_at(names.len() / 2);
    std::thread::scope(|scope| {
        let there = scope.spawn(|| all(some));
        all(others)?;
        Ok(there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })
}

/// Cold build (packages there, nothing else), rebuild after a change of the Codex, sizes, memory.
fn building(folder: &Path) -> Result<std::path::PathBuf> {
    let program = image::program()?;
    let codex = folder.join("codex");
    crate::copy_folder(&root().join("examples/lychd"), &codex)?;
    let out = folder.join("lychd.raw");
    image::build(&codex, &out)?;
    let build = |cache: &Path| {
        timed(
            Command::new(&program)
                .args(["image", "build"])
                .arg(&codex)
                .arg("--out")
                .arg(&out)
                .arg("--offline")
                .env("SEPULCHER_CACHE", cache),
        )
    };
    let mut colds = Vec::new();
    let mut cache = folder.to_owned();
    for turn in 0..3 {
        cache = downloads_only(&image::cache()?, &folder.join(format!("cache-{turn}")))?;
        colds.push(build(&cache)?);
    }
    colds.sort();
    let (cold, memory) = colds[1];
    line("cold image build, packages downloaded", "60 s", &format!("{:.1} s", cold.as_secs_f64()));
    line("peak memory of the builder, cold", "600 MiB", &format!("{} MiB", memory >> 10));
    let law = fs::read_to_string(codex.join("lychd.toml"))?;
    let mut rebuilds = Vec::new();
    for turn in 0..5 {
        fs::write(codex.join("lychd.toml"), format!("# change {turn}\n{law}"))?;
        rebuilds.push(build(&cache)?.0);
    }
    rebuilds.sort();
    line("rebuild after a change of the Codex", "5 s", &format!("{:.1} s", rebuilds[2].as_secs_f64()));
    let metadata = fs::metadata(&out)?;
    let root = sealed_size(&out)?;
    line("image file, apparent", "320 MiB", &format!("{} MiB", metadata.len() >> 20));
    line("root file system", "170 MiB", &format!("{} MiB", root >> 20));
    Ok(out)
}

/// Size of the root file system in bytes, without the rest of its slot.
fn sealed_size(image: &Path) -> Result<u64> {
    let hashes = image::partition(image, Role::Verity)?;
    let file = fs::File::open(image)?;
    let header = verity::header(&Window::new(&file, hashes.offset, hashes.size))?;
    Ok(header.data_blocks * verity::BLOCK as u64)
}

/// Runs a command; its time and its largest resident size in KiB.
fn timed(command: &mut Command) -> Result<(Duration, u64)> {
    let start = Instant::now();
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::inherit()).spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let shown = fs::read_to_string(&status_file).unwrap_or_default();
        let high = shown.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak = peak.max(high.trim().trim_end_matches(" kB").parse().unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    };
    if status.success() {
        Ok((start.elapsed(), peak))
    } else {
        Err(format!("the build ended with {status}").into())
    }
}

/// One Rebirth of the machine that ring 4 tries, and its way back.
fn reborn() -> Result<()> {
    let figures = rebirth::figures(&Site::build()?)?;
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    line("update of the example", "none", &format!("{} MiB", figures.update >> 20));
    line("stage it, verified", "none", &seconds(figures.staged));
    line("activate it, with a snapshot", "none", &seconds(figures.activated));
    line("power-on to a peer's page, new body", "none", &seconds(figures.back));
    line("roll it back", "none", &seconds(figures.rolled_back));
    line("power-on to a peer's page, old body", "none", &seconds(figures.returned));
    Ok(())
}

fn booting(folder: &Path, built: &Path) -> Result<()> {
    let toolbox = image::toolbox("tools-boot")?;
    let disk = disk_from(built, &folder.join("disk.raw"), 4 << 30)?;
    let uplink = Uplink::User(Vec::new());
    let mut running =
        Machine { toolbox: &toolbox, start: Start::Disk(&disk), scratch: folder, uplink, processors: 2 }
            .power_on()?;
    running.expect(crate::e2e::BOOT, "sepulcher: health ok")?;
    println!("boot, seconds since power-on:\n{}", crate::e2e::timeline(&running));
    Ok(())
}
