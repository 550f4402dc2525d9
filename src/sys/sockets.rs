//! Which ports of this network namespace have a listener.

use std::collections::BTreeSet;
use std::path::Path;

use super::fs::{Error, read};
use crate::codex::Protocol;

/// Protocols and ports with a listener, of both address families.
pub fn listening() -> Result<BTreeSet<(Protocol, u16)>, Error> {
    let mut ports = BTreeSet::new();
    for (table, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        // The own process's table is that of its network namespace; a kernel without IPv6 has no tcp6.
        match read(&Path::new("/proc/self/net").join(table)) {
            Ok(bytes) => ports.extend(bound(protocol, &String::from_utf8_lossy(&bytes))),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ports)
}

/// Sockets that wait for peers in a table of `/proc/net`, see proc_net(5): TCP in state LISTEN (0A), UDP
/// unconnected (07).
fn bound(protocol: Protocol, table: &str) -> impl Iterator<Item = (Protocol, u16)> {
    let waits = if protocol == Protocol::Tcp { "0A" } else { "07" };
    table.lines().skip(1).filter_map(move |line| {
        let mut words = line.split_whitespace();
        let (_, port) = words.nth(1)?.split_once(':')?;
        let state = words.nth(1)?;
        (state == waits).then_some((protocol, u16::from_str_radix(port, 16).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
            0: 0100007F:1538 00000000:0000 0A 00000000:00000000\n   \
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000\n";
        assert_eq!(bound(Protocol::Tcp, table).collect::<Vec<_>>(), [(Protocol::Tcp, 5432)]);
        assert_eq!(bound(Protocol::Udp, &table.replace(" 0A ", " 07 ")).count(), 1);
    }

    #[test]
    fn a_socket_of_ours_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listening().unwrap().contains(&(Protocol::Tcp, port)));
        drop(listener);
        assert!(!listening().unwrap().contains(&(Protocol::Tcp, port)));
    }
}
