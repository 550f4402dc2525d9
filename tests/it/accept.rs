//! Codexes that must be taken, and what they mean.

use sepulcher::codex::{
    Addressing, Backend, Codex, Encryption, Endpoint, PeerKind, PeerState, Protocol, Source, Tier,
};

use crate::support::repository;

const LAW: &str = "schema = 1\n[appliance]\nname = \"lychd\"\n";
const OCULUS: &str =
    "description = \"Traces\"\nrootfs = \"stand-in\"\n[[port]]\nnumber = 6006\ntier = \"tether\"\n";
const PHONE: &str =
    "public-key = \"FkF+e/8sl5ijuqf9MmWbOZGswIU1TD9qHw828ACGpRQ=\"\naddress = \"10.88.16.2\"\n";
const LAPTOP: &str =
    "public-key = \"4CKf3Grh+ot3G/k/W2rXBf17+VSE1LPBsq9m4Ly1zik=\"\naddress = \"10.88.16.3\"\n";

fn parse(files: &[(&str, &str)]) -> Codex {
    let sources = files.iter().copied().collect();
    Codex::parse(&sources)
        .unwrap_or_else(|mistakes| panic!("{}", sepulcher::codex::render_all(&mistakes, &sources, false)))
}

#[test]
fn the_smallest_codex_has_the_defaults() {
    let codex = parse(&[("lychd.toml", LAW)]);
    assert_eq!(codex.appliance.domain, None);
    assert_eq!(codex.uplink.interface.as_str(), "en*");
    assert_eq!(codex.uplink.addressing, Addressing::Dhcp);
    assert_eq!(codex.pod.network.to_string(), "10.88.0.0/24");
    assert_eq!(codex.pod.gateway.to_string(), "10.88.0.1");
    assert_eq!(codex.pod.address.to_string(), "10.88.0.10");
    assert_eq!(codex.state.encryption, Encryption::None);
    let tether = codex.tether;
    assert_eq!((tether.port.get(), tether.mtu, tether.keepalive), (51820, 1420, 25));
    assert_eq!(tether.network.to_string(), "10.88.16.0/20");
    assert_eq!(tether.address.to_string(), "10.88.16.1");
    assert_eq!((tether.network6, tether.endpoint, tether.backend), (None, None, Backend::Kernel));
    assert!(codex.services.is_empty() && codex.peers.is_empty());
}

#[test]
fn a_pod_network_without_an_address_gets_one_that_fits() {
    for (network, address) in
        [("10.99.0.0/24", "10.99.0.10"), ("10.99.0.0/29", "10.99.0.2"), ("10.99.0.8/30", "10.99.0.10")]
    {
        let law = format!("{LAW}[pod]\nnetwork = \"{network}\"\n");
        assert_eq!(parse(&[("lychd.toml", &law)]).pod.address.to_string(), address, "{network}");
    }
}

#[test]
fn every_key_of_the_law_arrives() {
    let law = r#"
        schema = 1
        appliance = { name = "tomb", domain = "tomb.example" }
        [uplink]
        interface = "eth0"
        addresses = ["192.0.2.10/24", "2001:db8::10/64"]
        gateways = ["192.0.2.1", "fe80::1"]
        dns = ["192.0.2.53"]
        [pod]
        network = "10.99.0.0/24"
        address = "10.99.0.7"
        [tether]
        port = 443
        network = "10.98.0.0/24"
        network6 = "fd88::/64"
        mtu = 1280
        endpoint = "192.0.2.10"
        keepalive = 0
        backend = "userspace"
        [state]
        encryption = "tpm2"
    "#;
    let codex = parse(&[("lychd.toml", law)]);
    assert_eq!(codex.appliance.name.as_str(), "tomb");
    assert_eq!(codex.appliance.domain.unwrap().as_str(), "tomb.example");
    assert_eq!(codex.uplink.interface.as_str(), "eth0");
    let ip = |text: &str| text.parse().unwrap();
    assert_eq!(
        codex.uplink.addressing,
        Addressing::Static {
            addresses: vec![(ip("192.0.2.10"), 24), (ip("2001:db8::10"), 64)],
            gateways: vec![ip("192.0.2.1"), ip("fe80::1")],
            dns: vec![ip("192.0.2.53")],
        }
    );
    assert_eq!(codex.pod.address.to_string(), "10.99.0.7");
    assert_eq!(codex.state.encryption, Encryption::Tpm2);
    let tether = codex.tether;
    assert_eq!((tether.port.get(), tether.mtu, tether.keepalive), (443, 1280, 0));
    let (network6, address6) = tether.network6.unwrap();
    assert_eq!((network6.to_string(), address6.to_string()), ("fd88::/64".into(), "fd88::1".into()));
    assert_eq!(tether.endpoint, Some(Endpoint::Ip(ip("192.0.2.10"))));
    assert_eq!(tether.backend, Backend::Userspace);
}

#[test]
fn every_key_of_a_service_arrives() {
    let service = r#"
        description = "Traces"
        image = "registry.example/oculus@sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
        command = ["/bin/oculus", "--all"]
        user = "7:8"
        secrets = ["token"]
        port = [
            { number = 6006, tier = "tether" },
            { number = 9000, tier = "forest", protocol = "udp" },
        ]
        volume = [{ name = "data", target = "/data" }]
        environment = { LOG = "info", "_x1" = "" }
    "#;
    let veil = "description = \"Proxy\"\nrootfs = \"veil\"\nveil = true\n[[port]]\nnumber = 443\ntier = \"tether\"\n";
    let route = "[[route]]\npath = \"/traces\"\ntier = \"tether\"\nport = 6006\n";
    let service = format!("{service}\n{route}");
    let codex =
        parse(&[("lychd.toml", LAW), ("services/oculus.toml", &service), ("services/door.toml", veil)]);
    let names: Vec<_> = codex.services.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["door", "oculus"]);
    let [door, oculus] = codex.services.into_values().collect::<Vec<_>>().try_into().unwrap();
    assert!(door.veil && door.source == Source::Rootfs("veil".parse().unwrap()));
    assert!(!oculus.veil);
    assert!(matches!(oculus.source, Source::Image(image) if image.starts_with("registry.example/oculus@")));
    assert_eq!((oculus.description.as_str(), oculus.user), ("Traces", Some((7, 8))));
    assert_eq!(oculus.command, ["/bin/oculus", "--all"]);
    assert!(oculus.secrets.iter().map(sepulcher::codex::name::Name::as_str).eq(["token"]));
    let ports: Vec<_> =
        oculus.ports.iter().map(|port| (port.number.get(), port.protocol, port.tier)).collect();
    assert_eq!(ports, [(6006, Protocol::Tcp, Tier::Tether), (9000, Protocol::Udp, Tier::Forest)]);
    let [route] = oculus.routes.try_into().unwrap();
    assert_eq!((route.path.as_str(), route.tier, route.port.get()), ("/traces", Tier::Tether, 6006));
    let [volume] = oculus.volumes.try_into().unwrap();
    assert_eq!((volume.name.as_str(), volume.target.as_str()), ("data", "/data"));
    let environment: Vec<_> = oculus.environment.into_iter().collect();
    assert_eq!(environment, [("LOG".into(), "info".into()), ("_x1".into(), String::new())]);
}

#[test]
fn every_key_of_a_peer_arrives() {
    let law = format!("{LAW}[tether]\nnetwork6 = \"fd88::/64\"\n");
    let lych = format!(
        "{PHONE}address6 = \"fd88::2\"\ngrants = [\"*\"]\nkind = \"lych\"\nendpoint = \"[2001:db8::1]:4500\"\n\
         keepalive = 7\nroutes = [\"192.168.7.0/24\"]\ngeneration = 3\n"
    );
    let codex = parse(&[("lychd.toml", &law), ("peers/lych.toml", &lych)]);
    let peer = codex.peers.into_values().next().unwrap();
    assert_eq!(peer.public_key.to_string(), "FkF+e/8sl5ijuqf9MmWbOZGswIU1TD9qHw828ACGpRQ=");
    assert_eq!(peer.address.to_string(), "10.88.16.2");
    assert_eq!(peer.address6.unwrap().to_string(), "fd88::2");
    assert_eq!((peer.grants.every_service, peer.state, peer.generation), (true, PeerState::Active, 3));
    let PeerKind::Lych { endpoint, keepalive, routes } = &peer.kind else { panic!("not a lych") };
    let (host, port) = endpoint.clone().unwrap();
    assert_eq!((host, port.get()), (Endpoint::Ip("2001:db8::1".parse().unwrap()), 4500));
    assert_eq!((*keepalive, routes[0].to_string()), (7, "192.168.7.0/24".into()));
}

#[test]
fn a_revoked_peer_may_name_services_networks_and_routes_of_the_past() {
    let past = PHONE.replace("10.88.16.2", "10.77.0.2") + "address6 = \"fd77::2\"\n";
    let revoked = format!(
        "{past}grants = [\"gone\"]\nstate = \"revoked\"\nkind = \"lych\"\nroutes = [\"192.168.7.0/24\"]\n"
    );
    let heir = format!("{LAPTOP}grants = [\"oculus\"]\nkind = \"lych\"\nroutes = [\"192.168.7.0/24\"]\n");
    let codex = parse(&[
        ("lychd.toml", LAW),
        ("services/oculus.toml", OCULUS),
        ("peers/old.toml", &revoked),
        ("peers/new.toml", &heir),
    ]);
    assert_eq!(codex.peers.values().filter(|peer| peer.state == PeerState::Revoked).count(), 1);
}

#[test]
fn one_number_may_serve_both_protocols() {
    let both = format!("{OCULUS}[[port]]\nnumber = 6006\nprotocol = \"udp\"\ntier = \"tether\"\n");
    assert_eq!(parse(&[("lychd.toml", LAW), ("services/oculus.toml", &both)]).services.len(), 1);
}

#[test]
fn the_example_is_the_box_that_it_describes() {
    let sources = sepulcher::sys::codex::load(&[&repository("examples/lychd")]);
    let codex = Codex::parse(&sources).unwrap();
    let ports = |tier| -> Vec<u16> {
        let ports = codex.services.values().flat_map(|service| &service.ports);
        ports.filter(|port| port.tier == tier).map(|port| port.number.get()).collect()
    };
    assert_eq!(ports(Tier::Forest), [80]);
    assert_eq!(ports(Tier::Tether), [7878, 7879, 6006, 9464]);
    assert_eq!(ports(Tier::Pod), [7140, 4318, 5432, 7134]);
    let routes = |tier| -> Vec<&str> {
        let routes = codex.services.values().flat_map(|service| &service.routes);
        routes.filter(|route| route.tier == tier).map(|route| route.path.as_str()).collect()
    };
    assert_eq!(routes(Tier::Forest), ["/a2a/hello", "/"]);
    assert_eq!(routes(Tier::Tether), ["/a2a/smith"]);
}

#[test]
fn on_a_machine_a_bond_of_another_law_opens_less_and_stays_in_force() {
    let stranger =
        format!("{PHONE}address6 = \"fd88:0:0:16::2\"\ngrants = [\"oculus\", \"gone\", \"quiet\"]\n");
    let all = format!("{LAPTOP}grants = [\"*\", \"gone\"]\n");
    let quiet = "description = \"Quiet\"\nrootfs = \"stand-in\"\n";
    let sources = [
        ("lychd.toml", LAW),
        ("services/oculus.toml", OCULUS),
        ("services/quiet.toml", quiet),
        ("peers/phone.toml", stranger.as_str()),
        ("peers/laptop.toml", all.as_str()),
    ];
    let sources = sources.into_iter().collect();
    let mistakes = Codex::parse(&sources).unwrap_err();
    let told: Vec<_> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(Codex::parse_part(&sources).unwrap_err().len(), 5);
    let codex = Codex::parse_living(&sources).unwrap();
    let names: Vec<_> = codex.active().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["laptop", "phone"]);
    let phone = codex.peer(&"phone".parse().unwrap()).unwrap();
    assert_eq!(phone.address6, None);
    sepulcher::render::render(&codex).unwrap();
    // Grants that do not go together are a mistake all the same.
    let both = format!("{LAPTOP}grants = [\"*\", \"oculus\"]\n");
    let sources =
        [("lychd.toml", LAW), ("services/oculus.toml", OCULUS), ("peers/laptop.toml", both.as_str())];
    Codex::parse_living(&sources.into_iter().collect()).unwrap_err();
}
