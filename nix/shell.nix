# What `cargo xtask ci` needs on NixOS, and what checks Nix code. Helper programs come out of locked packages.
{ pkgs }:
pkgs.mkShell {
  packages = [
    pkgs.cargo
    pkgs.clippy
    pkgs.deadnix
    pkgs.nixfmt-tree
    pkgs.rust-analyzer
    pkgs.rustc
    pkgs.rustfmt
    pkgs.statix
  ];
  # The program is linked statically: its C library must be there as an archive, too.
  buildInputs = [ pkgs.glibc.static ];
}
