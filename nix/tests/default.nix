# Every other file here is a test of virtual machines: one behaviour each, in twins.
{ pkgs, self }:
let
  entries = builtins.readDir ./.;
  isTest = name: entries.${name} == "regular" && name != "default.nix";
  test = file: {
    name = builtins.substring 0 (builtins.stringLength file - 4) file;
    value = pkgs.testers.runNixOSTest (
      {
        # An appliance without KVM takes minutes to boot.
        globalTimeout = 30 * 60;
      }
      // import (./. + "/${file}") {
        inherit pkgs self;
        common = import ./common { inherit pkgs self; };
      }
    );
  };
in
builtins.listToAttrs (map test (builtins.filter isTest (builtins.attrNames entries)))
