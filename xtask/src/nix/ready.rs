//! Nix itself: Debian's package, installed when this machine has none.

use xshell::{Shell, cmd};

use crate::{Result, reproduce};

/// Why there is no Nix and none can be installed.
pub fn missing() -> Option<&'static str> {
    let installable = reproduce::is_root() && has("apt-get");
    (!has("nix") && !installable).then_some(
        "there is no Nix: install it (Debian: apt-get install nix-bin), or run this as root on Debian",
    )
}

/// Whether a program is there.
pub fn has(program: &str) -> bool {
    Shell::new().is_ok_and(|shell| {
        cmd!(shell, "{program} --version").quiet().ignore_stdout().ignore_stderr().run().is_ok()
    })
}

/// Makes sure that `nix` can be called.
pub fn nix() -> Result<()> {
    if let Some(reason) = missing() {
        return Err(reason.into());
    }
    if has("nix") {
        return Ok(());
    }
    eprintln!("nix: installing Debian's nix-bin");
    let shell = Shell::new()?;
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
