# One changed byte of the sealed root, and the machine stops before anything of it runs.
{ common, ... }:
{
  name = "tampered-image-refuses-boot";
  nodes = {
    inherit (common) appliance;
  };
  testScript = common.script + ''
    with open("${common.image}/lychd.manifest.json") as file:
        partitions = json.load(file)["partitions"]
    root = next(partition for partition in partitions if partition["role"] == "root")
    # In the middle of the superblock, which every boot reads.
    power_on(appliance, damage=root["offset"] + 1024 + 52)
    appliance.wait_for_console_text("corrupted")
    appliance.wait_for_shutdown()
    assert "tether public key" not in appliance.get_console_log()
  '';
}
