# What the tests share: the example's image with peers whose keys the tests know, and the machines around it.
{ pkgs, self }:
rec {
  # Private keys that everybody can compute: digests of the peers' names.
  keys =
    pkgs.runCommand "keys-of-tests"
      {
        nativeBuildInputs = [
          pkgs.wireguard-tools
          pkgs.xxd
        ];
      }
      ''
        mkdir "$out"
        for name in phone laptop; do
          printf 'test %s' "$name" | sha256sum | cut -d ' ' -f 1 | xxd -r -p | base64 > "$out/$name.key"
          wg pubkey < "$out/$name.key" > "$out/$name.pub"
        done
      '';

  # The example; the phone holds oculus and may manage bonds, the laptop holds echo alone.
  codex = pkgs.runCommand "codex-of-tests" { } ''
    cp -r ${../../../examples/lychd} "$out"
    chmod -R u+w "$out"
    cat > "$out/peers/phone.toml" <<EOF
    public-key = "$(cat ${keys}/phone.pub)"
    address = "10.88.16.2"
    grants = ["oculus", "bonds"]
    EOF
    cat > "$out/peers/laptop.toml" <<EOF
    public-key = "$(cat ${keys}/laptop.pub)"
    address = "10.88.16.3"
    grants = ["echo"]
    EOF
  '';

  image = self.lib.mkImage {
    inherit codex;
    name = "lychd";
  };

  # A machine whose disk is the image: nothing of this NixOS is ever started.
  appliance =
    { lib, ... }:
    {
      virtualisation = {
        cores = 2;
        directBoot.enable = false;
        fileSystems = lib.mkForce {
          "/" = {
            device = "/dev/disk/by-partlabel/lychd_1";
            fsType = "erofs";
          };
        };
        memorySize = 2048;
        mountHostNixStore = false;
        useEFIBoot = true;
      };
      boot.loader.grub.enable = false;
    };

  # The network's own machine: it tells the appliance its address, and bonds with nobody.
  outsider =
    { pkgs, ... }:
    {
      networking.firewall.enable = false;
      environment.systemPackages = [
        pkgs.curl
        pkgs.nmap
      ];
      services.dnsmasq = {
        enable = true;
        settings = {
          interface = "eth1";
          bind-interfaces = true;
          port = 0;
          dhcp-range = [ "192.168.1.100,192.168.1.100" ];
          # It is no way to anywhere.
          dhcp-option = [
            "3"
            "6"
          ];
        };
      };
    };

  # A bonded peer; its tunnel comes up once the appliance's key is known.
  peer =
    name: address:
    { pkgs, ... }:
    {
      networking.firewall.enable = false;
      boot.kernelModules = [ "wireguard" ];
      environment.systemPackages = [
        pkgs.curl
        pkgs.wireguard-tools
        self.packages.x86_64-linux.sepulcher
      ];
      environment.etc."tether/up" = {
        mode = "0755";
        text = ''
          #!${pkgs.runtimeShell} -eu
          ip link add wg0 type wireguard
          wg set wg0 private-key ${keys}/${name}.key \
            peer "$1" endpoint 192.168.1.100:51820 allowed-ips 10.88.16.1/32 persistent-keepalive 5
          ip address add ${address}/20 dev wg0
          ip link set wg0 up
        '';
      };
    };

  # Functions of the test scripts.
  script = ''
    import os
    import re
    import subprocess
    import tempfile


    def power_on(machine, damage=None):
        """Starts the machine from a fresh disk of the image, with one byte changed where `damage` says."""
        disk = tempfile.NamedTemporaryFile(suffix=".raw", delete=False).name
        subprocess.run(["cp", "--no-preserve=mode", "${image}/lychd.raw", disk], check=True)
        os.truncate(disk, 4 << 30)
        if damage is not None:
            with open(disk, "r+b") as file:
                file.seek(damage)
                byte = file.read(1)[0]
                file.seek(damage)
                file.write(bytes([byte ^ 1]))
        # The disk of QEMU is a qcow2 over it; other machines must not see the variable.
        subprocess.run(
            ["${pkgs.qemu}/bin/qemu-img", "create", "-f", "qcow2", "-b", disk, "-F", "raw", disk + ".qcow2"],
            check=True,
        )
        os.environ["NIX_DISK_IMAGE"] = disk + ".qcow2"
        machine.start()
        del os.environ["NIX_DISK_IMAGE"]


    def public_key(machine):
        """Waits for the machine's public key on its console."""
        machine.wait_for_console_text("tether public key: ")
        machine.wait_for_console_text("sepulcher: health ok")
        return re.findall(r"tether public key: (\S{43}=)", machine.get_console_log())[-1]


    def tether(peer, key):
        peer.wait_for_unit("multi-user.target")
        peer.succeed(f"/etc/tether/up {key}")
        peer.wait_until_succeeds("wg show wg0 latest-handshakes | awk '$2 > 0 { found = 1 } END { exit !found }'")


    OCULUS = "curl --silent --show-error --fail --max-time 5 http://10.88.16.1:6006/"
  '';
}
