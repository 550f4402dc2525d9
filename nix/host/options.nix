# The options of NixOS that our module sets, and the shape of their values. Each was looked up in nixpkgs' source:
# nix/OPTIONS.md says where.
let
  list = builtins.isList;
  texts = value: list value && builtins.all builtins.isString value;
  packages = value: list value && builtins.all (one: one ? outPath) value;
  text = builtins.isString;
  yes = value: builtins.isBool value && value;
in
{
  assertions = list;
  warnings = texts;
  boot.kernelModules = texts;
  boot.kernel.sysctl = builtins.isAttrs;
  environment.etc."*".source = text;
  environment.systemPackages = packages;
  networking.nftables.enable = yes;
  networking.nftables.tables."*" = {
    family = text;
    content = text;
  };
  systemd = {
    inherit packages;
    services."*" = {
      after = texts;
      description = text;
      path = packages;
      requires = texts;
      restartTriggers = list;
      serviceConfig = builtins.isAttrs;
      stopIfChanged = builtins.isBool;
      wantedBy = texts;
    };
    sockets."*".wantedBy = texts;
    tmpfiles = {
      inherit packages;
      rules = texts;
    };
  };
  virtualisation = {
    containers.containersConf.settings = builtins.isAttrs;
    podman.defaultNetwork.settings = builtins.isAttrs;
    podman.enable = yes;
  };
}
