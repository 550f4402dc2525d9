{
  description = "Sealed appliances with a proven private network plane, from one folder of TOML";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      packages = self.packages.${system};
      example = {
        codex = ./examples/lychd;
        name = "lychd";
      };
    in
    {
      packages.${system} = {
        default = packages.sepulcher;
        sepulcher = pkgs.pkgsStatic.callPackage ./nix/package.nix { };
        sepulcher-image = self.lib.mkImage example;
        sepulcher-update = packages.sepulcher-image.update;
        sepulcher-rendered = import ./nix/rendered.nix {
          inherit (pkgs) runCommand;
          inherit (packages) sepulcher;
        } example;
      };

      apps.${system} = import ./nix/apps.nix { inherit pkgs packages; };
      checks.${system} = import ./nix/checks.nix { inherit pkgs self system; };
      devShells.${system}.default = import ./nix/shell.nix { inherit pkgs; };
      formatter.${system} = pkgs.nixfmt-tree;

      lib.mkImage = import ./nix/mk-image.nix {
        inherit pkgs;
        inherit (packages) sepulcher;
      };
      nixosModules.default = import ./nix/module.nix { inherit self; };
      overlays.default = import ./nix/overlay.nix;
      templates.default = {
        path = ./examples/flake;
        description = "An appliance of your own";
      };
    };
}
