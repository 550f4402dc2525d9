//! The rules that decide, as they stand in the rendered rulesets.

use crate::codex::{BRIDGE, Codex};

/// Who enforces a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// The host's table `inet sepulcher`.
    Host,
    /// The pod's table `inet sepulcher`.
    Pod,
    /// WireGuard in the pod: keys, and the addresses that belong to each.
    WireGuard,
    /// The Veil.
    Veil,
    /// The agent's door.
    Agent,
    /// Routing: there is no way.
    Routing,
}

impl Guard {
    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Pod => "pod",
            Self::WireGuard => "wireguard",
            Self::Veil => "veil",
            Self::Agent => "agent",
            Self::Routing => "routing",
        }
    }
}

/// A rule that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Published ports: the host hands them on, and the pod takes them.
    Published,
    /// Nothing else comes in on the uplink.
    HostInput,
    /// The pod asks nothing of the host.
    HostBridge,
    /// Nothing else is handed on.
    HostForward,
    /// Addresses behind the host are not asked for from outside.
    HostBehind,
    /// The same for IPv6.
    HostBehind6,
    /// An interface is asked for its own addresses alone.
    HostOther,
    /// Pings from outside, where the Codex wants them answered.
    HostEcho,
    /// The same for IPv6.
    HostEcho6,
    /// What belongs to the tether does not leave by the uplink.
    OutputTether,
    /// The same for IPv6.
    OutputTether6,
    /// The host talks to itself.
    HostLoopback,
    /// The host may send.
    HostOutput,
    /// Containers reach out.
    HostContainers,
    /// Containers of the pod share one loopback.
    PodLoopback,
    /// What was meant for a site that is bonded no more.
    PodGone,
    /// Towards the peers, containers are free.
    PodOutput,
    /// What reaches the pod beside `wg0` and is not published.
    PodForest,
    /// A grant of IPv4.
    Grants,
    /// A grant of IPv6.
    Grants6,
    /// Peers may ping the tether's own address.
    Echo,
    /// The same for IPv6.
    Echo6,
    /// What peers have no grant for.
    Denied,
    /// A grant of a service of the host.
    HostGrants,
    /// What peers have no grant for, of the host.
    HostDenied,
    /// Containers ask nothing of the host.
    PodGateway,
    /// Nothing of a peer passes through the pod that it is not granted.
    PodForward,
    /// A grant of another peer, IPv4.
    Between,
    /// A grant of another peer, IPv6.
    Between6,
    /// What peers have no grant for, of each other.
    BetweenDenied,
    /// No bond holds that address.
    NoBond,
    /// The Veil serves a route.
    VeilRoute,
    /// The Veil serves a pinned route to those who hold the grant of its service.
    VeilPass,
    /// The Veil knows no such path.
    VeilUnknown,
    /// The agent asks for the grant of the door.
    AgentDoor,
    /// No route leads there.
    NoRoute,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::Published,
        Self::HostInput,
        Self::HostBridge,
        Self::HostForward,
        Self::HostBehind,
        Self::HostBehind6,
        Self::HostOther,
        Self::HostEcho,
        Self::HostEcho6,
        Self::OutputTether,
        Self::OutputTether6,
        Self::HostLoopback,
        Self::HostOutput,
        Self::HostContainers,
        Self::PodLoopback,
        Self::PodGone,
        Self::PodOutput,
        Self::PodForest,
        Self::Grants,
        Self::Grants6,
        Self::Echo,
        Self::Echo6,
        Self::Denied,
        Self::HostGrants,
        Self::HostDenied,
        Self::PodGateway,
        Self::PodForward,
        Self::Between,
        Self::Between6,
        Self::BetweenDenied,
        Self::NoBond,
        Self::VeilRoute,
        Self::VeilPass,
        Self::VeilUnknown,
        Self::AgentDoor,
        Self::NoRoute,
    ];

    /// Who enforces it, and in which chain.
    pub fn place(self) -> (Guard, Option<&'static str>) {
        match self {
            Self::HostBehind | Self::HostBehind6 | Self::HostOther => (Guard::Host, Some("prerouting")),
            Self::HostInput | Self::HostBridge | Self::HostLoopback | Self::HostEcho | Self::HostEcho6 => {
                (Guard::Host, Some("input"))
            }
            Self::HostForward | Self::HostContainers => (Guard::Host, Some("forward")),
            Self::HostOutput | Self::OutputTether | Self::OutputTether6 => (Guard::Host, Some("output")),
            Self::Published | Self::PodForest => (Guard::Pod, Some("forest")),
            Self::PodLoopback => (Guard::Pod, Some("input")),
            Self::PodOutput | Self::PodGateway => (Guard::Pod, Some("output")),
            Self::PodGone => (Guard::Pod, Some("gone")),
            Self::PodForward => (Guard::Pod, Some("forward")),
            Self::Between | Self::Between6 | Self::BetweenDenied => (Guard::Pod, Some("between")),
            Self::HostGrants | Self::HostDenied => (Guard::Pod, Some("host")),
            Self::Grants | Self::Grants6 | Self::Echo | Self::Echo6 | Self::Denied => {
                (Guard::Pod, Some("tether"))
            }
            Self::NoBond => (Guard::WireGuard, None),
            Self::VeilRoute | Self::VeilPass | Self::VeilUnknown => (Guard::Veil, None),
            Self::AgentDoor => (Guard::Agent, None),
            Self::NoRoute => (Guard::Routing, None),
        }
    }

    /// The rule as it is rendered for `codex`; what is no rule of nft, in words.
    pub fn text(self, codex: &Codex) -> String {
        let (tether, own) = (codex.tether.network, codex.tether.address);
        match self {
            Self::Published => {
                format!("ip daddr {} meta l4proto . th dport @published accept", codex.pod.address)
            }
            Self::HostInput | Self::HostForward => "policy drop".to_owned(),
            Self::HostBridge => format!("iifname \"{BRIDGE}\" counter drop"),
            Self::HostBehind => format!("ip daddr {{ {}, {tether} }} counter drop", codex.pod.network),
            Self::HostOther => {
                "fib daddr . iif type != { local, broadcast, multicast } counter drop".to_owned()
            }
            Self::HostEcho => {
                "icmp type echo-request limit rate 20/second burst 20 packets accept".to_owned()
            }
            Self::HostEcho6 => {
                "icmpv6 type echo-request limit rate 20/second burst 20 packets accept".to_owned()
            }
            Self::OutputTether => format!("ip daddr {tether} counter drop"),
            Self::HostBehind6 | Self::OutputTether6 => codex
                .tether
                .network6
                .map_or_else(String::new, |(network, _)| format!("ip6 daddr {network} counter drop")),
            Self::HostOutput => "policy accept".to_owned(),
            Self::HostLoopback | Self::PodLoopback => "iifname \"lo\" accept".to_owned(),
            Self::HostContainers => format!("ip saddr {} accept", codex.pod.address),
            Self::PodOutput => "oifname { \"lo\", \"wg0\" } accept".to_owned(),
            Self::PodForest | Self::PodGone => "counter drop".to_owned(),
            Self::Denied | Self::HostDenied | Self::BetweenDenied => "goto refused".to_owned(),
            Self::PodForward => "iifname \"wg0\" goto refused".to_owned(),
            Self::HostGrants => "ip saddr . meta l4proto . th dport @host_grants counter accept".to_owned(),
            Self::PodGateway => format!("ip daddr {} ct state new counter drop", codex.pod.gateway),
            Self::Grants => "ip saddr . meta l4proto . th dport @grants counter accept".to_owned(),
            Self::Grants6 => "ip6 saddr . meta l4proto . th dport @grants6 counter accept".to_owned(),
            Self::Between => "ip saddr . ip daddr @between counter accept".to_owned(),
            Self::Between6 => "ip6 saddr . ip6 daddr @between6 counter accept".to_owned(),
            Self::Echo => format!("ip saddr {tether} ip daddr {own} icmp type echo-request accept"),
            Self::Echo6 => codex.tether.network6.map_or_else(String::new, |(network, own)| {
                format!("ip6 saddr {network} ip6 daddr {own} icmpv6 type echo-request accept")
            }),
            Self::NoBond => "allowed IPs: no bond in force holds this address".to_owned(),
            Self::VeilRoute => "the longest route that covers the path is served".to_owned(),
            Self::VeilPass => {
                "a pinned route is served to those who hold its grant, and is unknown to others".to_owned()
            }
            Self::VeilUnknown => "every other path is answered with 404".to_owned(),
            Self::AgentDoor => "a door answers those who hold its grant, and others with 404".to_owned(),
            Self::NoRoute => "there is no route to it".to_owned(),
        }
    }
}
