# The packages that the builder needs for a folder of image definitions: those of every image, and its tools. Which
# images a Codex really uses only the program can tell, and it runs when the packages are there.
{ fetchurl, images }:
let
  lock = import ./lock.nix;

  # Toolboxes other than the builder's are for tests.
  wanted =
    name: type:
    type == "directory" && (name == "tools-build" || builtins.match "tools-.*" name == null);

  entries = builtins.readDir images;
  names = builtins.filter (name: wanted name entries.${name}) (builtins.attrNames entries);

  locked =
    name:
    let
      path = images + "/${name}/packages.lock";
    in
    if builtins.pathExists path then
      lock.packages "${name}/packages.lock" (builtins.readFile path)
    else
      throw "images/${name}/packages.lock does not exist: make it with `sepulcher lock ${name}`, and `git add` it";

  fetch =
    { sha256, url, ... }:
    {
      inherit sha256;
      # Pool paths hold characters that names in the store cannot; the digest is a name for every package.
      file = fetchurl {
        name = "${sha256}.deb";
        inherit url sha256;
      };
    };
in
map fetch (lock.distinct (builtins.concatMap locked names))
