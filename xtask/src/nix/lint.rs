//! Unused code and formatting of all Nix code, by pinned tools that cargo installs below `target`; and statix, where it is.

use std::path::PathBuf;

use xshell::{Shell, cmd};

use super::ready;
use crate::{Result, root};

/// A tool as cargo installs it.
struct Tool {
    package: &'static str,
    version: &'static str,
    program: &'static str,
}

const UNUSED: Tool = Tool { package: "deadnix", version: "1.3.1", program: "deadnix" };
/// Formats as nixpkgs' nixfmt does, which `nix fmt` runs.
const FORMAT: Tool = Tool { package: "nixfmt_rs", version: "0.5.3", program: "nixfmt" };

/// Checks `files`; without the tools and without a registry to get them from says so, and fails when `CI` is set.
pub fn run(shell: &Shell, files: &[PathBuf]) -> Result<()> {
    let (Ok(unused), Ok(format)) = (UNUSED.path(shell), FORMAT.path(shell)) else {
        let reason = "cargo cannot install deadnix and nixfmt_rs";
        if std::env::var_os("CI").is_some() {
            return Err(format!("formatting and unused code of Nix cannot be checked: {reason}").into());
        }
        println!("skipped: formatting and unused code of Nix: {reason}");
        return Ok(());
    };
    cmd!(shell, "{unused} --fail {files...}").quiet().run()?;
    cmd!(shell, "{format} --check {files...}").quiet().run().map_err(|_| "format it with `nix fmt`")?;
    println!("Nix code is formatted, and none of it is unused");
    statix(shell)
}

/// Neither Debian nor crates.io has statix.
fn statix(shell: &Shell) -> Result<()> {
    if !ready::has("statix") {
        println!(
            "not run: `statix check`, which is not on PATH: the development shell (`nix develop`) has it"
        );
        return Ok(());
    }
    for place in ["flake.nix", "examples/flake", "nix"] {
        cmd!(shell, "statix check {place}").quiet().run()?;
    }
    println!("statix has nothing against the Nix code");
    Ok(())
}

impl Tool {
    /// Where it is, installed when it is not there yet.
    fn path(&self, shell: &Shell) -> Result<PathBuf> {
        let Self { package, version, program } = self;
        let folder = root().join(format!("target/nix-tools/{package}-{version}"));
        let path = folder.join("bin").join(program);
        if !path.exists() {
            // The repository's own target and flags are those of the appliance's program.
            let _away = shell.push_dir("/");
            cmd!(shell, "cargo install --quiet --locked --root {folder} --version {version} {package}")
                .run()?;
        }
        Ok(path)
    }
}
