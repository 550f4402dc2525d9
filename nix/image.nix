# The sealed image of a Codex, made by the program from packages that Nix fetched. The builder sees no network. Its output
# `update` is the same body as an update, which somebody signs elsewhere: a key has no place in the store.
{
  runCommand,
  fetchurl,
  sepulcher,
}:
{
  # Folder of the Codex, in the store.
  codex,
  # The image becomes NAME.raw.
  name,
  version,
  # Folder of image definitions; what the program was built with when null.
  images,
}:
let
  packages = import ./images.nix {
    inherit fetchurl;
    images = if images == null then ../images else images;
  };
in
runCommand "${name}-image-${version}"
  {
    inherit codex version;
    outputs = [
      "out"
      "update"
    ];
    # `name` is the derivation's own.
    target = "${name}.raw";
    debs = builtins.concatStringsSep "" (map ({ sha256, file }: "${sha256} ${file}\n") packages);
    passAsFile = [ "debs" ];
    program = "${sepulcher}/bin/sepulcher";
    definitions = if images == null then [ ] else [ "--images=${images}" ];
  }
  ''
    # The standard environment counts time from 1980; an image has a time of its own, whoever builds it.
    unset SOURCE_DATE_EPOCH
    export SEPULCHER_CACHE="$NIX_BUILD_TOP/cache"
    mkdir -p "$SEPULCHER_CACHE/debs" "$out"
    while read -r digest file; do
      ln -s "$file" "$SEPULCHER_CACHE/debs/$digest.deb"
    done < "$debsPath"
    "$program" image build "$codex" --out "$out/$target" --version "$version" --update --offline --locked $definitions
    mkdir "$update"
    mv "$out"/*.update "$update"
  ''
