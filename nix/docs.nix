# nix/MODULE.md, from the options of the module: `nix eval --raw --file nix/docs.nix > nix/MODULE.md`.
let
  system = "x86_64-linux";
  inherit
    ((import ./host/modules.nix).evaluate {
      module = import ./module.nix { self = throw "documentation needs no package"; };
      pkgs = import ./host { inherit system; };
      known = { };
      host = {
        networking.nftables.flushRuleset = false;
        services.openssh.enable = false;
        virtualisation.docker.enable = false;
        virtualisation.libvirtd.enable = false;
      };
      settings = { };
    })
    options
    ;

  value =
    option:
    if option ? defaultText then
      option.defaultText.text
    else if option ? default then
      builtins.toJSON option.default
    else
      null;

  # Texts of several lines end with one.
  trimmed = text: builtins.head (builtins.match "(.*[^\n])\n*" text);

  line = label: text: if text == null then "" else "- ${label}: `${text}`\n";

  section =
    name:
    let
      option = options.${name};
    in
    ''

      ## `services.sepulcher.${name}`

    ''
    + "${trimmed option.description}\n\n- type: ${option.type.name}\n"
    + line "default" (value option)
    + line "example" (option.example.text or null);
in
"# Options of the NixOS module\n\nMade by `nix eval --raw --file nix/docs.nix`.\n"
+ builtins.concatStringsSep "" (map section (builtins.attrNames options))
