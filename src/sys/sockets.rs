//! Which ports of this network namespace have a listener, and whether it answers.

mod answer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::fs::{Error, if_there, read};
use crate::codex::Protocol;

pub use answer::answers;

/// A row of a table of `/proc/net`, see proc_net(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its table.
    pub protocol: Protocol,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// A number of the kernel's, in hexadecimal.
    state: u8,
    /// Of a listener: how many connections wait to be accepted.
    pub waiting: u32,
    /// Number of the socket; 0 for a connection that no program has accepted.
    pub inode: u64,
}

impl Socket {
    /// A listener on all addresses.
    #[cfg(test)]
    pub fn listener(protocol: Protocol, port: u16, inode: u64, waiting: u32) -> Self {
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let state = if protocol == Protocol::Tcp { 0x0a } else { 0x07 };
        Self { protocol, local: any(port), remote: any(0), state, waiting, inode }
    }

    /// Whether it waits for peers: TCP in state LISTEN, UDP unconnected.
    pub fn listens(&self) -> bool {
        self.state == if self.protocol == Protocol::Tcp { 0x0a } else { 0x07 }
    }
}

/// All sockets of both address families that wait for peers.
pub fn listening() -> Result<Vec<Socket>, Error> {
    let mut sockets = all(&[Protocol::Tcp, Protocol::Udp])?;
    sockets.retain(Socket::listens);
    Ok(sockets)
}

fn all(protocols: &[Protocol]) -> Result<Vec<Socket>, Error> {
    let mut sockets = Vec::new();
    for (table, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        if !protocols.contains(&protocol) {
            continue;
        }
        // The own process's table is that of its network namespace; a kernel without IPv6 has no tcp6.
        let bytes = if_there(read(&Path::new("/proc/self/net").join(table)))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        sockets.extend(text.lines().skip(1).filter_map(|line| row(protocol, line)));
    }
    Ok(sockets)
}

fn row(protocol: Protocol, line: &str) -> Option<Socket> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [_, local, remote, state, queues, _, _, _, _, inode, ..] = words[..] else { return None };
    let (_, waiting) = queues.split_once(':')?;
    Some(Socket {
        protocol,
        local: end(local)?,
        remote: end(remote)?,
        state: u8::from_str_radix(state, 16).ok()?,
        waiting: u32::from_str_radix(waiting, 16).ok()?,
        inode: inode.parse().ok()?,
    })
}

/// An address and port: words of the address as they lie in memory, each read as a number. IPv4 is told as such.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |text: &str| Some(u32::from_str_radix(text, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(address.get(index * 8..index * 8 + 8)?)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let listener =
            "   0: 0100007F:1538 00000000:0000 0A 00000000:00000003 00:00000000 00000000  999 0 4711 1";
        let connection =
            "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 0 1 x 20";
        let socket = row(Protocol::Tcp, listener).unwrap();
        assert_eq!(socket.local, "127.0.0.1:5432".parse().unwrap());
        assert_eq!((socket.listens(), socket.waiting, socket.inode), (true, 3, 4711));
        let socket = row(Protocol::Tcp, connection).unwrap();
        assert_eq!((socket.listens(), socket.inode), (false, 0));
        assert_eq!(socket.remote, "127.0.0.1:50000".parse().unwrap());
        assert!(row(Protocol::Udp, &listener.replace(" 0A ", " 07 ")).unwrap().listens());
        assert_eq!(row(Protocol::Tcp, "what the kernel may write one day"), None);
        let mapped = end("0000000000000000FFFF00000100007F:0050").unwrap();
        assert_eq!(mapped, "127.0.0.1:80".parse().unwrap());
        assert_eq!(end("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
    }

    #[test]
    fn a_socket_of_ours_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        let found = || listening().unwrap().into_iter().any(|socket| socket.local == own);
        assert!(found());
        drop(listener);
        assert!(!found());
    }
}
