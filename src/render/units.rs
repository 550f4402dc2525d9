//! Units and configuration of the host that follow from the Codex: firewall, first boot, health, uplink, state.

use minijinja::{Environment, UndefinedBehavior, context};

use super::RenderError;
use crate::codex::{Addressing, Codex, Uplink};
use crate::tree::Tree;

/// Size of a root slot in MiB: what a body may grow to.
pub const ROOT_SLOT_MIB: u64 = 224;

/// Size of a verity slot in MiB: the hash tree of a full root slot takes less than half of it.
pub const VERITY_SLOT_MIB: u64 = 4;

const SYSTEM: &str = "usr/lib/systemd/system";

/// Templates without conditions: path in the image, text.
const PLAIN: [(&str, &str); 6] = [
    ("etc/fstab", include_str!("templates/units/fstab")),
    ("usr/lib/tmpfiles.d/sepulcher.conf", include_str!("templates/units/tmpfiles.conf")),
    (
        "usr/lib/systemd/system/sepulcher-firewall.service",
        include_str!("templates/units/sepulcher-firewall.service"),
    ),
    (
        "usr/lib/systemd/system/systemd-networkd.service.d/50-sepulcher.conf",
        include_str!("templates/units/networkd.conf"),
    ),
    (
        "usr/lib/systemd/system/sepulcher-awaken.service",
        include_str!("templates/units/sepulcher-awaken.service"),
    ),
    (
        "usr/lib/systemd/system/sepulcher-health.service",
        include_str!("templates/units/sepulcher-health.service"),
    ),
];

/// Units that start at boot: the target's folder, the unit.
const ENABLED: [(&str, &str); 4] = [
    ("sysinit.target.wants", "sepulcher-firewall.service"),
    ("multi-user.target.wants", "sepulcher-awaken.service"),
    ("multi-user.target.wants", "sepulcher-health.service"),
    ("boot-complete.target.requires", "sepulcher-health.service"),
];

/// Adds the host's units to `tree`.
pub fn render(codex: &Codex, tree: &mut Tree) -> Result<(), RenderError> {
    let Codex { appliance, uplink, pod: _, tether: _, services: _, peers: _ } = codex;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    let name = appliance.name.as_str();
    for (path, template) in PLAIN {
        tree.file(path, environment.render_str(template, context! { name })?)?;
    }
    for (folder, unit) in ENABLED {
        tree.link(format!("{SYSTEM}/{folder}/{unit}"), format!("../{unit}"))?;
    }
    tree.file("etc/hostname", format!("{name}\n"))?;
    let network = environment.render_str(include_str!("templates/units/uplink.network"), uplink_values(uplink))?;
    tree.file("usr/lib/systemd/network/50-uplink.network", network)?;
    partitions(name, tree)
}

fn uplink_values(uplink: &Uplink) -> minijinja::Value {
    let Uplink { interface, addressing } = uplink;
    let text = |values: &[std::net::IpAddr]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (addresses, gateways, servers) = match addressing {
        Addressing::Dhcp => Default::default(),
        Addressing::Static { addresses, gateways, dns } => (
            addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect(),
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

/// What systemd-repart makes of the disk on first boot: the other slot and the state.
fn partitions(name: &str, tree: &mut Tree) -> Result<(), RenderError> {
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
        (
            "90-state.conf",
            format!("[Partition]\nType=linux-generic\nLabel={name}_state\nFormat=ext4\nSizeMinBytes=512M\n"),
        ),
    ] {
        tree.file(format!("usr/lib/repart.d/{file}"), content)?;
    }
    Ok(())
}
