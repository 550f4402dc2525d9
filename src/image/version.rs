//! Order of Debian's package versions.
//!
//! Source: deb-version(7), Sorting algorithm.

use std::cmp::Ordering;

/// Compares two versions (`[epoch:]upstream[-revision]`) as dpkg does.
pub fn compare(left: &str, right: &str) -> Ordering {
    let ((epoch, upstream, revision), other) = (parts(left), parts(right));
    numbers(epoch, other.0).then_with(|| texts(upstream, other.1)).then_with(|| texts(revision, other.2))
}

/// Epoch, upstream version and revision; what is missing counts as `0`.
fn parts(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    (epoch, upstream, revision)
}

/// Compares parts that are not digits and parts that are, in turn.
fn texts(mut left: &str, mut right: &str) -> Ordering {
    while !(left.is_empty() && right.is_empty()) {
        let ((words, digits, rest), other) = (head(left), head(right));
        let order = word(words, other.0).then_with(|| numbers(digits, other.1));
        if order.is_ne() {
            return order;
        }
        (left, right) = (rest, other.2);
    }
    Ordering::Equal
}

/// Splits into what comes before the first digit, the digits there, and the rest.
fn head(text: &str) -> (&str, &str, &str) {
    let (words, rest) = text.split_at(text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len()));
    let (digits, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    (words, digits, rest)
}

/// Compares parts without digits: `~` before the end, the end before letters, letters before the rest.
fn word(left: &str, right: &str) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let (left, right) = (left.as_bytes(), right.as_bytes());
    (0..left.len().max(right.len()))
        .map(|at| weight(left.get(at)).cmp(&weight(right.get(at))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Compares numbers of any length; none is zero.
fn numbers(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        // Each is lower than the next.
        let ascending = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "0+",
            "1.0~beta1~svn1245",
            "1.0~beta1",
            "1.0",
            "1.0-1~deb13u1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb13u1",
            "1.0-1+deb13u2",
            "1.0-1+deb13u10",
            "1.0-1.1",
            "1.0-2",
            "1.0+dfsg",
            "1.0-1-1",
            "1.0.1",
            "1.2",
            "1.10",
            "1.99999999999999999999999",
            "1.100000000000000000000000",
            "1:0.1",
            "2:0",
            "10:0",
        ];
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(compare(left, right), at.cmp(&other), "{left} {right}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_zero_and_leading_zeros_do_not_count() {
        for (left, right) in [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1"), ("1.", "1.0"), ("a", "a0")]
        {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} {right}");
        }
    }
}
