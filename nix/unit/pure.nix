# Claims about the pure parts: locks, the source filter, arguments, a Codex in Nix.
let
  lock = import ../lock.nix;
  source = import ../source.nix;
  arguments = import ../arguments.nix;
  codex = import ../codex.nix;

  digest = builtins.hashString "sha256" "content";
  fails = value: !(builtins.tryEval (builtins.deepSeq value value)).success;

  package =
    fields:
    builtins.concatStringsSep "\n" (
      [
        "schema = 1"
        "[[package]]"
      ]
      ++ fields
    );
  whole = [
    ''name = "libc6"''
    ''archive = "debian-security"''
    ''path = "pool/updates/main/g/glibc/libc6_1%3a2_amd64.deb"''
    ''sha256 = "${digest}"''
  ];
  without = index: builtins.filter (field: field != builtins.elemAt whole index) whole;

  crate = source: checksum: ''
    [[package]]
    name = "own"
    version = "1.0.0"
    [[package]]
    name = "libc"
    version = "0.2.1"
    source = "${source}"
    ${checksum}
  '';
  registry = "registry+https://github.com/rust-lang/crates.io-index";

  # As nixpkgs' `fetchurl` answers: what it is asked for can be changed.
  fetched = import ../images.nix {
    images = ../../images;
    fetchurl = asked: asked // { overrideAttrs = change: asked // change asked; };
  };
  contains = part: text: builtins.replaceStrings [ part ] [ "" ] text != text;

  given = {
    codex = ../../examples/lychd;
    name = "home";
    version = "2";
    system = "x86_64-linux";
  };
  said = changes: toString (arguments.mistake (given // changes));
  mentions = word: text: builtins.match ".*${word}.*" text != null;
in
{
  "a package of the security archive is fetched from beside the main one, its % written as an address wants it" =
    lock.packages "x" (package whole) == [
      {
        name = "libc6";
        sha256 = digest;
        url = "mirror://debian/../debian-security/pool/updates/main/g/glibc/libc6_1%253a2_amd64.deb";
      }
    ];
  "a lock without packages asks for nothing" = lock.packages "x" "schema = 1" == [ ];
  "a lock of another schema is refused" = fails (lock.packages "x" "schema = 2");
  "a lock that does not say its schema is refused" = fails (lock.packages "x" "");
  "a package without a digest is refused" = fails (lock.packages "x" (package (without 3)));
  "a package without a path is refused" = fails (lock.packages "x" (package (without 2)));
  "a package whose name would be none in the store is refused" = fails (
    lock.packages "x" (package ([ ''name = "a b"'' ] ++ without 0))
  );
  "every package is fetched under its name, and one that left the mirror ends in a sentence with the remedy" =
    builtins.all (
      { file, ... }:
      contains "the package ${builtins.replaceStrings [ ".deb" ] [ "" ] file.name} of images/" file.gone
      && contains "renew the lock with `sepulcher lock " file.gone
      && contains "\"$gone\"" file.failureHook
    ) fetched
    && fetched != [ ];
  "a package of an unknown archive is refused" = fails (
    lock.packages "x" (package (without 1 ++ [ ''archive = "elsewhere"'' ]))
  );
  "what is no digest is refused" = fails (
    lock.packages "x" (package (without 3 ++ [ ''sha256 = "abc"'' ]))
  );
  "crates of the registry are fetched, the own ones are not" =
    lock.crates (crate registry ''checksum = "${digest}"'') == [
      {
        pname = "libc";
        version = "0.2.1";
        sha256 = digest;
      }
    ];
  "a crate without a checksum is refused" = fails (lock.crates (crate registry ""));
  "a crate from elsewhere is refused" = fails (
    lock.crates (crate "git+https://example.org/x" ''checksum = "${digest}"'')
  );
  "the own lock of crates can be read" = lock.crates (builtins.readFile ../../Cargo.lock) != [ ];
  "what two locks share is fetched once" =
    builtins.length (
      lock.distinct [
        { sha256 = "a"; }
        { sha256 = "b"; }
        { sha256 = "a"; }
      ]
    ) == 2;

  "the program's sources are in the source" = builtins.all source.wants [
    "Cargo.toml"
    "src"
    "src/image/lock.rs"
    "images/system/packages.lock"
    ".cargo/config.toml"
    "xtask/Cargo.toml"
  ];
  "documentation, tests and tools are not in the source" =
    !(builtins.any source.wants [
      "README.md"
      "srcs"
      "tests/it/main.rs"
      "xtask/src/main.rs"
      "nix/lock.nix"
      "target"
      ".git"
    ]);

  "the example is a Codex" = arguments.mistake given == null;
  "a result of another derivation may be a Codex" =
    arguments.mistake (given // { codex.outPath = "/x"; }) == null;
  "another system is refused with a remedy" = mentions "buildMachines" (said {
    system = "aarch64-linux";
  });
  "a folder without a Codex is refused with a remedy" = mentions "sepulcher init" (said {
    codex = ../../examples;
  });
  "a text that names a folder outside of the store is refused with a remedy" =
    mentions "without quotes"
      (said {
        codex = "/etc/nixos/codex";
      });
  "a text that names a place in the store may be a Codex" =
    arguments.mistake (given // { codex = "${builtins.storeDir}/x-source/codex"; }) == null;
  "a number as a version is refused with a remedy" = mentions "in quotes" (said {
    version = 2;
  });
  "a name that no file can have is refused" = mentions "`name`" (said {
    name = "a/b";
  });

  "a Codex in Nix becomes the files of the folder" =
    builtins.attrNames (
      codex.files {
        appliance.name = "home";
        services.web.description = "Web";
        peers.phone.address = "10.88.16.2";
      }
    ) == [
      "lychd.toml"
      "peers/phone.toml"
      "services/web.toml"
    ];
  "services and peers are not in lychd.toml" =
    (codex.files {
      appliance.name = "home";
      services.web = { };
    })."lychd.toml" == {
      appliance.name = "home";
    };
  "a service's name that leaves the folder is refused" = fails (
    codex.files {
      services."../web" = { };
    }
  );
}
