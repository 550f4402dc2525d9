# The files that decide the program: a change of the documentation or of a test builds nothing anew.
let
  decides = [
    ".cargo"
    "Cargo.lock"
    "Cargo.toml"
    "build.rs"
    "images"
    "src"
  ];
  # Cargo wants to see every member of the workspace.
  seen = [
    "xtask"
    "xtask/Cargo.toml"
  ];
in
rec {
  # Whether the file or folder at a path relative to the repository belongs to the source.
  wants =
    path:
    let
      top = builtins.head (builtins.filter builtins.isString (builtins.split "/" path));
    in
    builtins.elem top decides || builtins.elem path seen;

  # The source as it lies in `root`.
  of =
    root:
    let
      prefix = builtins.stringLength (toString root) + 1;
      relative = path: builtins.substring prefix (builtins.stringLength path) path;
    in
    builtins.path {
      path = root;
      name = "sepulcher-source";
      filter = path: _: wants (relative path);
    };
}
