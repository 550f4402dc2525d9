# Twin of module-on-nixos-host: a switch to another Codex renews what generators made, too, and keeps who was bonded.
{ self, common, ... }:
{
  name = "another-codex-restarts-the-pod";
  nodes.host =
    { lib, ... }:
    {
      imports = [ self.nixosModules.default ];
      services.sepulcher = {
        enable = true;
        inherit (common) codex;
        openForest = true;
      };
      specialisation.larger.configuration.services.sepulcher.codex = lib.mkForce common.larger;
      virtualisation.memorySize = 2048;
    };
  testScript = ''
    STARTED = "systemctl show --property ActiveEnterTimestampMonotonic --value lychd-pod.service"

    host.wait_for_unit("lychd-vpn.service")
    host.succeed("sepulcher health --timeout 120")
    host.fail("systemctl is-active lychd-late.service")
    host.succeed("sepulcher peer bond tablet --grant oculus --conf /root/tablet.conf")
    started = host.succeed(STARTED)
    host.succeed("/run/current-system/specialisation/larger/bin/switch-to-configuration test")
    host.wait_for_unit("lychd-late.service")
    assert host.succeed(STARTED) != started
    host.succeed("ip -o -4 address show dev sepulcher0 | grep 10.88.1.1/24 > /dev/null")
    # Both rulesets, every declared port and every bond are those of the new Codex.
    host.succeed("sepulcher health --timeout 120")
    host.succeed("sepulcher peer list | grep tablet > /dev/null")
  '';
}
