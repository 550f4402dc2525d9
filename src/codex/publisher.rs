//! Whose updates a body takes, and where from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::name::{DnsName, NotAName};

/// What a public key of minisign begins with.
const ALGORITHM: [u8; 2] = *b"Ed";

/// The public key of whoever publishes updates, in minisign's format: a number that tells keys apart, and an Ed25519 key.
///
/// Displays as the second line of minisign's `.pub` file: 56 characters of base64 that begin with `RW`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublisherKey {
    number: [u8; 8],
    key: [u8; 32],
}

/// The text is no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a publisher's key is 56 characters of base64, as `sepulcher keygen` and `minisign -G` print it")]
pub struct NotAPublisher;

impl PublisherKey {
    /// Of a key's number and its 32 bytes.
    pub fn new(number: [u8; 8], key: [u8; 32]) -> Self {
        Self { number, key }
    }

    /// What tells keys apart at a glance, as minisign prints it: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        format!("{:016X}", u64::from_le_bytes(self.number))
    }

    /// Its number.
    pub fn number(&self) -> &[u8; 8] {
        &self.number
    }
}

impl FromStr for PublisherKey {
    type Err = NotAPublisher;

    fn from_str(text: &str) -> Result<Self, NotAPublisher> {
        let bytes = STANDARD.decode(text).map_err(|_| NotAPublisher)?;
        let parts = bytes.strip_prefix(&ALGORITHM).and_then(|rest| rest.split_first_chunk::<8>());
        let (number, key) = parts.ok_or(NotAPublisher)?;
        Ok(Self::new(*number, key.try_into().map_err(|_| NotAPublisher)?))
    }
}

impl fmt::Display for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode([ALGORITHM.as_slice(), &self.number, &self.key].concat()))
    }
}

impl fmt::Debug for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublisherKey({self})")
    }
}

crate::codex::serde_as_text!(PublisherKey);

/// What the URL of an update may begin with: `https://updates.example/lychd/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UrlPrefix(String);

impl UrlPrefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether what is fetched is encrypted by the server that it comes from.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The address of its host, where that is written as one.
    pub fn address(&self) -> Option<IpAddr> {
        let (name, _) = host_and_port(self.0.split('/').nth(2)?);
        let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        bracketed.unwrap_or(name).parse().ok().map(|address: IpAddr| address.to_canonical())
    }

    /// Whether a URL lies below it: nothing in it leads out again, or asks for something else.
    pub fn covers(&self, url: &str) -> bool {
        let below = url.strip_prefix(self.as_str());
        below.is_some_and(|rest| !rest.is_empty() && is_plain(rest))
    }
}

/// Segments of plain characters, none of them empty, `.` or `..`; an end in `/` counts as an empty one.
fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+^".contains(&byte);
    path.split('/').all(|part| !["", ".", ".."].contains(&part) && part.bytes().all(plain))
}

/// The two parts of `host:port`; an address of IPv6 keeps its brackets.
fn host_and_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = host_and_port(host);
    let right = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let named = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.parse::<std::net::Ipv4Addr>().is_ok() || name.parse::<DnsName>().is_ok(),
    };
    named && port.is_none_or(right)
}

impl FromStr for UrlPrefix {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let wrong = |reason| Err(NotAName::because(reason));
        let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
            return wrong("a source begins with https:// or http://");
        };
        let (host, path) = match rest.split_once('/') {
            Some((host, "")) => (host, None),
            Some((host, path)) if path.ends_with('/') => (host, path.strip_suffix('/')),
            _ => return wrong("a source ends in `/`: what lies below it may be fetched"),
        };
        if !is_host(host) {
            return wrong("a source names a host, and a port where it is not the usual one, and no user");
        }
        if path.is_some_and(|path| !is_plain(path)) {
            return wrong("the path of a source is letters, digits and `-_.~+^` between single `/`");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

crate::codex::serde_as_text!(UrlPrefix);

#[cfg(test)]
mod tests {
    use super::*;

    /// Of minisign's own documentation.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn a_key_reads_and_displays_as_minisign_prints_it() {
        let key: PublisherKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(key.id(), "E7620F1842B4E81F");
        assert_eq!(format!("{key:?}"), format!("PublisherKey({KEY})"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let bytes = STANDARD.decode(KEY).unwrap();
        let prehashed = STANDARD.encode([b"ED", &bytes[2..]].concat());
        let longer = STANDARD.encode([&bytes[..], b"x"].concat());
        for text in ["", "RW", &KEY[..55], &format!("{KEY}\n"), &prehashed, &longer] {
            assert_eq!(text.parse::<PublisherKey>(), Err(NotAPublisher), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_is_a_folder_on_a_host() {
        for good in [
            "https://updates.example/",
            "https://updates.example/lychd/",
            "http://10.88.0.1:8080/a/b-c_d.e/",
            "http://[2001:db8::1]:80/",
            "http://[2001:db8::1]/",
        ] {
            assert_eq!(good.parse::<UrlPrefix>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "updates.example/",
            "ftp://updates.example/",
            "https://updates.example",
            "https://updates.example/a",
            "https:///a/",
            "https://user@updates.example/",
            "https://updates.example:+80/",
            "https://updates.example:99999/",
            "https://updates.example:/",
            "https://[::1/",
            "https://updates.example//",
            "https://updates.example/../",
            "https://updates.example/a b/",
            "https://updates.example/%2e%2e/",
            "https://updates.example/a?b/",
        ] {
            assert!(bad.parse::<UrlPrefix>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_address_of_a_host_is_told_where_it_is_written() {
        for (prefix, address) in [
            ("http://10.88.16.2/", Some("10.88.16.2")),
            ("http://10.88.16.2:8080/lychd/", Some("10.88.16.2")),
            ("https://[fd88::2]/", Some("fd88::2")),
            ("http://[fd88::2]:80/a/", Some("fd88::2")),
            ("http://[::ffff:10.88.16.2]/", Some("10.88.16.2")),
            ("https://updates.example:8443/", None),
        ] {
            let prefix: UrlPrefix = prefix.parse().unwrap();
            assert_eq!(prefix.address().map(|address| address.to_string()).as_deref(), address, "{prefix}");
        }
    }

    #[test]
    fn what_lies_below_a_prefix_does_not_lead_out() {
        let prefix: UrlPrefix = "https://updates.example/lychd/".parse().unwrap();
        for below in ["lychd_2.update.tar", "2/lychd.tar"] {
            assert!(prefix.covers(&format!("{prefix}{below}")), "{below}");
        }
        for out in
            ["", "/", "../lychd.tar", "a/../../b", "a?b", "a#b", "%2e%2e/b", "a//b", "a/", "a b", "a\\b"]
        {
            assert!(!prefix.covers(&format!("{prefix}{out}")), "{out}");
        }
        assert!(!prefix.covers("https://updates.example/lychd2/a.tar"));
        assert!(!prefix.covers("http://updates.example/lychd/a.tar"));
    }
}
