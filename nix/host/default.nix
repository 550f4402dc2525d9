# Stand-ins for functions of nixpkgs, with the arguments that we use.
{ system }:
let
  # `script` with the host's shell. The sandbox shows it to the builder, and the programs that `cargo xtask nix` names.
  run =
    name: env: script:
    let
      built = derivation (
        env
        // {
          inherit name system script;
          builder = "/bin/sh";
          args = [
            "-eu"
            "-c"
            ''. "$scriptPath"''
          ];
          passAsFile = (env.passAsFile or [ ]) ++ [ "script" ];
          PATH = "/host/rust/bin:/usr/bin:/bin";
        }
      );
      # As nixpkgs has it: `nix build` of one output builds that one.
      chosen = output: {
        name = output;
        value = built.${output} // {
          outputSpecified = true;
        };
      };
    in
    built // builtins.listToAttrs (map chosen (env.outputs or [ ]));

  # A file in the store under `name` and its digest. Nothing is fetched here: the file is there, or the sentence about `what`
  # is.
  fixed =
    what: name: sha256:
    derivation {
      inherit name system;
      builder = "/bin/sh";
      args = [
        "-c"
        "echo '${what} is not in the store: `cargo xtask nix` puts it there; when its mirror has dropped it, renew the lock with `sepulcher lock NAME`' >&2; exit 1"
      ];
      outputHash = sha256;
      outputHashAlgo = "sha256";
      outputHashMode = "flat";
    };

  # What only nixpkgs has: it can be looked at and not be built.
  absent =
    name:
    run name { }
      "echo '${name} comes from nixpkgs, which nix/host stands in for: use the flake without --override-input' >&2; exit 1";
  names = [
    "cargo"
    "clippy"
    "deadnix"
    "nixfmt-tree"
    "qemu"
    "rust-analyzer"
    "rustc"
    "rustfmt"
    "statix"
  ];
  absentees = builtins.listToAttrs (
    map (name: {
      inherit name;
      value = absent name;
    }) names
  );

  self = absentees // {
    runCommand = run;
    # Under the names that the program's cache has for packages.
    fetchurl = { name, sha256, ... }: fixed name "${sha256}.deb" sha256;
    fetchCrate =
      {
        pname,
        version,
        sha256,
        ...
      }:
      let
        crate = "${pname}-${version}.crate";
      in
      fixed crate crate sha256;
    # The source says how it is linked: statically.
    rustPlatform.buildRustPackage = import ./rust.nix run;
    formats.toml = _: import ./toml.nix;
    nftables = absent "nftables";
    podman = absent "podman";
    util-linux = absent "util-linux";
    writeShellApplication = { name, ... }: absent name;
    mkShell = _: absent "shell";
    glibc.static = absent "glibc-static";
    OVMF = {
      firmware = absent "OVMF_CODE.fd";
      variables = absent "OVMF_VARS.fd";
    };
    stdenv.hostPlatform = { inherit system; };
    pkgsStatic = self;
    buildPackages = self;
    callPackage =
      path: more:
      let
        function = import path;
      in
      function (builtins.intersectAttrs (builtins.functionArgs function) self // more);
  };
in
self
