{
  # Where you got sepulcher from, e.g. `nix registry add sepulcher ADDRESS`, or the address in place of this.
  inputs.sepulcher.url = "flake:sepulcher";
  outputs =
    { sepulcher, ... }:
    {
      packages.x86_64-linux.default = sepulcher.lib.mkImage {
        codex = ./codex;
        name = "home";
      };
    };
}
