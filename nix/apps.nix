# `nix run .# -- …` is the program, `nix run .#boot` boots the example in QEMU with its console on the terminal.
{ pkgs, packages }:
let
  boot = pkgs.writeShellApplication {
    name = "sepulcher-boot";
    runtimeInputs = [ pkgs.qemu ];
    text = ''
      folder="$(mktemp -d)"
      trap 'rm -rf "$folder"' EXIT
      # The machine makes its second slot and its state on a disk that is larger than the image.
      cp --no-preserve=mode ${packages.sepulcher-image}/lychd.raw "$folder/disk.raw"
      truncate -s 4G "$folder/disk.raw"
      cp --no-preserve=mode ${pkgs.OVMF.variables} "$folder/variables.fd"
      echo "http://127.0.0.1:8080 is the Veil, 127.0.0.1:51820/udp the Tether; Ctrl-A X powers off" >&2
      qemu-system-x86_64 -machine q35 -accel kvm -accel tcg -cpu max -smp 2 -m 2048 -nographic -no-reboot \
        -drive if=pflash,unit=0,format=raw,readonly=on,file=${pkgs.OVMF.firmware} \
        -drive if=pflash,unit=1,format=raw,file="$folder/variables.fd" \
        -drive if=virtio,format=raw,file="$folder/disk.raw" \
        -device virtio-rng-pci \
        -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:127.0.0.1:51820-:51820
    '';
  };
in
{
  default = {
    type = "app";
    program = "${packages.sepulcher}/bin/sepulcher";
    meta.description = "Build sealed appliances from one folder of TOML";
  };
  boot = {
    type = "app";
    program = "${boot}/bin/sepulcher-boot";
    meta.description = "Boot the example in QEMU";
  };
}
