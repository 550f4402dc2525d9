//! Order of the versions of bodies: the one by which systemd-boot and systemd-sysupdate sort them, too.
//!
//! Source: the UAPI group's Version Format Specification (UAPI.10), Version Comparison.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The longest version, in characters: a label of a partition holds it behind the appliance's name.
const LONGEST: usize = 16;

/// The version of a body: 1 to 16 letters, digits and `.-~^`. It is part of labels and of file names, where `_` and `+`
/// separate.
///
/// Versions that are neither older nor newer than each other (`1` and `01`) are equal.
#[derive(Debug, Clone)]
pub struct Version(String);

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version has 1 to 16 letters, digits and `.-~^`")]
pub struct NotAVersion;

impl Version {
    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-~^".contains(&byte);
        let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAVersion) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::codex::serde_as_text!(Version);

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// Compares piece by piece, from the left.
fn compare(mut left: &[u8], mut right: &[u8]) -> Ordering {
    loop {
        let order = separator(b'~', &mut left, &mut right);
        if order.is_ne() {
            return order;
        }
        // What goes on is newer than what has ended.
        if left.is_empty() || right.is_empty() {
            return left.len().cmp(&right.len());
        }
        for byte in *b"-^." {
            let order = separator(byte, &mut left, &mut right);
            if order.is_ne() {
                return order;
            }
        }
        let order = piece(&mut left, &mut right);
        if order.is_ne() {
            return order;
        }
    }
}

/// Takes `byte` off both. Where only one begins with it, that one is the older.
fn separator(byte: u8, left: &mut &[u8], right: &mut &[u8]) -> Ordering {
    let (in_left, in_right) = (left.first() == Some(&byte), right.first() == Some(&byte));
    if in_left && in_right {
        (*left, *right) = (&left[1..], &right[1..]);
    }
    in_right.cmp(&in_left)
}

/// Compares numbers where either side begins with one, else letters, and takes them off.
fn piece(left: &mut &[u8], right: &mut &[u8]) -> Ordering {
    let starts = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
    if starts(left) || starts(right) {
        let (ours, theirs) = (take(left, u8::is_ascii_digit), take(right, u8::is_ascii_digit));
        // A number is newer than none.
        let any = ours.is_empty().cmp(&theirs.is_empty()).reverse();
        let (ours, theirs) = (significant(ours), significant(theirs));
        any.then(ours.len().cmp(&theirs.len())).then(ours.cmp(theirs))
    } else {
        take(left, u8::is_ascii_alphabetic).cmp(take(right, u8::is_ascii_alphabetic))
    }
}

/// Takes off the bytes at the start that are `wanted`.
fn take<'a>(text: &mut &'a [u8], wanted: fn(&u8) -> bool) -> &'a [u8] {
    let (taken, rest) = text.split_at(text.iter().position(|byte| !wanted(byte)).unwrap_or(text.len()));
    *text = rest;
    taken
}

fn significant(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len())..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_as_the_specification_orders_them() {
        // Each is older than the next.
        let ascending = [
            "~",
            "~1",
            "-",
            "-1",
            "^",
            ".",
            "a",
            "ab",
            "b",
            "0",
            "0.1",
            "1~rc1",
            "1~rc1-2",
            "1~rc2",
            "1",
            "1-1",
            "1-2",
            "1^",
            "1^2",
            "1.",
            "1.0~a",
            "1.0",
            "1.1",
            "1.2",
            "1.10",
            "1a",
            "1b",
            "2",
            "10",
            "99999999999999",
            "100000000000000",
        ];
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(version(left).cmp(&version(right)), at.cmp(&other), "{left} {right}");
            }
        }
    }

    #[test]
    fn leading_zeros_do_not_count() {
        for (left, right) in [("1", "01"), ("1.0", "1.00"), ("a0", "a000")] {
            assert_eq!(version(left), version(right), "{left} {right}");
        }
        assert_ne!(version("a"), version("a0"));
    }

    #[test]
    fn what_a_label_cannot_hold_is_no_version() {
        for text in ["", "1_2", "1+2", "1/2", " 1", "1\n", "é", "12345678901234567"] {
            assert_eq!(text.parse::<Version>().unwrap_err(), NotAVersion, "{text:?}");
        }
        assert_eq!(version("1234567890123456").to_string(), "1234567890123456");
    }

    proptest! {
        #[test]
        fn it_is_an_order(texts in [("[0-2a-b.~^-]{1,6}"), ("[0-2a-b.~^-]{1,6}"), ("[0-2a-b.~^-]{1,6}")]) {
            let [a, b, c] = texts.map(|text| version(&text));
            prop_assert_eq!(a.cmp(&a), Ordering::Equal);
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c, "{a} {b} {c}");
            }
        }

        #[test]
        fn what_is_added_is_newer_and_a_tilde_older(text in "[0-9a-z.^-]{0,7}[0-9a-z]", more in "[0-9a-z.^-]{1,4}") {
            let before = version(&format!("{text}~{more}"));
            prop_assert!(before < version(&text));
            let (old, new) = (version(&text), version(&format!("{text}.{more}")));
            prop_assert!(old < new);
        }
    }
}
