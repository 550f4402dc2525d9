# The functions of nixpkgs that the image is built with, made from the host's own tools: for machines that cannot reach
# nixpkgs. `cargo xtask nix` uses it in place of the input nixpkgs, and puts what is to be fetched into the store first.
{
  description = "What sepulcher takes from nixpkgs, from the host's tools";

  outputs = _: {
    legacyPackages.x86_64-linux = import ./default.nix { system = "x86_64-linux"; };
  };
}
