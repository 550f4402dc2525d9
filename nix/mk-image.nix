# `lib.mkImage`: the image of anybody's Codex. What is wrong with the arguments is said before anything is built.
{ pkgs, sepulcher }:
{
  # Folder of the Codex, e.g. ./codex, or the same in Nix: { appliance = …; services.NAME = …; peers.NAME = …; }.
  codex,
  # The image becomes NAME.raw.
  name ? "sepulcher",
  version ? "1",
  # Folder of image definitions of your own, e.g. ./images.
  images ? null,
  system ? "x86_64-linux",
}:
let
  checked = (import ./arguments.nix).check {
    inherit
      codex
      name
      version
      system
      ;
  };
  image = import ./image.nix {
    inherit (pkgs) runCommand fetchurl;
    inherit sepulcher;
  };
in
image {
  codex = (import ./codex.nix).folder pkgs checked.codex;
  inherit (checked) name version;
  inherit images;
}
