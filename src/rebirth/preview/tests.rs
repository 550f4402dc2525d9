use super::*;
use crate::codex::LAW;

const OLD: &str = "schema = 1\n[appliance]\nname = \"tomb\"\n[tether]\nendpoint = \"tomb.example\"\n";
const WEB: &str = "description = \"Web\"\nrootfs = \"stand-in\"\ncommand = [\"/usr/bin/web\"]\n";
const KEYS: [&str; 2] =
    ["ilWM7S07cmS1LX8L0C9iF0d1uBj8lIRbQiF8o9bvqhY=", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="];

fn port(number: u16, tier: &str) -> String {
    format!("[[port]]\nnumber = {number}\ntier = \"{tier}\"\n")
}

fn law(text: &str, services: &[(&str, String)]) -> Sources {
    let services =
        services.iter().map(|(name, ports)| (format!("services/{name}.toml"), format!("{WEB}{ports}")));
    services.chain([(LAW.to_owned(), text.to_owned())]).collect()
}

fn bonds() -> Sources {
    let peer = |key: &str, address: &str, grants: &str| {
        format!("public-key = \"{key}\"\naddress = \"{address}\"\ngrants = [{grants}]\n")
    };
    [
        ("peers/laptop.toml", peer(KEYS[0], "10.88.16.2", "\"web\", \"chat\"")),
        ("peers/phone.toml", peer(KEYS[1], "10.88.16.3", "\"web\"")),
    ]
    .into_iter()
    .collect()
}

fn of(old: &Sources, new: &Sources, schemas: (u32, u32)) -> Preview {
    let now = "2026-12-01T00:00:00Z".parse().unwrap();
    let side = |law, schema| Side { law, schema };
    preview(side(old, schemas.0), side(new, schemas.1), &bonds(), now).unwrap()
}

#[test]
fn the_same_law_changes_nothing_whatever_its_comments() {
    let services = [("web", port(8080, "tether")), ("chat", port(7000, "tether"))];
    let same = of(&law(OLD, &services), &law(&format!("# hello\n{OLD}"), &services), (1, 1));
    assert_eq!(same.to_string(), "nothing changes\n");
}

#[test]
fn ports_clients_lost_reach_and_the_schema_are_told() {
    let old = law(OLD, &[("web", port(8080, "tether") + &port(9000, "pod")), ("chat", port(7000, "tether"))]);
    let new = law(
        &format!("{OLD}port = 51821\n"),
        &[("web", port(8081, "tether") + &port(9000, "forest")), ("chat", port(7000, "tether"))],
    );
    let told = of(&old, &new, (1, 2));
    let files: Vec<&str> = told.artefacts.lines().filter_map(|line| line.strip_prefix("+++ b/")).collect();
    let share = "usr/share/sepulcher";
    let expected = ["nftables/host.nft", "nftables/pod.nft", "wireguard/wg0.conf"];
    assert_eq!(files[0], "usr/share/containers/systemd/tomb.pod");
    assert_eq!(files[1..], expected.map(|file| format!("{share}/{file}")));
    assert!(told.artefacts.contains("\n-ListenPort = 51820\n+ListenPort = 51821\n"), "{}", told.artefacts);
    let text = told.to_string();
    let (files, rest) = text.split_once("\nwhat opens").unwrap();
    assert_eq!(files, told.artefacts);
    assert_eq!(
        format!("what opens{rest}"),
        "what opens (+), closes (-) or changes its audience (~):
  - 51820/udp of the tether: forest, everybody
  + 51821/udp of the tether: forest, everybody
  - 8080/tcp of web: tether, peers that hold it
  + 8081/tcp of web: tether, peers that hold it
  ~ 9000/tcp of web: pod becomes forest, everybody

what stands in the configurations of clients:
  ~ the port that clients dial: 51820 becomes 51821

what peers reach no more:
  - laptop: 51820/udp of the tether
  - laptop: 8080/tcp of web
  - phone: 51820/udp of the tether
  - phone: 8080/tcp of web

peers that would need a new configuration: a machine refuses the update for them:
  ! laptop: Endpoint = tomb.example:51820 → Endpoint = tomb.example:51821
  ! phone: Endpoint = tomb.example:51820 → Endpoint = tomb.example:51821

the format of the bonds: schema 1 becomes 2 on the first boot of the new body
"
    );
}

#[test]
fn bonds_that_the_new_law_does_not_allow_are_told_with_the_reason() {
    let services = [("web", port(8080, "tether")), ("chat", port(7000, "tether"))];
    let told = of(&law(OLD, &services), &law(OLD, &services[..1]), (1, 1));
    let stranded: Vec<String> = told.stranded.iter().map(ToString::to_string).collect();
    assert_eq!(stranded, ["laptop: there is no service `chat` to grant"]);
    assert!(told.lost.is_empty(), "{:?}", told.lost);
    let elsewhere = law(&format!("{OLD}network = \"10.99.0.0/24\"\n"), &services);
    let told = of(&law(OLD, &services), &elsewhere, (1, 1));
    assert_eq!(told.stranded.len(), 2, "{:?}", told.stranded);
    assert!(told.to_string().contains("  ~ the tether's network: 10.88.16.0/20 becomes 10.99.0.0/24\n"));
}

#[test]
fn a_law_that_is_broken_by_itself_is_an_error() {
    let broken = law("schema = 1\n", &[]);
    let mistakes = hold(&broken, &bonds()).unwrap_err();
    assert!(mistakes.iter().all(|mistake| mistake.file == LAW), "{mistakes:?}");
}

#[test]
fn a_state_that_is_encrypted_otherwise_is_told() {
    let sealed = format!("{OLD}[state]\nencryption = \"tpm2\"\n");
    let services = [("web", port(8080, "tether")), ("chat", port(7000, "tether"))];
    let told = of(&law(OLD, &services), &law(&sealed, &services), (1, 1));
    let line = "the encryption of the state: none becomes tpm2: a machine refuses the update\n";
    assert!(told.to_string().ends_with(line), "{told}");
    assert!(told.artefacts.contains("+Encrypt=tpm2\n"), "{told}");
}
