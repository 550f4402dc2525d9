# Twin of oculus-through-tether: whoever is not bonded gets no answer at the same port, not even a refusal.
{ common, ... }:
{
  name = "oculus-from-forest-is-silent";
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
    # It is there, and answers whom it should: otherwise silence would prove nothing.
    phone.wait_until_succeeds(OCULUS)
    outsider.wait_until_succeeds("curl --silent --max-time 5 --output /dev/null http://192.168.1.100/")
    seen = outsider.succeed("nmap -n -Pn -sS --reason -p 6006,4318,7134,5432,22 192.168.1.100")
    assert seen.count("no-response") == 5, seen
    outsider.fail("ping -c 3 -W 2 192.168.1.100")
  '';
}
