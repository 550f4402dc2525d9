# What the appliance has in /usr, for a NixOS host: the rendered tree, the law beside it, and the containers' roots.
{
  runCommand,
  fetchurl,
  sepulcher,
}:
{
  codex,
  name,
  # Bonds in place of the Codex's own, or null.
  peers,
  # Whether the Codex may publish ports to everybody.
  openForest,
}:
let
  packages = import ./images.nix {
    inherit fetchurl;
    images = ../images;
  };
in
runCommand "${name}-host"
  {
    inherit codex;
    peers = if peers == null then "" else peers;
    debs = builtins.concatStringsSep "" (map ({ sha256, file }: "${sha256} ${file}\n") packages);
    passAsFile = [ "debs" ];
    program = "${sepulcher}/bin/sepulcher";
    openForest = if openForest then "yes" else "no";
  }
  ''
    export SEPULCHER_CACHE="$NIX_BUILD_TOP/cache"
    mkdir -p "$SEPULCHER_CACHE/debs"
    while read -r digest file; do
      ln -s "$file" "$SEPULCHER_CACHE/debs/$digest.deb"
    done < "$debsPath"

    cp -r "$codex" "$NIX_BUILD_TOP/codex"
    cd "$NIX_BUILD_TOP"
    chmod -R u+w codex
    if [ -n "$peers" ]; then
      rm -rf codex/peers
      cp -r "$peers" codex/peers
    fi

    "$program" render codex --out tree
    if [ -e tree/etc/crypttab ]; then
      echo "error: this Codex has the state encrypted, and on a NixOS host /var is that host's own matter" >&2
      echo "hint: take encryption out of [state], and encrypt the host's disk with boot.initrd.luks" >&2
      exit 1
    fi
    mkdir -p "$out"
    cp -r tree/. "$out"
    chmod -R u+w "$out"
    mkdir -p "$out/usr/lib/sepulcher"
    cp -r codex "$out/usr/share/sepulcher/codex"
    "$program" image roots codex --out "$out/usr/lib/sepulcher/roots" --offline --locked

    # The Tether's own port is the one that is always published.
    published="$(grep -h '^PublishPort=' "$out"/usr/share/containers/systemd/*.pod | wc -l)"
    if [ "$openForest" = no ] && [ "$published" -gt 1 ]; then
      echo "error: this Codex publishes ports to everybody (tier forest)" >&2
      echo "hint: allow it with services.sepulcher.openForest = true, or write dark = true into [appliance]" >&2
      exit 1
    fi

    # NixOS writes the frame of a table itself, so that it can take the table away again.
    sed -n '/^table inet sepulcher {$/,$p' "$out/usr/share/sepulcher/nftables/host.nft" | sed '1d;$d' > "$out/table.nft"
    test -s "$out/table.nft"

    # Folders of the store are read-only for everybody, so that no service could write to its own /tmp.
    for quadlet in "$out"/usr/share/containers/systemd/*.container; do
      grep -q '^ReadOnly=true$' "$quadlet" || sed -i '/^Rootfs=/a Tmpfs=/tmp:rw,mode=1777' "$quadlet"
    done

    # What NixOS has its own way for, network, console, disk, firewall and what becomes of an unhealthy body, stays out of
    # where it looks for units.
    ln -s usr/lib "$out/lib"
    cd "$out/usr/lib/systemd/system"
    rm -rf *.wants *.requires *.d sepulcher-console@.service sepulcher-fall-back.* sepulcher-firewall.service \
      sepulcher-reactor.*
    sed -i '/^OnFailure=/d; /^# A new body that is not healthy/d' sepulcher-health.service
  ''
