//! Every way to try: each source towards each place, in both families.

use std::net::{IpAddr, SocketAddr};

use sepulcher::codex::{Codex, Protocol};

use super::From;
use super::law::{DOOR, Law, NOBODYS, PORTS, SHELL, TETHER, WEB, WEB2};
use crate::arena::{OUTSIDER, OUTSIDER6, UPLINK, UPLINK6};
use crate::packets::{Ask, Attempt};

/// Addresses in the tether's network that no peer ever has.
const STRANGER: &str = "10.88.16.77";
const STRANGER6: &str = "fd88::77";

/// Source ports and identifiers of pings, each of them taken once: an attempt is known by its own wherever it comes out.
pub const NUMBERS: std::ops::Range<u16> = 10_000..50_000;

/// A port that nobody declares and that people try first.
const SSH: u16 = 22;

/// All ports that are asked.
pub fn ports() -> Vec<u16> {
    PORTS.chain([NOBODYS, SHELL, DOOR, TETHER, WEB, WEB2, SSH]).collect()
}

/// Addresses that somebody behind `wg0` may send from: peers of all states, what is behind them, and nobody's.
pub fn behind(law: &Law) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = vec![STRANGER.parse().unwrap()];
    all.extend(law.bonds.iter().map(super::law::Bond::address));
    all.extend(law.bonds.iter().filter_map(super::law::Bond::behind));
    if law.six {
        all.push(STRANGER6.parse().unwrap());
        all.extend(law.bonds.iter().map(super::law::Bond::address6));
    }
    all
}

/// Every pair of a source and a place of the same family, but for those within one machine of which nothing is promised.
fn pairs(law: &Law, codex: &Codex, behind: &[IpAddr]) -> Vec<(From, IpAddr, IpAddr)> {
    let [gateway, pod, wg0]: [IpAddr; 3] =
        [codex.pod.gateway.into(), codex.pod.address.into(), codex.tether.address.into()];
    let (uplink, uplink6, outsider, outsider6): (IpAddr, IpAddr, IpAddr, IpAddr) =
        (UPLINK.into(), UPLINK6.into(), OUTSIDER.into(), OUTSIDER6.into());
    let own6 = codex.tether.network6.map(|(_, address)| IpAddr::V6(address));
    let mut sources = vec![
        (From::Outside, outsider),
        (From::Outside, outsider6),
        (From::Outside, pod),
        (From::Host, gateway),
        (From::Host, uplink),
        (From::Host, uplink6),
        (From::Pod, pod),
        (From::Pod, wg0),
    ];
    sources.extend(own6.map(|own| (From::Pod, own)));
    // And the same addresses, from where they have no business.
    sources.extend(behind.iter().flat_map(|&one| [(From::Behind, one), (From::Outside, one)]));
    let mut places = vec![uplink, uplink6, gateway, pod, wg0, outsider, outsider6];
    places.extend(own6.into_iter().chain(behind.iter().copied()));
    let all = sources.into_iter().flat_map(|(from, source)| places.iter().map(move |&to| (from, source, to)));
    let tunnelled = |to| to == wg0 || (behind.contains(&to) && !super::plain::is_elsewhere(law, to));
    all.filter(|(from, source, to)| {
        let trivial = match from {
            From::Outside => *to == outsider || *to == outsider6 || source == to,
            // It speaks with the address of the interface by which it sends.
            From::Host if [uplink, uplink6, gateway].contains(to) => true,
            From::Host => source.is_ipv4() && (*source == gateway) != (*to == pod || tunnelled(*to)),
            From::Pod => source.is_ipv4() && (*source == wg0) != tunnelled(*to),
            From::Behind => source == to,
        };
        source.is_ipv4() == to.is_ipv4() && !trivial
    })
    .collect()
}

/// All attempts, numbered. Between peers, where ports make no difference, two ports are enough, and so they are for those
/// who pretend to be somebody towards another peer.
pub fn attempts(law: &Law, codex: &Codex) -> Vec<(From, Attempt)> {
    let (behind, ports) = (behind(law), ports());
    let mut numbers = NUMBERS;
    let mut attempts = Vec::new();
    for (from, source, to) in pairs(law, codex, &behind) {
        let ports = if behind.contains(&to) { &ports[..2] } else { &ports };
        let each = |protocol| ports.iter().map(move |&port| Ask::Port(protocol, port));
        for ask in each(Protocol::Tcp).chain(each(Protocol::Udp)).chain([Ask::Echo]) {
            let from_port = SocketAddr::new(source, numbers.next().unwrap());
            attempts.push((from, Attempt { from: from_port, to, ask }));
        }
    }
    attempts
}
