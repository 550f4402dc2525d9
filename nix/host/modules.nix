# A module system as small as one module needs: its options with their types, and what it sets held against the options
# that `known` lists. For machines without nixpkgs; the real one is used by the tests in nix/tests.
let
  type = name: check: { inherit name check; };

  lib = rec {
    types = rec {
      bool = type "a boolean" builtins.isBool;
      path = type "a path" (
        value: builtins.isPath value || (builtins.isString value && builtins.substring 0 1 value == "/")
      );
      package = type "a package" (value: value ? outPath);
      either =
        one: other: type "${one.name} or ${other.name}" (value: one.check value || other.check value);
      nullOr = inner: type "null or ${inner.name}" (value: value == null || inner.check value);
    };
    mkOption = option: option;
    mkEnableOption =
      what:
      mkOption {
        type = types.bool;
        default = false;
        description = "Whether to enable ${what}.";
      };
    mkIf = condition: content: if condition then content else { };
    # Priorities matter between modules, and there is one.
    mkDefault = value: value;
    literalExpression = text: { inherit text; };
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: list: if condition then list else [ ];
  };

  valueOf =
    name: option: settings:
    if !(settings ? ${name}) then
      option.default or (throw "the option `${name}` is used but not defined")
    else if option.type.check settings.${name} then
      settings.${name}
    else
      throw "the option `${name}` is not ${option.type.name}";

  # Sentences about what is set and is no option that `known` lists, or has another shape.
  strays =
    path: known: value:
    if builtins.isFunction known then
      lib.optional (!known value) "${path} does not have the shape of that option"
    else
      builtins.concatMap (
        name:
        let
          next = known.${name} or known."*" or null;
        in
        if next == null then
          [ "${path}${name} is not an option that was looked up" ]
        else
          strays "${path}${name}." next value.${name}
      ) (builtins.attrNames value);
in
{
  # The module's options below `services.sepulcher` and what it sets, for `settings` of these options on a host with
  # the values `host` of other modules' options.
  evaluate =
    {
      module,
      pkgs,
      known,
      host,
      settings,
    }:
    let
      result = module {
        inherit lib pkgs;
        config = host // {
          services = host.services // {
            sepulcher = values;
          };
        };
      };
      options = result.options.services.sepulcher;
      values = builtins.mapAttrs (name: option: valueOf name option settings) options;
    in
    {
      inherit options;
      inherit (result) config;
      strays = strays "" known result.config;
    };
}
