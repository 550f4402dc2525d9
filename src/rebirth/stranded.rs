//! Whether a new law holds everybody who is bonded, and opens the state that they are kept in: pure.

use std::collections::BTreeMap;

use crate::codex::time::Timestamp;
use crate::codex::{Codex, Sources, State, is_bond};
use crate::peer::Refused;
use crate::rebirth::preview::losses;
use crate::render::wireguard::{ClientKeys, client};

/// The sources of a new law with the bonds of `now`.
fn under(law: &BTreeMap<String, String>, now: &Sources) -> Sources {
    let law = law.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    law.chain(now.iter().filter(|(path, _)| is_bond(path))).collect()
}

/// Refuses a law that does not hold the living bonds, with the Codex's own mistakes or the list of peers whose
/// configuration would no longer lead here; and one whose body could not mount the living state. `now` are the texts of the
/// Codex in force, `old`. Returns that of the new law.
pub fn check(
    law: &BTreeMap<String, String>,
    now: &Sources,
    old: &Codex,
    time: Timestamp,
) -> Result<Codex, Refused> {
    let sources = under(law, now);
    let hint = "change the new law, or revoke, ungrant or rotate these peers first";
    let (_, new) =
        crate::snapshot::parsed(sources, Codex::parse, "the new law does not hold the living bonds", hint)?;
    opens(new.state, old.state)?;
    let lost = strangers(old, &new, time)?;
    if lost.is_empty() {
        return Ok(new);
    }
    let message =
        format!("{} bonded peer(s) would need a new configuration:\n{}", lost.len(), lost.join("\n"));
    Err(Refused::new(message, hint))
}

/// What a law takes from the peers that it holds, and from who publishes it, a line each for people: they may mean it to.
pub fn takes(old: &Codex, new: &Codex, time: Timestamp) -> Vec<String> {
    let mut lines = losses(old, new, time);
    if !lines.is_empty() {
        lines.insert(0, "what peers reach no more under the new law:".to_owned());
    }
    match &new.rebirth.publisher {
        None => lines.push("the new law names no publisher: its body takes no update".to_owned()),
        publisher if *publisher != old.rebirth.publisher => {
            lines.push("the new law names another publisher, who signs what its body takes".to_owned());
        }
        Some(_) => {}
    }
    lines
}

/// Refuses a law whose body could not mount the state of the one that runs: a partition is encrypted when it is made, or
/// never.
fn opens(State { encryption: new }: State, State { encryption: old }: State) -> Result<(), Refused> {
    if new == old {
        return Ok(());
    }
    let message = format!(
        "the living state has `encryption = \"{old}\"`, and the new law says `\"{new}\"`: its body could not mount it"
    );
    let hint = format!(
        "build it with `[state] encryption = \"{old}\"`; the other one takes a new image on an empty disk, a machine without bonds"
    );
    Err(Refused::new(message, hint))
}

/// Active peers of `old` whose configuration differs under `new`, a line each with the first difference.
pub fn strangers(old: &Codex, new: &Codex, time: Timestamp) -> Result<Vec<String>, Refused> {
    let mut lines = Vec::new();
    for (name, peer) in old.active() {
        if peer.is_expired(time) {
            continue;
        }
        let text = |codex: &Codex| {
            let text = client(codex, name, ClientKeys::default());
            text.map_err(|error| Refused::new(error.to_string(), "report this"))
        };
        let (before, after) = (text(old)?.unwrap_or_default(), text(new)?.unwrap_or_default());
        // Where it has an address of a network that the law in force does not have, another law made its configuration.
        let of_another =
            old.tether.network6.is_none() && new.peer(name).is_some_and(|peer| peer.address6.is_some());
        // What only tells, or is a matter of taste on the device's side.
        let binding = |text: &str| -> Vec<String> {
            let wanted: &[&str] = if of_another {
                &["PublicKey", "Endpoint", "PresharedKey"]
            } else {
                &["Address", "PublicKey", "AllowedIPs", "Endpoint", "PresharedKey"]
            };
            let is =
                |line: &&str| wanted.iter().any(|key| line.starts_with(key)) || line.contains("Endpoint =");
            text.lines().filter(is).map(str::to_owned).collect()
        };
        let (before, after) = (binding(&before), binding(&after));
        let first = before.iter().zip(&after).find(|(before, after)| before != after);
        if let Some((before, after)) = first {
            lines.push(format!("  {name}: {before} → {after}"));
        } else if before.len() != after.len() {
            lines.push(format!("  {name}: its configuration has other lines"));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n";
    const OCULUS: &str =
        "description = \"Traces\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"tether\"\n";

    fn sources(law: &str, oculus: &str, peer: &str) -> Sources {
        let mut sources = Sources::default();
        sources.insert("lychd.toml", law);
        sources.insert("services/oculus.toml", oculus);
        sources.insert("peers/phone.toml", peer);
        sources
    }

    fn peer(grants: &str) -> String {
        format!(
            "public-key = \"{}\"\naddress = \"10.88.16.2\"\ngrants = [{grants}]\n",
            crate::sys::wireguard::SecretKey::generate().public()
        )
    }

    fn checked(law: &str, oculus: &str, now: &Sources) -> Result<Vec<String>, Refused> {
        let law = [("lychd.toml", law), ("services/oculus.toml", oculus)];
        let law = law.into_iter().filter(|(_, text)| !text.is_empty());
        let law = law.map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
        let time = Timestamp::from_epoch(0);
        let old = Codex::parse_living(now).unwrap();
        check(&law, now, &old, time).map(|new| takes(&old, &new, time))
    }

    #[test]
    fn an_address_of_a_network_that_only_the_next_law_has_strands_nobody() {
        let bond = format!("{}address6 = \"fd88:0:0:16::2\"\n", peer("\"oculus\""));
        let now = sources(LAW, OCULUS, &bond);
        let next = format!("{LAW}[tether]\nnetwork6 = \"fd88:0:0:16::/64\"\n");
        checked(&next, OCULUS, &now).unwrap();
        let told = checked(&format!("{next}port = 51900\n"), OCULUS, &now).unwrap_err().to_string();
        assert!(told.contains("need a new configuration"), "{told}");
    }

    #[test]
    fn the_same_law_and_a_wider_one_hold_everybody() {
        let now = sources(LAW, OCULUS, &peer("\"oculus\""));
        checked(LAW, OCULUS, &now).unwrap();
        let wider = format!("{OCULUS}[[port]]\nnumber = 6007\ntier = \"tether\"\n");
        let told = checked(&format!("{LAW}[uplink]\necho = true\n"), &wider, &now).unwrap();
        assert_eq!(told, ["the new law names no publisher: its body takes no update"]);
    }

    #[test]
    fn what_a_law_takes_from_who_stays_is_told() {
        let published = || {
            let key = crate::rebirth::publisher::SigningKey::generate().unwrap().public();
            format!("{LAW}[rebirth]\npublisher = \"{key}\"\n")
        };
        let law = published();
        let now = sources(&law, OCULUS, &peer("\"oculus\""));
        assert_eq!(checked(&law, OCULUS, &now).unwrap(), [""; 0]);
        let told = checked(&law, &OCULUS.replace("6006", "6007"), &now).unwrap();
        assert_eq!(told, ["what peers reach no more under the new law:", "- phone: 6006/tcp of oculus"]);
        assert!(checked(&published(), OCULUS, &now).unwrap()[0].contains("another publisher"));
        assert!(checked(LAW, OCULUS, &now).unwrap()[0].contains("no publisher"));
    }

    #[test]
    fn a_service_that_somebody_is_granted_may_not_leave() {
        let now = sources(LAW, OCULUS, &peer("\"oculus\""));
        let refused = checked(LAW, "", &now).unwrap_err();
        assert_eq!(refused.message, "the new law does not hold the living bonds");
        assert!(refused.report.unwrap().contains("peers/phone.toml"));
        checked(LAW, "", &sources(LAW, OCULUS, &peer(""))).unwrap();
    }

    #[test]
    fn a_law_that_encrypts_the_state_otherwise_could_not_mount_it() {
        let sealed = format!("{LAW}[state]\nencryption = \"tpm2\"\n");
        let [clear_now, sealed_now] = [LAW, &sealed].map(|law| sources(law, OCULUS, &peer("")));
        checked(&sealed, OCULUS, &sealed_now).unwrap();
        for (new, now, back) in [(sealed.as_str(), &clear_now, "none"), (LAW, &sealed_now, "tpm2")] {
            let refused = checked(new, OCULUS, now).unwrap_err();
            assert!(refused.message.contains("could not mount it"), "{}", refused.message);
            assert!(refused.hint.unwrap().contains(&format!("encryption = \"{back}\"`")));
        }
    }

    #[test]
    fn another_subnet_or_port_strands_whoever_is_bonded() {
        let now = sources(LAW, OCULUS, &peer(""));
        let other = format!("{LAW}[tether]\nnetwork = \"10.88.32.0/20\"\n");
        assert!(checked(&other, OCULUS, &now).unwrap_err().report.unwrap().contains("10.88.16.2"));
        let refused = checked(&format!("{LAW}[tether]\nport = 51821\n"), OCULUS, &now).unwrap_err();
        assert!(refused.message.contains("phone: "), "{}", refused.message);
        assert!(refused.message.contains("51821"), "{}", refused.message);
    }
}
