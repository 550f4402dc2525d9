//! Raw sockets: ICMP of the host, and its datagrams from ports that nobody asked. They need CAP_NET_RAW.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send,
    socket_with,
};

use crate::probe::dice::Dice;
use crate::probe::icmp::{self, Ask, Heard, STRANGE};

/// Length of a UDP header.
const UDP_HEADER: usize = 8;

/// Raw sockets that are connected to one host.
pub struct Raw {
    address: IpAddr,
    id: u16,
    icmp: OwnedFd,
    udp: OwnedFd,
    strange: OwnedFd,
}

impl Raw {
    /// `None` without the capability. `id` marks our messages.
    pub fn open(address: IpAddr, id: u16) -> io::Result<Option<Self>> {
        let protocol = if address.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
        let icmp = match socket(address, Some(protocol)) {
            Err(Errno::PERM | Errno::ACCESS) => return Ok(None),
            icmp => icmp?,
        };
        let strange = std::num::NonZeroU32::new(u32::from(STRANGE)).map(Protocol::from_raw);
        let (udp, strange) = (socket(address, Some(ipproto::UDP))?, socket(address, strange)?);
        Ok(Some(Self { address, id, icmp, udp, strange }))
    }

    /// Those that hear something.
    pub fn sockets(&self) -> [&OwnedFd; 2] {
        [&self.icmp, &self.udp]
    }

    /// Sends one message.
    pub fn send(&self, ask: Ask, question: usize, dice: &mut Dice) -> io::Result<()> {
        let number = u16::try_from(question).map_err(io::Error::other)?;
        let message = ask.message(self.address, self.id, number, dice);
        let socket = if ask == Ask::StrangeProtocol { &self.strange } else { &self.icmp };
        // An error that an earlier message has met is told by the next call.
        if send(socket, &message, SendFlags::empty()).is_err() {
            send(socket, &message, SendFlags::empty())?;
        }
        Ok(())
    }

    /// ICMP that answers us.
    pub fn heard(&self) -> io::Result<Vec<Heard>> {
        let six = self.address.is_ipv6();
        Ok(packets(&self.icmp)?.iter().filter_map(|packet| icmp::heard(packet, six, self.id)).collect())
    }

    /// Ports of the host's datagrams: ours, its.
    pub fn strays(&self) -> io::Result<Vec<(u16, u16)>> {
        let ports = |packet: &Vec<u8>| {
            let header = match self.address {
                IpAddr::V4(_) => packet.get(usize::from(packet.first()? & 15) * 4..)?,
                IpAddr::V6(_) => packet,
            };
            let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            (header.len() >= UDP_HEADER).then(|| (port(2), port(0)))
        };
        Ok(packets(&self.udp)?.iter().filter_map(ports).collect())
    }
}

fn socket(address: IpAddr, protocol: Option<Protocol>) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::RAW, flags, protocol)?;
    connect(&socket, &SocketAddr::new(address, 0))?;
    Ok(socket)
}

/// All that waits in a socket.
fn packets(socket: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, length)) => packets.push(buffer[..length.min(buffer.len())].to_vec()),
            Err(Errno::AGAIN) => return Ok(packets),
            // A signal; or an error that a message has met: the packet that says so is heard itself.
            Err(
                Errno::INTR
                | Errno::CONNREFUSED
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::PROTO
                | Errno::NOPROTOOPT,
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
