//! What is asked of the Nix code besides the image: unit tests, mistakes that end in a sentence, what a NixOS host gets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use xshell::{Shell, cmd};

use super::flake::{alone, sandbox};
use crate::{Result, root};

/// A mistake, and what must be said about it.
struct Mistake {
    what: &'static str,
    /// A Nix expression that is built in the repository's top folder.
    expression: &'static str,
    said: &'static [&'static str],
}

const MISTAKES: [Mistake; 9] = [
    Mistake {
        what: "a lock without a digest",
        expression: r#"(import ./nix/lock.nix).packages "x/packages.lock" "schema = 1\n[[package]]\nname = \"libc6\"""#,
        said: &["x/packages.lock: package libc6 lacks sha256", "make the lock anew"],
    },
    Mistake {
        what: "another system",
        expression: r#"mkImage { codex = ./examples/lychd; system = "aarch64-linux"; }"#,
        said: &["images are built on x86_64-linux only, not on aarch64-linux", "nix.buildMachines"],
    },
    Mistake {
        what: "a folder that is no Codex",
        expression: "mkImage { codex = ./examples; }",
        said: &["`codex` must be a folder that holds lychd.toml", "sepulcher init"],
    },
    Mistake {
        what: "a folder outside of the store, as a text",
        expression: r#"mkImage { codex = "/etc/nixos/codex"; }"#,
        said: &["names a folder outside of the store", "without quotes"],
    },
    Mistake {
        what: "a package that is not in the store and whose mirror is out of reach",
        expression: r#"pkgs.fetchurl { name = "gone.deb"; sha256 = builtins.hashString "sha256" "gone"; }"#,
        said: &["gone.deb is not in the store", "renew the lock with `sepulcher lock NAME`"],
    },
    Mistake {
        what: "a Codex with a mistake",
        expression: "mkImage { codex = ./tests/reject/names-that-are-none; }",
        said: &[
            "a name has only lower-case letters, digits and `-`",
            "lychd.toml:3:8",
            "a name is like `oculus`",
        ],
    },
    Mistake {
        what: "a Codex in Nix with a mistake",
        expression: r#"mkImage { codex = { schema = 1; appliance.name = "home"; services.web.rootfs = 3; }; }"#,
        said: &["services/web.toml:"],
    },
    Mistake {
        what: "a host that did not ask for a forest",
        expression: FORBIDDEN_FOREST,
        said: &["publishes ports to everybody", "services.sepulcher.openForest = true"],
    },
    Mistake {
        what: "a host whose Codex has the state encrypted",
        expression: "import ./nix/host-tree.nix { inherit (pkgs) runCommand fetchurl; inherit sepulcher; }
    { codex = ./tests/golden/v6/codex; name = \"six\"; peers = null; openForest = true; }",
        said: &["has the state encrypted", "take encryption out of [state]"],
    },
];

/// The tree of a host that carries the example, and does not say that it may have a forest.
const FORBIDDEN_FOREST: &str =
    "import ./nix/host-tree.nix { inherit (pkgs) runCommand fetchurl; inherit sepulcher; }
    { codex = ./examples/lychd; name = \"lychd\"; peers = null; openForest = false; }";

/// What the expressions may use.
const SCOPE: &str = r#"let
    pkgs = import ./nix/host { system = "x86_64-linux"; };
    sepulcher = pkgs.callPackage ./nix/package.nix { };
    mkImage = import ./nix/mk-image.nix { inherit pkgs sepulcher; };
in "#;

/// Parses all Nix code, and evaluates the unit tests.
pub fn hold(shell: &Shell, files: &[PathBuf]) -> Result<()> {
    cmd!(shell, "nix-instantiate --parse {files...}").quiet().ignore_stdout().ignore_stderr().run()?;
    let failed =
        cmd!(shell, "nix-instantiate --eval --strict --json nix/unit").quiet().ignore_stderr().read()?;
    if failed.trim() != "[]" {
        return Err(format!("unit tests of nix/ that do not hold: {failed}").into());
    }
    println!("{} files of Nix parsed, unit tests hold", files.len());
    Ok(())
}

/// Each mistake fails, and with its sentences.
pub fn mistakes(shell: &Shell, tools: &str) -> Result<()> {
    for Mistake { what, expression, said } in &MISTAKES {
        let output = build(shell, tools, expression)?;
        let told = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Err(format!("{what} was not refused").into());
        }
        if let Some(missing) = said.iter().find(|sentence| !told.contains(**sentence)) {
            return Err(format!("{what} is refused without saying `{missing}`:\n{told}").into());
        }
    }
    println!("{} mistakes are refused with a sentence", MISTAKES.len());
    Ok(())
}

/// What a NixOS host gets, of a Codex that publishes ports to everybody.
pub fn host_tree(shell: &Shell, tools: &str) -> Result<()> {
    let output = build(shell, tools, &FORBIDDEN_FOREST.replace("openForest = false", "openForest = true"))?;
    if !output.status.success() {
        return Err(format!("no tree for a NixOS host:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let tree = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let units = tree.join("lib/systemd/system");
    let there = [
        tree.join("table.nft"),
        tree.join("usr/lib/sepulcher/roots/tether/usr/bin/sepulcher"),
        tree.join("usr/share/containers/systemd/lychd.pod"),
        tree.join("usr/share/sepulcher/codex/peers/phone.toml"),
        tree.join("lib/tmpfiles.d/sepulcher.conf"),
        units.join("sepulcher-awaken.service"),
        units.join("sepulcher-control.socket"),
        units.join("sepulcher-health.service"),
        units.join("sepulcher-resolv.service"),
    ];
    if let Some(missing) = there.iter().find(|path| !path.exists()) {
        return Err(format!("a NixOS host does not get {}", missing.display()).into());
    }
    let golden = root().join("tests/golden/lychd/expected/usr/lib/tmpfiles.d/sepulcher.conf");
    if fs::read(tree.join("lib/tmpfiles.d/sepulcher.conf"))? != fs::read(golden)? {
        return Err("a NixOS host makes other folders than the appliance".into());
    }
    if let Some(unit) = ELSEWHERE.iter().find(|unit| units.join(unit).exists()) {
        return Err(format!("a NixOS host gets {unit}, which it has its own way for").into());
    }
    if fs::read_to_string(units.join("sepulcher-health.service"))?.contains("fall-back") {
        return Err("a NixOS host falls back to a body that it does not have".into());
    }
    quadlets(&tree)?;
    println!("the tree of a NixOS host is whole");
    Ok(())
}

/// Units of the appliance that have no place on a NixOS host.
const ELSEWHERE: [&str; 6] = [
    "sepulcher-console@.service",
    "sepulcher-fall-back.service",
    "sepulcher-fall-back.timer",
    "sepulcher-firewall.service",
    "sepulcher-reactor.path",
    "sepulcher-reactor.service",
];

/// The quadlets of a NixOS host are those of the golden tree, and whoever may write to its root has a folder /tmp for it.
fn quadlets(tree: &Path) -> Result<()> {
    const WRITABLE: &str = "Tmpfs=/tmp:rw,mode=1777";
    let place = "usr/share/containers/systemd";
    let golden = root().join("tests/golden/lychd/expected").join(place);
    for entry in fs::read_dir(golden)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let rendered = fs::read_to_string(&path)?;
        let sealed = rendered.lines().any(|line| line == "ReadOnly=true");
        let expected = rendered.lines().flat_map(|line| {
            let writable = line.starts_with("Rootfs=") && !sealed;
            std::iter::once(line).chain(writable.then_some(WRITABLE))
        });
        let found = fs::read_to_string(tree.join(place).join(&name))?;
        if !found.lines().eq(expected) {
            return Err(
                format!("{} on a NixOS host is not what it should be:\n{found}", path.display()).into()
            );
        }
    }
    Ok(())
}

/// Builds an expression in the scope of [`SCOPE`].
fn build(shell: &Shell, tools: &str, expression: &str) -> Result<Output> {
    let expression = format!("{SCOPE}{expression}");
    let (alone, sandbox) = (alone(), sandbox(tools));
    let build = cmd!(shell, "nix-build --no-out-link {alone...} {sandbox...} --expr {expression}");
    Ok(build.quiet().ignore_status().output()?)
}

/// The template asks for an image that can be built, of a Codex without a mistake.
pub fn template(shell: &Shell, program: &Path) -> Result<()> {
    let (root, alone) = (root(), alone());
    let features = ["--extra-experimental-features", "nix-command flakes"];
    let ours = format!("git+file://{}", root.display());
    let host = format!("path:{}/nix/host", root.display());
    let with = ["--override-input", "sepulcher", &ours, "--override-input", "sepulcher/nixpkgs", &host];
    let image = "./examples/flake#packages.x86_64-linux.default.drvPath";
    cmd!(shell, "nix {features...} eval {image} {alone...} {with...} --no-write-lock-file")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()?;
    Ok(cmd!(shell, "{program} check examples/flake/codex").quiet().ignore_stdout().run()?)
}

/// All Nix code of the repository.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut found = ["flake.nix", "examples/flake/flake.nix"].map(|file| root().join(file)).to_vec();
    collect(&root().join("nix"), &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "nix") {
            found.push(path);
        }
    }
    Ok(())
}
