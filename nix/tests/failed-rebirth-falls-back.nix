# Twin of rebirth-keeps-bonds: a body whose service is dead is given up after three attempts, and the one before is back
# with everybody who was bonded.
{ common, ... }:
{
  name = "failed-rebirth-falls-back";
  nodes = {
    inherit (common) appliance outsider;
    phone = common.peer "phone" "10.88.16.2";
  };
  testScript = common.script + ''
    outsider.start()
    outsider.wait_for_unit("dnsmasq.service")
    phone.start()
    power_on(appliance, reboots=True)
    key = public_key(appliance)
    tether(phone, key)
    phone.wait_until_succeeds(OCULUS)
    become(phone, outsider, "${common.update common.unhealthy}")
    appliance.wait_for_console_text("body 2 did not prove healthy")
    assert public_key(appliance) == key
    phone.wait_until_succeeds(OCULUS)
    assert bodies(phone)[0] == "1", bodies(phone)
  '';
}
