# `lib.mkImage`: the image of anybody's Codex. What is wrong with the arguments is said before anything is built.
{ pkgs }:
let
  arguments = import ./arguments.nix;
in
{
  # Folder of the Codex, e.g. ./codex.
  codex,
  # The image becomes NAME.raw.
  name ? "sepulcher",
  version ? "1",
  # Folder of image definitions of your own, e.g. ./images.
  images ? null,
  system ? "x86_64-linux",
}@given:
let
  checked = arguments.check ({ inherit name version system; } // given);
  image = import ./image.nix {
    inherit (pkgs) runCommand fetchurl;
    sepulcher = pkgs.pkgsStatic.callPackage ./package.nix { };
  };
in
image {
  codex = arguments.folder checked.codex;
  inherit (checked) name version;
  inherit images;
}
