//! The law's own tables, as they are once nothing is wrong with them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::{DnsName, InterfacePattern, Name};
use super::net::{Net4, Net6, Port};
use super::time::Length;
use super::{Protocol, PublisherKey, UrlPrefix};

/// Who the machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// Host name and stem of all partition labels and unit names.
    pub name: Name,
    /// Public DNS name that the Veil answers to; without one it serves plain HTTP on any name.
    pub domain: Option<DnsName>,
    /// Whether it has no forest: nothing but the Tether's own port is published.
    pub dark: bool,
}

impl Appliance {
    /// Podman's name of a container in the pod, a service's or the agent's (`vpn`): Quadlet names it after the unit.
    pub fn container(&self, of: &str) -> String {
        format!("systemd-{}-{of}", self.name)
    }
}

/// The interface towards the forest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Which interfaces are uplinks, as systemd-networkd matches names (e.g. `en*`).
    pub interface: InterfacePattern,
    /// Where its addresses come from.
    pub addressing: Addressing,
    /// Whether echo requests (pings) from the forest are answered, a few a second.
    pub echo: bool,
}

/// Where an uplink's addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressing {
    /// DHCPv4 and IPv6 router advertisements.
    Dhcp,
    /// Fixed.
    Static {
        /// Addresses with their prefix lengths.
        addresses: Vec<(IpAddr, u8)>,
        /// Default gateways, at most one a family.
        gateways: Vec<IpAddr>,
        /// Name servers.
        dns: Vec<IpAddr>,
    },
}

/// The pod's bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Subnet of the bridge, e.g. `10.88.0.0/24`.
    pub network: Net4,
    /// The host's address on the bridge: the first of the subnet.
    pub gateway: Ipv4Addr,
    /// The pod's address on the bridge, e.g. `10.88.0.10`.
    pub address: Ipv4Addr,
}

/// A service of the host itself: reached through `wg0` and the pod at [`Pod::gateway`], by peers that hold the grant
/// of its name. `*` does not hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostService {
    /// What it is granted by.
    pub name: Name,
    /// Port on the host.
    pub port: Port,
    /// Transport protocol.
    pub protocol: Protocol,
    /// One line for people; may be empty.
    pub description: String,
}

/// Whose updates this body takes, and where from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebirth {
    /// Whose signature an update must carry; without one there are no updates.
    pub publisher: Option<PublisherKey>,
    /// What may be fetched besides folders and files on the machine: URLs below one of these.
    pub sources: Vec<UrlPrefix>,
    /// How long a body may take to prove healthy.
    pub patience: Length,
}

/// The partition of what the machine remembers, `/var`: its key, bonds, volumes, snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How it is encrypted; chosen when the partition is made, on the first boot of a disk.
    pub encryption: Encryption,
}

/// What a partition is encrypted with. Displays as the Codex writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing.
    None,
    /// LUKS2, with a key that only the TPM 2.0 of the machine releases.
    Tpm2,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Tpm2 => "tpm2",
        })
    }
}

/// The WireGuard interface `wg0` in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tether {
    /// UDP port, on the uplink and in the pod.
    pub port: Port,
    /// Address space of the peers, e.g. `10.88.16.0/20`.
    pub network: Net4,
    /// `wg0`'s own address: the first of the network.
    pub address: Ipv4Addr,
    /// Optional IPv6 address space of the peers and `wg0`'s address in it.
    pub network6: Option<(Net6, Ipv6Addr)>,
    /// MTU of `wg0` and of client configurations, 1280 to 1500.
    pub mtu: u16,
    /// What clients dial: host name or address; the port is [`Tether::port`]. Absent until it is known.
    pub endpoint: Option<Endpoint>,
    /// PersistentKeepalive of client configurations in seconds; 0 is off.
    pub keepalive: u16,
    /// Which WireGuard implementation serves `wg0`.
    pub backend: Backend,
    /// How long the address of a revoked peer rests before another one may have it.
    pub fence: Length,
}

impl Tether {
    /// Whether an address lies in the address space of the peers.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.network.contains(address),
            IpAddr::V6(address) => self.network6.is_some_and(|(network, _)| network.contains(address)),
        }
    }

    /// Whether it is `wg0`'s own address.
    pub fn is_own(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.address == address,
            IpAddr::V6(address) => self.network6.is_some_and(|(_, own)| own == address),
        }
    }
}

/// A host to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A name that the client resolves.
    Dns(DnsName),
    /// A fixed address.
    Ip(IpAddr),
}

/// Which WireGuard implementation serves `wg0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's.
    Kernel,
    /// A userspace one through its UAPI socket.
    Userspace,
}
