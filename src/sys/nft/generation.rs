//! How often the rulesets of the network namespace we are in have been changed: the number that the kernel counts up
//! with each transaction, whoever makes it.
//!
//! `nft` has no word for it, so one netlink message asks. Source: Linux's `include/uapi/linux/netfilter/nf_tables.h`
//! (`NFT_MSG_GETGEN`), and netlink(7).

use std::io;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's type.
const NFTABLES: u16 = 10 << 8;
const NEW_GENERATION: u16 = NFTABLES | 15;
const GET_GENERATION: u16 = NFTABLES | 16;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NFTA_GEN_ID`: the number, big-endian.
const NUMBER: u16 = 1;

/// Bytes of a message's header, and of netfilter's own behind it.
const HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;
/// Length of the question.
const LENGTH: u32 = 20;

/// Reads the number.
pub fn generation() -> io::Result<u32> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &question(), SendFlags::empty(), &kernel)?;
    let mut bytes = [0; 512];
    let (length, _) = recv(&socket, &mut bytes, RecvFlags::empty())?;
    answer(&bytes[..length])
}

fn question() -> [u8; LENGTH as usize] {
    // Length, type, flags, sequence, port; then family, version and resource, all unspecified.
    let mut message = [0; LENGTH as usize];
    message[..4].copy_from_slice(&LENGTH.to_ne_bytes());
    message[4..6].copy_from_slice(&GET_GENERATION.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    message
}

/// The number in the kernel's answer.
fn answer(message: &[u8]) -> io::Result<u32> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the kernel tells no generation of its rulesets");
    match two(message, 4) {
        Some(NEW_GENERATION) => {}
        Some(ERROR) => {
            let code = four(message, HEADER).map(i32::from_ne_bytes).ok_or_else(odd)?;
            return Err(io::Error::from_raw_os_error(-code));
        }
        _ => return Err(odd()),
    }
    let mut at = HEADER + NETFILTER_HEADER;
    while let (Some(length), Some(kind)) = (two(message, at), two(message, at + 2)) {
        if kind == NUMBER {
            return four(message, at + 4).map(u32::from_be_bytes).ok_or_else(odd);
        }
        at += usize::from(length.max(4)).next_multiple_of(4);
    }
    Err(odd())
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn four(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_number_is_found_behind_other_attributes() {
        // Netfilter's header, NFTA_GEN_PROC_PID with five bytes and padding, NFTA_GEN_ID.
        let mut payload = vec![0, 0, 0, 0, 9, 0, 2, 0, 1, 2, 3, 4, 5, 0, 0, 0];
        payload.extend([8, 0, 1, 0, 0, 0, 1, 4]);
        assert_eq!(answer(&message(NEW_GENERATION, &payload)).unwrap(), 260);
        for end in 0..payload.len() {
            assert!(answer(&message(NEW_GENERATION, &payload[..end])).is_err(), "cut off at {end}");
        }
    }

    #[test]
    fn an_error_is_the_kernels() {
        let error = answer(&message(ERROR, &(-1_i32).to_ne_bytes())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(
            answer(&message(ERROR, &[])).is_err()
                && answer(&message(3, &[])).is_err()
                && answer(&[]).is_err()
        );
    }

    #[test]
    fn the_question_is_one_message() {
        let question = question();
        assert_eq!(question.len(), HEADER + NETFILTER_HEADER);
        assert_eq!(question[4..8], [GET_GENERATION.to_ne_bytes(), REQUEST.to_ne_bytes()].concat());
    }
}
