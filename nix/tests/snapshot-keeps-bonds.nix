# On a NixOS host that carries a Codex: a snapshot that is put back takes out whom it did not know, and revives nobody.
{ self, common, ... }:
{
  name = "snapshot-keeps-bonds";
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
    import json


    def states():
        """Every peer's state, once the kernel holds the active ones and nobody else."""
        host.wait_until_succeeds("sepulcher health --timeout 10")
        listed = json.loads(host.succeed("sepulcher peer list --json"))
        assert listed["undeclared"] == [], listed
        return {peer["name"]: peer["state"] for peer in listed["peers"]}


    host.wait_for_unit("lychd-vpn.service")
    assert states() == {"laptop": "active", "phone": "active"}
    kept = host.succeed("sepulcher snapshot create --note before").strip()
    host.succeed("sepulcher peer revoke laptop --reason lost")
    host.succeed("sepulcher peer bond tablet --grant oculus --conf /root/tablet.conf")
    assert states() == {"laptop": "revoked", "phone": "active", "tablet": "active"}
    host.succeed(f"sepulcher snapshot restore {kept}")
    assert states() == {"laptop": "revoked", "phone": "active"}
    host.succeed(f"sepulcher snapshot restore {kept} --revive laptop")
    assert states() == {"laptop": "active", "phone": "active"}
    host.succeed("sepulcher audit verify")
  '';
}
