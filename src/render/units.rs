//! Units and configuration of the host that follow from the Codex: firewall, first boot, health, uplink, state.

use minijinja::context;

use super::{RenderError, template};
use crate::codex::{Addressing, Codex, Encryption, State, Uplink};
use crate::tree::Tree;

/// Size of a root slot in MiB: what a body may grow to.
pub const ROOT_SLOT_MIB: u64 = 224;

/// Size of a verity slot in MiB: the hash tree of a full root slot takes less than half of it.
pub const VERITY_SLOT_MIB: u64 = 4;

const SYSTEM: &str = "usr/lib/systemd/system";

/// Templates without conditions: path in the image, template.
const PLAIN: [(&str, &str); 15] = [
    ("usr/lib/tmpfiles.d/sepulcher.conf", "units/tmpfiles.conf"),
    ("usr/lib/systemd/system/sepulcher-firewall.service", "units/sepulcher-firewall.service"),
    ("usr/lib/systemd/system/systemd-networkd.service.d/50-sepulcher.conf", "units/networkd.conf"),
    ("usr/lib/systemd/system/sepulcher-awaken.service", "units/sepulcher-awaken.service"),
    ("usr/lib/systemd/system/sepulcher-health.service", "units/sepulcher-health.service"),
    ("usr/lib/systemd/system/sepulcher-resolv.service", "units/sepulcher-resolv.service"),
    ("usr/lib/systemd/system/sepulcher-reactor.path", "units/sepulcher-reactor.path"),
    ("usr/lib/systemd/system/sepulcher-reactor.service", "units/sepulcher-reactor.service"),
    ("usr/lib/systemd/system/sepulcher-fall-back.service", "units/sepulcher-fall-back.service"),
    ("usr/lib/systemd/system/sepulcher-fall-back.timer", "units/sepulcher-fall-back.timer"),
    ("usr/lib/systemd/system/systemd-bless-boot.service.d/50-sepulcher.conf", "units/bless-boot.conf"),
    ("usr/lib/systemd/system/sepulcher-console@.service", "units/sepulcher-console@.service"),
    ("usr/lib/systemd/system/sepulcher-control.socket", "units/sepulcher-control.socket"),
    ("usr/lib/systemd/system/sepulcher-control@.service", "units/sepulcher-control@.service"),
    ("usr/lib/systemd/system/emergency.service.d/50-sepulcher.conf", "units/emergency.conf"),
];

/// What opens a state that is encrypted, as [`PLAIN`].
const ENCRYPTED: [(&str, &str); 3] = [
    ("etc/crypttab", "units/crypttab"),
    ("usr/lib/systemd/system/systemd-cryptsetup@state.service.d/50-sepulcher.conf", "units/cryptsetup.conf"),
    ("usr/lib/systemd/system/systemd-repart.service.d/50-sepulcher.conf", "units/repart.conf"),
];

/// Units that start at boot: the target's folder, the unit.
const ENABLED: [(&str, &str); 10] = [
    ("sysinit.target.wants", "sepulcher-firewall.service"),
    ("multi-user.target.wants", "sepulcher-awaken.service"),
    ("multi-user.target.wants", "sepulcher-health.service"),
    ("multi-user.target.wants", "sepulcher-resolv.service"),
    ("multi-user.target.wants", "sepulcher-reactor.path"),
    ("timers.target.wants", "sepulcher-fall-back.timer"),
    ("multi-user.target.wants", "sepulcher-console@tty1.service"),
    ("multi-user.target.wants", "sepulcher-console@ttyS0.service"),
    ("sockets.target.wants", "sepulcher-control.socket"),
    ("boot-complete.target.requires", "sepulcher-health.service"),
];

/// Adds the host's units to `tree`.
pub fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    let Codex {
        appliance,
        uplink,
        pod: _,
        tether: _,
        host: _,
        rebirth,
        state,
        services: _,
        peers: _,
        revoked_keys: _,
        gone: _,
    } = codex;
    let name = appliance.name.as_str();
    let patience = rebirth.patience.seconds();
    for (path, source) in PLAIN {
        tree.file(path, template::render(source, context! { name, patience })?)?;
    }
    for (folder, unit) in ENABLED {
        tree.link(format!("{SYSTEM}/{folder}/{unit}"), format!("../{}", file_of(unit)))?;
    }
    tree.file("etc/hostname", format!("{name}\n"))?;
    let network = template::render("units/uplink.network", uplink_values(uplink))?;
    tree.file("usr/lib/systemd/network/50-uplink.network", network)?;
    transfers(name, tree)?;
    partitions(name, *state, tree)
}

/// The file of a unit: an instance's is its template's.
fn file_of(unit: &str) -> String {
    match (unit.split_once('@'), unit.rsplit_once('.')) {
        (Some((template, _)), Some((_, kind))) => format!("{template}@.{kind}"),
        _ => unit.to_owned(),
    }
}

fn uplink_values(uplink: &Uplink) -> minijinja::Value {
    let Uplink { interface, addressing, echo: _ } = uplink;
    let text = |values: &[std::net::IpAddr]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (addresses, gateways, servers) = match addressing {
        Addressing::Dhcp => (Vec::new(), Vec::new(), Vec::new()),
        Addressing::Static { addresses, gateways, dns } => (
            addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect::<Vec<_>>(),
            text(gateways),
            text(dns),
        ),
    };
    context! {
        interface => interface.as_str(),
        dhcp => *addressing == Addressing::Dhcp,
        addresses,
        gateways,
        dns => servers,
    }
}

/// What systemd-sysupdate writes to the slot that does not run.
fn transfers(name: &str, tree: &mut Tree) -> Result<(), RenderError> {
    for (file, role) in [("10-root", "root"), ("11-verity", "verity")] {
        let text = template::render("units/slot.transfer", context! { name, role })?;
        tree.file(format!("usr/lib/sysupdate.d/{file}.transfer"), text)?;
    }
    Ok(())
}

/// What systemd-repart makes of the disk on first boot, the other slot and the state, and how the state is mounted.
fn partitions(name: &str, State { encryption }: State, tree: &mut Tree) -> Result<(), RenderError> {
    let encrypted = encryption == Encryption::Tpm2;
    tree.file("etc/fstab", template::render("units/fstab", context! { name, encrypted })?)?;
    let state =
        format!("[Partition]\nType=linux-generic\nLabel={name}_state\nFormat=ext4\nSizeMinBytes=512M\n");
    let state = match encryption {
        Encryption::None => state,
        Encryption::Tpm2 => {
            for (path, source) in ENCRYPTED {
                tree.file(path, template::render(source, context! { name })?)?;
            }
            state + "Encrypt=tpm2\n"
        }
    };
    let slot = |kind: &str, mebibytes: u64| {
        let size = format!("SizeMinBytes={mebibytes}M\nSizeMaxBytes={mebibytes}M");
        format!("[Partition]\nType={kind}\nLabel=_empty\n{size}\n")
    };
    for (file, content) in [
        ("10-esp.conf", "[Partition]\nType=esp\n".to_owned()),
        ("20-root-a.conf", "[Partition]\nType=root\n".to_owned()),
        ("21-verity-a.conf", "[Partition]\nType=root-verity\n".to_owned()),
        ("30-root-b.conf", slot("root", ROOT_SLOT_MIB)),
        ("31-verity-b.conf", slot("root-verity", VERITY_SLOT_MIB)),
        ("90-state.conf", state),
    ] {
        tree.file(format!("usr/lib/repart.d/{file}"), content)?;
    }
    Ok(())
}
