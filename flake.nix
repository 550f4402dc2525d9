{
  description = "Sealed appliances with a proven private network plane, from one folder of TOML";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      example = {
        codex = ./examples/lychd;
        name = "lychd";
      };
    in
    {
      lib.mkImage = import ./nix/mk-image.nix { inherit pkgs; };

      packages.${system} = {
        default = self.packages.${system}.sepulcher;
        sepulcher = pkgs.pkgsStatic.callPackage ./nix/package.nix { };
        sepulcher-image = self.lib.mkImage example;
      };
    };
}
