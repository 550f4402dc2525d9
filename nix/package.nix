# The program, statically linked: it is the tool on the workstation and the agent inside the image. Call it with the
# static package set (`pkgsStatic.callPackage`).
{
  buildPackages,
  rustPlatform,
}:
let
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  inherit (manifest.package) version;
  src = (import ./source.nix).of ../.;
  # Cargo also wants to see that it has something to build; what that is matters to nobody here.
  postPatch = ''
    mkdir xtask/src
    echo 'fn main() {}' > xtask/src/main.rs
  '';
  cargoDeps = import ./vendor.nix {
    inherit (buildPackages) fetchCrate runCommand;
    cargoLock = ../Cargo.lock;
  };
  cargoBuildFlags = [
    "--package"
    manifest.package.name
  ];
  # What cargo's wrapper would write into the program tells nothing that the manifest does not.
  auditable = false;
  # The tests need what a build may not have: toolboxes, namespaces, the repository. `cargo xtask ci` runs them.
  doCheck = false;
  meta = {
    inherit (manifest.package) description;
    mainProgram = manifest.package.name;
    platforms = [ "x86_64-linux" ];
  };
}
