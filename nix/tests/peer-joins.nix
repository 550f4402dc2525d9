# A peer whose bond is in the Codex has a handshake with the machine that was booted from the image.
{ common, ... }:
{
  name = "peer-joins";
  nodes = {
    inherit (common) appliance outsider;
    phone = common.peer "phone" "10.88.16.2";
  };
  testScript = common.script + ''
    outsider.start()
    outsider.wait_for_unit("dnsmasq.service")
    phone.start()
    power_on(appliance)
    tether(phone, public_key(appliance))
    phone.succeed("ping -c 3 -W 2 10.88.16.1")
  '';
}
