# A NixOS host carries a Codex itself: the pod runs, both rulesets are loaded, and a reload of the host's firewall leaves
# Podman's table where it is.
{ self, common, ... }:
{
  name = "module-on-nixos-host";
  nodes.host = {
    imports = [ self.nixosModules.default ];
    services.sepulcher = {
      enable = true;
      inherit (common) codex;
      openForest = true;
    };
    virtualisation.memorySize = 2048;
  };
  testScript = ''
    host.wait_for_unit("nftables.service")
    host.wait_for_unit("lychd-pod.service")
    host.wait_for_unit("lychd-vpn.service")
    host.wait_for_file("/run/sepulcher/tether.pub")
    host.succeed("lsmod | grep '^wireguard' > /dev/null")
    host.succeed("test \"$(stat -c %a /var/lib/sepulcher/secrets/tether.key)\" = 600")
    host.succeed("sepulcher health --timeout 120")
    host.succeed("nft list table inet sepulcher | grep 'policy drop' > /dev/null")
    host.succeed("nft list table inet netavark")
    host.succeed("systemctl reload nftables.service")
    host.succeed("nft list table inet netavark")
    host.succeed("sepulcher health --timeout 120")
    # A rebuild may take nothing that was bonded since.
    host.succeed("sepulcher peer list | grep phone > /dev/null")
  '';
}
