# Twin of peer-joins: one changed byte of the sealed root, and the machine stops before anything of it runs. Whoever waits
# for it beside it, the network's own machine and a bonded peer that knocks, never hears of it.
{ common, ... }:
{
  name = "tampered-image-refuses-boot";
  nodes = {
    inherit (common) appliance outsider;
    phone = common.peer "phone" "10.88.16.2";
  };
  testScript = common.script + ''
    with open("${common.image}/lychd.manifest.json") as file:
        partitions = json.load(file)["partitions"]
    root = next(partition for partition in partitions if partition["role"] == "root")
    outsider.start()
    outsider.wait_for_unit("dnsmasq.service")
    phone.start()
    phone.wait_for_unit("multi-user.target")
    # No machine holds the other peer's key; the phone knocks at the appliance's place all the same.
    phone.succeed("/etc/tether/up $(cat ${common.keys}/laptop.pub)")
    # In the middle of the superblock, which every boot reads.
    power_on(appliance, damage=root["offset"] + 1024 + 52)
    appliance.wait_for_console_text("corrupted")
    appliance.wait_for_shutdown()
    assert "tether public key" not in appliance.get_console_log()
    outsider.fail("test -s /var/lib/dnsmasq/dnsmasq.leases")
    phone.fail("ping -c 3 -W 2 10.88.16.1")
    phone.succeed("test \"$(wg show wg0 latest-handshakes | cut -f 2)\" = 0")
  '';
}
