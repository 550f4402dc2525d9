//! Whether a route that is pinned to the tether can be told from a path that nobody serves.

use std::fmt;

use super::dice::Dice;
use crate::codex::{Codex, Protocol, Route, Tier};
use crate::reach::veil;

/// A page that was had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// The bytes.
    pub body: Vec<u8>,
}

/// A path that should look like the two others beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Scheme and port.
    pub scheme: &'static str,
    /// TCP port.
    pub port: u16,
    /// Pinned to the tether.
    pub pinned: String,
    /// Paths beside it that nobody serves.
    pub unknown: [String; 2],
}

/// What came out of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to see.
    Alike,
    /// The route can be found.
    Leak(String),
    /// It cannot be told.
    Note(String),
}

impl Pair {
    /// All paths, the pinned one first.
    pub fn paths(&self) -> [&str; 3] {
        [&self.pinned, &self.unknown[0], &self.unknown[1]]
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at port {}", self.pinned, self.port)
    }
}

/// Every pinned route, and a path below it, at every port at which the Veil serves the forest.
pub fn pairs(codex: &Codex, dice: &mut Dice) -> Vec<Pair> {
    let Some((_, veil)) = veil(codex) else { return Vec::new() };
    let ports = veil.ports.iter().filter(|port| port.tier == Tier::Forest && port.protocol == Protocol::Tcp);
    let ports: Vec<u16> = ports.map(|port| port.number.get()).collect();
    let routes = codex.services.values().flat_map(|service| &service.routes);
    let pinned: Vec<&Route> = routes.filter(|route| route.tier == Tier::Tether).collect();
    let secured = codex.appliance.domain.is_some();
    let mut pairs = Vec::new();
    for &port in ports.iter().filter(|port| **port != 443 || secured) {
        let scheme = if port == 443 { "https" } else { "http" };
        for route in &pinned {
            let (parent, last) = route.path.as_str().rsplit_once('/').unwrap_or_default();
            let mut beside = || format!("{parent}/{}", dice.letters(last.len().max(1)));
            let unknown = [beside(), beside()];
            let pinned = route.path.as_str().to_owned();
            let below = dice.letters(6);
            let under = |path: &str| format!("{}/{below}", path.trim_end_matches('/'));
            let deeper = Pair {
                scheme,
                port,
                pinned: under(&pinned),
                unknown: [under(&unknown[0]), under(&unknown[1])],
            };
            pairs.extend([Pair { scheme, port, pinned, unknown }, deeper]);
        }
    }
    pairs
}

/// Judges the pages of [`Pair::paths`]; `None` for one that did not come.
pub fn judge(pair: &Pair, pages: [Option<&Page>; 3]) -> Outcome {
    let [Some(pinned), Some(one), Some(other)] = pages else {
        return Outcome::Note(if pages == [None; 3] {
            format!("no page came for {pair}, nor for a path that nobody serves")
        } else if pages[0].is_none() {
            return Outcome::Leak(format!(
                "no page comes for the pinned route {pair}, but one for an unknown path"
            ));
        } else {
            format!("pages came for {pair} and not always for the unknown paths beside it: ask again")
        });
    };
    if pinned.status != one.status && pinned.status != other.status {
        let (found, usual) = (pinned.status, one.status);
        return Outcome::Leak(format!("pinned route {pair} answers {found}, an unknown path {usual}"));
    }
    let [pinned_path, one_path, other_path] = pair.paths();
    let (pinned, one, other) =
        (settled(pinned, pinned_path), settled(one, one_path), settled(other, other_path));
    // What differs between two paths that nobody serves tells nothing.
    if let Some(what) = difference(&pinned, &one).filter(|_| difference(&pinned, &other).is_some()) {
        return match difference(&one, &other) {
            None => Outcome::Leak(format!("pinned route {pair} differs from an unknown path in {what}")),
            Some(noise) => Outcome::Note(format!(
                "{pair} cannot be compared: two paths that nobody serves differ in {noise} themselves"
            )),
        };
    }
    Outcome::Alike
}

/// A page without what must differ: its time, and the path that was asked for.
fn settled(page: &Page, path: &str) -> Page {
    let hide = |text: &str| text.replace(path, "{path}");
    let mut headers: Vec<_> = page
        .headers
        .iter()
        .filter(|(name, _)| name != "date")
        .map(|(name, value)| (name.clone(), hide(value)))
        .collect();
    headers.sort();
    // Bytes that are no text have no path in them.
    let body = match std::str::from_utf8(&page.body) {
        Ok(text) if path.len() > 1 => hide(text).into_bytes(),
        _ => page.body.clone(),
    };
    if body.len() != page.body.len() {
        headers.retain(|(name, _)| name != "content-length");
    }
    Page { status: page.status, headers, body }
}

fn difference(one: &Page, other: &Page) -> Option<String> {
    let odd = |one: &Page, other: &Page| {
        one.headers.iter().find(|header| !other.headers.contains(header)).map(|(name, _)| name.clone())
    };
    if one.status != other.status {
        Some(format!("its status ({} against {})", one.status, other.status))
    } else if let Some(name) = odd(one, other).or_else(|| odd(other, one)) {
        Some(format!("the header `{}`", crate::codex::plain(&name)))
    } else if one.body != other.body {
        Some(format!("its body ({} B against {} B)", one.body.len(), other.body.len()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(status: u16, header: &str, body: &str) -> Page {
        let headers = vec![("date".into(), body.into()), ("server".into(), header.into())];
        Page { status, headers, body: body.as_bytes().to_vec() }
    }

    fn outcome(pinned: &Page, one: &Page, other: &Page) -> Outcome {
        let unknown = ["/a/one".to_owned(), "/a/two".to_owned()];
        let pair = Pair { scheme: "http", port: 80, pinned: "/a/pin".into(), unknown };
        judge(&pair, [Some(pinned), Some(one), Some(other)])
    }

    fn leak(outcome: &Outcome, part: &str) {
        assert!(
            matches!(outcome, Outcome::Leak(text) if text.contains(part)),
            "{part:?} is not in {outcome:?}"
        );
    }

    #[test]
    fn a_pinned_route_that_answers_otherwise_is_found() {
        let unknown = page(404, "x", "");
        assert_eq!(outcome(&unknown, &unknown, &unknown), Outcome::Alike);
        leak(
            &outcome(&page(403, "x", ""), &unknown, &unknown),
            "/a/pin at port 80 answers 403, an unknown path 404",
        );
        leak(&outcome(&page(404, "y", ""), &unknown, &unknown), "the header `server`");
        leak(&outcome(&page(404, "x", "no"), &unknown, &unknown), "its body (2 B against 0 B)");
    }

    #[test]
    fn pages_may_name_the_path_that_was_asked_and_no_other() {
        let told = |path: &str| page(404, "x", &format!("no {path} here"));
        assert_eq!(outcome(&told("/a/pin"), &told("/a/one"), &told("/a/two")), Outcome::Alike);
        leak(&outcome(&told("/nowhere"), &told("/a/one"), &told("/a/two")), "its body");
    }

    #[test]
    fn pages_that_are_never_alike_are_not_called_a_leak() {
        let [a, b, c] = ["1", "2", "3"].map(|body| page(404, "x", body));
        assert!(matches!(outcome(&a, &b, &c), Outcome::Note(_)));
    }
}
