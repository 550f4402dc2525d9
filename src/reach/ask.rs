//! What people write for who and what: `phone`, `oculus:6006`, `10.88.0.1:22/tcp`, `/a2a/smith`.

use std::net::{IpAddr, SocketAddr};

use super::{Family, Place, Reach, Source, Target};
use crate::codex::name::Name;
use crate::codex::net::Port;
use crate::codex::{Door, Protocol, Service, Tier, nearest};

/// Words that are no names of the Codex.
const SOURCES: [&str; 3] = ["forest", "host", "pod"];

/// A target, and how it is called in answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// For people: `oculus:6006/tcp`.
    pub label: String,
    /// What is asked about.
    pub target: Target,
}

/// A word that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotUnderstood {
    message: String,
    /// The remedy.
    pub hint: String,
}

impl NotUnderstood {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl Reach<'_> {
    /// Who is meant by `word`.
    pub fn source(&self, word: &str) -> Result<Source, NotUnderstood> {
        match word {
            "forest" => return Ok(Source::Forest),
            "host" => return Ok(Source::Host),
            "pod" => return Ok(Source::Pod),
            _ => {}
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            return Ok(self.speaker(address));
        }
        if let Some((name, _)) = self.codex().peers.iter().find(|(name, _)| name.as_str() == word) {
            return Ok(Source::Peer(name.clone()));
        }
        let message = format!("nobody here is called `{word}`");
        if self.codex().services.keys().any(|name| name.as_str() == word) {
            return Err(NotUnderstood::new(message, "services speak as the pod: write `pod`"));
        }
        let known = SOURCES.into_iter().chain(self.codex().peers.keys().map(Name::as_str));
        Err(NotUnderstood::new(
            message,
            match nearest(word, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a peer, `forest`, `host`, `pod` or an address".to_owned(),
            },
        ))
    }

    /// Who speaks with an address.
    fn speaker(&self, address: IpAddr) -> Source {
        let (pod, tether) = (&self.codex().pod, &self.codex().tether);
        if let Some(name) = self.holder(address) {
            Source::Peer(name.clone())
        } else if address == pod.address || address == tether.address {
            Source::Pod
        } else if address == pod.gateway {
            Source::Host
        } else if tether.contains(address) {
            Source::Stranger(address)
        } else {
            Source::Forest
        }
    }

    /// What is meant by `word` when `source` asks.
    pub fn questions(&self, source: &Source, word: &str) -> Result<Vec<Question>, NotUnderstood> {
        if word.starts_with('/') {
            return Ok(vec![Question { label: word.to_owned(), target: Target::Path(word.to_owned()) }]);
        }
        if let Some(door) = Door::named(word) {
            return Ok(vec![Question { label: format!("the door `{word}`"), target: Target::Door(door) }]);
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            return Ok(vec![ping(word, Place::At(address))]);
        }
        if let Some((name, service)) = self.service(word) {
            return self.whole(source, name, service);
        }
        if let Some(service) = self.codex().host_service(word) {
            let label = format!("{word}:{}/{} of the host", service.port, service.protocol);
            let target = Target::Port(self.host_place(source), service.protocol, service.port);
            return Ok(vec![Question { label, target }]);
        }
        if let Some((name, peer)) = self.codex().peers.iter().find(|(name, _)| name.as_str() == word) {
            return Ok(vec![ping(name.as_str(), Place::At(peer.address.into()))]);
        }
        if word == "host" {
            return Ok(vec![ping("host", self.host_place(source))]);
        }
        match word.rsplit_once(':') {
            Some((place, port)) if !place.contains(':') || place.starts_with('[') => {
                self.port(source, word, place, port)
            }
            _ => Err(self.nothing(word)),
        }
    }

    fn service(&self, word: &str) -> Option<(&Name, &Service)> {
        self.codex().services.iter().find(|(name, _)| name.as_str() == word)
    }

    /// `SERVICE:PORT`, `PEER:PORT`, `ADDRESS:PORT`, `:PORT`, each with `/udp` or `/tcp` behind it or not.
    fn port(
        &self,
        source: &Source,
        word: &str,
        place: &str,
        port: &str,
    ) -> Result<Vec<Question>, NotUnderstood> {
        let (number, protocol) = match port.split_once('/') {
            None => (port, None),
            Some((number, "tcp")) => (number, Some(Protocol::Tcp)),
            Some((number, "udp")) => (number, Some(Protocol::Udp)),
            Some((_, other)) => {
                let message = format!("`{other}` is no protocol of ports");
                return Err(NotUnderstood::new(message, "write `/tcp` or `/udp`"));
            }
        };
        let Ok(number) = number.parse::<Port>() else {
            return Err(NotUnderstood::new(
                format!("`{number}` is no port"),
                "write a number from 1 to 65535, as in `oculus:6006`",
            ));
        };
        if let Some((name, service)) = self.service(place) {
            return self.one(source, name, service, (number, protocol));
        }
        let protocol = protocol.unwrap_or(Protocol::Tcp);
        let place = if place.is_empty() {
            self.home(source, None)
        } else if let Some((_, peer)) = self.codex().peers.iter().find(|(name, _)| name.as_str() == place) {
            Place::At(peer.address.into())
        } else {
            let socket =
                format!("{place}:{number}").parse::<SocketAddr>().map_err(|_| self.nothing(place))?;
            Place::At(socket.ip())
        };
        let label = match word.split_once('/') {
            Some(_) => word.to_owned(),
            None => format!("{word}/{protocol}"),
        };
        Ok(vec![Question { label, target: Target::Port(place, protocol, number) }])
    }

    /// Where `source` finds the ports of the pod, those of `tier` if that matters.
    fn home(&self, source: &Source, tier: Option<Tier>) -> Place {
        match (source, tier) {
            (Source::Forest, _) | (Source::Peer(_), Some(Tier::Forest)) => Place::Uplink(Family::V4),
            (Source::Peer(_) | Source::Stranger(_), _) => Place::At(self.codex().tether.address.into()),
            (Source::Host | Source::Pod, _) => Place::At(self.codex().pod.address.into()),
        }
    }

    /// Where `source` finds the host itself.
    fn host_place(&self, source: &Source) -> Place {
        match source {
            Source::Forest => Place::Uplink(Family::V4),
            _ => Place::At(self.codex().pod.gateway.into()),
        }
    }

    /// One port of a service.
    fn one(
        &self,
        source: &Source,
        name: &Name,
        service: &Service,
        (number, protocol): (Port, Option<Protocol>),
    ) -> Result<Vec<Question>, NotUnderstood> {
        let all = self.whole(source, name, service)?;
        let wanted = |question: &Question| {
            matches!(question.target, Target::Port(_, is, port)
                if port == number && protocol.is_none_or(|protocol| protocol == is))
        };
        let found: Vec<Question> = all.into_iter().filter(wanted).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let ports: Vec<String> =
            service.ports.iter().map(|port| format!("{}/{}", port.number, port.protocol)).collect();
        let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        Err(NotUnderstood::new(
            format!("`{name}` has no such port: {number}"),
            format!("its ports are: {ports}; write `:{number}` to ask about the port whoever has it"),
        ))
    }

    /// All ports and routes of a service.
    fn whole(&self, source: &Source, name: &Name, service: &Service) -> Result<Vec<Question>, NotUnderstood> {
        let ports = service.ports.iter().map(|port| Question {
            label: format!("{name}:{}/{}", port.number, port.protocol),
            target: Target::Port(self.home(source, Some(port.tier)), port.protocol, port.number),
        });
        let routes = service.routes.iter().map(|route| Question {
            label: format!("{name}{}", route.path),
            target: Target::Path(route.path.to_string()),
        });
        let all: Vec<Question> = ports.chain(routes).collect();
        if all.is_empty() {
            let hint = "give it a `[[port]]` or a `[[route]]`";
            return Err(NotUnderstood::new(format!("`{name}` has neither ports nor routes"), hint));
        }
        Ok(all)
    }

    fn nothing(&self, word: &str) -> NotUnderstood {
        let codex = self.codex();
        let host = codex.host.iter().map(|service| &service.name);
        let names = codex.services.keys().chain(host).chain(codex.peers.keys()).map(Name::as_str);
        let doors = Door::ALL.map(Door::word);
        let stem = word.split(':').next().unwrap_or(word);
        let hint = match nearest(stem, names.chain(doors).chain(["host"])) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "name a service, SERVICE:PORT, PEER:PORT, ADDRESS:PORT, :PORT, a path that begins with `/`, or a peer"
                    .to_owned()
            }
        };
        NotUnderstood::new(format!("nothing here is called `{word}`"), hint)
    }
}

fn ping(label: &str, place: Place) -> Question {
    Question { label: format!("{label} (ping)"), target: Target::Echo(place) }
}
