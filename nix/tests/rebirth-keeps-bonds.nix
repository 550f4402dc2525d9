# The machine becomes its next body because a peer asks for it, and nobody has to be bonded again: not in the Codex, not
# over the tether.
{ common, ... }:
{
  name = "rebirth-keeps-bonds";
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
    power_on(appliance, reboots=True)
    key = public_key(appliance)
    tether(phone, key)
    phone.wait_until_succeeds(OCULUS)
    phone.succeed("sepulcher --host 10.88.16.1 peer grant laptop oculus")
    become(phone, outsider, "${common.update common.codex}")
    assert public_key(appliance) == key
    phone.wait_until_succeeds(OCULUS)
    assert bodies(phone) == ["2", "1"], bodies(phone)
    tether(laptop, key)
    laptop.succeed(OCULUS)
  '';
}
