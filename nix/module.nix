# A NixOS host that carries a Codex itself: pod, quadlets, both rulesets and the agent, without the appliance around
# them. The units call programs and data by the appliance's paths, which lead into the store here.
{ self }:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.sepulcher;
  inherit (lib) mkOption types;
  inherit (import ./arguments.nix) isReadable;

  toml = pkgs.formats.toml { };
  codex = (import ./codex.nix).folder pkgs cfg.codex;
  tree =
    import ./host-tree.nix
      {
        inherit (pkgs) runCommand fetchurl;
        sepulcher = cfg.package;
      }
      {
        inherit codex;
        inherit (cfg) openForest;
        peers = cfg.peersDir;
        name = "sepulcher";
      };
in
{
  options.services.sepulcher = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to enable a pod with a private network plane, as a Codex declares it. The host then answers nobody but
        where the Codex says so, its own services included, and forwards packets of this pod alone: routing, libvirt,
        Docker and other networks of Podman end at its ruleset. The folder `/etc/containers/systemd` is this module's as
        a whole: no other quadlet has a place in it. The grant `rebirth` has no effect here: another body of this host
        is another configuration of NixOS. With `snapshots` a peer lists, shows and exports; everything else is for the shell.
        The pod asks the host's name servers of IPv4; one that only listens on the host's loopback is out of its reach.
      '';
    };

    codex = mkOption {
      type = types.either types.path toml.type;
      example = lib.literalExpression "./codex";
      description = ''
        The Codex: a folder that holds `lychd.toml`, or the same written in Nix, where `services` and `peers` are
        sets by name and everything else is what `lychd.toml` holds. It is rendered when the system is built; a
        mistake in it fails that build. It goes into the store, which everybody may read: no secret belongs there.
        A switch to another Codex restarts the pod. What the store does not keep of a container's root, owners and modes
        of its folders, is lost on this host: a service writes to its volumes and to `/tmp`, which is a tmpfs of its own.
        A Codex that has the state encrypted fails the build: what `/var` lies on is this host's own matter.
      '';
    };

    peersDir = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./peers";
      description = ''
        Folder of bonds (`NAME.toml`) that this machine starts with, in place of the Codex's own. From its first boot
        on they live in `/var/lib/sepulcher`, where no rebuild changes them: use `sepulcher peer`.
      '';
    };

    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.sepulcher;
      defaultText = lib.literalExpression "sepulcher.packages.\${system}.sepulcher";
      description = "The program: the tool on the host and the agent in the pod. It must be statically linked.";
    };

    openForest = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the Codex may publish ports of tier `forest`, which everybody reaches. Without it such a Codex fails
        the build.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = pkgs.stdenv.hostPlatform.system == "x86_64-linux";
        message = "services.sepulcher: the program runs on x86_64-linux only; disable it on this host.";
      }
      {
        assertion = isReadable cfg.codex;
        message = "services.sepulcher: codex is a text that names a folder outside of the store, which no build can read; write the path without quotes, e.g. codex = ./codex.";
      }
      {
        assertion = cfg.peersDir == null || isReadable cfg.peersDir;
        message = "services.sepulcher: peersDir is a text that names a folder outside of the store, which no build can read; write the path without quotes, e.g. peersDir = ./peers.";
      }
      {
        assertion = !config.networking.nftables.flushRuleset;
        message = "services.sepulcher: networking.nftables.flushRuleset wipes Podman's table on every reload. Set it to false, and write rules as networking.nftables.tables instead of ruleset or rulesetFile.";
      }
    ];
    # Drops of one table hold whatever another one accepts.
    warnings =
      lib.optional config.services.openssh.enable "services.sepulcher closes all ports of this host but those of the Codex, SSH too: declare it as [[host]] in lychd.toml and reach it through the Tether."
      ++
        lib.optional (config.virtualisation.docker.enable || config.virtualisation.libvirtd.enable)
          "services.sepulcher lets this host forward packets of its pod alone: containers of Docker and machines of libvirt reach nobody through it.";

    virtualisation = {
      podman.enable = true;
      # Podman's own default overlaps the pod's. A host that sets anything of the default network gets it as a file,
      # which the default of all networks does not change.
      podman.defaultNetwork.settings.subnets = lib.mkDefault [
        {
          subnet = "10.127.0.0/24";
          gateway = "10.127.0.1";
        }
      ];
      containers.containersConf.settings.network = {
        default_subnet = "10.127.0.0/24";
        firewall_driver = "nftables";
      };
    };

    networking.nftables.enable = true;
    networking.nftables.tables.sepulcher = {
      family = "inet";
      content = ''include "${tree}/table.nft"'';
    };
    # The agent in the pod may make a WireGuard link but not load its module. The table of connections must be there when
    # its limits are set.
    boot.kernelModules = [
      "wireguard"
      "nf_conntrack"
    ];
    # As on the appliance: images/system/tree/usr/lib/sysctl.d.
    boot.kernel.sysctl = {
      # The table of connections has room for what the ruleset lets in.
      "net.netfilter.nf_conntrack_max" = lib.mkDefault 131072;
      "net.netfilter.nf_conntrack_tcp_timeout_syn_recv" = lib.mkDefault 30;
      "net.netfilter.nf_conntrack_tcp_timeout_established" = lib.mkDefault 86400;
      # What the pod's ruleset denies is logged in its own network namespace.
      "net.netfilter.nf_log_all_netns" = lib.mkDefault 1;
    };

    environment.systemPackages = [ cfg.package ];
    environment.etc."containers/systemd".source = "${tree}/usr/share/containers/systemd";
    systemd = {
      packages = [ tree ];
      services = {
        # Quadlets wait for the ruleset by the name that it has on the appliance. NixOS does not compare what a generator
        # makes: another Codex restarts this unit, and all that requires it starts anew with it. No table, no pod.
        sepulcher-firewall = {
          description = "The host's ruleset is loaded";
          requires = [ "nftables.service" ];
          after = [ "nftables.service" ];
          wantedBy = [ "multi-user.target" ];
          restartTriggers = [ tree ];
          stopIfChanged = false;
          serviceConfig = {
            Type = "oneshot";
            RemainAfterExit = true;
            ExecStart = "${pkgs.nftables}/bin/nft --terse list table inet sepulcher";
            StandardOutput = "null";
          };
        };
        # Before it brings bonds and volumes to another body, the services of the one before have stopped.
        sepulcher-awaken = {
          requires = [ "sepulcher-firewall.service" ];
          after = [ "sepulcher-firewall.service" ];
          wantedBy = [ "multi-user.target" ];
          # Volumes are put back under no service that runs: it asks Podman.
          path = [ pkgs.podman ];
        };
        sepulcher-resolv = {
          requires = [ "sepulcher-firewall.service" ];
          after = [ "sepulcher-firewall.service" ];
          wantedBy = [ "multi-user.target" ];
        };
        sepulcher-health = {
          requires = [ "sepulcher-firewall.service" ];
          wantedBy = [ "multi-user.target" ];
          # It tries the ruleset in a network namespace of its own.
          path = [
            pkgs.nftables
            pkgs.util-linux
          ];
        };
      };
      sockets.sepulcher-control.wantedBy = [ "sockets.target" ];
      tmpfiles = {
        packages = [ tree ];
        rules = [
          "L+ /usr/bin/podman - - - - ${pkgs.podman}/bin/podman"
          "L+ /usr/bin/sepulcher - - - - ${cfg.package}/bin/sepulcher"
          "L+ /usr/share/sepulcher - - - - ${tree}/usr/share/sepulcher"
          "L+ /usr/lib/sepulcher - - - - ${tree}/usr/lib/sepulcher"
        ];
      };
    };
  };
}
