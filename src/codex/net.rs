//! Networks and ports.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

/// A port number, 1 to 65535.
pub type Port = NonZeroU16;

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotANetwork {
    /// Not `address/prefix`.
    #[error("a network is written as address/prefix length, e.g. {0}")]
    Malformed(&'static str),
    /// Bits are set behind the prefix.
    #[error("{given} has bits set behind its prefix; the network is {network}")]
    HostBits {
        /// As written.
        given: String,
        /// The network that the address lies in.
        network: String,
    },
}

macro_rules! network {
    ($(#[$doc:meta])* $name:ident, $address:ty, $bits:ty, $width:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            address: $address,
            prefix: u8,
        }

        impl $name {
            /// The network that `address` lies in; a prefix beyond the address's width counts as all of it.
            pub fn around(address: $address, prefix: u8) -> Self {
                let prefix = prefix.min($width);
                Self { address: <$address>::from_bits(address.to_bits() & Self::mask(prefix)), prefix }
            }

            /// The network address.
            pub fn address(self) -> $address {
                self.address
            }

            /// The prefix length in bits.
            pub fn prefix(self) -> u8 {
                self.prefix
            }

            /// The first address behind the network address, by convention the router's.
            pub fn first_host(self) -> $address {
                <$address>::from_bits(self.address.to_bits() | 1)
            }

            /// The last address: the broadcast address of IPv4.
            pub fn last(self) -> $address {
                <$address>::from_bits(self.address.to_bits() | !Self::mask(self.prefix))
            }

            /// Whether `address` lies in the network.
            pub fn contains(self, address: $address) -> bool {
                address.to_bits() & Self::mask(self.prefix) == self.address.to_bits()
            }

            /// Whether the two networks share an address.
            pub fn overlaps(self, other: Self) -> bool {
                self.contains(other.address) || other.contains(self.address)
            }

            fn mask(prefix: u8) -> $bits {
                <$bits>::MAX.checked_shl(u32::from($width - prefix)).unwrap_or(0)
            }
        }

        impl FromStr for $name {
            type Err = NotANetwork;

            fn from_str(text: &str) -> Result<Self, NotANetwork> {
                let malformed = || NotANetwork::Malformed($example);
                let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
                let address: $address = address.parse().map_err(|_| malformed())?;
                if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(malformed());
                }
                let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= $width).ok_or_else(malformed)?;
                let network = Self::around(address, prefix);
                if network.address == address {
                    Ok(network)
                } else {
                    Err(NotANetwork::HostBits { given: text.to_owned(), network: network.to_string() })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.address, self.prefix)
            }
        }
    };
}

network!(
    /// An IPv4 network, e.g. `10.88.16.0/20`.
    Net4,
    Ipv4Addr,
    u32,
    32,
    "10.88.16.0/20"
);
network!(
    /// An IPv6 network, e.g. `fd88::/64`.
    Net6,
    Ipv6Addr,
    u128,
    128,
    "fd88::/64"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_read_and_display() {
        for text in ["10.88.16.0/20", "0.0.0.0/0", "192.0.2.7/32"] {
            assert_eq!(text.parse::<Net4>().unwrap().to_string(), text);
        }
        for text in ["fd88::/64", "::/0", "fd88::1/128"] {
            assert_eq!(text.parse::<Net6>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_networks_are_refused() {
        for text in
            ["", "10.88.0.0", "10.88.0.0/", "10.88.0.0/33", "10.88.0.0/+8", "10.88.0.1/24", "fd88::/64"]
        {
            assert!(text.parse::<Net4>().is_err(), "{text:?}");
        }
        assert_eq!(
            "10.88.0.9/24".parse::<Net4>().unwrap_err().to_string(),
            "10.88.0.9/24 has bits set behind its prefix; the network is 10.88.0.0/24"
        );
    }

    #[test]
    fn bounds_and_overlaps_follow_the_prefix() {
        let tether: Net4 = "10.88.16.0/20".parse().unwrap();
        assert_eq!(tether.first_host().to_string(), "10.88.16.1");
        assert_eq!(tether.last().to_string(), "10.88.31.255");
        assert!(tether.contains("10.88.31.254".parse().unwrap()));
        assert!(!tether.contains("10.88.32.0".parse().unwrap()));
        assert!(tether.overlaps("10.88.0.0/16".parse().unwrap()));
        assert!(!tether.overlaps("10.88.0.0/20".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Net4>().unwrap().overlaps(tether));
    }
}
