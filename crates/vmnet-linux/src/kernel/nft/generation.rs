//! The number of the ruleset, which every change of it raises, whoever makes it: a look that costs nothing where nothing changed
//! (kernel `include/uapi/linux/netfilter/nf_tables.h`).

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;

/// `NFNL_SUBSYS_NFTABLES` in the upper byte of a message's type.
const NFTABLES: u16 = 10 << 8;
const NEW_GENERATION: u16 = NFTABLES | 15;
const GET_GENERATION: u16 = NFTABLES | 16;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// Headers of netlink, and of netfilter behind it.
const HEADER: usize = 16;
const HEADERS: usize = 20;
/// `NFTA_GEN_ID`.
const ID: u16 = 1;

/// The number of the ruleset of this network namespace. Takes `CAP_NET_ADMIN`.
///
/// # Errors
///
/// What the kernel says.
pub fn current() -> io::Result<u32> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADERS);
    request.extend((HEADERS as u32).to_ne_bytes());
    request.extend(GET_GENERATION.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // Sequence, port, and a header of netfilter for any family.
    request.resize(HEADERS, 0);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    read(&answer)
}

fn read(answer: &[u8]) -> io::Result<u32> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "no number of a ruleset came");
    let kind = answer.get(4..6).and_then(|it| it.try_into().ok());
    match kind.map(u16::from_ne_bytes) {
        Some(NEW_GENERATION) => {}
        Some(ERROR) => {
            let code = answer
                .get(HEADER..HEADERS)
                .and_then(|it| it.try_into().ok());
            let code = code.map_or(0, i32::from_ne_bytes);
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        _ => return Err(strange()),
    }
    let mut rest = answer.get(HEADERS..).unwrap_or_default();
    while let [one, other, third, fourth, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([one, other]));
        let value = rest.get(4..length).ok_or_else(strange)?;
        if u16::from_ne_bytes([third, fourth]) == ID {
            let number = value.try_into().map_err(|_| strange())?;
            return Ok(u32::from_be_bytes(number));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(strange())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn the_number_is_found_among_what_is_said() {
        let attribute = |kind: u16, value: [u8; 4]| {
            let length = 8_u16.to_ne_bytes();
            [&length[..], &kind.to_ne_bytes(), &value].concat()
        };
        let body = [
            vec![0; 4],
            attribute(2, [9; 4]),
            attribute(ID, [0, 0, 1, 2]),
        ]
        .concat();
        assert_eq!(read(&answer(NEW_GENERATION, &body)).unwrap(), 258);
        let refused = answer(ERROR, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(
            read(&refused).unwrap_err().raw_os_error(),
            Some(libc::EPERM)
        );
        for len in 0..body.len() {
            let short = answer(NEW_GENERATION, &body[..len]);
            assert!(read(&short).is_err(), "{len}");
        }
        // An attribute of no length would be read for ever.
        assert!(read(&answer(NEW_GENERATION, &[0; 12])).is_err());
    }
}
