//! The draft, once nothing is wrong with it, as a [`Codex`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::codex::name::Name;
use crate::codex::net::Net4;
use crate::codex::schema::{self, At, Draft, Field, Grant, Kind};
use crate::codex::{
    Addressing, Appliance, Codex, Grants, Hooks, HostService, Overlap, Peer, PeerKind, Pod, Rebirth,
    Revocation, Route, Service, ServicePort, Source, State, Tether, Uplink, Volume,
};

/// Everything, or `None` when a part is missing: then a reader failed to report that.
pub fn codex(draft: Draft) -> Option<Codex> {
    let law = draft.law?;
    let pod_network = law.pod_network?.value;
    let network = law.network?.value;
    let has_network6 = matches!(law.network6, Field::Given(_));
    Some(Codex {
        appliance: Appliance { name: law.name?.value, domain: value(law.domain), dark: law.dark?.value },
        uplink: Uplink {
            interface: law.interface?.value,
            addressing: addressing(law.addressing?),
            echo: law.echo?.value,
        },
        pod: Pod {
            network: pod_network,
            gateway: pod_network.first_host(),
            address: value(law.pod_address).unwrap_or_else(|| pod_address(pod_network)),
        },
        tether: Tether {
            port: law.port?.value,
            network,
            address: network.first_host(),
            network6: value(law.network6).map(|network6| (network6, network6.first_host())),
            mtu: law.mtu?.value,
            endpoint: value(law.endpoint),
            keepalive: law.keepalive?.value,
            backend: law.backend?.value,
            fence: law.fence?.value,
        },
        host: law.host.into_iter().map(host_service).collect::<Option<_>>()?,
        rebirth: Rebirth {
            publisher: value(law.publisher),
            sources: list(law.sources),
            patience: law.patience?.value,
        },
        state: State { encryption: law.encryption?.value },
        services: each(draft.services, service)?,
        peers: each(draft.peers, |draft| peer(*draft, has_network6).map(Arc::new))?,
        revoked_keys: draft.revoked.into_keys().collect(),
        gone: std::collections::BTreeSet::new(),
    })
}

/// The pod's address when none is written: the tenth behind the network's own, else the second.
pub fn pod_address(network: Net4) -> Ipv4Addr {
    let (first, last) = (network.address().to_bits(), network.last().to_bits());
    let offset = if last.saturating_sub(first) > 10 { 10 } else { 2 };
    Ipv4Addr::from_bits(first.saturating_add(offset))
}

fn value<T>(field: Field<T>) -> Option<T> {
    field.given().map(|at| at.value)
}

fn values<T, C: FromIterator<T>>(list: Vec<At<T>>) -> C {
    list.into_iter().map(|at| at.value).collect()
}

fn list<T, C: FromIterator<T> + Default>(field: Field<Vec<At<T>>>) -> C {
    value(field).map_or_else(C::default, values)
}

fn each<D, T>(
    drafts: BTreeMap<Name, Option<D>>,
    build: impl Fn(D) -> Option<T>,
) -> Option<BTreeMap<Name, T>> {
    drafts.into_iter().map(|(name, draft)| Some((name, build(draft?)?))).collect()
}

fn addressing(addressing: schema::Addressing) -> Addressing {
    match addressing {
        schema::Addressing::Dhcp => Addressing::Dhcp,
        schema::Addressing::Static { addresses, gateways, dns } => Addressing::Static {
            addresses: addresses.into_iter().map(|at| (at.value.0, at.value.1)).collect(),
            gateways: values(gateways),
            dns: values(dns),
        },
    }
}

fn host_service(draft: schema::HostService) -> Option<HostService> {
    let schema::HostService { name, port, protocol, description } = draft;
    Some(HostService {
        name: name?.value,
        port: port?.value,
        protocol: protocol?.value,
        description: description?.value,
    })
}

fn service(draft: schema::Service) -> Option<Service> {
    let schema::Service {
        place: _,
        description,
        rootfs,
        image,
        command,
        user,
        environment,
        secrets,
        ports,
        routes,
        volumes,
        hooks,
        veil,
    } = draft;
    let port = |port: schema::ServicePort| {
        Some(ServicePort {
            number: port.number?.value,
            protocol: port.protocol?.value,
            tier: port.tier?.value,
        })
    };
    let route = |route: schema::Route| {
        Some(Route { path: route.path?.value, tier: route.tier?.value, port: route.port?.value })
    };
    let volume = |volume: schema::Volume| {
        Some(Volume {
            name: volume.name?.value,
            target: volume.target?.value,
            snapshot: volume.snapshot?.value,
        })
    };
    let hooks = match hooks {
        None => None,
        Some(schema::Hooks { place: _, pause, resume }) => {
            Some(Hooks { pause: values(pause?.value), resume: values(resume?.value) })
        }
    };
    Some(Service {
        description: description?.value,
        source: value(rootfs).map(Source::Rootfs).or_else(|| value(image).map(Source::Image))?,
        command: list(command),
        user: value(user).map(|schema::User(user, group)| (user, group)),
        environment: environment.into_iter().map(|(name, value)| (name.value, value.value)).collect(),
        secrets: list(secrets),
        ports: ports.into_iter().map(port).collect::<Option<_>>()?,
        routes: routes.into_iter().map(route).collect::<Option<_>>()?,
        volumes: volumes.into_iter().map(volume).collect::<Option<_>>()?,
        hooks,
        veil: veil?.value,
    })
}

fn peer(draft: schema::Peer, has_network6: bool) -> Option<Peer> {
    let schema::Peer {
        public_key,
        address,
        address6,
        kind,
        grants,
        state,
        generation,
        preshared,
        created,
        expires,
        revoked,
        reason,
        replaced,
        overlap,
    } = draft;
    let kind = match kind? {
        Kind::Device => PeerKind::Device,
        Kind::Lych { endpoint, keepalive, routes } => PeerKind::Lych {
            endpoint: value(endpoint).map(|schema::Dialled(host, port)| (host, port)),
            keepalive: keepalive?.value,
            routes: list(routes),
        },
    };
    let overlap = match overlap.map(|overlap| *overlap) {
        None => None,
        Some(schema::Overlap { public_key, preshared, until }) => {
            Some(Overlap { public_key: public_key?.value, preshared: preshared?.value, until: until?.value })
        }
    };
    Some(Peer {
        public_key: public_key?.value,
        address: address?.value,
        address6: value(address6).filter(|_| has_network6),
        kind,
        grants: granted(values(grants?.value)),
        state: state?.value,
        generation: generation?.value,
        preshared: preshared?.value,
        created: value(created),
        expires: value(expires),
        revocation: Revocation { at: value(revoked), reason: value(reason) },
        replaced: list(replaced),
        overlap,
    })
}

fn granted(list: Vec<Grant>) -> Grants {
    let mut grants = Grants::default();
    for grant in list {
        match grant {
            Grant::All => grants.every_service = true,
            Grant::Door(door) => {
                grants.doors.insert(door);
            }
            Grant::Service(name) => {
                grants.services.insert(name);
            }
            Grant::Peer(name) => {
                grants.peers.insert(name);
            }
        }
    }
    grants
}
