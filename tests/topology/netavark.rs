//! What Netavark does for published ports, as far as our policy meets it.

/// A table of its own: the destination is changed before the routing decision, and everything that belongs to its
/// network is let through. `published` are port and protocol.
pub fn ruleset<'a>(published: impl Iterator<Item = (&'a str, &'a str)>, pod: &str, network: &str) -> String {
    let rules = published.map(|(port, protocol)| format!("{protocol} dport {port} dnat ip to {pod}:{port};"));
    format!(
        "table inet netavark\ndelete table inet netavark\ntable inet netavark {{\n\
         chain ports {{ {} }}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; fib daddr type local jump ports; }}\n\
         chain output {{ type nat hook output priority dstnat; fib daddr type local jump ports; }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat; \
           ip saddr {network} ip daddr != {{ {network}, 224.0.0.0/4 }} masquerade; }}\n\
         chain forward {{ type filter hook forward priority filter; policy accept; \
           ip daddr {network} accept; ip saddr {network} accept; }}\n}}",
        rules.collect::<String>()
    )
}
