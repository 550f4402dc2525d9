//! The pod's ruleset as the agent sees it: a frame that follows from the law, and elements that follow
//! from the bonds. A changed bond changes elements alone: counters, limits and connections of the others
//! stay as they are.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use crate::codex::Codex;
use crate::codex::net::Net4;
use crate::reach::{self, Between, Grant};
use crate::render::{RenderError, nftables};
use crate::sys::nft::TABLE;

/// A ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The whole text, which makes the table anew.
    pub text: String,
    /// The text without any bond.
    frame: String,
    grants: BTreeSet<Grant>,
    host: BTreeSet<Grant>,
    beyond: BTreeSet<Net4>,
    gone: BTreeSet<Net4>,
    between: BTreeSet<Between>,
}

impl Rules {
    /// The pod's ruleset of `codex`.
    pub fn of(codex: &Codex) -> Result<Self, RenderError> {
        Ok(Self {
            text: nftables::pod(codex)?,
            frame: nftables::pod(&codex.without_peers())?,
            grants: reach::grants(codex),
            host: reach::host_grants(codex),
            beyond: reach::beyond(codex),
            gone: reach::gone(codex),
            between: reach::between(codex),
        })
    }

    /// A text as it is, which can only be loaded as a whole.
    pub fn fixed(text: String) -> Self {
        Self {
            frame: text.clone(),
            text,
            grants: BTreeSet::new(),
            host: BTreeSet::new(),
            beyond: BTreeSet::new(),
            gone: BTreeSet::new(),
            between: BTreeSet::new(),
        }
    }

    /// What turns the table of `old` into that of `self`, in one transaction; `None` when only the whole
    /// text does.
    pub fn change_from(&self, old: &Self) -> Option<String> {
        if self.frame != old.frame {
            return None;
        }
        let mut text = String::new();
        for (set, v4) in [("grants", true), ("grants6", false)] {
            let of = |rules: &Self| part(&rules.grants, |grant| grant.address.is_ipv4() == v4);
            difference(&mut text, set, &of(old), &of(self));
        }
        difference(&mut text, "host_grants", &old.host, &self.host);
        difference(&mut text, "beyond", &old.beyond, &self.beyond);
        difference(&mut text, "gone", &old.gone, &self.gone);
        for (set, v4) in [("between", true), ("between6", false)] {
            let of = |rules: &Self| part(&rules.between, |one| one.from.is_ipv4() == v4);
            difference(&mut text, set, &of(old), &of(self));
        }
        (!text.is_empty()).then_some(text)
    }
}

fn part<T: Ord + Copy>(all: &BTreeSet<T>, wanted: impl Fn(&T) -> bool) -> BTreeSet<T> {
    all.iter().copied().filter(|one| wanted(one)).collect()
}

/// Statements that delete what is no more in a set and add what is new.
fn difference<T: Ord + Display>(text: &mut String, set: &str, old: &BTreeSet<T>, new: &BTreeSet<T>) {
    for (verb, elements) in [("delete", old.difference(new)), ("add", new.difference(old))] {
        let elements: Vec<_> = elements.map(ToString::to_string).collect();
        if !elements.is_empty() {
            // delete element inet sepulcher grants { 10.88.16.2 . tcp . 6006 }
            let _ = writeln!(text, "{verb} element {TABLE} {set} {{ {} }}", elements.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Sources;

    const KEYS: [&str; 2] =
        ["DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="];

    fn rules(port: u16, peers: &[(u8, &str)]) -> Rules {
        let service = format!(
            "description = \"x\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = {port}\ntier = \"tether\"\n"
        );
        let mut sources = Sources::default();
        sources.insert("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n");
        sources.insert("services/echo.toml", service);
        for (last, more) in peers {
            let key = KEYS[usize::from(*last) % 2];
            let text =
                format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = [\"echo\"]\n{more}");
            sources.insert(format!("peers/p{last}.toml"), text);
        }
        Rules::of(&Codex::parse(&sources).unwrap()).unwrap()
    }

    #[test]
    fn a_bond_that_comes_or_goes_changes_its_own_elements_alone() {
        let (one, two) = (rules(7878, &[(2, "")]), rules(7878, &[(2, ""), (3, "")]));
        let added = "add element inet sepulcher grants { 10.88.16.3 . tcp . 7878 }\n";
        assert_eq!(two.change_from(&one).as_deref(), Some(added));
        assert_eq!(one.change_from(&two), Some(added.replace("add", "delete")));
    }

    #[test]
    fn a_grant_of_the_host_changes_its_own_set_alone() {
        let law = "schema = 1\n[appliance]\nname = \"lychd\"\n[[host]]\nname = \"ssh\"\nport = 22\n";
        let rules = |grants: &str| {
            let peer = format!("public-key = \"{}\"\naddress = \"10.88.16.2\"\ngrants = {grants}\n", KEYS[0]);
            let sources: Sources =
                [("lychd.toml", law.to_owned()), ("peers/p.toml", peer)].into_iter().collect();
            Rules::of(&Codex::parse(&sources).unwrap()).unwrap()
        };
        let change = rules("[\"ssh\"]").change_from(&rules("[\"*\"]"));
        let expected = "add element inet sepulcher host_grants { 10.88.16.2 . tcp . 22 }\n";
        assert_eq!(change.as_deref(), Some(expected), "`*` does not hold it");
    }

    #[test]
    fn networks_behind_a_peer_come_with_it() {
        let lych = "kind = \"lych\"\nroutes = [\"192.168.7.0/24\"]\n";
        let change = rules(7878, &[(2, lych)]).change_from(&rules(7878, &[(2, "")]));
        assert_eq!(change.as_deref(), Some("add element inet sepulcher beyond { 192.168.7.0/24 }\n"));
        let revoked = format!("{lych}state = \"revoked\"\n");
        let change = rules(7878, &[(2, &revoked)]).change_from(&rules(7878, &[(2, lych)]));
        let closed = "delete element inet sepulcher grants { 10.88.16.2 . tcp . 7878 }\n\
                      delete element inet sepulcher beyond { 192.168.7.0/24 }\n\
                      add element inet sepulcher gone { 192.168.7.0/24 }\n";
        assert_eq!(change.as_deref(), Some(closed));
    }

    #[test]
    fn a_grant_of_a_peer_changes_its_own_elements_alone() {
        let peer = |last: u8, grants: &str, more: &str| {
            let key = KEYS[usize::from(last) % 2];
            format!(
                "public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\naddress6 = \"fd88::{last}\"\ngrants = {grants}\n{more}"
            )
        };
        let rules = |grants: &str, state: &str| {
            let lych = format!("{state}kind = \"lych\"\nroutes = [\"10.99.7.0/24\"]\n");
            let law = "schema = 1\n[appliance]\nname = \"lychd\"\n[tether]\nnetwork6 = \"fd88::/64\"\n";
            let sources: Sources = [
                ("lychd.toml", law.to_owned()),
                ("peers/crypt.toml", peer(3, "[]", &lych)),
                ("peers/phone.toml", peer(2, grants, "")),
            ]
            .into_iter()
            .collect();
            Rules::of(&Codex::parse(&sources).unwrap()).unwrap()
        };
        let (without, with) = (rules("[]", ""), rules("[\"peer:crypt\"]", ""));
        let added = "add element inet sepulcher between { 10.88.16.2 . 10.88.16.3, 10.88.16.2 . 10.99.7.0/24 }\n\
                     add element inet sepulcher between6 { fd88::2 . fd88::3 }\n";
        assert_eq!(with.change_from(&without).as_deref(), Some(added));
        assert_eq!(without.change_from(&with), Some(added.replace("add", "delete")));
        let revoked = rules("[\"peer:crypt\"]", "state = \"revoked\"\n");
        assert!(revoked.between.is_empty(), "a grant of a revoked peer is no mistake, and opens nothing");
    }

    #[test]
    fn another_law_needs_the_whole_ruleset() {
        let fixed = Rules::fixed("table inet sepulcher {}\n".into());
        assert_eq!(rules(7878, &[]).change_from(&fixed), None);
        assert_eq!(fixed.change_from(&fixed), None);
    }
}
