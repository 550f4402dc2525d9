# buildRustPackage with the host's cargo and linker.
run:
{
  pname,
  version,
  src,
  cargoDeps,
  postPatch ? "",
  cargoBuildFlags ? [ ],
  ...
}@args:
(run "${pname}-${version}" { inherit src cargoDeps cargoBuildFlags; } ''
  cp -r "$src" source
  # A copy, so that no path of the store gets into the program.
  cp -r "$cargoDeps" crates
  chmod -R u+w source
  cd source
  ${postPatch}
  cat >> .cargo/config.toml <<EOF
  [source.crates-io]
  replace-with = "fetched"
  [source.fetched]
  directory = "$NIX_BUILD_TOP/crates"
  EOF
  export CARGO_HOME="$NIX_BUILD_TOP/cargo"
  # What is compared is the image, with the same program in both: making it fast would prove nothing.
  export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
  cargo build --release --frozen $cargoBuildFlags
  mkdir -p "$out/bin"
  find target -path '*/release/*' -prune -type f -perm -u+x -exec cp {} "$out/bin" \;
'')
// {
  inherit (args) meta;
}
