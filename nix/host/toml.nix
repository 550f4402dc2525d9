# `pkgs.formats.toml`, as far as a Codex needs it: tables, arrays of tables, and values, which TOML writes as JSON does.
let
  isTable = value: builtins.isAttrs value;
  isTables = value: builtins.isList value && value != [ ] && builtins.all isTable value;
  isValue = value: !(isTable value || isTables value);
  # Names of keys are in the hands of whoever writes the Codex.
  key = name: if builtins.match "[A-Za-z0-9_-]+" name == null then builtins.toJSON name else name;

  value =
    value: if builtins.isList value then "[${concat ", " (map scalar value)}]" else scalar value;
  scalar =
    value:
    if isTable value then
      throw "formats.toml: a table among values cannot be written"
    else
      builtins.toJSON value;
  concat = builtins.concatStringsSep;
  lines = concat "";

  table =
    path: attrs:
    let
      names = builtins.attrNames attrs;
      pick = test: builtins.filter (name: test attrs.${name}) names;
      below = name: path ++ [ (key name) ];
      header = name: concat "." (below name);
    in
    lines (map (name: "${key name} = ${value attrs.${name}}\n") (pick isValue))
    + lines (map (name: "\n[${header name}]\n" + table (below name) attrs.${name}) (pick isTable))
    + lines (
      map (name: lines (map (one: "\n[[${header name}]]\n" + table (below name) one) attrs.${name})) (
        pick isTables
      )
    );
in
{
  type = {
    name = "a table of TOML";
    check = builtins.isAttrs;
  };
  generate = name: attrs: builtins.toFile name (table [ ] attrs);
  # The text alone, for tests.
  inherit table;
}
