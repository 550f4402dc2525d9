//! Bonds: keys and addresses that are nobody else's, and grants that exist.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::codex::diagnostic::{Diagnostic, Place};
use crate::codex::key::PublicKey;
use crate::codex::name::Name;
use crate::codex::schema::{At, Draft, Field, Grant, Peer, Service};
use crate::codex::suggest::nearest;
use crate::codex::{Needs, PeerState, Tier};

/// What peers have taken: of thousands, one sorted list costs less than a tree.
struct Taken<'a, T>(Vec<Claim<'a, T>>);

/// That a peer has something, and where it says so.
struct Claim<'a, T> {
    value: T,
    name: &'a Name,
    place: &'a Place,
}

impl<'a, T: Ord + Copy + Display> Taken<'a, T> {
    fn claim(&mut self, name: &'a Name, at: &'a At<T>) {
        self.0.push(Claim { value: at.value, name, place: &at.place });
    }

    /// Reports what is claimed more than once; whoever comes first has it.
    fn unique(&mut self, what: &str, hint: &str, mistakes: &mut Vec<Diagnostic>) {
        self.0.sort_by_key(|claim| claim.value);
        for claims in self.0.chunk_by(|a, b| a.value == b.value) {
            let Some((first, again)) = claims.split_first() else { continue };
            for claim in again {
                let mistake =
                    Diagnostic::error(format!("the {what} {} is taken twice", claim.value), claim.place);
                let owner = format!("first taken here, by `{}`", first.name);
                mistakes.push(mistake.label("taken again").related(first.place, owner).hint(hint));
            }
        }
    }

    /// Who has `value`; after [`Taken::unique`].
    fn owner(&self, value: T) -> Option<(&'a Name, &'a Place)> {
        let first = self.0.partition_point(|claim| claim.value < value);
        self.0.get(first).filter(|claim| claim.value == value).map(|claim| (claim.name, claim.place))
    }
}

/// Checks every peer against the Tether, the services, the ledger and the peers before it.
///
/// No key comes back: not a revoked peer's, not one that was replaced, not one in the ledger. A revoked peer's addresses
/// rest until the fence is over.
pub fn check(draft: &Draft, needs: Needs, mistakes: &mut Vec<Diagnostic>) {
    let (mut all_keys, mut addresses, mut addresses6) = (Taken(vec![]), Taken(vec![]), Taken(vec![]));
    // Only mistakes need it.
    let free = OnceCell::new();
    let free = || *free.get_or_init(|| free_address(draft));
    for (name, peer) in &draft.peers {
        let Some(peer) = peer else { continue };
        for key in keys(peer) {
            all_keys.claim(name, key);
        }
        // What else a tombstone says is history: networks and services may have changed since.
        if !is_active(peer) {
            continue;
        }
        if let Some(address) = &peer.address {
            addresses.claim(name, address);
        }
        if let Field::Given(address) = &peer.address6 {
            addresses6.claim(name, address);
        }
        not_revoked(draft, peer, mistakes);
        living(draft, peer, needs, &free, mistakes);
        granted_peers(draft, name, peer, needs, mistakes);
    }
    let own = "make a key pair of its own for each peer; a revoked key never comes back";
    all_keys.unique("public key", own, mistakes);
    addresses.unique("address", "give each peer an address of its own", mistakes);
    addresses6.unique("address", "give each peer an address of its own", mistakes);
    for (name, grave) in &draft.peers {
        if let Some(grave) = grave.as_ref().filter(|grave| !is_active(grave)) {
            fenced(draft, name, grave, (&addresses, &addresses6), mistakes);
        }
    }
}

fn is_active(peer: &Peer) -> bool {
    peer.state.as_ref().is_some_and(|state| state.value == PeerState::Active)
}

/// Every key that a peer has or had.
fn keys(peer: &Peer) -> impl Iterator<Item = &At<PublicKey>> {
    let overlap = peer.overlap.as_ref().and_then(|overlap| overlap.public_key.as_ref());
    let replaced = match &peer.replaced {
        Field::Given(list) => list.value.as_slice(),
        Field::Absent | Field::Wrong => &[],
    };
    peer.public_key.iter().chain(overlap).chain(replaced)
}

/// Reports a key in use that the ledger holds. That of an overlap may be there: then the overlap is over.
fn not_revoked(draft: &Draft, peer: &Peer, mistakes: &mut Vec<Diagnostic>) {
    let Some(key) = &peer.public_key else { return };
    if let Some(place) = draft.revoked.get(&key.value) {
        let mistake = Diagnostic::error(format!("the public key {} was revoked", key.value), &key.place);
        let hint = "make a new key pair: a revoked key never comes back";
        mistakes.push(mistake.related(place, "recorded here").hint(hint));
    }
}

/// Reports living peers that have an address of `grave` too early.
fn fenced(
    draft: &Draft,
    name: &Name,
    grave: &Peer,
    (addresses, addresses6): (&Taken<'_, Ipv4Addr>, &Taken<'_, Ipv6Addr>),
    mistakes: &mut Vec<Diagnostic>,
) {
    let heir = grave
        .address
        .as_ref()
        .and_then(|at| Some((at.value.to_string(), &at.place, addresses.owner(at.value)?)));
    let heir6 = match &grave.address6 {
        Field::Given(at) => addresses6.owner(at.value).map(|heir| (at.value.to_string(), &at.place, heir)),
        Field::Absent | Field::Wrong => None,
    };
    let fence = draft.law.as_ref().and_then(|law| law.fence.as_ref());
    for (address, first, (heir, place)) in heir.into_iter().chain(heir6) {
        let born = draft.peers.get(heir).and_then(Option::as_ref).map(|heir| &heir.created);
        let until = match (&grave.revoked, fence) {
            (Field::Given(at), Some(fence)) => Some(at.value.after(fence.value)),
            (_, None) | (Field::Wrong, _) => continue,
            (Field::Absent, Some(_)) => None,
        };
        if let (Some(until), Some(Field::Given(born))) = (until, born)
            && born.value >= until
        {
            continue;
        }
        let mistake = Diagnostic::error(format!("the address {address} is taken twice"), place);
        let mistake = mistake.label("taken again").related(first, format!("first taken here, by `{name}`"));
        mistakes.push(match until {
            Some(until) => mistake.hint(format!(
                "give each peer an address of its own; that of a revoked one rests until {until}"
            )),
            None => mistake.hint("give each peer an address of its own; a revoked peer keeps its address"),
        });
    }
}

/// Checks what must fit the Codex as it is now.
fn living(
    draft: &Draft,
    peer: &Peer,
    needs: Needs,
    free: &dyn Fn() -> Option<Ipv4Addr>,
    mistakes: &mut Vec<Diagnostic>,
) {
    if let Some(address) = &peer.address {
        inside(draft, address, free, mistakes);
    }
    if let Field::Given(address) = &peer.address6 {
        inside6(draft, address, needs, mistakes);
    }
    grants(draft, peer, needs, mistakes);
}

fn inside(
    draft: &Draft,
    address: &At<Ipv4Addr>,
    free: &dyn Fn() -> Option<Ipv4Addr>,
    mistakes: &mut Vec<Diagnostic>,
) {
    let Some(network) = draft.law.as_ref().and_then(|law| law.network.as_ref()) else { return };
    let (net, value) = (network.value, address.value);
    let reason = if !net.contains(value) {
        format!("the address {value} is outside the Tether's network {net}")
    } else if value == net.address() || value == net.last() {
        format!("the address {value} is the network or broadcast address of {net}")
    } else if value == net.first_host() {
        format!("the address {value} is the appliance's own on the Tether")
    } else {
        return;
    };
    let mistake = Diagnostic::error(reason, &address.place);
    let mistake = if network.place.span.is_some() {
        mistake.related(&network.place, "the Tether's network")
    } else {
        mistake
    };
    mistakes.push(match free() {
        Some(free) => mistake.hint(format!("the first free address is {free}")),
        None => mistake.hint("the network is full: make it larger"),
    });
}

/// The lowest address of the Tether that no peer has.
fn free_address(draft: &Draft) -> Option<Ipv4Addr> {
    let network = draft.law.as_ref()?.network.as_ref()?.value;
    let peers = draft.peers.values().flatten();
    let taken: BTreeSet<Ipv4Addr> = peers.filter_map(|peer| Some(peer.address.as_ref()?.value)).collect();
    let first = network.first_host().to_bits().checked_add(1)?;
    (first..network.last().to_bits()).map(Ipv4Addr::from_bits).find(|address| !taken.contains(address))
}

fn inside6(draft: &Draft, address: &At<Ipv6Addr>, needs: Needs, mistakes: &mut Vec<Diagnostic>) {
    let Some(law) = &draft.law else { return };
    let value = address.value;
    match &law.network6 {
        Field::Wrong => {}
        Field::Absent if needs == Needs::Nothing => {}
        Field::Absent => {
            let mistake = Diagnostic::error("the Tether has no IPv6 network for `address6`", &address.place);
            mistakes.push(
                mistake.hint("write `network6 = \"fd88:0:0:16::/64\"` in `[tether]`, or remove `address6`"),
            );
        }
        Field::Given(network) => {
            let net = network.value;
            let reason = if !net.contains(value) {
                format!("the address {value} is outside the Tether's network {net}")
            } else if value == net.address() {
                format!("the address {value} is the routers' address of {net}")
            } else if value == net.first_host() {
                format!("the address {value} is the appliance's own on the Tether")
            } else {
                return;
            };
            mistakes.push(
                Diagnostic::error(reason, &address.place).related(&network.place, "the Tether's network"),
            );
        }
    }
}

fn grants(draft: &Draft, peer: &Peer, needs: Needs, mistakes: &mut Vec<Diagnostic>) {
    let Some(grants) = &peer.grants else { return };
    let mut seen: BTreeMap<&Grant, &Place> = BTreeMap::new();
    for grant in &grants.value {
        if let Some(first) = seen.insert(&grant.value, &grant.place) {
            let mistake = Diagnostic::error(format!("`{}` is granted twice", grant.value), &grant.place);
            mistakes.push(mistake.related(first, "first granted here").hint("remove one of the two"));
        } else if let (Grant::Service(name), Needs::All | Needs::Law) = (&grant.value, needs) {
            service(draft, name, &grant.place, mistakes);
        }
    }
    let all = grants.value.iter().find(|grant| grant.value == Grant::All);
    // `*` holds no service of the host, which may be what is gone.
    let is_there = |name: &Name| needs != Needs::Nothing || draft.services.contains_key(name);
    let in_pod = |grant: &At<Grant>| match &grant.value {
        Grant::Service(name) => !of_host(draft, name) && is_there(name),
        _ => false,
    };
    let named = grants.value.iter().any(in_pod);
    if let (Some(all), true) = (all, named) {
        let mistake = Diagnostic::error("`*` grants every service and stands alone", &all.place);
        mistakes.push(mistake.hint("write `grants = [\"*\"]`, or name the services"));
    }
}

/// Checks grants of other peers. That of a revoked or expired one is not in force, and no mistake: it was none before.
fn granted_peers(draft: &Draft, own: &Name, peer: &Peer, needs: Needs, mistakes: &mut Vec<Diagnostic>) {
    for grant in peer.grants.iter().flat_map(|grants| &grants.value) {
        let Grant::Peer(name) = &grant.value else { continue };
        if name == own {
            let mistake = Diagnostic::error(format!("`{own}` is granted itself"), &grant.place);
            mistakes.push(mistake.hint("remove it: a peer reaches itself without the appliance"));
        } else if needs == Needs::All && !draft.peers.contains_key(name) {
            let mistake = Diagnostic::error(format!("there is no peer `{name}` to grant"), &grant.place);
            let others = draft.peers.keys().filter(|other| *other != own).map(Name::as_str);
            mistakes.push(match nearest(name.as_str(), others) {
                Some(near) => mistake.hint(format!("did you mean `peer:{near}`?")),
                None => mistake.hint("name another peer of this Codex, or remove the grant"),
            });
        }
    }
}

/// Names of what the host offers itself.
fn host_names(draft: &Draft) -> impl Iterator<Item = &Name> {
    let services = draft.law.iter().flat_map(|law| &law.host);
    services.filter_map(|service| Some(&service.name.as_ref()?.value))
}

fn of_host(draft: &Draft, name: &Name) -> bool {
    host_names(draft).any(|own| own == name)
}

fn service(draft: &Draft, name: &Name, place: &Place, mistakes: &mut Vec<Diagnostic>) {
    // A law that was not understood may declare it.
    if draft.law.is_none() || of_host(draft, name) {
        return;
    }
    let mistake = match draft.services.get(name) {
        // Not understood, and reported already.
        Some(None) => return,
        Some(Some(service)) if has_tether(service) => return,
        Some(Some(service)) => {
            Diagnostic::error(format!("`{name}` has nothing of tier `tether` to grant"), place)
                .related(&service.place, "the service")
        }
        None => Diagnostic::error(format!("there is no service `{name}` to grant"), place),
    };
    let grantable = draft.services.iter().filter(|(_, service)| service.as_ref().is_none_or(has_tether));
    let grantable: Vec<&str> =
        grantable.map(|(name, _)| name).chain(host_names(draft)).map(Name::as_str).collect();
    let near = nearest(name.as_str(), grantable.iter().copied().filter(|word| *word != name.as_str()));
    mistakes.push(match near {
        _ if draft.peers.contains_key(name) => mistake.hint(format!("did you mean `peer:{name}`?")),
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None if grantable.is_empty() => {
            mistake.hint("give a service a port or a route of tier `tether`, or write `grants = []`")
        }
        None => mistake.hint(format!("services to grant are: {}", grantable.join(", "))),
    });
}

/// Whether a service has a port or route of tier tether, or one of a tier that was not understood.
fn has_tether(service: &Service) -> bool {
    let tether = |tier: &Option<At<Tier>>| tier.as_ref().is_none_or(|tier| tier.value == Tier::Tether);
    service.ports.iter().any(|port| tether(&port.tier))
        || service.routes.iter().any(|route| tether(&route.tier))
}
