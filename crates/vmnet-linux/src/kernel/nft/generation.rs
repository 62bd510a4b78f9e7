//! The number of the host's rules, which is another after each change, whoever made it (nfnetlink, `NFT_MSG_GETGEN`): asked for
//! over a socket of our own, since it is asked often.

use netlink_sys::{Socket, SocketAddr};
use std::io;

/// `NETLINK_NETFILTER`.
const PROTOCOL: isize = libc::NETLINK_NETFILTER as isize;
/// `NFNL_SUBSYS_NFTABLES`, with the message in the lower byte.
const SUBSYSTEM: u16 = 10 << 8;
const GET: u16 = SUBSYSTEM | 16;
const NEW: u16 = SUBSYSTEM | 15;
const REQUEST: u16 = 1;
/// Bytes of a netlink header, and of that with netfilter's own behind it.
const HEADER: usize = 16;
const HEADERS: usize = 20;
/// `NFTA_GEN_ID`.
const NUMBER: u16 = 1;

/// The number of the rules in this network namespace. It takes `CAP_NET_ADMIN`.
///
/// # Errors
///
/// What the kernel says.
pub fn generation() -> io::Result<u32> {
    let mut socket = Socket::new(PROTOCOL)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADERS);
    request.extend(u32::try_from(HEADERS).unwrap_or_default().to_ne_bytes());
    request.extend(GET.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // Sequence and sender; family, version and resource.
    request.resize(HEADERS, 0);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    read(&answer)
}

fn read(answer: &[u8]) -> io::Result<u32> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "netfilter: a strange answer");
    let two = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let four = |at: usize| -> Option<[u8; 4]> { answer.get(at..at + 4)?.try_into().ok() };
    match two(4).ok_or_else(strange)? {
        NEW => {}
        kind if i32::from(kind) == libc::NLMSG_ERROR => {
            let code = i32::from_ne_bytes(four(HEADER).ok_or_else(strange)?);
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        _ => return Err(strange()),
    }
    let mut at = HEADERS;
    while let (Some(length), Some(kind)) = (two(at), two(at + 2)) {
        if kind == NUMBER {
            return four(at + 4).map(u32::from_be_bytes).ok_or_else(strange);
        }
        // Attributes begin at multiples of four.
        at += usize::from(length).max(4).next_multiple_of(4);
    }
    Err(strange())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn the_number_is_found_behind_other_attributes() {
        let mut rest = vec![0; 4];
        rest.extend(6_u16.to_ne_bytes());
        rest.extend(2_u16.to_ne_bytes());
        rest.extend([7, 7, 0, 0]);
        rest.extend(8_u16.to_ne_bytes());
        rest.extend(NUMBER.to_ne_bytes());
        rest.extend(513_u32.to_be_bytes());
        assert_eq!(read(&answer(NEW, &rest)).unwrap(), 513);
        for length in 0..rest.len() {
            assert!(read(&answer(NEW, &rest[..length])).is_err());
        }
        let refused = read(&answer(2, &(-libc::EPERM).to_ne_bytes())).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(read(&[]).is_err());
    }
}
