//! The port arbiter: services, the Tether and the reserved numbers share one plane.
//!
//! All containers of the pod share one network namespace, and a forest port keeps its number on the host,
//! so that a number and protocol can belong to one claimant only.

use std::collections::BTreeMap;

use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::schema::{At, Draft, Service, ServicePort};
use crate::codex::{DOOR_PORT, Protocol, Tier};

/// Whose a reserved number is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The service of that name.
    Service(&'static str),
    /// The service with `veil = true`.
    Veil,
    /// The Tether itself.
    Tether,
}

/// Numbers that belong to a part of LychD, whoever is there first.
const RESERVED: [(u16, Owner); 9] = [
    (80, Owner::Veil),
    (443, Owner::Veil),
    (4318, Owner::Service("oculus")),
    (5173, Owner::Service("vite")),
    (5432, Owner::Service("phylactery")),
    (6006, Owner::Service("oculus")),
    (7134, Owner::Service("vessel")),
    (51820, Owner::Tether),
    (DOOR_PORT.get(), Owner::Tether),
];

/// UDP ports on which the host itself is a DHCP client.
const DHCP: [u16; 2] = [68, 546];

/// Checks all claims against each other and against the reserved numbers.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    let mut claims: BTreeMap<(u16, Protocol), (&Place, String)> = BTreeMap::new();
    if let Some(port) = draft.law.as_ref().and_then(|law| law.port.as_ref()) {
        claims.insert((port.value.get(), Protocol::Udp), (&port.place, "the Tether".into()));
        tether(port.value.get(), &port.place, mistakes);
    }
    for (name, service) in &draft.services {
        let Some(service) = service else { continue };
        for port in &service.ports {
            let (Some(number), Some(protocol)) = (&port.number, &port.protocol) else { continue };
            let key = (number.value.get(), protocol.value);
            if reserved(name, service, number, mistakes) {
                continue;
            }
            host_own(key, port.tier.as_ref().map(|tier| tier.value), &number.place, mistakes);
            match claims.get(&key) {
                Some((first, owner)) => twice(key, &number.place, first, owner, mistakes),
                None => {
                    claims.insert(key, (&number.place, format!("`{name}`")));
                }
            }
        }
        veil(service, mistakes);
    }
}

fn twice(
    (number, protocol): (u16, Protocol),
    place: &Place,
    first: &Place,
    owner: &str,
    mistakes: &mut Vec<Diagnostic>,
) {
    let message = format!("port {number}/{protocol} is claimed twice");
    let mistake = Diagnostic::error(message, place).label("claimed again");
    mistakes.push(
        mistake
            .related(first, format!("first claimed here, by {owner}"))
            .note("all services share the pod's network, so a port can have one owner only")
            .hint("change one of the two numbers"),
    );
}

/// Reports a claim to a number that is somebody else's; says whether it did.
fn reserved(name: &Name, service: &Service, at: &At<Port>, mistakes: &mut Vec<Diagnostic>) -> bool {
    let (number, place) = (at.value.get(), &at.place);
    let Some((_, owner)) = RESERVED.iter().find(|(reserved, _)| *reserved == number) else { return false };
    let (allowed, whose) = match owner {
        Owner::Service(of) => (name.as_str() == *of, format!("the service `{of}`")),
        // A wrong `veil` is reported already.
        Owner::Veil => (service.veil.as_ref().is_none_or(|veil| veil.value), "the Veil".into()),
        Owner::Tether => (false, "the Tether".into()),
    };
    if !allowed {
        let mistake = Diagnostic::error(format!("port {number} is reserved for {whose}"), place);
        mistakes.push(mistake.label(format!("claimed by `{name}`")).hint(match owner {
            Owner::Service(of) => format!("choose another number, or call the service `{of}`"),
            Owner::Veil => "choose another number, or write `veil = true` if this is the HTTP proxy".into(),
            Owner::Tether => "choose another number".into(),
        }));
    }
    !allowed
}

fn host_own(
    (number, protocol): (u16, Protocol),
    tier: Option<Tier>,
    place: &Place,
    mistakes: &mut Vec<Diagnostic>,
) {
    if tier == Some(Tier::Forest) && protocol == Protocol::Udp && DHCP.contains(&number) {
        let mistake = Diagnostic::error(format!("port {number}/udp is the host's own, for DHCP"), place);
        mistakes.push(mistake.hint("choose another number"));
    }
}

/// The Tether may sit on the Veil's numbers, which are TCP there: some networks let nothing else out.
fn tether(number: u16, place: &Place, mistakes: &mut Vec<Diagnostic>) {
    let owner = RESERVED.iter().find(|(reserved, _)| *reserved == number).map(|(_, owner)| *owner);
    let whose = match owner {
        Some(Owner::Service(of)) => format!("is reserved for the service `{of}`"),
        None if DHCP.contains(&number) => "is the host's own, for DHCP".into(),
        _ => return,
    };
    let mistake = Diagnostic::error(format!("port {number} {whose}"), place).label("claimed by the Tether");
    mistakes.push(mistake.hint("choose another number; the default is 51820"));
}

fn veil(service: &Service, mistakes: &mut Vec<Diagnostic>) {
    let Some(At { value: true, place }) = &service.veil else { return };
    let half_read =
        |port: &ServicePort| port.number.is_none() || port.protocol.is_none() || port.tier.is_none();
    let listens = service.ports.iter().any(|port| {
        half_read(port)
            || (port.number.as_ref().is_some_and(|number| [80, 443].contains(&number.value.get()))
                && port.protocol.as_ref().is_some_and(|protocol| protocol.value == Protocol::Tcp)
                && port.tier.as_ref().is_some_and(|tier| tier.value != Tier::Pod))
    });
    if !listens {
        let mistake = Diagnostic::error("the Veil listens on neither port 80 nor port 443", place);
        mistakes.push(
            mistake.hint("give it `[[port]]` with `number = 80` and `tier = \"forest\"`, or `\"tether\"`"),
        );
    }
}
