# A Codex written in Nix: { appliance = …; services.NAME = …; peers.NAME = …; } becomes the folder that the program
# reads. What is in it is judged by the program, as in any other Codex.
let
  folders = [
    "services"
    "peers"
  ];

  # The file of a service or peer. Nix must not write outside of the folder; the program says what else is wrong.
  file =
    folder: name:
    if builtins.match "[a-z0-9][a-z0-9-]*" name == null then
      throw "codex: `${folder}.${name}` is not a name: use lower-case letters, digits and -"
    else
      "${folder}/${name}.toml";

  entries =
    codex: folder:
    map (name: {
      name = file folder name;
      value = codex.${folder}.${name};
    }) (builtins.attrNames (codex.${folder} or { }));
in
rec {
  # Path in the folder → what its TOML holds.
  files =
    codex:
    {
      "lychd.toml" = removeAttrs codex folders;
    }
    // builtins.listToAttrs (builtins.concatMap (entries codex) folders);

  # The folder in the store, of a Codex as a path, as a result of another derivation, or in Nix.
  folder =
    { formats, runCommand, ... }:
    codex:
    if builtins.isPath codex then
      builtins.path {
        path = codex;
        name = "codex";
      }
    else if builtins.isString codex || codex ? outPath then
      codex
    else
      write { inherit formats runCommand; } codex;

  write =
    { formats, runCommand }:
    codex:
    let
      toml = formats.toml { };
      tree = files codex;
      line = path: "${path} ${toml.generate (builtins.baseNameOf path) tree.${path}}\n";
    in
    runCommand "codex"
      {
        list = builtins.concatStringsSep "" (map line (builtins.attrNames tree));
        passAsFile = [ "list" ];
      }
      ''
        mkdir -p "$out/services" "$out/peers"
        while read -r path file; do
          cp "$file" "$out/$path"
        done < "$listPath"
      '';
}
