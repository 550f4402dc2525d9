//! What the host itself offers to peers.

use super::cause::{grant_command, held, host_cause, peer_cause};
use super::judge::Ask;
use super::rule::Rule;
use super::{Fate, Grant, Reach, Verdict, holds_host};
use crate::codex::Peer;
use crate::codex::name::Name;

impl Reach<'_> {
    /// What a peer asks of the host's address on the bridge, where the host offers something.
    pub(super) fn host_service(&self, name: &Name, peer: &Peer, ask: Ask) -> Verdict {
        let Ask::Port(protocol, port) = ask else {
            return Verdict::new(Fate::Denied, Rule::HostDenied, "the host answers no pings of peers");
        };
        let mut services = self.codex().host.iter().enumerate();
        let Some((index, service)) =
            services.find(|(_, service)| (service.protocol, service.port) == (protocol, port))
        else {
            let why = format!("the host offers nothing at {protocol} {port}");
            return Verdict::new(Fate::Denied, Rule::HostDenied, why);
        };
        let (word, cause) = (service.name.as_str(), host_cause(service, index));
        if holds_host(peer, service) {
            let grant = Grant { address: peer.address.into(), protocol, port };
            return Verdict::new(
                Fate::Allowed,
                Rule::HostGrants,
                format!("`{name}` holds the grant `{word}`"),
            )
            .element(grant)
            .causes([held(name, word), cause]);
        }
        let why = format!("`{name}` does not hold the grant `{word}`, which `*` does not hold either");
        Verdict::new(Fate::Denied, Rule::HostDenied, why)
            .causes([peer_cause(name, "grants", "does not hold it"), cause])
            .remedy(grant_command(name, word))
    }
}
