//! Nix itself: Debian's package, installed when this machine has none.

use xshell::{Shell, cmd};

use crate::{Result, reproduce};

/// Makes sure that `nix` can be called.
pub fn nix() -> Result<()> {
    let shell = Shell::new()?;
    if cmd!(shell, "nix --version").quiet().ignore_stdout().ignore_stderr().run().is_ok() {
        return Ok(());
    }
    if !reproduce::is_root() {
        return Err(
            "there is no nix: install it (Debian: apt-get install nix-bin), or run this as root".into()
        );
    }
    eprintln!("nix: installing Debian's nix-bin");
    let install = || {
        let options = ["install", "--yes", "--quiet", "--no-install-recommends", "nix-bin"];
        cmd!(shell, "apt-get {options...}").env("DEBIAN_FRONTEND", "noninteractive").ignore_stdout().run()
    };
    // The lists of packages may be missing, or older than the mirror.
    if install().is_err() {
        cmd!(shell, "apt-get update --quiet").ignore_stdout().run()?;
        install()?;
    }
    Ok(())
}
