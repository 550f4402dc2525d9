//! `cargo xtask fuzz`: libFuzzer over the targets of `fuzz/`, with stable cargo.
//!
//! Coverage needs no nightly compiler: LLVM's pass is asked for with stable flags. It needs a C++ compiler, which
//! builds libFuzzer. What a run finds stays in `target/fuzz`; an input that failed is printed with the command
//! that feeds it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xshell::{Shell, cmd};

use crate::{Result, reproduce, root};

/// Counters at every edge, comparisons traced: what libFuzzer steers by.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];
/// An input may take this long, in seconds, and this much memory, in MiB.
const TIMEOUT: u32 = 5;
const MEMORY: u32 = 1024;
/// Longest input, in bytes.
const LENGTH: u32 = 16 << 10;

/// What to feed and how long.
#[derive(clap::Args)]
pub struct Args {
    /// Target, a file of fuzz/fuzz_targets (default: all, one after the other)
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Builds the targets and runs them; the first input that fails ends it.
pub fn run(args: &Args) -> Result<()> {
    let known = targets()?;
    let chosen = match &args.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => {
            return Err(format!("no target is named {target}; there are {}", known.join(", ")).into());
        }
    };
    compiler()?;
    let work = root().join("target/fuzz");
    build(&work)?;
    for target in &chosen {
        fuzz(&work, target, args.seconds)?;
    }
    Ok(())
}

/// Names of the targets, sorted.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in sepulcher::sys::fs::list(&root().join("fuzz/fuzz_targets"))? {
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    Ok(names)
}

/// Has a C++ compiler, installing Debian's when this process may.
fn compiler() -> Result<()> {
    let shell = Shell::new()?;
    if cmd!(shell, "c++ --version").quiet().ignore_stdout().ignore_stderr().run().is_ok() {
        return Ok(());
    }
    let install = "apt-get install --yes --no-install-recommends g++";
    if reproduce::is_root() && Path::new("/etc/debian_version").exists() {
        eprintln!("fuzz: libFuzzer needs a C++ compiler: {install}");
        return Ok(cmd!(shell, "sh -c {install}").run()?);
    }
    Err(format!("libFuzzer needs a C++ compiler: run `sudo {install}`").into())
}

fn build(work: &Path) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(root().join("fuzz"));
    cmd!(shell, "cargo build --locked --release --bins --target-dir {work}")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .run()?;
    Ok(())
}

fn fuzz(work: &Path, target: &str, seconds: u64) -> Result<()> {
    let program = work.join("x86_64-unknown-linux-gnu/release").join(target);
    let found = work.join("corpus").join(target);
    let failed = work.join("failed").join(target);
    let seeds = work.join("seeds").join(target);
    for folder in [&found, &failed, &seeds] {
        fs::create_dir_all(folder)?;
    }
    if target == "codex" {
        write_codices(&seeds)?;
    }
    let corpus = root().join("fuzz/corpus").join(target);
    let mut command = Command::new(&program);
    command.args([&found, &corpus, &seeds]);
    command.arg(format!("-max_total_time={seconds}"));
    command.args([format!("-timeout={TIMEOUT}"), format!("-rss_limit_mb={MEMORY}")]);
    command.args([format!("-max_len={LENGTH}"), "-print_final_stats=1".to_owned()]);
    command.arg(format!("-artifact_prefix={}/", failed.display()));
    let words = root().join("fuzz").join(format!("{target}.dict"));
    if words.exists() {
        command.arg(format!("-dict={}", words.display()));
    }
    eprintln!("fuzz: {target}, {seconds} s");
    if command.status()?.success() {
        return Ok(());
    }
    Err(format!(
        "{target} failed on an input in {}; feed it again with `{} FILE`",
        failed.display(),
        program.display()
    )
    .into())
}

/// The Codices of the golden and reject tests, a file each in the form that the target splits.
fn write_codices(seeds: &Path) -> Result<()> {
    let tests = root().join("tests");
    for case in sepulcher::sys::fs::list(&tests.join("golden"))? {
        write_codex(&[&case.join("codex")], seeds, &case)?;
    }
    for case in sepulcher::sys::fs::list(&tests.join("reject"))? {
        write_codex(&[&tests.join("reject/base"), &case], seeds, &case)?;
    }
    Ok(())
}

/// Files of the later folders take the place of those of the earlier.
fn write_codex(folders: &[&Path], seeds: &Path, case: &Path) -> Result<()> {
    let mut files = std::collections::BTreeMap::new();
    for folder in folders {
        for path in files_of(folder)? {
            let name = path.strip_prefix(folder)?.display().to_string();
            files.insert(name, String::from_utf8_lossy(&fs::read(&path)?).into_owned());
        }
    }
    files.remove("stderr.txt");
    let text: String = files.iter().map(|(name, text)| format!("#: {name}\n{text}\n")).collect();
    let name = case.file_name().unwrap_or_default();
    Ok(fs::write(seeds.join(name), text)?)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in sepulcher::sys::fs::list(folder)? {
        if path.is_dir() { files.extend(files_of(&path)?) } else { files.push(path) }
    }
    Ok(files)
}
