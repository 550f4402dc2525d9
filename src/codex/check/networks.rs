//! Address spaces: sizes, and that no two of them overlap.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::build::pod_address;
use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::net::{Net4, Net6};
use crate::codex::schema::{Addressed, Addressing, At, Draft, Field, Kind, Law};
use crate::codex::{Endpoint, PeerState};

/// An address space with what it is for.
struct Space<'a, N> {
    network: N,
    what: String,
    place: &'a Place,
    /// Spaces of the group may overlap: two addresses of the uplink in one subnet.
    group: Option<Uplink>,
}

/// The only group.
#[derive(Clone, Copy)]
struct Uplink;

/// IPv4 networks that cannot be used for anything here.
const UNUSABLE: [(&str, &str); 5] = [
    ("0.0.0.0/8", "the unspecified address"),
    ("10.127.0.0/24", "Podman's default network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/3", "multicast and reserved addresses"),
];

/// IPv6 networks that cannot be used for anything here.
const UNUSABLE6: [(&str, &str); 3] = [
    ("::/8", "loopback and unspecified addresses"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast addresses"),
];

/// Checks sizes, overlaps and the addresses of the machine itself.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    let mut spaces = Vec::new();
    let mut spaces6 = Vec::new();
    if let Some(law) = &draft.law {
        own_spaces(law, &mut spaces, &mut spaces6, mistakes);
        pod(law, mistakes);
        mtu(law, mistakes);
        endpoint(law, mistakes);
        uplink(law, mistakes);
    }
    for (name, peer) in &draft.peers {
        let Some(peer) = peer else { continue };
        // A revoked peer routes nothing any more.
        if peer.state.as_ref().is_none_or(|state| state.value == PeerState::Revoked) {
            continue;
        }
        if let Some(Kind::Lych { routes: Field::Given(routes), .. }) = &peer.kind {
            for route in &routes.value {
                let what = format!("`{name}`'s route");
                spaces.push(Space { network: route.value, what, place: &route.place, group: None });
            }
        }
    }
    overlaps(&spaces, Net4::overlaps, mistakes);
    overlaps(&spaces6, Net6::overlaps, mistakes);
    unusable(&spaces, &UNUSABLE, Net4::overlaps, mistakes);
    unusable(&spaces6, &UNUSABLE6, Net6::overlaps, mistakes);
}

fn own_spaces<'a>(
    law: &'a Law,
    spaces: &mut Vec<Space<'a, Net4>>,
    spaces6: &mut Vec<Space<'a, Net6>>,
    mistakes: &mut Vec<Diagnostic>,
) {
    for (at, what) in [(&law.pod_network, "the pod's network"), (&law.network, "the Tether's network")] {
        let Some(at) = at else { continue };
        size(at, what, mistakes);
        spaces.push(Space { network: at.value, what: what.into(), place: &at.place, group: None });
    }
    if let Field::Given(at) = &law.network6 {
        if at.value.prefix() > 126 {
            let message = format!("the Tether's network {} has no room for peers", at.value);
            mistakes.push(
                Diagnostic::error(message, &at.place).hint("use a prefix length of 126 or less; 64 is usual"),
            );
        }
        let what = "the Tether's IPv6 network".into();
        spaces6.push(Space { network: at.value, what, place: &at.place, group: None });
    }
    let Some(Addressing::Static { addresses, .. }) = &law.addressing else { return };
    for at in addresses {
        let (address, prefix) = (at.value.0, at.value.1);
        let (what, place) = ("the uplink's subnet".into(), &at.place);
        match address {
            IpAddr::V4(address) => {
                spaces.push(Space {
                    network: Net4::around(address, prefix),
                    what,
                    place,
                    group: Some(Uplink),
                });
            }
            IpAddr::V6(address) => {
                spaces6.push(Space {
                    network: Net6::around(address, prefix),
                    what,
                    place,
                    group: Some(Uplink),
                });
            }
        }
    }
}

fn size(at: &At<Net4>, what: &str, mistakes: &mut Vec<Diagnostic>) {
    let (prefix, message) = (at.value.prefix(), at.value);
    if prefix > 30 {
        let mistake = Diagnostic::error(format!("{what} {message} has no room for two hosts"), &at.place);
        mistakes.push(mistake.hint("use a prefix length of 30 or less"));
    } else if prefix < 8 {
        let mistake =
            Diagnostic::error(format!("{what} {message} is larger than any private network"), &at.place);
        mistakes.push(mistake.hint("use a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"));
    }
}

/// Indices of the first space without a group, and of the first space at all.
#[derive(Clone, Copy)]
struct First {
    plain: usize,
    any: usize,
}

impl First {
    fn lower(&mut self, other: Self) {
        self.plain = self.plain.min(other.plain);
        self.any = self.any.min(other.any);
    }
}

/// For each network the first spaces that overlap it, its own included.
fn firsts<N: Copy + Ord>(spaces: &[Space<'_, N>], overlap: fn(N, N) -> bool) -> BTreeMap<N, First> {
    let mut own: BTreeMap<N, First> = BTreeMap::new();
    for (index, space) in spaces.iter().enumerate() {
        let plain = if space.group.is_none() { index } else { usize::MAX };
        let first = First { plain, any: index };
        own.entry(space.network).and_modify(|known| known.lower(first)).or_insert(first);
    }
    let mut firsts = own.clone();
    // In their order a network comes before those inside it, and those follow without a gap.
    let mut around: Vec<N> = Vec::new();
    for (&network, &first) in &own {
        while around.last().is_some_and(|outer| !overlap(*outer, network)) {
            around.pop();
        }
        for outer in &around {
            firsts.entry(*outer).and_modify(|known| known.lower(first));
            firsts.entry(network).and_modify(|known| known.lower(own[outer]));
        }
        around.push(network);
    }
    firsts
}

fn overlaps<N: Copy + Ord + std::fmt::Display>(
    spaces: &[Space<'_, N>],
    overlap: fn(N, N) -> bool,
    mistakes: &mut Vec<Diagnostic>,
) {
    let firsts = firsts(spaces, overlap);
    for (index, space) in spaces.iter().enumerate() {
        let First { plain, any } = firsts[&space.network];
        let first = if space.group.is_none() { any } else { plain };
        let Some(first) = spaces[..index].get(first) else { continue };
        let message = format!("{} {} overlaps {} {}", space.what, space.network, first.what, first.network);
        // Point at what is written, not at a default.
        let (place, other) = if space.place.span.is_some() { (space, first) } else { (first, space) };
        let mut mistake = Diagnostic::error(message, place.place).label(place.what.clone());
        mistake = if other.place.span.is_some() {
            mistake.related(other.place, other.what.clone())
        } else {
            mistake.note(format!("{} is the default, {}", other.what, other.network))
        };
        mistakes.push(mistake.hint("address spaces must be disjoint: change one of the two"));
    }
}

fn unusable<N: Copy + std::fmt::Display + std::str::FromStr>(
    spaces: &[Space<'_, N>],
    ranges: &[(&str, &str)],
    overlap: fn(N, N) -> bool,
    mistakes: &mut Vec<Diagnostic>,
) {
    for space in spaces {
        let reserved =
            |(range, _): &&(&str, &str)| range.parse().is_ok_and(|range| overlap(range, space.network));
        if let Some((range, why)) = ranges.iter().find(reserved) {
            let message = format!("{} {} reaches into {range}, {why}", space.what, space.network);
            mistakes.push(Diagnostic::error(message, space.place).hint("choose another network"));
        }
    }
}

fn pod(law: &Law, mistakes: &mut Vec<Diagnostic>) {
    let (Some(network), Field::Given(address)) = (&law.pod_network, &law.pod_address) else { return };
    let (net, value) = (network.value, address.value);
    let reason = if !net.contains(value) {
        format!("the pod's address {value} is outside its network {net}")
    } else if value == net.address() || value == net.last() {
        format!("the pod's address {value} is the network or broadcast address of {net}")
    } else if value == net.first_host() {
        format!("the pod's address {value} is the host's own on the bridge")
    } else {
        return;
    };
    let mistake = Diagnostic::error(reason, &address.place);
    let mistake =
        if network.place.span.is_some() { mistake.related(&network.place, "its network") } else { mistake };
    mistakes.push(mistake.hint(format!("write `address = \"{}\"`, or leave it out", pod_address(net))));
}

fn mtu(law: &Law, mistakes: &mut Vec<Diagnostic>) {
    let Some(mtu) = &law.mtu else { return };
    if !(1280..=1500).contains(&mtu.value) {
        let mistake = Diagnostic::error(format!("`mtu` is out of range: {}", mtu.value), &mtu.place);
        mistakes.push(mistake.hint("write a number from 1280 to 1500; the default is 1420"));
    }
}

/// An endpoint is where clients outside dial: over IPv4, at an address that is not within.
fn endpoint(law: &Law, mistakes: &mut Vec<Diagnostic>) {
    let Field::Given(at) = &law.endpoint else { return };
    let At { value: Endpoint::Ip(address), place } = &**at else { return };
    let IpAddr::V4(address) = address else {
        let mistake = Diagnostic::error(format!("the endpoint {address} is an IPv6 address"), place);
        mistakes.push(mistake.hint("clients dial over IPv4 alone so far: write an IPv4 address or a name"));
        return;
    };
    let within = |net: &Option<At<Net4>>| net.as_ref().is_some_and(|net| net.value.contains(*address));
    let what = if address.is_loopback() || address.is_unspecified() {
        "the machine's own to itself"
    } else if within(&law.pod_network) {
        "inside the pod's network"
    } else if within(&law.network) {
        "inside the Tether's network"
    } else {
        return;
    };
    let mistake = Diagnostic::error(format!("the endpoint {address} is {what}: no client reaches it"), place);
    mistakes.push(mistake.hint("write the address or the name that clients dial from outside"));
}

fn uplink(law: &Law, mistakes: &mut Vec<Diagnostic>) {
    let Some(Addressing::Static { addresses, gateways, dns: _ }) = &law.addressing else { return };
    let mut given: BTreeMap<IpAddr, &Place> = BTreeMap::new();
    for at in addresses {
        if let Some(first) = given.get(&at.value.0) {
            let mistake = Diagnostic::error(format!("the address {} is given twice", at.value.0), &at.place);
            mistakes.push(mistake.related(first, "first given here").hint("remove one of the two"));
        } else {
            given.insert(at.value.0, &at.place);
        }
    }
    for (index, at) in gateways.iter().enumerate() {
        let same_family = |first: &&At<IpAddr>| first.value.is_ipv4() == at.value.is_ipv4();
        if let Some(first) = gateways[..index].iter().find(same_family) {
            let family = if at.value.is_ipv4() { "IPv4" } else { "IPv6" };
            let mistake = Diagnostic::error(format!("there are two {family} gateways"), &at.place);
            mistakes.push(mistake.related(&first.place, "the first").hint("keep one a family"));
        }
        // One a family is right: of a long list the first few tell enough.
        if index < 8 {
            gateway(at, addresses, mistakes);
        }
    }
}

fn gateway(gateway: &At<IpAddr>, addresses: &[At<Addressed>], mistakes: &mut Vec<Diagnostic>) {
    let reaches = |at: &At<Addressed>| match (at.value.0, gateway.value) {
        (IpAddr::V4(address), IpAddr::V4(gateway)) => Net4::around(address, at.value.1).contains(gateway),
        // Routers of IPv6 are usually named by their link-local address.
        (IpAddr::V6(address), IpAddr::V6(gateway)) => {
            gateway.is_unicast_link_local() || Net6::around(address, at.value.1).contains(gateway)
        }
        _ => false,
    };
    if let Some(own) = addresses.iter().find(|at| at.value.0 == gateway.value) {
        let mistake =
            Diagnostic::error(format!("the gateway {} is the machine itself", gateway.value), &gateway.place);
        mistakes.push(mistake.related(&own.place, "its own address").hint("write the router's address"));
    } else if !addresses.iter().any(reaches) {
        let message = format!("the gateway {} is in no subnet of the uplink's addresses", gateway.value);
        let mistake = Diagnostic::error(message, &gateway.place);
        mistakes.push(mistake.hint("check the prefix lengths in `addresses`"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_overlap_is_the_one_that_comparing_all_pairs_finds(
            networks in prop::collection::vec((0..64_u32, 24..=32_u8, any::<bool>()), 0..24),
        ) {
            let place = Place::file("a");
            let space = |(low, prefix, plain): (u32, u8, bool)| Space {
                network: Net4::around(std::net::Ipv4Addr::from_bits(0x0a00_0000 + low * 16), prefix),
                what: String::new(),
                place: &place,
                group: (!plain).then_some(Uplink),
            };
            let spaces: Vec<_> = networks.into_iter().map(space).collect();
            let firsts = firsts(&spaces, Net4::overlaps);
            for space in &spaces {
                let first = |plain: bool| spaces.iter().position(|other| {
                    (!plain || other.group.is_none()) && other.network.overlaps(space.network)
                });
                let First { plain, any } = firsts[&space.network];
                prop_assert_eq!(Some(any), first(false));
                prop_assert_eq!((plain != usize::MAX).then_some(plain), first(true));
            }
        }
    }
}
