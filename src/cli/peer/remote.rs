//! The bonds of an appliance elsewhere, asked over the tether. The agent there knows who asks by the tunnel; this
//! side proves nothing and keeps nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::list;
use crate::cli::control::wire::{self, Answer};
use crate::cli::{Failure, Kind};
use crate::codex::name::DnsName;
use crate::codex::net::Port;
use crate::codex::{DOOR_PORT, Door};
use crate::peer::store::Reply;
use crate::peer::{Observed, Request};
use crate::sys::http::{Client, Error};
use crate::tether::door;

/// How long the tunnel may take to come up.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a change may take: it waits for others.
const ANSWER: Duration = Duration::from_secs(45);
/// No answer of an agent about its peers is longer, in bytes.
const PEERS: u64 = 16 << 20;

/// An appliance on the tether.
#[derive(Debug)]
pub struct Remote {
    /// `host:port`.
    host: String,
    client: Client,
}

impl Remote {
    /// The appliance of that address or name.
    pub fn new(host: &str) -> Result<Self, Failure> {
        let host = authority(host).ok_or_else(|| {
            Failure::new(Kind::Input, format!("`{}` is no host", host.escape_debug()))
                .hint("name the appliance's tunnel address, like --host 10.88.16.1")
        })?;
        Ok(Self { host, client: Client::direct(CONNECT, ANSWER, ANSWER) })
    }

    /// Has requests carried out, all or none.
    pub fn send(&self, requests: &[Request], dry_run: bool) -> Result<Vec<Reply>, Failure> {
        let body =
            wire::body(requests, dry_run).map_err(|error| Failure::from_error(Kind::Internal, &error))?;
        let changes = !dry_run && !matches!(requests, [Request::List(_)]);
        let answer = self.ask(door::BONDS, Some(&body), wire::ANSWER, "bonds").map_err(|failure| {
            match failure.kind {
            // A request may have arrived whose answer did not.
            Kind::Unavailable if changes => failure.hint(format!(
                "is the tunnel up? `sepulcher --host {} peer list` tells whether it was done all the same",
                self.host
            )),
            _ => failure,
        }
        })?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::<wire::Replies>::Ok(replies)) => {
                let replies: Vec<Reply> = replies.into();
                let clients = replies.iter().filter_map(|reply| reply.client.as_ref());
                match clients.flat_map(|client| client.text().lines()).find(|line| !is_known(line)) {
                    None => Ok(replies),
                    Some(line) => Err(self.strange(&format!("`{}` in a configuration", line.escape_debug()))),
                }
            }
            Ok(Answer::Error(told)) => Err(told.into()),
            Err(error) => Err(self.strange(&error.to_string())),
        }
    }

    /// What its agent sees.
    pub fn observe(&self) -> Result<Observed, Failure> {
        list::parse(&self.ask(door::PEERS, None, PEERS, "bonds")?)
    }

    /// Asks for `target`, with a JSON text or without; what is answered, if it is no longer than `limit` bytes. `grant` is
    /// what a device needs to be answered.
    pub fn ask(
        &self,
        target: &str,
        json: Option<&[u8]>,
        limit: u64,
        grant: &str,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let address = format!("http://{}{target}", self.host);
        match self.client.ask(&address, json, limit) {
            Ok((200 | 202, body)) => Ok(Zeroizing::new(body)),
            Ok((404, _)) => Err(Failure::new(
                Kind::Input,
                format!("{} tells this device nothing", self.host),
            )
            .hint(format!(
                "only a device with the grant `{grant}` is answered: `sepulcher peer grant NAME {grant}`"
            ))),
            Ok((status, body)) => Err(match serde_json::from_slice(&body) {
                Ok(Answer::<()>::Error(told)) => told.into(),
                _ => self.strange(&format!("status {status}")),
            }),
            Err(Error::Transport { source, .. }) => {
                Err(Failure::new(Kind::Unavailable, format!("{} does not answer: {source}", self.host))
                    .hint(format!("is the tunnel up? Only a device with the grant `{grant}` is answered")))
            }
            Err(error) => Err(Failure::from_error(Kind::Unavailable, &error)),
        }
    }

    /// What the host answers to such a question.
    pub fn told<T: DeserializeOwned>(
        &self,
        target: &str,
        json: Option<&[u8]>,
        limit: u64,
        door: Door,
    ) -> Result<T, Failure> {
        match serde_json::from_slice(&self.ask(target, json, limit, door.word())?) {
            Ok(Answer::Ok(told)) => Ok(told),
            Ok(Answer::Error(told)) => Err(told.into()),
            Err(error) => Err(self.strange(&error.to_string())),
        }
    }

    /// The failure of an answer that makes no sense.
    pub fn strange(&self, what: &str) -> Failure {
        Failure::new(Kind::Unavailable, format!("the answer of {} was not understood: {what}", self.host))
            .hint("program and appliance may be of different versions: `sepulcher --version` on both")
    }
}

/// Whether a line is one that configurations of ours have: whoever answers instead of the appliance must not slip in
/// what wg-quick would run.
fn is_known(line: &str) -> bool {
    const KEYS: [&str; 8] = [
        "Address",
        "AllowedIPs",
        "Endpoint",
        "MTU",
        "PersistentKeepalive",
        "PresharedKey",
        "PrivateKey",
        "PublicKey",
    ];
    let known = || line.split_once(" = ").is_some_and(|(key, _)| KEYS.contains(&key));
    !line.contains(char::is_control)
        && (line.is_empty() || line.starts_with('#') || ["[Interface]", "[Peer]"].contains(&line) || known())
}

/// `host:port` as it stands in an address; the port may be missing.
fn authority(host: &str) -> Option<String> {
    let port = DOOR_PORT;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, port.into()).to_string());
    }
    if let Ok(address) = host.parse::<SocketAddr>() {
        return Some(address.to_string());
    }
    let (name, port) = match host.split_once(':') {
        None => (host, port),
        Some((name, port)) => (name, Port::new(port.parse().ok()?)?),
    };
    Some(format!("{}:{port}", name.parse::<DnsName>().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::peer::List;

    #[test]
    fn a_configuration_from_elsewhere_holds_nothing_that_is_run() {
        for good in ["", "# phone", "[Peer]", "Endpoint = lychd.example:51820"] {
            assert!(is_known(good), "{good:?}");
        }
        for bad in
            ["PostUp = touch /tmp/x", "Postup=x", "DNS = 192.0.2.1", "MTU = 1\rPostUp = x", "Table = 1"]
        {
            assert!(!is_known(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_name_with_or_without_a_port() {
        for (host, wanted) in [
            ("10.88.16.1", "10.88.16.1:51821"),
            ("10.88.16.1:7", "10.88.16.1:7"),
            ("fd00::1", "[fd00::1]:51821"),
            ("[fd00::1]:7", "[fd00::1]:7"),
            ("lychd", "lychd:51821"),
            ("lychd.example:7", "lychd.example:7"),
        ] {
            assert_eq!(authority(host).as_deref(), Some(wanted));
        }
        for host in
            ["", ":", "a b", "a/b", "a@b", "lychd:", "lychd:0", "lychd:x", "http://a", "a?b", "[fd00::1"]
        {
            assert_eq!(authority(host), None, "{host:?}");
        }
    }

    /// What a list comes to when the agent answers so.
    fn answered(status: &str, body: &str) -> Result<Vec<Reply>, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let answer = head + body;
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut question, mut buffer) = (Vec::new(), [0; 4096]);
            while !question.ends_with(b"}") {
                let count = stream.read(&mut buffer).unwrap();
                question.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(question).unwrap()
        });
        let sent = Remote::new(&host).unwrap().send(&[Request::List(List {})], false);
        let question = agent.join().unwrap();
        assert!(question.starts_with("POST /v1/bonds HTTP/1.1\r\n"), "{question}");
        assert!(question.to_lowercase().contains("content-type: application/json\r\n"), "{question}");
        assert!(question.ends_with("{\"verb\":\"list\"}"), "{question}");
        sent
    }

    #[test]
    fn replies_and_refusals_are_as_if_they_were_local() {
        let reply = r#"{"ok":{"schema":1,"plan":["x"],"peer":null,"peers":[],"client":null}}"#;
        assert_eq!(answered("200 OK", reply).unwrap()[0].plan, ["x"]);
        let error = r#"{"error":{"message":"no","hint":"wait","kind":"unavailable"}}"#;
        for status in ["200 OK", "503 Service Unavailable"] {
            let failure = answered(status, error).unwrap_err();
            assert_eq!(
                (failure.kind, failure.to_string().as_str()),
                (Kind::Unavailable, "error: no\nhint: wait\n")
            );
        }
    }

    #[test]
    fn a_device_that_is_told_nothing_learns_what_it_lacks() {
        let failure = answered("404 Not Found", "{}").unwrap_err();
        assert!(failure.kind == Kind::Input && failure.to_string().contains("grant `bonds`"), "{failure}");
        for (status, body) in [("200 OK", "<html>"), ("200 OK", ""), ("500 Oh", "x"), ("302 Found", "")] {
            let failure = answered(status, body).unwrap_err();
            assert_eq!(failure.kind, Kind::Unavailable, "{failure}");
        }
    }

    #[test]
    fn a_host_that_is_away_is_told_with_what_to_look_after() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let failure = Remote::new(&free).unwrap().observe().unwrap_err();
        assert!(
            failure.kind == Kind::Unavailable && failure.to_string().contains("is the tunnel up?"),
            "{failure}"
        );
    }
}
