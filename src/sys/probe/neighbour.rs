//! Who is on the same link: the kernel asks there who has an address before it sends to it, and notes the answer.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_request::netlink_request_rtnl;

/// Whether somebody on the same link said lately that the address is theirs. `false` when that cannot be known.
pub fn is_there(address: IpAddr) -> bool {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let request = RouteNetlinkMessage::GetNeighbour(message);
    let Ok(responses) = netlink_request_rtnl(request, Some(NLM_F_REQUEST | NLM_F_DUMP)) else { return false };
    responses.into_iter().any(|response| match response.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => has(&entry, address),
        _ => false,
    })
}

/// An entry that somebody wrote by hand says nothing, nor does one that is just being asked for again.
fn has(entry: &NeighbourMessage, address: IpAddr) -> bool {
    let answered = matches!(
        entry.header.state,
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay
    );
    answered
        && entry.attributes.iter().any(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(is)) => address == *is,
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(is)) => address == *is,
            _ => false,
        })
}
