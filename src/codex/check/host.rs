//! Services of the host: names and ports of their own.

use std::collections::BTreeMap;

use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::schema::{At, Draft};
use crate::codex::{Door, Protocol, Tier};

/// Checks names against those of services and doors, and ports against each other and what is published.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    let Some(law) = &draft.law else { return };
    let (mut names, mut ports) = (BTreeMap::new(), BTreeMap::new());
    let published = published(draft);
    for service in &law.host {
        if let Some(At { value: name, place }) = &service.name {
            own_name(draft, name, place, mistakes);
            if let Some(first) = names.insert(name, place) {
                let mistake =
                    Diagnostic::error(format!("two services of the host are called `{name}`"), place);
                mistakes.push(mistake.related(first, "the first").hint("rename one of the two"));
            }
        }
        let (Some(port), Some(protocol)) = (&service.port, &service.protocol) else { continue };
        let key = (port.value, protocol.value);
        let what = format!("{}/{}", port.value, protocol.value);
        if let Some(first) = published.get(&key) {
            let mistake = Diagnostic::error(format!("the host hands {what} on to the pod"), &port.place);
            mistakes.push(mistake.related(first, "published here").hint("change one of the two numbers"));
        }
        if let Some(first) = ports.insert(key, &port.place) {
            let mistake = Diagnostic::error(format!("port {what} of the host is claimed twice"), &port.place);
            mistakes.push(mistake.related(first, "first claimed here").hint("remove one of the two"));
        }
    }
}

fn own_name(draft: &Draft, name: &Name, place: &Place, mistakes: &mut Vec<Diagnostic>) {
    if Door::named(name.as_str()).is_some() {
        let message = format!(
            "a service of the host cannot be called `{name}`: as a grant the word is the agent's own"
        );
        mistakes.push(Diagnostic::error(message, place).hint("rename it"));
    }
    if let Some(service) = draft.services.get(name) {
        let mistake = Diagnostic::error(format!("`{name}` is the name of a service already"), place);
        let mistake = match service {
            Some(service) => mistake.related(&service.place, "the service"),
            None => mistake,
        };
        mistakes.push(mistake.note("a grant names either").hint("rename one of the two"));
    }
}

/// What comes in on the uplink and is turned to the pod, whoever sends it.
fn published(draft: &Draft) -> BTreeMap<(Port, Protocol), &Place> {
    let mut published = BTreeMap::new();
    if let Some(port) = draft.law.as_ref().and_then(|law| law.port.as_ref()) {
        published.insert((port.value, Protocol::Udp), &port.place);
    }
    let ports = draft.services.values().flatten().flat_map(|service| &service.ports);
    for port in ports.filter(|port| port.tier.as_ref().is_some_and(|tier| tier.value == Tier::Forest)) {
        if let (Some(number), Some(protocol)) = (&port.number, &port.protocol) {
            published.insert((number.value, protocol.value), &number.place);
        }
    }
    published
}
