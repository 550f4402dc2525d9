//! The agent's doors: one port, and a grant of its own for each.

use super::cause::{grant_command, held, peer_cause};
use super::rule::Rule;
use super::{Family, Fate, Place, Reach, Source, Target, Verdict};
use crate::codex::{DOOR_PORT, Door, Protocol};

impl Reach<'_> {
    pub(super) fn door(&self, source: &Source, door: Door) -> Verdict {
        let word = door.word();
        let asks = |place| self.verdict(source, &Target::Port(place, Protocol::Tcp, DOOR_PORT));
        let found = match source {
            Source::Host => {
                let why = "the host asks at /run/sepulcher/agent/door.sock, where every door is open";
                return Verdict::new(Fate::Allowed, Rule::AgentDoor, why);
            }
            Source::Pod => {
                let why = "the agent knows peers by their tunnel address, and a container has none";
                return Verdict::new(Fate::Unknown, Rule::AgentDoor, why);
            }
            Source::Forest => asks(Place::Uplink(Family::V4)),
            Source::Peer(_) | Source::Stranger(_) => asks(Place::At(self.codex().tether.address.into())),
        };
        let Source::Peer(name) = source else { return found };
        let holds = self.peer(name).is_some_and(|peer| peer.grants.doors.contains(&door));
        match (found.allowed(), holds) {
            (true, true) => {
                let why = format!("it holds the grant `{word}`");
                Verdict { element: found.element, ..Verdict::new(Fate::Allowed, Rule::AgentDoor, why) }
                    .causes([held(name, word)])
            }
            (true, false) => {
                let why = format!("it reaches the agent's port, and does not hold the grant `{word}`");
                Verdict::new(Fate::Unknown, Rule::AgentDoor, why)
                    .causes([peer_cause(name, "grants", "does not hold it")])
                    .remedy(grant_command(name, word))
            }
            (false, _) if found.fate == Fate::Denied => found.remedy(grant_command(name, word)),
            (false, _) => found,
        }
    }
}
