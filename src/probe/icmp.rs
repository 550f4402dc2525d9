//! ICMP messages that ask, and what answers them: bytes only, RFC 792, 950, 4443 and 4620.

use std::net::IpAddr;

use serde::Serialize;

use super::What;
use super::dice::Dice;

/// An IP protocol that is kept for experiments: nobody speaks it.
pub const STRANGE: u8 = 253;

/// Something to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// An echo.
    Echo,
    /// The host's clock (IPv4).
    Timestamp,
    /// The mask of its network (IPv4).
    AddressMask,
    /// Its network (IPv4).
    Information,
    /// Whether it is a router.
    RouterSolicitation,
    /// Its names (IPv6).
    NodeInformation,
    /// A packet of an IP protocol that nobody speaks.
    StrangeProtocol,
}

const ALL4: [Ask; 6] = [
    Ask::Echo,
    Ask::Timestamp,
    Ask::AddressMask,
    Ask::Information,
    Ask::RouterSolicitation,
    Ask::StrangeProtocol,
];
const ALL6: [Ask; 4] = [Ask::Echo, Ask::RouterSolicitation, Ask::NodeInformation, Ask::StrangeProtocol];

/// A message that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// What it answers.
    pub ask: Ask,
    /// Which question, where the message says so.
    pub question: Option<u16>,
    /// What it is.
    pub what: What,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Echo => "echo",
            Self::Timestamp => "timestamp",
            Self::AddressMask => "address mask",
            Self::Information => "information",
            Self::RouterSolicitation => "router solicitation",
            Self::NodeInformation => "node information",
            Self::StrangeProtocol => "unknown protocol",
        })
    }
}

impl Ask {
    /// All that a host of that address can be asked.
    pub fn all(address: IpAddr) -> &'static [Self] {
        if address.is_ipv4() { &ALL4 } else { &ALL6 }
    }

    /// Types of the message and of its answer.
    fn types(self, six: bool) -> (u8, u8) {
        match (self, six) {
            (Self::Echo, false) => (8, 0),
            (Self::Echo, true) => (128, 129),
            (Self::Timestamp, _) => (13, 14),
            (Self::Information, _) => (15, 16),
            (Self::AddressMask, _) => (17, 18),
            (Self::RouterSolicitation, false) => (10, 9),
            (Self::RouterSolicitation, true) => (133, 134),
            (Self::NodeInformation, _) => (139, 140),
            (Self::StrangeProtocol, _) => (0, 0),
        }
    }

    /// The bytes behind the IP header. The kernel puts in the checksum of ICMPv6.
    pub fn message(self, address: IpAddr, id: u16, question: u16, dice: &mut Dice) -> Vec<u8> {
        if self == Self::StrangeProtocol {
            return dice.bytes(16);
        }
        let six = address.is_ipv6();
        let mut message = vec![self.types(six).0, 0, 0, 0];
        if self == Self::RouterSolicitation {
            message.extend([0; 4]);
        } else if self == Self::NodeInformation {
            // Of the names of the node with that address: query type 2, no flags; the nonce comes back.
            message.extend([0, 2, 0, 0]);
            message.extend(id.to_be_bytes().into_iter().chain(question.to_be_bytes()));
            message.extend([0; 4]);
            if let IpAddr::V6(address) = address {
                message.extend(address.octets());
            }
        } else {
            message.extend(id.to_be_bytes().into_iter().chain(question.to_be_bytes()));
            message.extend(match self {
                Self::Echo => dice.bytes(32),
                Self::Timestamp => vec![0; 12],
                Self::AddressMask => vec![0; 4],
                _ => Vec::new(),
            });
        }
        if !six {
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        message
    }
}

/// The internet checksum of a message whose own is zero.
fn checksum(message: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    let mut sum: u32 = message.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Reads what a raw socket gives: an IPv4 packet, or an ICMPv6 message. Errors about UDP and TCP are left out: the
/// sockets that asked are told of them.
pub fn heard(packet: &[u8], six: bool, id: u16) -> Option<Heard> {
    let message = if six { packet } else { packet.get(usize::from(packet.first()? & 15) * 4..)? };
    let (&kind, &code) = (message.first()?, message.get(1)?);
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let error = if six { kind < 128 } else { matches!(kind, 3 | 4 | 11 | 12) };
    if error {
        let quoted = message.get(8..)?;
        let protocol = *quoted.get(if six { 6 } else { 9 })?;
        return (protocol == STRANGE).then_some(Heard {
            ask: Ask::StrangeProtocol,
            question: None,
            what: What::Error(kind, code),
        });
    }
    let asks: &[Ask] = if six { &ALL6 } else { &ALL4 };
    let mut asks = asks.iter().filter(|ask| **ask != Ask::StrangeProtocol);
    let ask = *asks.find(|ask| ask.types(six).1 == kind)?;
    let question = match ask {
        Ask::RouterSolicitation => None,
        Ask::NodeInformation => Some((number(8)?, number(10)?)),
        _ => Some((number(4)?, number(6)?)),
    };
    if question.is_some_and(|(whose, _)| whose != id) {
        return None;
    }
    Some(Heard { ask, question: question.map(|(_, question)| question), what: What::Answer })
}

/// An ICMP error in words.
pub fn error_words(kind: u8, code: u8, six: bool) -> String {
    let known = match (six, kind, code) {
        (false, 3, 0) | (true, 1, 0) => "network unreachable",
        (false, 3, 1) | (true, 1, 3) => "host unreachable",
        (false, 3, 2) => "protocol unreachable",
        (false, 3, 3) | (true, 1, 4) => "port unreachable",
        (false, 3, 4) | (true, 2, _) => "packet too big",
        (false, 3, 9 | 10 | 13) | (true, 1, 1) => "administratively prohibited",
        (true, 1, 6) => "route rejected",
        (false, 11, _) | (true, 3, _) => "time exceeded",
        (true, 4, 1) => "next header unknown",
        (false, 12, _) | (true, 4, _) => "parameter problem",
        _ => return format!("icmp type {kind} code {code}"),
    };
    format!("icmp {known}")
}

/// Whether an ICMP error says that its packet ran out of hops.
pub fn is_expiry(kind: u8, six: bool) -> bool {
    kind == if six { 3 } else { 11 }
}

/// Whether an ICMP error says that the host could not be found, which is no word of the host's.
pub fn is_unreached(kind: u8, code: u8, six: bool) -> bool {
    if six { kind == 1 && matches!(code, 0 | 3) } else { kind == 3 && matches!(code, 0 | 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "192.0.2.1";
    const V6: &str = "2001:db8::1";

    fn asked(ask: Ask, address: &str) -> Vec<u8> {
        ask.message(address.parse().unwrap(), 0x1234, 7, &mut Dice::new([0; 32]))
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&asked(Ask::Echo, V4)), 0, "with its own in place nothing is left");
    }

    #[test]
    fn answers_are_matched_with_what_was_asked() {
        for address in [V4, V6] {
            let six = address == V6;
            let address: IpAddr = address.parse().unwrap();
            for &ask in Ask::all(address).iter().filter(|ask| **ask != Ask::StrangeProtocol) {
                let mut message = ask.message(address, 0x1234, 7, &mut Dice::new([0; 32]));
                message[0] = ask.types(six).1;
                let mut packet = if six { Vec::new() } else { [&[0x45; 1][..], &[0; 19]].concat() };
                packet.extend(message);
                let question = (ask != Ask::RouterSolicitation).then_some(7);
                let expected = Heard { ask, question, what: What::Answer };
                assert_eq!(heard(&packet, six, 0x1234), Some(expected), "{ask}");
                if question.is_some() {
                    assert_eq!(heard(&packet, six, 0x1235), None, "{ask} of somebody else");
                }
                for length in 0..packet.len().min(if six { 8 } else { 24 }) {
                    heard(&packet[..length], six, 0x1234);
                }
            }
        }
    }

    #[test]
    fn errors_are_taken_when_they_quote_the_strange_protocol() {
        let error = |protocol: u8| {
            let mut packet = vec![0x45; 1];
            packet.extend([0; 19]);
            packet.extend([3, 2, 0, 0, 0, 0, 0, 0]);
            let mut quoted = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol];
            quoted.extend([0; 10]);
            packet.extend(quoted);
            heard(&packet, false, 1)
        };
        let expected = Heard { ask: Ask::StrangeProtocol, question: None, what: What::Error(3, 2) };
        assert_eq!((error(STRANGE), error(17)), (Some(expected), None));
        assert_eq!(error_words(3, 3, false), "icmp port unreachable");
        assert_eq!(error_words(1, 4, true), "icmp port unreachable");
        assert_eq!(error_words(5, 1, false), "icmp type 5 code 1");
    }
}
