# Twin of peer-joins: a peer that another one revokes over the tether hears nothing more, and nobody else is disturbed.
{ common, ... }:
{
  name = "revoked-peer-is-cut-off";
  nodes = {
    inherit (common) appliance outsider;
    phone = common.peer "phone" "10.88.16.2";
    laptop = common.peer "laptop" "10.88.16.3";
  };
  testScript = common.script + ''
    outsider.start()
    outsider.wait_for_unit("dnsmasq.service")
    phone.start()
    laptop.start()
    power_on(appliance)
    key = public_key(appliance)
    tether(phone, key)
    tether(laptop, key)
    laptop.succeed("ping -c 1 -W 2 10.88.16.1")
    phone.succeed("sepulcher --host 10.88.16.1 peer revoke laptop --reason lost")
    laptop.wait_until_fails("ping -c 1 -W 2 10.88.16.1")
    laptop.succeed("ip link delete wg0")
    laptop.succeed(f"/etc/tether/up {key}")
    laptop.fail("ping -c 5 -W 2 10.88.16.1")
    laptop.succeed("test \"$(wg show wg0 latest-handshakes | cut -f 2)\" = 0")
    phone.succeed(OCULUS)
  '';
}
