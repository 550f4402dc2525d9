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
    image:
    let
      path = images + "/${image}/packages.lock";
      packages = lock.packages "${image}/packages.lock" (builtins.readFile path);
    in
    if builtins.pathExists path then
      map (package: package // { inherit image; }) packages
    else
      throw "images/${image}/packages.lock does not exist: make it with `sepulcher lock ${image}`, and `git add` it";

  fetch =
    {
      name,
      sha256,
      url,
      image,
    }:
    let
      package = fetchurl {
        # Pool paths hold characters that names in the store cannot.
        name = "${name}.deb";
        inherit url sha256;
      };
      # Mirrors keep what is current: a lock ages.
      gone = ''
        error: no mirror has the package ${name} of images/${image}/packages.lock any more, or none is in reach
        hint: renew the lock with `sepulcher lock ${image}`, or name another mirror in NIX_MIRRORS_debian
      '';
    in
    {
      inherit sha256;
      # nixpkgs' standard environment runs the hook when the fetch fails.
      file =
        if package ? overrideAttrs then
          package.overrideAttrs (_: {
            inherit gone;
            failureHook = ''printf %s "$gone" >&2'';
          })
        else
          package;
    };
in
map fetch (lock.distinct (builtins.concatMap locked names))
