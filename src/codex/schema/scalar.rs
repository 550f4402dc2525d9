//! How single values are read: texts with a grammar, numbers with a range, words of a fixed choice, lists.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use toml::de::DeValue;

use super::reader::{At, File, FromToml, listed, wrong_type};
use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::key::PublicKey;
use crate::codex::name::{DnsName, InterfacePattern, Name, RoutePath};
use crate::codex::net::{Net4, Net6, Port};
use crate::codex::suggest::nearest;
use crate::codex::time::{Length, NotATime, Timestamp};
use crate::codex::{
    Backend, Door, Encryption, Endpoint, Grants, PeerState, Protocol, PublisherKey, Tier, UrlPrefix,
};

/// `address/prefix length` of an interface: bits behind the prefix may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressed(pub IpAddr, pub u8);

/// `host:port` to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialled(pub Endpoint, pub Port);

/// `uid:gid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User(pub u32, pub u32);

/// An element of `grants`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// `*`.
    All,
    /// A door of the agent.
    Door(Door),
    /// A service.
    Service(Name),
    /// `peer:` and another peer.
    Peer(Name),
}

/// Displays as the Codex writes it.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Door(door) => f.write_str(door.word()),
            Self::Service(name) => name.fmt(f),
            Self::Peer(name) => f.write_str(&Grants::peer_word(name)),
        }
    }
}

/// What a device or another appliance is called in `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindWord {
    /// `device`.
    Device,
    /// `lych`.
    Lych,
}

/// The integer that a TOML integer spells; `None` for other types and beyond 127 bits.
pub fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

impl FromToml for String {
    const EXPECTED: &'static str = "a string";

    fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
        string(value, place, key, file).map(str::to_owned)
    }
}

/// What is in quotes.
fn string<'a>(value: &'a DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<&'a str> {
    let string = value.as_str();
    if string.is_none() {
        wrong_type(value, place, key, String::EXPECTED, file);
    }
    string
}

impl FromToml for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
        if let DeValue::Boolean(value) = value {
            Some(*value)
        } else {
            wrong_type(value, place, key, Self::EXPECTED, file);
            None
        }
    }
}

impl<T: FromToml> FromToml for Vec<At<T>> {
    const EXPECTED: &'static str = "a list";

    /// Wrong elements are reported and left out, so that the right ones are still checked.
    fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
        let DeValue::Array(items) = value else {
            wrong_type(value, place, key, Self::EXPECTED, file);
            return None;
        };
        let element = |item: &toml::Spanned<DeValue<'_>>| {
            let place = file.place(item.span());
            Some(At { value: T::from_toml(item.get_ref(), &place, key, file)?, place })
        };
        // Room for all, and no more: there can be thousands of short lists.
        let mut elements = Vec::with_capacity(items.len());
        elements.extend(items.iter().filter_map(element));
        Some(elements)
    }
}

/// A number within bounds.
fn number<T: TryFrom<i128>>(
    value: &DeValue<'_>,
    place: &Place,
    key: &str,
    file: &File,
    bounds: &str,
) -> Option<T> {
    let Some(integer) = value.as_integer() else {
        wrong_type(value, place, key, "an integer", file);
        return None;
    };
    let number = self::integer(value).and_then(|number| T::try_from(number).ok());
    if number.is_none() {
        let message = format!("`{key}` is out of range: {integer}");
        file.report(Diagnostic::error(message, place).hint(format!("write a number from {bounds}")));
    }
    number
}

macro_rules! numbers {
    ($($type:ty: $bounds:literal,)*) => {$(
        impl FromToml for $type {
            const EXPECTED: &'static str = "an integer";

            fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
                number(value, place, key, file, $bounds)
            }
        }
    )*};
}

numbers! {
    u16: "0 to 65535",
    u32: "0 to 4294967295",
}

impl FromToml for Port {
    const EXPECTED: &'static str = "an integer";

    fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
        let bounds = "1 to 65535";
        let number: u16 = number(value, place, key, file, bounds)?;
        let port = NonZeroU16::new(number);
        if port.is_none() {
            let message = format!("`{key}` is out of range: 0");
            file.report(Diagnostic::error(message, place).hint(format!("write a number from {bounds}")));
        }
        port
    }
}

/// A text with a grammar of its own.
fn text<T: FromStr<Err: fmt::Display>>(
    value: &DeValue<'_>,
    place: &Place,
    key: &str,
    file: &File,
    hint: &str,
) -> Option<T> {
    let text = string(value, place, key, file)?;
    let refuse = |error| file.report(Diagnostic::error(format!("`{key}`: {error}"), place).hint(hint));
    text.parse().map_err(refuse).ok()
}

macro_rules! texts {
    ($($type:ty: $hint:literal,)*) => {$(
        impl FromToml for $type {
            const EXPECTED: &'static str = "a string";

            fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
                text(value, place, key, file, $hint)
            }
        }
    )*};
}

texts! {
    Name: "a name is like `oculus` or `lych-2`",
    DnsName: "a DNS name is like `lychd.example`",
    InterfacePattern: "an interface is like `eth0` or `en*`",
    Length: "write a number and its unit, like `30d`",
    RoutePath: "a route is like `/` or `/a2a/smith`",
    Net4: "write the first address of the network, `/`, and the number of bits that all its addresses share",
    Net6: "write the first address of the network, `/`, and the number of bits that all its addresses share",
    PublisherKey: "copy the line that `sepulcher keygen` prints, or the second one of its `.pub` file",
    UrlPrefix: "write one like https://updates.example/lychd/",
    PublicKey: "run `wg genkey | tee private.key | wg pubkey` on the peer and copy what it prints",
}

macro_rules! parsed {
    ($($type:ty: $parse:expr, $what:literal, $hint:literal;)*) => {$(
        impl FromToml for $type {
            const EXPECTED: &'static str = "a string";

            fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
                let text = string(value, place, key, file)?;
                let parse: fn(&str) -> Option<$type> = $parse;
                let parsed = parse(text);
                if parsed.is_none() {
                    let message = format!(concat!("`{key}` is not ", $what), key = key);
                    file.report(Diagnostic::error(message, place).hint($hint));
                }
                parsed
            }
        }
    )*};
}

parsed! {
    Ipv4Addr: |text| text.parse().ok(), "an IPv4 address", "write four numbers, like 10.88.16.2";
    Ipv6Addr: |text| text.parse().ok(), "an IPv6 address", "write one like fd88:0:0:16::2";
    IpAddr: |text| text.parse().ok(), "an address", "write one like 192.0.2.1 or 2001:db8::1";
    Addressed: addressed, "an address with its prefix length", "write one like 192.0.2.10/24 or 2001:db8::10/64";
    Endpoint: endpoint, "a DNS name or an address", "write one like lychd.example or 192.0.2.1, without a port";
    Dialled: dialled, "a host with its port", "write one like lych.example:51820 or [2001:db8::1]:51820";
    User: user, "a user and a group in numbers", "write uid:gid, like 1000:1000";
}

fn addressed(text: &str) -> Option<Addressed> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    Some(Addressed(address, decimal(prefix)?)).filter(|Addressed(_, prefix)| *prefix <= most)
}

fn endpoint(text: &str) -> Option<Endpoint> {
    match text.parse() {
        Ok(address) => Some(Endpoint::Ip(address)),
        Err(_) => text.parse().ok().map(Endpoint::Dns),
    }
}

fn dialled(text: &str) -> Option<Dialled> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => Endpoint::Ip(IpAddr::V6(bracketed.strip_suffix(']')?.parse().ok()?)),
        None if host.contains(':') => return None,
        None => endpoint(host)?,
    };
    Some(Dialled(host, decimal(port)?))
}

fn user(text: &str) -> Option<User> {
    let (user, group) = text.split_once(':')?;
    // The all-ones id means "do not change" to the kernel.
    let id = |text| decimal(text).filter(|id| *id != u32::MAX);
    Some(User(id(user)?, id(group)?))
}

/// A number in plain digits: `FromStr` alone would take a plus sign.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl FromToml for Timestamp {
    const EXPECTED: &'static str = "a date and time";

    fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
        let DeValue::Datetime(time) = value else {
            wrong_type(value, place, key, Self::EXPECTED, file);
            return None;
        };
        let parsed = time.to_string().parse();
        let refuse = |error: NotATime| {
            let message = format!("`{key}` is not a moment: {error}");
            file.report(
                Diagnostic::error(message, place).hint("write it with its time and a `Z`, without quotes"),
            );
        };
        parsed.map_err(refuse).ok()
    }
}

impl FromToml for Grant {
    const EXPECTED: &'static str = "a string";

    fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
        if matches!(value, DeValue::String(text) if text == "*") {
            return Some(Self::All);
        }
        if let DeValue::String(word) = value
            && let Some(peer) = Grants::peer_named(word)
        {
            let hint = "write `peer:` and the name of a peer, like `peer:laptop`";
            let refuse =
                |error| file.report(Diagnostic::error(format!("`{key}`: {error}"), place).hint(hint));
            return peer.parse().map_err(refuse).ok().map(Self::Peer);
        }
        let name: Name =
            text(value, place, key, file, "write the name of a service, or `[\"*\"]` for all of them")?;
        Some(Door::named(name.as_str()).map_or(Self::Service(name), Self::Door))
    }
}

/// One word of a few.
fn choice<T: Copy>(
    value: &DeValue<'_>,
    place: &Place,
    key: &str,
    file: &File,
    choices: &[(&'static str, T)],
) -> Option<T> {
    let text = string(value, place, key, file)?;
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let diagnostic = Diagnostic::error(format!("`{key}` cannot be `{text}`"), place);
    file.report(match nearest(text, words.iter().copied()) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
        None => diagnostic.hint(format!("write one of {}", listed(&words))),
    });
    None
}

macro_rules! choices {
    ($($type:ty: $choices:expr;)*) => {$(
        impl FromToml for $type {
            const EXPECTED: &'static str = "a string";

            fn from_toml(value: &DeValue<'_>, place: &Place, key: &str, file: &File) -> Option<Self> {
                choice(value, place, key, file, $choices)
            }
        }
    )*};
}

choices! {
    Tier: &[("pod", Tier::Pod), ("tether", Tier::Tether), ("forest", Tier::Forest)];
    Protocol: &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    Backend: &[("kernel", Backend::Kernel), ("userspace", Backend::Userspace)];
    Encryption: &[("none", Encryption::None), ("tpm2", Encryption::Tpm2)];
    PeerState: &[("active", PeerState::Active), ("revoked", PeerState::Revoked)];
    KindWord: &[("device", KindWord::Device), ("lych", KindWord::Lych)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_dial_is_a_host_with_a_port() {
        for good in ["lych.example:51820", "192.0.2.1:1", "[2001:db8::1]:51820"] {
            assert!(dialled(good).is_some(), "{good:?}");
        }
        for bad in
            ["", ":1", "a", "a:", "a:0", "a:+1", "a:65536", "2001:db8::1:51820", "[::1]", "[a]:1", "[::1:1"]
        {
            assert!(dialled(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn interface_addresses_have_a_prefix_of_their_family() {
        assert!(addressed("192.0.2.10/32").is_some() && addressed("2001:db8::1/128").is_some());
        for bad in ["", "192.0.2.10", "192.0.2.10/33", "::1/129", "192.0.2.10/+8", "192.0.2.10/", "a/8"] {
            assert!(addressed(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn users_are_two_numbers() {
        assert_eq!(user("0:4294967294"), Some(User(0, 4_294_967_294)));
        for bad in ["", "1", ":", "1:", "a:b", "1:4294967295", "-1:1", "1:1:1"] {
            assert_eq!(user(bad), None, "{bad:?}");
        }
    }
}
