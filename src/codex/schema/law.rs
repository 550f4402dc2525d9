//! `lychd.toml` as typed.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use super::reader::{At, Field, Table};
use super::scalar::Addressed;
use crate::codex::diagnostic::Diagnostic;
use crate::codex::name::{DnsName, InterfacePattern, Name};
use crate::codex::net::{Net4, Net6, Port};
use crate::codex::time::Length;
use crate::codex::{Backend, Encryption, Endpoint, Protocol, PublisherKey, UrlPrefix};

/// WireGuard's customary port, 51820.
const WIREGUARD: Port = NonZeroU16::MIN.saturating_add(51819);

/// Thirty days: nothing that knew a revoked peer by its address is likely to remember it for longer.
const FENCE: Length = Length::from_seconds(30 * 86400);

/// Long enough for a slow machine that emulates every instruction.
const PATIENCE: Length = Length::from_seconds(240);

/// `lychd.toml`; a `None` that is not optional in the Codex was wrong and is reported already.
#[derive(Debug)]
pub struct Law {
    /// `appliance.name`.
    pub name: Option<At<Name>>,
    /// `appliance.domain`.
    pub domain: Field<DnsName>,
    /// `appliance.dark`.
    pub dark: Option<At<bool>>,
    /// `uplink.echo`.
    pub echo: Option<At<bool>>,
    /// `uplink.interface`.
    pub interface: Option<At<InterfacePattern>>,
    /// `uplink.addressing`, `addresses`, `gateways`, `dns`.
    pub addressing: Option<Addressing>,
    /// `[[host]]`.
    pub host: Vec<HostService>,
    /// `pod.network`.
    pub pod_network: Option<At<Net4>>,
    /// `pod.address`; absent means one that fits the network.
    pub pod_address: Field<Ipv4Addr>,
    /// `tether.port`.
    pub port: Option<At<Port>>,
    /// `tether.network`.
    pub network: Option<At<Net4>>,
    /// `tether.network6`.
    pub network6: Field<Net6>,
    /// `tether.mtu`.
    pub mtu: Option<At<u16>>,
    /// `tether.endpoint`.
    pub endpoint: Field<Endpoint>,
    /// `tether.keepalive`.
    pub keepalive: Option<At<u16>>,
    /// `tether.backend`.
    pub backend: Option<At<Backend>>,
    /// `tether.fence`.
    pub fence: Option<At<Length>>,
    /// `rebirth.publisher`.
    pub publisher: Field<PublisherKey>,
    /// `rebirth.sources`.
    pub sources: Field<Vec<At<UrlPrefix>>>,
    /// `rebirth.patience`.
    pub patience: Option<At<Length>>,
    /// `state.encryption`.
    pub encryption: Option<At<Encryption>>,
}

/// `[[host]]`.
#[derive(Debug)]
pub struct HostService {
    /// `name`.
    pub name: Option<At<Name>>,
    /// `port`.
    pub port: Option<At<Port>>,
    /// `protocol`.
    pub protocol: Option<At<Protocol>>,
    /// `description`.
    pub description: Option<At<String>>,
}

/// Where the uplink's addresses come from.
#[derive(Debug)]
pub enum Addressing {
    /// From the network.
    Dhcp,
    /// Fixed.
    Static {
        /// `uplink.addresses`.
        addresses: Vec<At<Addressed>>,
        /// `uplink.gateways`.
        gateways: Vec<At<IpAddr>>,
        /// `uplink.dns`.
        dns: Vec<At<IpAddr>>,
    },
}

/// Reads `lychd.toml`.
pub fn read(root: &mut Table<'_>) -> Law {
    schema(root);
    let mut appliance = root.section("appliance");
    let name = appliance.required("name", "\"lychd\"");
    let domain = appliance.optional("domain");
    let dark = appliance.defaulted("dark", false);
    appliance.finish();

    let mut uplink = root.section("uplink");
    let interface = uplink.optional("interface");
    let interface = or_default(&uplink, interface, "en*");
    let addressing = addressing(&mut uplink);
    let echo = uplink.defaulted("echo", false);
    uplink.finish();

    let mut pod = root.section("pod");
    let pod_network = pod.optional("network");
    let pod_network = or_default(&pod, pod_network, "10.88.0.0/24");
    let pod_address = pod.optional("address");
    pod.finish();

    let host = root.tables("host").into_iter().map(host_service).collect();
    let mut rebirth = root.section("rebirth");
    let (publisher, sources) = (rebirth.optional("publisher"), rebirth.optional("sources"));
    let patience = rebirth.defaulted("patience", PATIENCE);
    rebirth.finish();
    let mut state = root.section("state");
    let encryption = state.defaulted("encryption", Encryption::None);
    state.finish();
    let mut tether = root.section("tether");
    let network = tether.optional("network");
    let law = Law {
        name,
        domain,
        dark,
        echo,
        interface,
        addressing,
        host,
        pod_network,
        pod_address,
        port: tether.defaulted("port", WIREGUARD),
        network: or_default(&tether, network, "10.88.16.0/20"),
        network6: tether.optional("network6"),
        mtu: tether.defaulted("mtu", 1420),
        endpoint: tether.optional("endpoint"),
        keepalive: tether.defaulted("keepalive", 25),
        backend: tether.defaulted("backend", Backend::Kernel),
        fence: tether.defaulted("fence", FENCE),
        publisher,
        sources,
        patience,
        encryption,
    };
    tether.finish();
    law
}

fn host_service(mut table: Table<'_>) -> HostService {
    let service = HostService {
        name: table.required("name", "\"ssh\""),
        port: table.required("port", "22"),
        protocol: table.defaulted("protocol", Protocol::Tcp),
        description: table.defaulted("description", String::new()),
    };
    table.finish();
    service
}

/// A default that is spelled as the Codex would.
fn or_default<T: std::str::FromStr>(table: &Table<'_>, field: Field<T>, default: &str) -> Option<At<T>> {
    match field {
        Field::Absent => {
            let value = default.parse().ok()?;
            Some(At { value, place: table.file().whole() })
        }
        Field::Wrong => None,
        Field::Given(at) => Some(*at),
    }
}

/// `schema` of our version or older; newer ones were refused before anything was read.
fn schema(root: &mut Table<'_>) {
    let Some(schema) = root.required::<u32>("schema", "1") else { return };
    if schema.value == 0 {
        let message = "schemas are counted from 1".to_owned();
        root.file().report(Diagnostic::error(message, &schema.place).hint("write `schema = 1`"));
    }
}

fn addressing(uplink: &mut Table<'_>) -> Option<Addressing> {
    let word: Field<String> = uplink.optional("addressing");
    let addresses: Field<Vec<At<Addressed>>> = uplink.optional("addresses");
    let gateways: Field<Vec<At<IpAddr>>> = uplink.optional("gateways");
    let dns: Field<Vec<At<IpAddr>>> = uplink.optional("dns");
    let mut right = !matches!(word, Field::Wrong);
    if let Field::Given(word) = &word {
        let mut refuse = |message: String, hint: &str| {
            right = false;
            uplink.file().report(Diagnostic::error(message, &word.place).hint(hint));
        };
        if word.value != "dhcp" {
            let message = format!("`addressing` cannot be `{}`", word.value);
            refuse(
                message,
                "write `addressing = \"dhcp\"`, or `addresses = [\"192.0.2.10/24\"]` in its place",
            );
        } else if addresses.is_written() {
            refuse("an uplink has DHCP or fixed `addresses`, not both".into(), "remove one of the two");
        }
    }
    let fixed = addresses.is_written();
    for (key, field) in [("gateways", &gateways), ("dns", &dns)] {
        if let (Field::Given(at), false) = (field, fixed) {
            let message = format!("`{key}` belongs to fixed addresses, and there are none");
            let mistake = Diagnostic::error(message, &at.place);
            uplink.file().report(mistake.hint("write `addresses = [\"192.0.2.10/24\"]`, or remove it"));
        }
    }
    match addresses {
        _ if !right => None,
        Field::Absent => Some(Addressing::Dhcp),
        Field::Wrong => None,
        Field::Given(addresses) => {
            if addresses.value.is_empty() {
                let mistake = Diagnostic::error("`addresses` is empty", &addresses.place);
                uplink.file().report(mistake.hint("write `addresses = [\"192.0.2.10/24\"]`, or remove it"));
            }
            let list = |field: Field<Vec<At<IpAddr>>>| field.given().map_or_else(Vec::new, |at| at.value);
            Some(Addressing::Static { addresses: addresses.value, gateways: list(gateways), dns: list(dns) })
        }
    }
}
