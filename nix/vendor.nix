# The crates of Cargo.lock as cargo wants to find them when it may not use the network: a folder each.
{
  fetchCrate,
  runCommand,
  cargoLock,
}:
let
  lock = import ./lock.nix;

  # Lines "name-version digest file".
  line =
    {
      pname,
      version,
      sha256,
    }:
    let
      # The file itself: the digest in Cargo.lock is of the archive, not of what is in it.
      file = fetchCrate {
        inherit pname version sha256;
        unpack = false;
      };
    in
    "${pname}-${version} ${sha256} ${file}\n";
in
runCommand "sepulcher-crates"
  {
    crates = builtins.concatStringsSep "" (map line (lock.crates (builtins.readFile cargoLock)));
    passAsFile = [ "crates" ];
    inherit cargoLock;
  }
  ''
    mkdir "$out"
    # nixpkgs compares it with the one in the source.
    cp "$cargoLock" "$out/Cargo.lock"
    while read -r name digest file; do
      tar -xzf "$file" -C "$out"
      # Without a list of files cargo checks the archive's digest against Cargo.lock alone.
      printf '{"files":{},"package":"%s"}' "$digest" > "$out/$name/.cargo-checksum.json"
    done < "$cratesPath"
  ''
