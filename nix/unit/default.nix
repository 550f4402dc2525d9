# Unit tests that need neither nixpkgs nor a build: the claims that do not hold, which must be none.
# Run by `nix-instantiate --eval --strict nix/unit`, `cargo xtask nix` and `nix flake check`.
let
  claims = import ./pure.nix // import ./module.nix;
in
builtins.filter (claim: !claims.${claim}) (builtins.attrNames claims)
