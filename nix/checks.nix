# What `nix flake check` runs: every package, the unit tests of the pure parts, and, with a real nixpkgs, each file of
# nix/tests as a test of virtual machines.
{
  pkgs,
  self,
  system,
}:
let
  failures = import ./unit;
  unit =
    if failures == [ ] then
      pkgs.runCommand "sepulcher-nix-unit" { } ''echo "all hold" > "$out"''
    else
      throw "unit tests of nix/: ${builtins.concatStringsSep "; " failures}";
in
self.packages.${system}
// {
  inherit unit;
}
// (
  if pkgs ? testers then
    import ./tests {
      inherit pkgs self;
    }
  else
    { }
)
