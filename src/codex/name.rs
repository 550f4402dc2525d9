//! Names that appear in files, units, rulesets and URLs, each valid wherever it is used.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotAName {
    reason: &'static str,
}

impl NotAName {
    /// For the other texts of the Codex with a grammar of their own.
    pub(super) fn because(reason: &'static str) -> Self {
        Self { reason }
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                match $check(text) {
                    Some(reason) => Err(NotAName { reason }),
                    None => Ok(Self(text.to_owned())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        crate::codex::serde_as_text!($name);
    };
}

text_newtype!(
    /// A name of an appliance, service, peer, volume or secret: a DNS label of 1 to 32 characters
    /// (`a`–`z`, `0`–`9`, `-`), starting with a letter and not ending in `-`.
    Name,
    check_name
);
text_newtype!(
    /// A host name of the DNS: labels of letters, digits and `-`, at most 253 characters.
    DnsName,
    check_dns
);
text_newtype!(
    /// An interface name or a pattern of one (`*`, `?`, `[…]`), as systemd.network(5) matches it.
    InterfacePattern,
    check_interface
);
text_newtype!(
    /// An absolute URL path without query, escape or wildcard: `/`, `/a2a/smith`.
    RoutePath,
    check_route
);

fn check_name(text: &str) -> Option<&'static str> {
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 32 {
        Some("a name has 1 to 32 characters")
    } else if !text.bytes().all(label) {
        Some("a name has only lower-case letters, digits and `-`")
    } else if !text.as_bytes()[0].is_ascii_lowercase() || text.ends_with('-') {
        Some("a name starts with a letter and does not end in `-`")
    } else {
        None
    }
}

fn check_dns(text: &str) -> Option<&'static str> {
    let bad_label = |label: &str| {
        label.is_empty()
            || label.len() > 63
            || label.starts_with('-')
            || label.ends_with('-')
            || !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if text.is_empty() || text.len() > 253 {
        Some("a DNS name has 1 to 253 characters")
    } else if text.split('.').any(bad_label) {
        Some("a DNS name is labels of letters, digits and inner `-`, separated by single dots")
    } else if text.split('.').next_back().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        Some("a DNS name does not end in a label of digits alone")
    } else {
        None
    }
}

fn check_interface(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > 15 {
        Some("an interface name has 1 to 15 characters")
    } else if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*?[]".contains(&byte)) {
        Some("an interface name has only letters, digits, `-_.` and the wildcards `*?[]`")
    } else {
        check_pattern(text)
    }
}

/// A pattern that means what it seems to, and none of the interfaces that are not the uplink.
fn check_pattern(text: &str) -> Option<&'static str> {
    let Some(glob) = glob(text) else {
        return Some(
            "a `[` of an interface pattern has its `]`, with characters or ranges like `0-9` between",
        );
    };
    if ["lo", super::BRIDGE].iter().any(|own| reaches(&glob, own, true)) {
        Some("this interface pattern matches `lo` or `sepulcher0`, which are the machine's own")
    } else if ["veth", "podman"].iter().any(|prefix| reaches(&glob, prefix, false)) {
        Some("this interface pattern matches `veth…` or `podman…`, which are the containers'")
    } else {
        None
    }
}

/// One element of an interface pattern.
enum Glob {
    Any,
    /// One byte out of these ranges.
    One(Vec<(u8, u8)>),
}

/// A pattern in its elements; `None` when a bracket is open, empty or upside down.
fn glob(text: &str) -> Option<Vec<Glob>> {
    let mut elements = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        elements.push(match first {
            b'*' => Glob::Any,
            b'?' => Glob::One(vec![(0, u8::MAX)]),
            b'[' => {
                let end = rest.iter().position(|byte| *byte == b']')?;
                let ranges = ranges(&rest[..end])?;
                rest = &rest[end + 1..];
                Glob::One(ranges)
            }
            b']' => return None,
            byte => Glob::One(vec![(*byte, *byte)]),
        });
    }
    Some(elements)
}

fn ranges(mut inside: &[u8]) -> Option<Vec<(u8, u8)>> {
    let mut ranges = Vec::new();
    while let Some((&first, rest)) = inside.split_first() {
        let (last, rest) = match rest {
            [b'-', last, rest @ ..] => (*last, rest),
            rest => (first, rest),
        };
        if first > last || b"[*?".contains(&first) {
            return None;
        }
        ranges.push((first, last));
        inside = rest;
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// Whether the pattern matches `name`, or, unless `whole`, any text that begins with it.
fn reaches(glob: &[Glob], name: &str, whole: bool) -> bool {
    let Some((element, behind)) = glob.split_first() else { return name.is_empty() };
    match element {
        _ if name.is_empty() && !whole => true,
        Glob::Any => (0..=name.len()).any(|taken| reaches(behind, &name[taken..], whole)),
        Glob::One(ranges) => name.bytes().next().is_some_and(|byte| {
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte))
                && reaches(behind, &name[1..], whole)
        }),
    }
}

fn check_route(text: &str) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    if !text.starts_with('/') || text.len() > 256 {
        Some("a route is an absolute path of at most 256 characters")
    } else if !text.bytes().all(plain) {
        Some("a route has only letters, digits and `/-_.~`")
    } else if text.split('/').any(|segment| segment == "." || segment == "..") || text.contains("//") {
        Some("a route has no empty, `.` or `..` segment")
    } else if text.len() > 1 && text.ends_with('/') {
        Some("a route does not end in `/`")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: FromStr>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(text.parse::<T>().is_ok(), "{text:?} is refused");
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text:?} is accepted");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        accepts::<Name>(
            &["a", "phone", "lych-2", &"x".repeat(32)],
            &["", "A", "2x", "-a", "a-", "a.b", "a_b", "é", "a\n", "a b", &"x".repeat(33)],
        );
    }

    #[test]
    fn dns_names_are_labels_with_dots() {
        accepts::<DnsName>(
            &["localhost", "lychd.example", "A.b-c.example"],
            &["", ".", "a..b", "-a.b", "a-.b", "a.b.", "10.0.0.1", "a b", "a\nb", &"x".repeat(64)],
        );
    }

    #[test]
    fn interface_patterns_are_what_networkd_matches() {
        accepts::<InterfacePattern>(
            &["eth0", "en*", "enp[0-9]s0", "br-lan", "v[a-d]*", "lo0", "[ew]*", "e*[0-9]"],
            &["", "en p", "en\n", "en;", "averylonginterface"],
        );
        accepts::<InterfacePattern>(&["e*s0"], &["en[", "en]", "en[]", "en[9-0]", "e[[a]]"]);
        accepts::<InterfacePattern>(
            &[],
            &["*", "lo", "l?", "[a-z]*", "sepulcher*", "veth0", "v*", "?*", "podman1", "pod*", "ve[s-u]h*9"],
        );
    }

    #[test]
    fn routes_are_plain_absolute_paths() {
        accepts::<RoutePath>(
            &["/", "/a2a/smith", "/a-b_c.d~e"],
            &["", "a", "/a/", "//", "/a//b", "/../x", "/a/./b", "/a%2f", "/a b", "/a*", "/a?b", "/{x}"],
        );
    }
}
