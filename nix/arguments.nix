# Checks of what `mkImage` is given. `mistake` is a sentence or null, so that it can be tested without a failure.
rec {
  mistake =
    {
      codex,
      name,
      version,
      system,
      ...
    }:
    if system != "x86_64-linux" then
      "mkImage: images are built on x86_64-linux only, not on ${system}: name a builder of that system in `nix.buildMachines`, and leave `system` away"
    else if !isReadable codex then
      "mkImage: `codex` is a text that names a folder outside of the store, which no build can read: write the path without quotes, e.g. codex = ./codex"
    else if !isCodex codex then
      "mkImage: `codex` must be a folder that holds lychd.toml, e.g. codex = ./codex, or the same written in Nix; `sepulcher init ./codex` writes one, and `git add` shows it to Nix"
    else if !isText "[a-z0-9][a-z0-9-]*" name then
      "mkImage: `name` must be lower-case letters, digits and -, e.g. name = \"home\""
    else if !isText "[A-Za-z0-9.^~-]{1,16}" version then
      "mkImage: `version` must be 1 to 16 letters, digits and `.-~^` in quotes, e.g. version = \"2\""
    else
      null;

  # The arguments, when nothing is wrong with them.
  check =
    given:
    let
      wrong = mistake given;
    in
    if wrong == null then given else throw wrong;

  isText = pattern: value: builtins.isString value && builtins.match pattern value != null;

  # Whether a build can read it, as far as that can be told: a text must name a place in the store.
  isReadable =
    value:
    !builtins.isString value
    ||
      builtins.substring 0 (builtins.stringLength builtins.storeDir + 1) value == "${builtins.storeDir}/";

  # What is built, or is a text that names a place in the store, is looked at by the program alone.
  isCodex =
    codex:
    if builtins.isPath codex then
      builtins.pathExists (codex + "/lychd.toml")
    else
      builtins.isString codex || codex ? outPath || codex ? appliance;
}
