# What is to be fetched, told from the locks. Pure: text in, lists out; the fetchers are handed in by others.
let
  # A value of a field, or a sentence that says what is wrong with the lock.
  field =
    where: record: name:
    record.${name}
      or (throw "${where} lacks ${name}: make the lock anew (`sepulcher lock NAME`, `cargo update`)");

  digest =
    where: text:
    if builtins.match "[0-9a-f]{64}" text != null then
      text
    else
      throw "${where} has `${text}` where a SHA-256 digest must be: make the lock anew (`sepulcher lock NAME`, `cargo update`)";

  # It becomes a name in the store.
  name =
    where: text:
    if builtins.match "[a-z0-9][a-z0-9+.-]*" text != null then
      text
    else
      throw "${where} has a name that no package of Debian has: make the lock anew (`sepulcher lock NAME`)";

  # nixpkgs knows where Debian lies under this name, and NIX_MIRRORS_debian names another place. The security
  # archive lies beside the main one.
  folders = {
    debian = "mirror://debian";
    debian-security = "mirror://debian/../debian-security";
  };
  folder =
    where: archive:
    folders.${archive}
      or (throw "${where} lies in the archive `${archive}`, which is unknown; known are ${toString (builtins.attrNames folders)}");

  package =
    lock: record:
    let
      where = "${lock}: package ${record.name or "without a name"}";
      get = field where record;
    in
    {
      name = name where (get "name");
      sha256 = digest where (get "sha256");
      # A % in a pool path is a character, not an escape.
      url = "${folder where (get "archive")}/${builtins.replaceStrings [ "%" ] [ "%25" ] (get "path")}";
    };

  # The program's own crates are in the source; everything else must come from the registry, with a digest.
  registry = "registry+https://github.com/rust-lang/crates.io-index";
  crate =
    record:
    let
      where = "Cargo.lock: crate ${record.name or "without a name"}";
      get = field where record;
    in
    if get "source" != registry then
      throw "${where} comes from ${record.source}: only crates of the registry can be fetched by digest"
    else
      {
        pname = get "name";
        version = get "version";
        sha256 = digest where (get "checksum");
      };
in
{
  # Packages of `packages.lock`; `name` is for sentences.
  packages =
    name: text:
    let
      lock = builtins.fromTOML text;
    in
    if lock.schema or null != 1 then
      throw "${name} has schema ${
        builtins.toJSON (lock.schema or null)
      }, this reads 1: use the sources that the lock was made with"
    else
      map (package name) (lock.package or [ ]);

  # Crates of `Cargo.lock`.
  crates =
    text: map crate (builtins.filter (record: record ? source) (builtins.fromTOML text).package or [ ]);

  # Each element once, told apart by its digest.
  distinct =
    list:
    builtins.attrValues (
      builtins.listToAttrs (
        map (value: {
          name = value.sha256;
          inherit value;
        }) list
      )
    );
}
