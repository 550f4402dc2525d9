# A peer that holds the grant reaches the trace UI through the tunnel; one without the grant does not.
{ common, ... }:
{
  name = "oculus-through-tether";
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
    assert "oculus" in phone.wait_until_succeeds(OCULUS)
    laptop.fail(OCULUS)
  '';
}
