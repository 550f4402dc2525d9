//! `cargo xtask nix`: the second driver of the builder. Nix makes program and image in its sandbox, and the image must
//! be the one that cargo's driver makes, byte for byte.
//!
//! Without a nixpkgs of its own the flake is given `nix/host`: the same functions, from this machine's tools.

mod ready;
mod store;

use std::path::{Path, PathBuf};

use xshell::{Shell, cmd};

use crate::{Result, image, reproduce, root};

/// What the program is built with by `nix/host`, as it is seen in the sandbox.
const TOOLS: [&str; 5] = ["/bin", "/usr", "/lib", "/lib64", "/etc/alternatives"];
/// What the image is built with, besides what Nix put into the store: a shell and three of its companions.
const SHELL: [&str; 6] = ["/bin/sh", "/bin/mkdir", "/bin/ln", "/bin/cat", "/lib", "/lib64"];

/// Runs everything.
pub fn run() -> Result<()> {
    ready::nix()?;
    let nix = Nix::new()?;
    store::fill(&nix)?;
    nix.flake(&["show"])?;
    let rust = cmd!(nix.shell, "rustc --print sysroot").quiet().read()?;
    let tools: Vec<String> =
        TOOLS.iter().map(ToString::to_string).chain([format!("/host/rust={rust}")]).collect();
    let program = nix.build("sepulcher", &tools, &[])?.join("bin/sepulcher");
    let shell = SHELL.map(str::to_owned);
    let built = nix.build("sepulcher-image", &shell, &[])?;
    nix.build("sepulcher-image", &shell, &["--rebuild"])?;
    println!("Nix built the image twice, the same bytes");
    compare(&program, &built)?;
    // It is large, and the next change makes another one.
    nix.forget(&built)
}

/// The same Codex and the same agent, built by cargo's driver.
fn compare(program: &Path, built: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("sepulcher-nix-").tempdir()?;
    let out = folder.path().join("lychd.raw");
    let driver = image::program()?;
    let shell = Shell::new()?;
    shell.change_dir(root());
    cmd!(shell, "{driver} image build examples/lychd --out {out} --program {program} --offline")
        .quiet()
        .run()?;
    for name in ["lychd.raw", "lychd.manifest.json", "SHA256SUMS"] {
        reproduce::same(&folder.path().join(name), &built.join(name))?;
    }
    println!("Nix and cargo built the same image, byte for byte");
    Ok(())
}

/// Nix, and the flake with the functions of nixpkgs that this machine can have.
struct Nix {
    shell: Shell,
}

impl Nix {
    fn new() -> Result<Self> {
        let shell = Shell::new()?;
        shell.change_dir(root());
        Ok(Self { shell })
    }

    /// `nix flake VERB`.
    fn flake(&self, words: &[&str]) -> Result<()> {
        let (common, flake) = (common(), flake());
        Ok(cmd!(self.shell, "nix {common...} flake {words...} {flake...}").run()?)
    }

    /// Builds a package of the flake in the sandbox, which shows `paths` of the host, and returns where it lies.
    fn build(&self, package: &str, paths: &[String], more: &[&str]) -> Result<PathBuf> {
        let (common, flake) = (common(), flake());
        let (package, paths) = (format!(".#{package}"), paths.join(" "));
        let built = cmd!(
            self.shell,
            "nix {common...} build {package} {flake...} --no-link --json --print-build-logs
             --option sandbox true --option sandbox-paths {paths} {more...}"
        );
        let built: serde_json::Value = serde_json::from_str(&built.read()?)?;
        let path = built[0]["outputs"]["out"].as_str().ok_or("nix build names no output")?;
        Ok(path.into())
    }

    /// Removes a path from the store, unless something needs it.
    fn forget(&self, path: &Path) -> Result<()> {
        let common = common();
        Ok(cmd!(self.shell, "nix {common...} store delete {path}").quiet().ignore_stderr().run()?)
    }
}

/// Options of every call: nothing is substituted, and who starts it builds.
fn common() -> [&'static str; 7] {
    let features = "nix-command flakes";
    [
        "--extra-experimental-features",
        features,
        "--option",
        "build-users-group",
        "",
        "--no-substitute",
        "--offline",
    ]
}

/// Options that give the flake the host's functions in place of nixpkgs.
fn flake() -> [&'static str; 4] {
    ["--override-input", "nixpkgs", "path:./nix/host", "--no-write-lock-file"]
}
