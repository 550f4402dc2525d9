//! A dark appliance has no forest: nothing but the Tether's own port may be found from outside.

use crate::codex::Tier;
use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::schema::{At, Draft, Field};

/// Reports what a dark appliance would show to the forest.
pub fn check(draft: &Draft, mistakes: &mut Vec<Diagnostic>) {
    let Some(law) = &draft.law else { return };
    let Some(At { value: true, place: dark }) = &law.dark else { return };
    if let Some(At { value: true, place }) = &law.echo {
        mistakes
            .push(found("a dark appliance answers no pings", place, dark).hint("remove `echo`, or `dark`"));
    }
    if let Field::Given(domain) = &law.domain {
        let message = "a dark appliance has no domain: nobody outside reaches its Veil";
        mistakes.push(found(message, &domain.place, dark).hint("remove `domain`, or `dark`"));
    }
    for service in draft.services.values().flatten() {
        let ports = service.ports.iter().map(|port| (&port.tier, "port"));
        let routes = service.routes.iter().map(|route| (&route.tier, "route"));
        for (tier, what) in ports.chain(routes) {
            if let Some(At { value: Tier::Forest, place }) = tier {
                let mistake = found(&format!("a dark appliance has no forest for this {what}"), place, dark);
                mistakes
                    .push(mistake.hint("make it `tier = \"tether\"`, or remove `dark` from `[appliance]`"));
            }
        }
    }
}

fn found(message: &str, place: &Place, dark: &Place) -> Diagnostic {
    Diagnostic::error(message, place).related(dark, "dark here")
}
