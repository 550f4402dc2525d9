//! Figures in the text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::codex::Codex;
use crate::peer::{Observed, ObservedPeer};
use crate::tether::board::{Known, Looks};

/// Media type of the format.
pub const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page.
pub fn page(known: &Known, looks: Looks, seen: &Observed) -> String {
    let Known { codex, backend: _, peers, broken, drift } = known;
    let mut page = Page::default();
    page.family("sepulcher_peers", "gauge", "Peers of the Codex, those bonded now, and those in the kernel.");
    for (state, count) in [("declared", peers.declared), ("active", peers.active), ("held", seen.peers.len())]
    {
        page.sample("sepulcher_peers", &[("state", state)], count);
    }
    page.single("sepulcher_broken_files", "gauge", "Bonds that are not in force as they stand.", broken);
    page.single(
        "sepulcher_drift_repairs_total",
        "counter",
        "Changes behind the agent's back, put right.",
        drift,
    );
    page.family("sepulcher_plan_duration_seconds", "summary", "Time to compare and repair, a look.");
    page.sample("sepulcher_plan_duration_seconds_sum", &[], looks.time.as_secs_f64());
    page.sample("sepulcher_plan_duration_seconds_count", &[], looks.count);
    each_peer(&mut page, codex, seen);
    page.0
}

fn each_peer(page: &mut Page, codex: &Codex, seen: &Observed) {
    let names = codex.names_by_key();
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&ObservedPeer) -> Option<u64>| {
        page.family(name, kind, help);
        for peer in &seen.peers {
            let Some(value) = value(peer) else { continue };
            let key = peer.public_key.to_string();
            let known = names.get(&peer.public_key).map_or("", |name| name.as_str());
            page.sample(name, &[("peer", known), ("public_key", &key)], value);
        }
    };
    let age = |peer: &ObservedPeer| peer.last_handshake.map(|at| seen.now.saturating_sub(at));
    let name = "sepulcher_peer_last_handshake_age_seconds";
    each(name, "gauge", "Time since the last handshake; absent before the first.", &age);
    let name = "sepulcher_peer_received_bytes_total";
    each(name, "counter", "Bytes received from the peer.", &|peer| Some(peer.received));
    let name = "sepulcher_peer_sent_bytes_total";
    each(name, "counter", "Bytes sent to the peer.", &|peer| Some(peer.sent));
    let name = "sepulcher_peer_denied_packets_total";
    let help = "Packets of the peer that the ruleset refused; forgotten after an hour without one.";
    each(name, "counter", help, &|peer| Some(peer.denied));
}

/// The text so far.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// `name{label="value",…} 1`
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// A label's value within quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::key::PublicKey;
    use crate::codex::{Backend, Sources};
    use crate::sync::{self, Prefix, Traffic};
    use crate::tether::door::seen::seen;
    use crate::tether::status::Peers;
    use std::time::Duration;

    const KEY: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";

    #[test]
    fn every_family_is_told_and_a_peer_without_a_handshake_has_no_age() {
        let sources: Sources = [
            ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
            ("peers/phone.toml", format!("public-key = \"{KEY}\"\naddress = \"10.88.16.2\"\ngrants = []\n")),
        ]
        .into_iter()
        .collect();
        let peers = Peers { declared: 2, active: 1, held: 2, digest: String::new() };
        let codex = Codex::parse(&sources).unwrap();
        let known = Known { codex, backend: Backend::Kernel, peers, broken: 3, drift: 4 };
        let stranger = PublicKey::try_from([9; 32]).unwrap();
        let phone = sync::ObservedPeer {
            allowed_ips: [Prefix::host([10, 88, 16, 2])].into(),
            traffic: Traffic { last_handshake: Some(970), received: 5, sent: 6 },
            ..sync::ObservedPeer::default()
        };
        let observed = sync::Observed {
            peers: [(KEY.parse().unwrap(), phone), (stranger, sync::ObservedPeer::default())].into(),
            ..sync::Observed::default()
        };
        let denied = [([10, 88, 16, 2].into(), 7)].into();
        let looks = Looks { count: 2, time: Duration::from_millis(1500) };
        let text = page(&known, looks, &seen("wg0", &observed, &denied, 1000));
        let labels = format!("{{peer=\"phone\",public_key=\"{KEY}\"}}");
        for line in [
            "sepulcher_peers{state=\"declared\"} 2".to_owned(),
            "sepulcher_peers{state=\"held\"} 2".to_owned(),
            "sepulcher_broken_files 3".to_owned(),
            "sepulcher_drift_repairs_total 4".to_owned(),
            "sepulcher_plan_duration_seconds_sum 1.5".to_owned(),
            "sepulcher_plan_duration_seconds_count 2".to_owned(),
            format!("sepulcher_peer_last_handshake_age_seconds{labels} 30"),
            format!("sepulcher_peer_received_bytes_total{labels} 5"),
            format!("sepulcher_peer_sent_bytes_total{labels} 6"),
            format!("sepulcher_peer_denied_packets_total{labels} 7"),
            format!("sepulcher_peer_sent_bytes_total{{peer=\"\",public_key=\"{stranger}\"}} 0"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains(&format!("age_seconds{{peer=\"\",public_key=\"{stranger}\"")), "{text}");
    }

    #[test]
    fn a_label_cannot_end_its_quotes() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
