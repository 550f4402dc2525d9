# Claims about the NixOS module, held by a small module system: no build, no nixpkgs.
let
  system = "x86_64-linux";
  pkgs = import ../host { inherit system; };
  known = import ../host/options.nix;
  package = pkgs.runCommand "sepulcher" { } "";

  evaluate =
    changes: settings:
    (import ../host/modules.nix).evaluate {
      module = import ../module.nix { self.packages.${system}.sepulcher = package; };
      inherit pkgs known settings;
      host = {
        networking.nftables.flushRuleset = changes.flush or false;
        services.openssh.enable = changes.ssh or false;
        virtualisation.docker.enable = changes.docker or false;
        virtualisation.libvirtd.enable = changes.libvirt or false;
      };
    };

  enabled = {
    enable = true;
    codex = ../../examples/lychd;
  };
  on = evaluate { } enabled;
  inherit (on.config.systemd) services;
  sysctl = on.config.boot.kernel.sysctl;
  applianceSysctl = builtins.readFile ../../images/system/tree/usr/lib/sysctl.d/50-sepulcher.conf;
  lines =
    line: text: builtins.elem line (builtins.filter builtins.isString (builtins.split "\n" text));
  fails = value: !(builtins.tryEval (builtins.deepSeq value value)).success;
  # Where a derivation's own text is what is asked about, not what it builds.
  plain = text: builtins.unsafeDiscardStringContext text;
  broken = result: builtins.filter (one: !one.assertion) result.config.assertions;

  # Names of options as they are written in the documentation.
  names =
    path: value:
    if builtins.isFunction value then
      [ path ]
    else
      builtins.concatMap (name: names (if path == "" then name else "${path}.${name}") value.${name}) (
        builtins.attrNames value
      );
  documented = builtins.readFile ../OPTIONS.md;
  isDocumented = name: builtins.replaceStrings [ "`${name}`" ] [ "" ] documented != documented;
in
{
  "a module that is not enabled sets nothing" = (evaluate { } { }).config == { };
  "every option that the module sets was looked up, and has its shape" = on.strays == [ ];
  "every option that was looked up is in OPTIONS.md" = builtins.all isDocumented (names "" known);
  "every option of the module has a description" = builtins.all (
    name: builtins.isString (on.options.${name}.description or null)
  ) (builtins.attrNames on.options);
  "MODULE.md is what `nix eval --raw --file nix/docs.nix` makes" =
    builtins.readFile ../MODULE.md == import ../docs.nix;
  "the ruleset is one table of its own, so that nothing is flushed" =
    builtins.attrNames on.config.networking.nftables == [
      "enable"
      "tables"
    ]
    && builtins.attrNames on.config.networking.nftables.tables == [ "sepulcher" ];
  "a host that flushes the ruleset is refused with a remedy" =
    map (one: one.message) (broken (evaluate { flush = true; } enabled)) == [
      "services.sepulcher: networking.nftables.flushRuleset wipes Podman's table on every reload. Set it to false, and write rules as networking.nftables.tables instead of ruleset or rulesetFile."
    ];
  "a host that does not is fine" = broken on == [ ] && on.config.warnings == [ ];
  "whoever has SSH open is told that it closes" =
    builtins.length (evaluate { ssh = true; } enabled).config.warnings == 1;
  "whoever runs Docker or libvirt is told that their packets are not forwarded" =
    builtins.length (evaluate { docker = true; } enabled).config.warnings == 1
    && builtins.length (evaluate { libvirt = true; } enabled).config.warnings == 1;
  "health has the programs that it runs: nft, and unshare" =
    map (one: one.name) services.sepulcher-health.path == [
      "nftables"
      "util-linux"
    ];
  "what recovers volumes can ask whether a service runs" =
    map (one: one.name) services.sepulcher-awaken.path == [ "podman" ];
  "another Codex restarts the ruleset's unit, in one step" =
    let
      triggers = codex: (evaluate { } (enabled // { inherit codex; })).config.systemd.services;
      other = triggers { appliance.name = "home"; };
    in
    plain (toString other.sepulcher-firewall.restartTriggers)
    != plain (toString services.sepulcher-firewall.restartTriggers)
    && !services.sepulcher-firewall.stopIfChanged;
  "what belongs to a body starts anew with the ruleset's unit" =
    let
      requires = name: builtins.elem "sepulcher-firewall.service" (services.${name}.requires or [ ]);
    in
    requires "sepulcher-awaken"
    && requires "sepulcher-health"
    && requires "sepulcher-resolv"
    && services.sepulcher-resolv.wantedBy == [ "multi-user.target" ]
    && services.sepulcher-firewall.requires == [ "nftables.service" ]
    && services.sepulcher-firewall.after == [ "nftables.service" ]
    && services.sepulcher-firewall.serviceConfig.RemainAfterExit;
  "Podman's default network lies elsewhere, also where the host sets something of it" =
    map (one: one.subnet) on.config.virtualisation.podman.defaultNetwork.settings.subnets == [
      on.config.virtualisation.containers.containersConf.settings.network.default_subnet
    ];
  "the table of connections is there before its limits are set, which are the appliance's" =
    builtins.elem "nf_conntrack" on.config.boot.kernelModules
    && builtins.all (name: lines "${name} = ${toString sysctl.${name}}" applianceSysctl) (
      builtins.attrNames sysctl
    );
  "a folder outside of the store that is given as a text is refused with a remedy" =
    map (one: one.message) (
      broken (
        evaluate { } (
          enabled
          // {
            codex = "/etc/nixos/codex";
            peersDir = "/etc/nixos/peers";
          }
        )
      )
    ) == [
      "services.sepulcher: codex is a text that names a folder outside of the store, which no build can read; write the path without quotes, e.g. codex = ./codex."
      "services.sepulcher: peersDir is a text that names a folder outside of the store, which no build can read; write the path without quotes, e.g. peersDir = ./peers."
    ];
  "a text that names a place in the store is not" =
    broken (evaluate { } (enabled // { codex = "${builtins.storeDir}/x-source/codex"; })) == [ ];
  "a Codex may be written in Nix" =
    (evaluate { } (
      enabled
      // {
        codex.appliance.name = "home";
        peersDir = ../../examples/lychd/peers;
      }
    )).strays == [ ];
  "a Codex must be given" = fails (evaluate { } { enable = true; }).config.networking.nftables.tables;
  "a boolean must be one" =
    fails
      (evaluate { } (enabled // { openForest = "yes"; }))
      .config.networking.nftables.tables.sepulcher.content;
  "what a host has to keep open is another build" =
    plain
      (evaluate { } (enabled // { openForest = true; }))
      .config.networking.nftables.tables.sepulcher.content
    != plain on.config.networking.nftables.tables.sepulcher.content;
}
