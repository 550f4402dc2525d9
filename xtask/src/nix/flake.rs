//! The flake, with the nixpkgs that this machine can have.

use std::fs;
use std::path::{Path, PathBuf};

use xshell::{Shell, cmd};

use super::ready;
use crate::{Result, root};

/// Where the functions of nixpkgs come from.
#[derive(PartialEq, Eq)]
pub enum Nixpkgs {
    /// `nix/host`.
    Host,
    /// A folder.
    Folder(String),
    /// The one in `flake.lock`.
    Locked,
}

impl Nixpkgs {
    /// The one that `SEPULCHER_NIXPKGS` names.
    pub fn named() -> Self {
        match std::env::var("SEPULCHER_NIXPKGS") {
            Ok(name) if name == "locked" => Self::Locked,
            Ok(folder) if !folder.is_empty() => Self::Folder(folder),
            _ => Self::Host,
        }
    }

    fn overriding(&self) -> Vec<String> {
        let with =
            |place: &str| ["--override-input", "nixpkgs", place, "--no-write-lock-file"].map(str::to_owned);
        match self {
            Self::Host => with("path:./nix/host").into(),
            Self::Folder(folder) => with(&format!("path:{folder}")).into(),
            Self::Locked => Vec::new(),
        }
    }
}

/// The repository as a flake.
pub struct Flake {
    /// In the repository's top folder.
    pub shell: Shell,
    /// Where its functions come from.
    pub nixpkgs: Nixpkgs,
}

impl Flake {
    pub fn new(nixpkgs: Nixpkgs) -> Result<Self> {
        let shell = Shell::new()?;
        shell.change_dir(root());
        Ok(Self { shell, nixpkgs })
    }

    /// Evaluates every output.
    pub fn show(&self) -> Result<()> {
        let (common, with) = (self.common(), self.nixpkgs.overriding());
        Ok(cmd!(self.shell, "nix {common...} flake show {with...}").ignore_stderr().run()?)
    }

    /// Builds a package in the sandbox, which shows `paths` of the host when that stands in for nixpkgs, and returns
    /// where it lies.
    pub fn build(&self, package: &str, paths: &str, more: &[&str]) -> Result<PathBuf> {
        let (common, with, package) = (self.common(), self.nixpkgs.overriding(), format!(".#{package}"));
        let sandbox = match self.nixpkgs {
            Nixpkgs::Host => sandbox(paths).into(),
            Nixpkgs::Folder(_) | Nixpkgs::Locked => Vec::new(),
        };
        let built = cmd!(
            self.shell,
            "nix {common...} build {package} {with...} {sandbox...} --no-link --json --print-build-logs {more...}"
        );
        let built: serde_json::Value = serde_json::from_str(&built.read()?)?;
        let outputs = built[0]["outputs"].as_object().ok_or("nix build names no output")?;
        match outputs.values().collect::<Vec<_>>()[..] {
            [serde_json::Value::String(path)] => Ok(path.into()),
            _ => Err(format!("nix build names not one output of {package}: {outputs:?}").into()),
        }
    }

    /// Removes a path from the store, unless something needs it.
    pub fn forget(&self, path: &Path) -> Result<()> {
        let common = self.common();
        let delete = cmd!(self.shell, "nix {common...} store delete {path}").quiet().ignore_status();
        Ok(delete.ignore_stdout().ignore_stderr().run()?)
    }

    /// The tests of virtual machines, where there is a nixpkgs; otherwise says what did not run.
    pub fn check(&self) -> Result<()> {
        if self.nixpkgs == Nixpkgs::Host {
            let tests = fs::read_dir(root().join("nix/tests"))?.filter_map(std::result::Result::ok);
            let tests =
                tests.filter(|entry| entry.path().is_file() && entry.file_name() != "default.nix").count();
            let statix = if ready::has("statix") { "" } else { ", `statix check`" };
            println!(
                "not run without nixpkgs: the program's static build by nixpkgs, {tests} tests of virtual machines, the \
                 development shell, `nix run .#boot`{statix}; name one with SEPULCHER_NIXPKGS=FOLDER or \
                 SEPULCHER_NIXPKGS=locked"
            );
            return Ok(());
        }
        let (common, with) = (self.common(), self.nixpkgs.overriding());
        Ok(cmd!(self.shell, "nix {common...} flake check {with...} --print-build-logs").run()?)
    }

    /// Options of every call. With the host's tools nothing can come from elsewhere, and who starts it builds.
    fn common(&self) -> Vec<&'static str> {
        let mut options = vec!["--extra-experimental-features", "nix-command flakes"];
        if self.nixpkgs == Nixpkgs::Host {
            options.extend(alone());
        }
        options
    }
}

/// Options by which nothing is substituted and who starts it builds.
pub fn alone() -> [&'static str; 6] {
    ["--option", "substitute", "false", "--option", "build-users-group", ""]
}

/// Options of a sandbox that shows `paths` of the host.
pub fn sandbox(paths: &str) -> [&str; 6] {
    ["--option", "sandbox", "true", "--option", "sandbox-paths", paths]
}
