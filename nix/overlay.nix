# `pkgs.sepulcher`, for whoever composes package sets.
final: _: {
  sepulcher =
    if final.stdenv.hostPlatform.system == "x86_64-linux" then
      final.pkgsStatic.callPackage ./package.nix { }
    else
      throw "sepulcher: the program runs on x86_64-linux only, not on ${final.stdenv.hostPlatform.system}: take it from `import nixpkgs { system = \"x86_64-linux\"; }`";
}
