# What the tests share: the example's image with peers whose keys the tests know, and the machines around it.
{ pkgs, self }:
rec {
  program = self.packages.x86_64-linux.sepulcher;

  # Private keys that everybody can compute: digests of the peers' names. The publisher's lies beside this file.
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

  # Where the outsider serves updates.
  depot = "192.168.1.200";

  # The example; the phone holds oculus, may manage bonds and ask for a Rebirth, the laptop holds echo alone.
  codex = pkgs.runCommand "codex-of-tests" { } ''
    cp -r ${../../../examples/lychd} "$out"
    chmod -R u+w "$out"
    cat > "$out/peers/phone.toml" <<EOF
    public-key = "$(cat ${keys}/phone.pub)"
    address = "10.88.16.2"
    grants = ["oculus", "bonds", "rebirth"]
    EOF
    cat > "$out/peers/laptop.toml" <<EOF
    public-key = "$(cat ${keys}/laptop.pub)"
    address = "10.88.16.3"
    grants = ["echo"]
    EOF
    {
      printf '\n[rebirth]\n'
      cat ${./publisher-of-tests.toml}
      printf 'sources = ["http://%s/"]\npatience = "4m"\n' ${depot}
    } >> "$out/lychd.toml"
  '';

  # The same with a service that listens nowhere: no body of it proves healthy.
  unhealthy = pkgs.runCommand "codex-of-tests-unhealthy" { } ''
    cp -r ${codex} "$out"
    chmod -R u+w "$out"
    sed -i 's/"oculus", "6006", "4318"/"oculus", "4318"/' "$out/services/oculus.toml"
    sed -i 's/patience = "4m"/patience = "90s"/' "$out/lychd.toml"
  '';

  # The same with one more service and other addresses of the pod, for a host that carries it.
  larger = pkgs.runCommand "codex-of-tests-larger" { } ''
    cp -r ${codex} "$out"
    chmod -R u+w "$out"
    sed 's/9464/9465/g; s/^description = .*/description = "Late"/' "$out/services/worker.toml" > "$out/services/late.toml"
    printf '\n[pod]\nnetwork = "10.88.1.0/24"\n' >> "$out/lychd.toml"
  '';

  # The next body of a Codex, as the depot serves it.
  update =
    codex:
    let
      body = self.lib.mkImage {
        inherit codex;
        name = "lychd";
        version = "2";
      };
    in
    pkgs.runCommand "update-of-tests" { nativeBuildInputs = [ program ]; } ''
      cp -r ${body.update}/lychd_2.update .
      chmod -R u+w lychd_2.update
      sepulcher rebirth sign lychd_2.update --key ${./publisher-of-tests.key}
      mkdir "$out"
      tar -C lychd_2.update -cf "$out/lychd_2.update.tar" .
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
        pkgs.python3
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
        program
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
    import json
    import os
    import re
    import subprocess
    import tempfile


    def power_on(machine, damage=None, reboots=False):
        """Starts the machine from a fresh disk of the image, with one byte changed where `damage` says. A reboot ends it
        unless it `reboots`."""
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
        machine.start(allow_reboot=reboots)
        del os.environ["NIX_DISK_IMAGE"]


    def public_key(machine):
        """Waits for the machine's public key on its console."""
        machine.wait_for_console_text("tether public key: ")
        machine.wait_for_console_text("sepulcher: health ok")
        return re.findall(r"tether public key: (\S{43}=)", machine.get_console_log())[-1]


    def become(phone, outsider, update):
        """Has the machine become another body, as the phone asks for it over the tether."""
        outsider.succeed("ip address add ${depot}/24 dev eth1")
        outsider.succeed(f"systemd-run --unit=depot python3 -m http.server --bind ${depot} --directory {update} 80")
        outsider.wait_for_open_port(80, addr="${depot}")
        stage = "sepulcher --host 10.88.16.1 rebirth stage http://${depot}/lychd_2.update.tar"
        digest = phone.succeed(stage).strip()
        phone.succeed(f"sepulcher --host 10.88.16.1 rebirth activate {digest}")


    def bodies(phone):
        """Versions of the slots that hold one, the running one first."""
        status = json.loads(phone.succeed("sepulcher --host 10.88.16.1 rebirth status --json"))
        slots = sorted(status["slots"], key=lambda slot: not slot["running"])
        return [slot["version"] for slot in slots if slot["version"]]


    def tether(peer, key):
        peer.wait_for_unit("multi-user.target")
        peer.succeed(f"/etc/tether/up {key}")
        peer.wait_until_succeeds("wg show wg0 latest-handshakes | awk '$2 > 0 { found = 1 } END { exit !found }'")


    OCULUS = "curl --silent --show-error --fail --max-time 5 http://10.88.16.1:6006/"
  '';
}
