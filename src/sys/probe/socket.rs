//! One question by UDP or TCP, and its socket.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getsockname, recv, send,
    socket_with,
};

use crate::probe::What;
use crate::probe::payload::Shape;

/// A question that may still be answered.
pub struct Flight {
    /// Index of the question.
    pub question: usize,
    /// Its socket.
    pub socket: OwnedFd,
    /// Port here.
    pub local: u16,
    tcp: bool,
    /// The kernel refused at once, which it does when the answer is quicker than the question.
    refused: Option<Errno>,
}

/// Who said what.
pub type Told = Vec<(IpAddr, What)>;

impl Flight {
    /// Sends a datagram, and a second time if that is its shape.
    pub fn datagram(question: usize, remote: SocketAddr, shape: Shape, payload: &[u8]) -> io::Result<Self> {
        let socket = open(remote, SocketType::DGRAM)?;
        if let Shape::Hops(hops) = shape {
            match remote {
                SocketAddr::V4(_) => rustix::net::sockopt::set_ip_ttl(&socket, hops.into())?,
                SocketAddr::V6(_) => rustix::net::sockopt::set_ipv6_unicast_hops(&socket, Some(hops))?,
            }
        }
        connect(&socket, &remote)?;
        for _ in 0..shape.packets() {
            // What was answered meanwhile is told once by the call that comes next, whichever that is; it stays in the
            // error queue.
            if send(&socket, payload, SendFlags::empty()).is_err() {
                send(&socket, payload, SendFlags::empty())?;
            }
        }
        Self::new(question, socket, None)
    }

    /// Sends a SYN.
    pub fn segment(question: usize, remote: SocketAddr) -> io::Result<Self> {
        let socket = open(remote, SocketType::STREAM)?;
        let refused = match connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => None,
            Err(error @ (Errno::CONNREFUSED | Errno::HOSTUNREACH)) => Some(error),
            Err(error) => return Err(error.into()),
        };
        let flight = Self::new(question, socket, refused)?;
        Ok(Self { tcp: true, ..flight })
    }

    fn new(question: usize, socket: OwnedFd, refused: Option<Errno>) -> io::Result<Self> {
        let local = SocketAddr::try_from(getsockname(&socket)?)?.port();
        Ok(Self { question, socket, local, tcp: false, refused })
    }

    /// Whether it was asked by UDP, whose ports are not TCP's.
    pub fn is_datagram(&self) -> bool {
        !self.tcp
    }

    /// What the poll waits for.
    pub fn wanted(&self) -> PollFlags {
        if self.tcp { PollFlags::OUT } else { PollFlags::IN }
    }

    /// What came, and whether that was all.
    pub fn told(&mut self, address: IpAddr) -> io::Result<(Told, bool)> {
        let mut told = self.errors()?;
        if self.tcp {
            let state = match self.refused.take() {
                Some(error) => Err(error),
                None => rustix::net::sockopt::socket_error(&self.socket)?,
            };
            match state {
                Ok(()) if told.is_empty() => told.push((address, What::Open)),
                Err(Errno::CONNREFUSED) if told.is_empty() => told.push((address, What::Reset)),
                // The error queue has told it, or the kernel has given up.
                Ok(()) | Err(_) => {}
            }
            return Ok((told, true));
        }
        let mut buffer = [0; 2048];
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, length)) => told.push((address, What::Datagram(length))),
                Err(Errno::AGAIN) => return Ok((told, false)),
                Err(Errno::INTR) => {}
                // Told once more, for those who have no error queue; one that came just now is in it.
                Err(_) => told.extend(self.errors()?),
            }
        }
    }

    /// Empties the error queue.
    fn errors(&self) -> io::Result<Told> {
        let mut told = Vec::new();
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        loop {
            let mut space = nix::cmsg_space!([u8; 64]);
            let mut payload = [0; 64];
            let mut slices = [IoSliceMut::new(&mut payload)];
            let fd = self.socket.as_raw_fd();
            match recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut space), flags) {
                Ok(message) => told.extend(message.cmsgs()?.filter_map(|message| error_of(&message))),
                Err(nix::Error::EAGAIN) => return Ok(told),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// ICMP errors alone: what this machine itself finds wrong has no sender.
fn error_of(message: &ControlMessageOwned) -> Option<(IpAddr, What)> {
    match message {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
            let from = u32::from_be(from.sin_addr.s_addr);
            Some((IpAddr::V4(from.into()), What::Error(error.ee_type, error.ee_code)))
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
            Some((IpAddr::V6(from.sin6_addr.s6_addr.into()), What::Error(error.ee_type, error.ee_code)))
        }
        _ => None,
    }
}

fn open(remote: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if remote.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(socket)
}
