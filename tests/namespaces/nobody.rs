//! `sepulcher probe` of an address that nobody has: that is no silence to be proud of.

use crate::gateway::SEPULCHER;
use crate::lab::{Machine, can_run};

/// Exit code and verdict of a probe.
fn probe(outsider: &Machine, address: &str) -> (i32, String) {
    let mut command = outsider.command(SEPULCHER);
    command.args(["probe", address, "--json", "--rate", "1000", "--wait", "1", "--rounds", "1"]);
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report["verdict"].as_str().unwrap().to_owned())
}

#[test]
fn nobody_is_told_apart_from_somebody_who_is_silent() {
    if !can_run("nobody_is_told_apart_from_somebody_who_is_silent") {
        return;
    }
    let (host, outsider) = (Machine::new(), Machine::new());
    host.plug("up0", "192.0.2.1/24", &outsider, "192.0.2.2/24");
    host.sh("nft 'table inet dark { chain input { type filter hook input priority 0; policy drop; }; }'");
    assert_eq!(probe(&outsider, "192.0.2.1"), (0, "silent".into()), "its link says that it is there");
    assert_eq!(probe(&outsider, "192.0.2.9"), (69, "unreachable".into()), "nobody on the link has it");
    // The host hands nothing on and says nothing of it, as any network that loses packets.
    outsider.sh("ip route add 198.51.100.0/24 via 192.0.2.1");
    assert_eq!(
        probe(&outsider, "198.51.100.7"),
        (69, "unreachable".into()),
        "nothing shows that it is there"
    );
}
