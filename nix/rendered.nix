# What a Codex becomes before it is sealed: quadlets, rulesets, units.
{ runCommand, sepulcher }:
{ codex, name }:
runCommand "${name}-rendered"
  {
    inherit codex;
    program = "${sepulcher}/bin/sepulcher";
  }
  ''
    "$program" render "$codex" --out "$out"
  ''
