//! Syntaxes into which only names, numbers, addresses and keys go: nftables, Caddyfile, WireGuard.
//!
//! Nothing of these needs quotes or escapes, so anything else is refused instead of quoted.

use super::template::Unrenderable;

/// A word of letters, digits and `-_.~:/+=[]`: what names, addresses, networks, paths and base64 are made of.
pub fn token(text: &str) -> Result<String, Unrenderable> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:/+=[]".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(Unrenderable::new(text, "only names, numbers, addresses and keys can stand here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_can_neither_end_a_statement_nor_open_a_block() {
        for good in ["oculus", "10.88.16.2/32", "fd88::/64", "[fd88::1]:80", "/a2a/smith", "xTIBA5+/Dg="] {
            assert_eq!(token(good).unwrap(), good);
        }
        for bad in
            ["", "a b", "a;b", "a\nb", "{", "}", "{$HOME}", "\"", "'", "#", "a\\", "$x", "é", "@set", "*"]
        {
            assert!(token(bad).is_err(), "{bad:?}");
        }
    }
}
