//! `cargo xtask nix`: the second driver of the builder. Nix makes program and image in its sandbox, and the image must
//! be the one that cargo's driver makes, byte for byte.
//!
//! Without nixpkgs the flake is given `nix/host`: the same functions, from this machine's tools.
//! `SEPULCHER_NIXPKGS` names a nixpkgs to use instead, a folder or `locked` for the one in `flake.lock`; then the tests
//! of virtual machines run too.

mod claims;
mod flake;
mod lint;
mod ready;
mod store;

use std::path::Path;

use xshell::{Shell, cmd};

use crate::{Result, image, reproduce, root};
use flake::{Flake, Nixpkgs};
pub use ready::missing;

/// What the program is built with by `nix/host`, as it is seen in the sandbox.
const TOOLS: [&str; 5] = ["/bin", "/usr", "/lib", "/lib64", "/etc/alternatives"];
/// What the image is built with, besides what Nix put into the store: a shell and three of its companions.
const SHELL: &str = "/bin/sh /bin/mkdir /bin/ln /bin/mv /lib /lib64";

/// Runs everything.
pub fn run() -> Result<()> {
    ready::nix()?;
    let flake = Flake::new(Nixpkgs::named())?;
    let files = claims::files()?;
    claims::hold(&flake.shell, &files)?;
    lint::run(&flake.shell, &files)?;
    flake.show()?;
    if flake.nixpkgs == Nixpkgs::Host {
        store::fill(&flake.shell)?;
    }
    let rust = cmd!(flake.shell, "rustc --print sysroot").quiet().read()?;
    let tools = format!("{} /host/rust={rust}", TOOLS.join(" "));
    let program = flake.build("sepulcher", &tools, &[])?.join("bin/sepulcher");
    if flake.nixpkgs == Nixpkgs::Host {
        claims::mistakes(&flake.shell, &tools)?;
        claims::host_tree(&flake.shell, &tools)?;
        claims::template(&flake.shell, &program)?;
    }
    let rendered = flake.build("sepulcher-rendered", SHELL, &[])?;
    let image = flake.build("sepulcher-image", SHELL, &[])?;
    flake.build("sepulcher-image", SHELL, &["--rebuild"])?;
    println!("Nix built the image twice, the same bytes");
    let update = flake.build("sepulcher-update", SHELL, &[])?;
    compare(&program, &rendered, &image, &update)?;
    // They are large, and the next change makes others.
    flake.forget(&image)?;
    flake.forget(&update)?;
    flake.check()
}

/// The same Codex and the same agent, built by cargo's driver.
fn compare(program: &Path, rendered: &Path, built: &Path, update: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("sepulcher-nix-").tempdir()?;
    let out = folder.path().join("lychd.raw");
    let driver = image::program()?;
    let shell = Shell::new()?;
    shell.change_dir(root());
    let tree = folder.path().join("tree");
    cmd!(shell, "{driver} render examples/lychd --out {tree}").quiet().run()?;
    // The store keeps no permissions, so that they cannot be compared.
    cmd!(shell, "diff --recursive --no-dereference {tree} {rendered}").quiet().run()?;
    cmd!(shell, "{driver} image build examples/lychd --out {out} --program {program} --update --offline")
        .quiet()
        .run()?;
    for name in ["lychd.raw", "lychd.manifest.json", "SHA256SUMS"] {
        reproduce::same(&folder.path().join(name), &built.join(name))?;
    }
    let ours = folder.path().join("lychd_1.update");
    cmd!(shell, "diff --recursive {ours} {update}/lychd_1.update").quiet().run()?;
    println!("Nix and cargo rendered the same tree and built the same image and update, byte for byte");
    Ok(())
}
