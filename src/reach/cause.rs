//! Declarations that decide, and commands that would change them.

use super::{Cause, Offer, Origin, Reach};
use crate::codex::name::Name;
use crate::codex::{HostService, LAW, Step, Tier};

impl Reach<'_> {
    /// What an offer follows from.
    pub(super) fn origin(&self, offer: &Offer<'_>) -> Cause {
        match offer.origin {
            Origin::Tether => {
                let says = format!("the tether's port, {}/udp", self.codex.tether.port);
                Cause { file: LAW.to_owned(), key: vec![Step::Key("tether"), Step::Key("port")], says }
            }
            Origin::Port(service, index) => {
                let tier = self.codex.services[service].ports[index].tier;
                port_cause(service, index, tier)
            }
            Origin::Route(service, index) => self.route_cause(service, index),
            Origin::Door => Cause {
                file: LAW.to_owned(),
                key: vec![Step::Key("tether")],
                says: "the agent's door is there with every tether".to_owned(),
            },
        }
    }
}

/// A service of the host, counted from 0.
pub fn host_cause(service: &HostService, index: usize) -> Cause {
    let key = vec![Step::Key("host"), Step::Index(index), Step::Key("port")];
    let about =
        if service.description.is_empty() { String::new() } else { format!(" ({})", service.description) };
    let says = format!("`{}`{about}, {} {} of the host", service.name, service.protocol, service.port);
    Cause { file: LAW.to_owned(), key, says }
}

/// The tier of a service's port.
pub fn port_cause(service: &Name, index: usize, tier: Tier) -> Cause {
    let key = vec![Step::Key("port"), Step::Index(index), Step::Key("tier")];
    Cause { file: format!("services/{service}.toml"), key, says: format!("tier `{tier}`") }
}

/// A key of a peer's file.
pub fn peer_cause(peer: &Name, key: &'static str, says: &str) -> Cause {
    Cause { file: format!("peers/{peer}.toml"), key: vec![Step::Key(key)], says: says.to_owned() }
}

/// The grant that a peer holds.
pub fn held(peer: &Name, word: &str) -> Cause {
    let key = vec![Step::Key("grants"), Step::Word(word.to_owned())];
    Cause { file: format!("peers/{peer}.toml"), key, says: format!("grants `{word}`") }
}

/// What lets a peer reach more.
pub fn grant_command(peer: &Name, word: &str) -> String {
    format!("sepulcher peer grant {peer} {word}")
}

/// What lets somebody in who is not bonded yet.
pub fn bond_command(word: &Name) -> String {
    format!("sepulcher peer bond NAME --grant {word}")
}
