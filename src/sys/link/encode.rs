//! rtnetlink messages, built and read without a socket.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::sync::Prefix;

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Kind (`wireguard`, `tun`, `dummy`, …); empty for a device without one.
    pub kind: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
}

pub(super) fn get(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    RouteNetlinkMessage::GetLink(message)
}

pub(super) fn create(name: &str, kind: InfoKind) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    RouteNetlinkMessage::NewLink(message)
}

pub(super) fn set_mtu(index: u32, mtu: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Mtu(mtu));
    RouteNetlinkMessage::SetLink(message)
}

pub(super) fn bring_up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

/// `local` and `address` are one on anything but a point-to-point link; no broadcast address is set.
pub(super) fn address(index: u32, prefix: Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(prefix.address);
    message.header.prefix_len = prefix.length;
    message.attributes.push(AddressAttribute::Local(prefix.address));
    message.attributes.push(AddressAttribute::Address(prefix.address));
    message
}

pub(super) fn list_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// A route in the main table, of the protocol by which we know our own.
pub(super) fn route(index: u32, prefix: Prefix) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(prefix.address);
    message.header.destination_prefix_length = prefix.length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if prefix.address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.attributes.push(RouteAttribute::Destination(match prefix.address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

pub(super) fn list_routes(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    RouteNetlinkMessage::GetRoute(message)
}

pub(super) fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        kind: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// The address of link `index` that the message tells, unless it is link-local (those are the kernel's).
pub(super) fn read_address(index: u32, message: &RouteNetlinkMessage) -> Option<Prefix> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != index {
        return None;
    }
    // IPv6 reports `address` alone; on IPv4 `local` is the interface's own.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = own.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    (!local).then_some(Prefix { address, length: message.header.prefix_len })
}

/// The destination of a route of ours through link `index`.
pub(super) fn read_route(index: u32, message: &RouteNetlinkMessage) -> Option<Prefix> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let ours = message.header.protocol == RouteProtocol::Static
        && message.attributes.contains(&RouteAttribute::Oif(index));
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    ours.then_some(Prefix { address: destination, length: message.header.destination_prefix_length })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = netlink_packet_core::NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_wireguard_link_is_asked_for_by_name_and_kind() {
        let bytes = bytes(create("wg0", InfoKind::Wireguard));
        // Attribute IFLA_IFNAME (3) "wg0", then IFLA_LINKINFO (18) with IFLA_INFO_KIND (1) "wireguard".
        assert!(bytes.windows(8).any(|window| window == b"\x08\0\x03\0wg0\0"), "{bytes:02x?}");
        assert!(bytes.windows(14).any(|window| window == b"\x0e\0\x01\0wireguard\0"), "{bytes:02x?}");
        assert_eq!(&bytes[4..6], 16_u16.to_ne_bytes());
    }

    #[test]
    fn bringing_up_changes_that_one_flag() {
        let RouteNetlinkMessage::SetLink(message) = bring_up(7) else { panic!("not a change") };
        assert_eq!((message.header.index, message.header.flags), (7, LinkFlags::Up));
        assert_eq!(message.header.change_mask, LinkFlags::Up);
        assert_eq!(message.attributes, []);
    }

    #[test]
    fn addresses_and_routes_read_back_as_they_were_written() {
        for text in ["10.88.16.1", "fd88::1"] {
            let prefix = Prefix { address: text.parse().unwrap(), length: 20 };
            let message = RouteNetlinkMessage::NewAddress(address(7, prefix));
            assert_eq!(read_address(7, &message), Some(prefix));
            assert_eq!(read_address(8, &message), None);
            let message = RouteNetlinkMessage::NewRoute(route(7, prefix));
            assert_eq!(read_route(7, &message), Some(prefix));
            assert_eq!(read_route(8, &message), None);
        }
    }

    #[test]
    fn what_the_kernel_made_by_itself_is_not_ours() {
        let local = Prefix { address: "fe80::1".parse().unwrap(), length: 64 };
        assert_eq!(read_address(7, &RouteNetlinkMessage::NewAddress(address(7, local))), None);
        let mut connected = route(7, Prefix { address: [10, 88, 16, 0].into(), length: 20 });
        connected.header.protocol = RouteProtocol::Kernel;
        assert_eq!(read_route(7, &RouteNetlinkMessage::NewRoute(connected)), None);
    }
}
