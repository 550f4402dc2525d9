//! Whether this body is healthy: what the Codex asks, against what agent, host ruleset and services show.

use std::collections::BTreeMap;
use std::time::Duration;

use super::status::Status;
use crate::codex::Codex;
use crate::sync::{Desired, DialTargets};
use crate::sys::nft;
use crate::tether::fit::Fit;
use crate::tree::Sha256Digest;

/// A status that is older than this is one of an agent that hangs: it looks three times in between.
pub const FRESH: Duration = Duration::from_secs(90);

/// What was found. An `Err` is why it could not be found.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The agent's last word.
    pub status: Result<Status, String>,
    /// Time since the kernel started.
    pub now: Duration,
    /// The host's public key, as `sepulcher awaken` told it.
    pub public_key: Result<String, String>,
    /// Fingerprint of the host's table as it is; `None` when there is none.
    pub host_table: Result<Option<Sha256Digest>, String>,
    /// Fingerprint of the host's table as the sealed ruleset makes it.
    pub host_expected: Result<Sha256Digest, String>,
    /// Unit → its state, for every unit of [`units`].
    pub states: Result<BTreeMap<String, String>, String>,
    /// Units that failed.
    pub failed: Result<Vec<String>, String>,
}

/// One line of the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub subject: &'static str,
    /// What is right about it, or what is wrong.
    pub result: Result<String, String>,
}

/// Units that must be active.
pub fn units(codex: &Codex) -> Vec<String> {
    let app = &codex.appliance.name;
    let services = codex.services.keys().map(|name| format!("{app}-{name}.service"));
    let own = ["sepulcher-firewall.service", "sepulcher-control.socket", "sepulcher-resolv.service"]
        .map(str::to_owned);
    let pod = [format!("{app}-pod.service"), format!("{app}-vpn.service")];
    own.into_iter().chain(pod).chain(services).collect()
}

/// Judges the facts against what can be held of the Codex; `ruleset` is the digest of the pod's ruleset that
/// it renders.
pub fn judge(held: &Fit, ruleset: Sha256Digest, facts: &Facts) -> Vec<Check> {
    let codex = &held.codex;
    let Facts { status, now, public_key, host_table, host_expected, states, failed } = facts;
    let status = status.as_ref().map_err(Clone::clone);
    let check = |subject, result| Check { subject, result };
    vec![
        check("agent", status.clone().and_then(|status| agent(status, *now))),
        check("host key", status.clone().and_then(|status| identity(status, public_key))),
        check("bonds", status.clone().and_then(|status| bonds(held, status))),
        check("pod ruleset", status.clone().and_then(|status| pod_ruleset(ruleset, status))),
        check("services", status.and_then(|status| answering(codex, status))),
        check("host ruleset", host_ruleset(host_table, host_expected)),
        check("units", states.as_ref().map_err(Clone::clone).and_then(active)),
        check("failed units", failed.as_ref().map_err(Clone::clone).and_then(|failed| none_failed(failed))),
    ]
}

fn agent(status: &Status, now: Duration) -> Result<String, String> {
    let age = status.age(now);
    if age > FRESH {
        return Err(format!("the agent was last heard of {} s ago", age.as_secs()));
    }
    match &status.error {
        Some(error) => Err(error.clone()),
        None if status.ready => Ok(format!("{} port {}", status.interface, status.listen_port)),
        None => Err("the agent is not ready".into()),
    }
}

fn identity(status: &Status, public_key: &Result<String, String>) -> Result<String, String> {
    let expected = public_key.as_ref().map_err(Clone::clone)?;
    if status.public_key == *expected {
        Ok(expected.clone())
    } else {
        Err(format!("the agent holds {}, the host has {expected}", status.public_key))
    }
}

/// A broken bond is for its writer to mend and no fault of this body, as long as the valid ones are held.
fn bonds(fit: &Fit, status: &Status) -> Result<String, String> {
    let broken: Vec<_> = status.broken.iter().map(|broken| broken.file.as_str()).collect();
    let note = match broken.len() {
        0 => String::new(),
        count => format!("; {count} broken: {}", broken.join(", ")),
    };
    let held = status.peers.held;
    // The key is no part of the peers' digest; any will do.
    let Fit { codex, preshared, unfit: _ } = fit;
    let (active, same) = match codex.peers.values().next() {
        None => (0, held == 0),
        Some(any) => {
            let desired = Desired::of(codex, any.public_key, &DialTargets::new(), preshared);
            (desired.peers.len(), status.holds(desired.peers_digest()))
        }
    };
    // Bonds whose last good state is in force are held too; what they said is known to the agent alone,
    // which compares what it holds at every look, so here their number has to do.
    let last_good = status.broken.iter().filter(|broken| broken.last_good).count();
    if same || (last_good > 0 && (active..=active + last_good).contains(&held)) {
        Ok(format!("{active} of {} bonds are active, and held{note}", codex.peers.len()))
    } else {
        Err(format!("{held} peers are held and {active} are bonded, or their addresses differ{note}"))
    }
}

fn pod_ruleset(expected: Sha256Digest, status: &Status) -> Result<String, String> {
    if status.ruleset == expected.to_string() {
        Ok("as the Codex renders it".into())
    } else {
        Err("the agent loaded another ruleset than the Codex renders".into())
    }
}

fn answering(codex: &Codex, status: &Status) -> Result<String, String> {
    if status.silent.is_empty() {
        let ports: usize = codex.services.values().map(|service| service.ports.len()).sum();
        Ok(format!("{ports} declared ports answer"))
    } else {
        Err(status.silent.join(", "))
    }
}

fn host_ruleset(
    table: &Result<Option<Sha256Digest>, String>,
    expected: &Result<Sha256Digest, String>,
) -> Result<String, String> {
    match (table, expected) {
        (Err(error), _) | (_, Err(error)) => Err(error.clone()),
        (Ok(None), Ok(_)) => Err(format!("table {} is not loaded", nft::TABLE)),
        (Ok(Some(table)), Ok(expected)) if table == expected => Ok("as it was sealed".into()),
        (Ok(Some(_)), Ok(_)) => Err(format!("table {} differs from the sealed one", nft::TABLE)),
    }
}

fn active(states: &BTreeMap<String, String>) -> Result<String, String> {
    let idle: Vec<_> = states
        .iter()
        .filter(|(_, state)| *state != "active")
        .map(|(unit, state)| format!("{unit} is {state}"))
        .collect();
    if idle.is_empty() { Ok(format!("{} are active", states.len())) } else { Err(idle.join(", ")) }
}

fn none_failed(failed: &[String]) -> Result<String, String> {
    if failed.is_empty() { Ok("none".into()) } else { Err(failed.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex::Sources;
    use crate::sync::PresharedKeys;
    use crate::tether::bonds::Broken;
    use crate::tether::status::Peers;

    const KEY: &str = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";

    const OCULUS: &str =
        "description = \"x\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"tether\"\n";

    fn codex() -> Codex {
        let peer = |key: &str, last: u8| {
            format!("public-key = \"{key}\"\naddress = \"10.88.16.{last}\"\ngrants = [\"oculus\"]\n")
        };
        let sources: Sources = [
            ("lychd.toml", "schema = 1\n[appliance]\nname = \"lychd\"\n".to_owned()),
            ("services/oculus.toml", OCULUS.to_owned()),
            ("peers/phone.toml", peer(KEY, 2)),
            (
                "peers/old.toml",
                peer("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", 3) + "state = \"revoked\"\n",
            ),
        ]
        .into_iter()
        .collect();
        Codex::parse(&sources).unwrap()
    }

    fn fit() -> Fit {
        Fit { codex: codex(), preshared: PresharedKeys::new(), unfit: Vec::new() }
    }

    fn digest(text: &str) -> Sha256Digest {
        Sha256Digest::of(text.as_bytes())
    }

    fn healthy() -> Facts {
        let codex = codex();
        let desired = Desired::of(&codex, KEY.parse().unwrap(), &DialTargets::new(), &PresharedKeys::new());
        let status = Status {
            schema: 1,
            ready: true,
            error: None,
            written_ms: 60_000,
            interface: "wg0".into(),
            public_key: KEY.into(),
            listen_port: 51820,
            ruleset: digest("pod").to_string(),
            peers: Peers { declared: 2, active: 1, held: 1, digest: desired.peers_digest().to_string() },
            broken: Vec::new(),
            silent: Vec::new(),
            drift: 0,
        };
        Facts {
            status: Ok(status),
            now: Duration::from_secs(70),
            public_key: Ok(KEY.into()),
            host_table: Ok(Some(digest("host"))),
            host_expected: Ok(digest("host")),
            states: Ok(units(&codex).into_iter().map(|unit| (unit, "active".to_owned())).collect()),
            failed: Ok(Vec::new()),
        }
    }

    fn complaints(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = healthy();
        change(&mut facts);
        let checks = judge(&fit(), digest("pod"), &facts);
        checks.into_iter().filter(|check| check.result.is_err()).map(|check| check.subject).collect()
    }

    fn status(change: impl FnOnce(&mut Status)) -> Vec<&'static str> {
        complaints(|facts| change(facts.status.as_mut().unwrap()))
    }

    #[test]
    fn a_healthy_body_has_no_complaint() {
        assert_eq!(complaints(|_| {}), Vec::<&str>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_is_told_under_its_own_name() {
        assert_eq!(status(|status| status.error = Some("no wg0".into())), ["agent"]);
        assert_eq!(status(|status| status.ready = false), ["agent"]);
        assert_eq!(complaints(|facts| facts.now = Duration::from_secs(151)), ["agent"]);
        assert_eq!(status(|status| status.public_key = "x".into()), ["host key"]);
        assert_eq!(status(|status| status.peers.digest = "x".into()), ["bonds"]);
        assert_eq!(status(|status| status.ruleset.clear()), ["pod ruleset"]);
        assert_eq!(complaints(|facts| facts.host_table = Ok(None)), ["host ruleset"]);
        assert_eq!(complaints(|facts| facts.host_table = Ok(Some(digest("x")))), ["host ruleset"]);
        assert_eq!(complaints(|facts| facts.failed = Ok(vec!["x.service".into()])), ["failed units"]);
        let silent = complaints(|facts| facts.status = Err("no agent".into()));
        assert_eq!(silent, ["agent", "host key", "bonds", "pod ruleset", "services"]);
        assert_eq!(
            status(|status| status.silent = vec!["nobody listens on oculus tcp 6006".into()]),
            ["services"]
        );
    }

    #[test]
    fn a_broken_bond_is_a_note_as_long_as_the_valid_ones_are_held() {
        let broken = |last_good| Broken {
            file: "peers/x.toml".into(),
            last_good,
            in_force: false,
            reason: "?".into(),
        };
        let mut facts = healthy();
        facts.status.as_mut().unwrap().broken = vec![broken(false)];
        let checks = judge(&fit(), digest("pod"), &facts);
        let told = checks.iter().find(|check| check.subject == "bonds").unwrap().result.clone();
        assert_eq!(told.unwrap(), "1 of 2 bonds are active, and held; 1 broken: peers/x.toml");
        // Its last good state is held beside the valid ones.
        let with = |last_good, held| {
            status(|status| {
                status.broken = vec![broken(last_good)];
                status.peers.held = held;
                status.peers.digest = "other".into();
            })
        };
        assert_eq!(with(true, 2), Vec::<&str>::new());
        assert_eq!(with(true, 0), ["bonds"]);
        assert_eq!(with(true, 3), ["bonds"]);
        assert_eq!(with(false, 2), ["bonds"]);
    }

    #[test]
    fn every_service_of_the_codex_must_be_active() {
        let unit = "lychd-oculus.service";
        let idle = |facts: &mut Facts| {
            facts.states.as_mut().unwrap().insert(unit.into(), "activating".into());
        };
        assert!(units(&codex()).iter().any(|name| name == unit));
        assert_eq!(complaints(idle), ["units"]);
    }
}
