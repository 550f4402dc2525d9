//! `cargo xtask image`: the release program, and the image it builds with itself inside.

use std::fs::File;
use std::path::{Path, PathBuf};

use sepulcher::cli::progress::Shown;
use sepulcher::cli::store::StoreArgs;
use sepulcher::image::disk::{self, Placed, Role};
use sepulcher::image::fetch::Quiet;
use sepulcher::image::toolbox::Toolbox;
use xshell::{Shell, cmd};

use crate::{Result, root};

/// Which Codex, and where to.
#[derive(clap::Args)]
pub struct Args {
    /// Codex folder
    #[arg(default_value = "examples/lychd")]
    codex: PathBuf,
    /// Image file to write
    #[arg(long, default_value = "out/lychd.raw")]
    out: PathBuf,
    /// What `sepulcher image build` is told besides, behind `--`: `--version 2 --sign publisher.key`
    #[arg(last = true)]
    more: Vec<String>,
}

/// Builds the program and the image.
pub fn run(args: &Args) -> Result<()> {
    build_with(&args.codex, &args.out, &args.more)?;
    eprintln!("boot it with `cargo xtask boot --image {}`", args.out.display());
    Ok(())
}

/// Builds the image of `codex` into `out` with the release program.
pub fn build(codex: &Path, out: &Path) -> Result<()> {
    build_with(codex, out, &[])
}

/// The same, with more arguments.
pub fn build_with(codex: &Path, out: &Path, more: &[String]) -> Result<()> {
    let program = program()?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let shell = Shell::new()?;
    cmd!(shell, "{program} image build {codex} --out {out} {more...}").run()?;
    Ok(())
}

/// The statically linked release program, without any path of this machine in it.
pub fn program() -> Result<PathBuf> {
    cargo_release("build", "sepulcher", &[])?;
    Ok(target().join("x86_64-unknown-linux-gnu/release/sepulcher"))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where cargo keeps what it fetched.
pub fn cargo_home() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = set("CARGO_HOME").or_else(|| set("HOME").map(|home| home.join(".cargo")));
    home.ok_or_else(|| "neither CARGO_HOME nor HOME is set: where is cargo's folder?".into())
}

/// `cargo VERB --release` of a package, with the paths of this machine written as `/cargo` and `/sepulcher`.
pub fn cargo_release(verb: &str, package: &str, args: &[&str]) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(root());
    let home = cargo_home()?.display().to_string();
    let here = root().display().to_string();
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={home}=/cargo"),
        format!("--remap-path-prefix={here}=/sepulcher"),
        format!("--remap-path-prefix={}=/target", target().display()),
    ]
    .join("\x1f");
    let command = cmd!(shell, "cargo {verb} --locked --release --package {package} -- {args...}");
    let command = if args.is_empty() {
        cmd!(shell, "cargo {verb} --locked --release --package {package}")
    } else {
        command
    };
    command.env("CARGO_ENCODED_RUSTFLAGS", flags).quiet().run()?;
    Ok(())
}

/// A toolbox of locked packages, fetched when it is not in the cache yet.
pub fn toolbox(name: &str) -> Result<Toolbox> {
    let shown = Shown::default();
    let args = StoreArgs::default();
    let store = args.store(&shown).map_err(|failure| failure.to_string())?;
    let image = args.image(&store, name).map_err(|failure| failure.to_string())?;
    Ok(Toolbox::open(&store, &image)?)
}

/// The user's cache of packages.
pub fn cache() -> Result<PathBuf> {
    Ok(StoreArgs::default().store(&Quiet).map_err(|failure| failure.to_string())?.cache)
}

/// Where the partition of `role` is in a disk image.
pub fn partition(image: &Path, role: Role) -> Result<Placed> {
    let placed = disk::read(&File::open(image)?)?;
    placed
        .into_iter()
        .find(|placed| placed.role == Some(role))
        .ok_or_else(|| format!("no {} partition", role.name()).into())
}

/// In which partition of a disk image the byte `at` lies, for people.
pub fn place(image: &Path, at: u64) -> String {
    let placed =
        File::open(image).map_err(drop).and_then(|file| disk::read(&file).map_err(drop)).unwrap_or_default();
    let hit = placed.iter().find(|placed| (placed.offset..placed.offset + placed.size).contains(&at));
    hit.map_or_else(
        || "outside of all partitions".to_owned(),
        |hit| format!("byte {} of the partition {}", at - hit.offset, hit.label),
    )
}
