//! Datagrams with their control messages: many in one call (`recvmmsg`), several in one buffer (`UDP_SEGMENT`,
//! `UDP_GRO`), and the queue of ICMP errors (`IP_RECVERR`).

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use crate::sys::places::Places;

/// Bytes for the control messages of one datagram: an extended error with its offender is the largest.
const CONTROL: usize = 256;

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Sends one datagram, or with `segment` several of that size, to `to`, or to the peer of a connected socket.
///
/// # Errors
/// As the kernel says.
pub fn send(
    fd: impl AsFd,
    to: Option<&SocketAddr>,
    payload: &Places<'_>,
    segment: Option<u16>,
) -> io::Result<usize> {
    let mut address = to.map(to_raw);
    let mut control = Control([0; CONTROL]);
    // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { zeroed() };
    if let Some((address, len)) = &mut address {
        message.msg_name = std::ptr::from_mut(address).cast();
        message.msg_namelen = *len;
    }
    message.msg_iov = payload.as_ptr().cast_mut();
    message.msg_iovlen = payload.count();
    if let Some(size) = segment {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE is arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as usize;
        // SAFETY: msg_control has room for one message of a u16 (CONTROL is larger), so the first header
        // exists and its data may be written.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
            libc::CMSG_DATA(header).cast::<u16>().write_unaligned(size);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: all pointers in `message` lead to locals and to the bytes of `payload`, which live through the call; the
    // kernel only reads them.
    let sent = unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// A datagram that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// From whom.
    pub from: SocketAddr,
    /// In which slot of the buffer it lies.
    pub slot: usize,
    /// Bytes.
    pub len: usize,
    /// It is several datagrams of this size (`UDP_GRO`).
    pub segment: Option<u16>,
    /// Hops that it had left, if the socket was asked to tell.
    pub ttl: Option<u8>,
}

/// Room for several datagrams that are received in one call.
pub struct Batch {
    buffer: Vec<u8>,
    slot: usize,
    received: Vec<Received>,
    controls: Box<[Control]>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl Batch {
    /// `count` slots of `slot` bytes each. Memory is touched only as it is used.
    #[must_use]
    pub fn new(count: usize, slot: usize) -> Self {
        let controls = (0..count).map(|_| Control([0; CONTROL])).collect();
        Self {
            buffer: vec![0; count * slot],
            slot,
            received: Vec::with_capacity(count),
            controls,
        }
    }

    /// What was received last.
    #[must_use]
    pub fn received(&self) -> &[Received] {
        &self.received
    }

    /// The bytes of a datagram.
    #[must_use]
    pub fn payload(&self, of: &Received) -> &[u8] {
        let start = of.slot * self.slot;
        self.buffer.get(start..start + of.len).unwrap_or(&[])
    }

    /// Receives as many as are there and fit.
    ///
    /// # Errors
    /// As the kernel says; nothing was received.
    pub fn receive(&mut self, fd: impl AsFd) -> io::Result<()> {
        self.received.clear();
        let count = self.controls.len().min(64);
        let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::zeroed() }; 64];
        let mut iovs = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; 64];
        // SAFETY: all-zero message headers are valid.
        let mut messages: [libc::mmsghdr; 64] = unsafe { zeroed() };
        for index in 0..count {
            let start = index * self.slot;
            iovs[index].iov_base = self.buffer[start..start + self.slot].as_mut_ptr().cast();
            iovs[index].iov_len = self.slot;
            let header = &mut messages[index].msg_hdr;
            header.msg_name = names[index].as_mut_ptr().cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_iov = &raw mut iovs[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: the first `count` headers point to names, iovecs, buffers and controls that live through the call.
        let result = unsafe {
            libc::recvmmsg(
                fd.as_fd().as_raw_fd(),
                messages.as_mut_ptr(),
                count as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let filled = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        for (slot, message) in messages[..filled].iter().enumerate() {
            // SAFETY: the storage was zeroed and the kernel wrote an address of a known family into it, or none.
            let from = from_raw(unsafe { names[slot].assume_init_ref() });
            let Some(from) = from else { continue };
            let (mut segment, mut ttl) = (None, None);
            for_each_control(&message.msg_hdr, |level, kind, data| match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    segment = number(data).and_then(|n| u16::try_from(n).ok())
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    ttl = number(data).and_then(|n| u8::try_from(n).ok())
                }
                _ => {}
            });
            let len = (message.msg_len as usize).min(self.slot);
            self.received.push(Received {
                from,
                slot,
                len,
                segment,
                ttl,
            });
        }
        Ok(())
    }
}

/// An entry of a socket's error queue.
#[derive(Clone, Copy, Debug)]
pub struct QueuedError {
    /// To whom the datagram was sent.
    pub to: SocketAddr,
    /// Who reported it; `None` if the host itself did.
    pub from: Option<IpAddr>,
    /// ICMP type, of ICMPv6 if `to` is an IPv6 address.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The MTU, if the datagram was too large.
    pub mtu: u32,
    /// Bytes of the datagram that were given back.
    pub len: usize,
}

/// Takes the next entry of the error queue; the datagram's first bytes go to `original`. `None`: it is empty.
///
/// # Errors
/// As the kernel says.
pub fn take_queued_error(fd: impl AsFd, original: &mut [u8]) -> io::Result<Option<QueuedError>> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut iov = libc::iovec {
        iov_base: original.as_mut_ptr().cast(),
        iov_len: original.len(),
    };
    let mut control = Control([0; CONTROL]);
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: all pointers in `message` lead to locals and to `original`, which live through the call.
    let len = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, flags) };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock {
            Ok(None)
        } else {
            Err(error)
        };
    };
    // SAFETY: zeroed, and written by the kernel or left alone.
    let to = from_raw(unsafe { name.assume_init_ref() })
        .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    let mut error = QueuedError {
        to,
        from: None,
        kind: 0,
        code: 0,
        mtu: 0,
        len,
    };
    for_each_control(&message, |level, kind, data| {
        if matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        ) {
            read_extended(data, &mut error);
        }
    });
    Ok(Some(error))
}

/// `struct sock_extended_err` and the offender behind it (include/uapi/linux/errqueue.h).
fn read_extended(data: &[u8], error: &mut QueuedError) {
    let [_, _, _, _, origin, kind, code, _, info @ ..] = data else {
        return;
    };
    let (Some(info), Some(offender)) = (info.first_chunk::<4>(), info.get(8..)) else {
        return;
    };
    (error.kind, error.code) = (*kind, *code);
    error.mtu = u32::from_ne_bytes(*info);
    let from_network = matches!(*origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
    if !from_network {
        // The host itself refused: only "too large" has a meaning for the guest.
        (error.kind, error.code) = match (error.to.is_ipv6(), error.mtu > 0) {
            (false, true) => (3, 4),
            (false, false) => (3, 1),
            (true, true) => (2, 0),
            (true, false) => (1, 3),
        };
        return;
    }
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let len = offender.len().min(size_of::<libc::sockaddr_storage>());
    // SAFETY: `len` bytes are in both; any bytes are a valid storage.
    let storage = unsafe {
        std::ptr::copy_nonoverlapping(offender.as_ptr(), storage.as_mut_ptr().cast(), len);
        storage.assume_init_ref()
    };
    error.from = from_raw(storage).map(|address| address.ip());
}

fn number(data: &[u8]) -> Option<i32> {
    match *data {
        [a, b, c, d, ..] => Some(i32::from_ne_bytes([a, b, c, d])),
        [a, b] => Some(i32::from(u16::from_ne_bytes([a, b]))),
        _ => None,
    }
}

fn for_each_control(message: &libc::msghdr, mut each: impl FnMut(i32, i32, &[u8])) {
    // SAFETY: `message` was filled by recvmsg: its control area is intact and as long as msg_controllen says, which
    // is what the CMSG macros walk; data of each lies inside.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            let before = data as usize - header as usize;
            let len = (*header).cmsg_len.saturating_sub(before);
            each(
                (*header).cmsg_level,
                (*header).cmsg_type,
                std::slice::from_raw_parts(data, len),
            );
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

fn to_raw(address: &SocketAddr) -> (libc::sockaddr_storage, u32) {
    // SAFETY: an all-zero storage is valid.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let len = match address {
        SocketAddr::V4(address) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage is larger than any address, and aligned for all.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as u32)
}

fn from_raw(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let raw = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: a storage is larger than any address, aligned for all, and any bytes are valid.
            let raw = unsafe { &*raw.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { &*raw.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sockopt;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn places(bytes: &[u8]) -> Places<'_> {
        let mut places = Places::new();
        places.push(bytes);
        places
    }

    #[test]
    fn several_datagrams_in_one_call_each_way() {
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        sockopt::set_receive_ttl(&b, false).unwrap();
        let payload: Vec<u8> = (0..2500u32).map(|n| n as u8).collect();
        send(
            &a,
            Some(&b.local_addr().unwrap()),
            &places(&payload),
            Some(1000),
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut batch = Batch::new(8, 2048);
        batch.receive(&b).unwrap();
        let joined: Vec<u8> = batch
            .received()
            .iter()
            .flat_map(|r| batch.payload(r).to_vec())
            .collect();
        assert_eq!(batch.received().len(), 3);
        assert_eq!(joined, payload);
        assert_eq!(batch.received()[0].from, a.local_addr().unwrap());
        assert_eq!(batch.received()[0].ttl, Some(64));
        assert_eq!(
            batch.receive(&b).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn a_closed_port_is_reported_with_the_datagram() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        sockopt::set_receive_errors(&a, false).unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        send(&a, Some(&closed), &places(b"anybody"), None).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut original = [0; 64];
        let error = take_queued_error(&a, &mut original).unwrap().unwrap();
        assert_eq!((error.to, error.kind, error.code), (closed, 3, 3));
        assert_eq!(error.from, Some(closed.ip()));
        assert_eq!(&original[..error.len], b"anybody");
        assert!(take_queued_error(&a, &mut original).unwrap().is_none());
    }

    #[test]
    fn ipv6_tells_hops_senders_and_closed_ports_too() {
        let (a, b) = (
            UdpSocket::bind("[::1]:0").unwrap(),
            UdpSocket::bind("[::1]:0").unwrap(),
        );
        sockopt::set_receive_ttl(&b, true).unwrap();
        sockopt::set_receive_errors(&a, true).unwrap();
        sockopt::set_ttl(&a, true, 9).unwrap();
        let payload = vec![7; 2500];
        send(
            &a,
            Some(&b.local_addr().unwrap()),
            &places(&payload),
            Some(1000),
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut batch = Batch::new(8, 2048);
        batch.receive(&b).unwrap();
        let lens: Vec<_> = batch.received().iter().map(|one| one.len).collect();
        assert_eq!(lens, [1000, 1000, 500]);
        assert_eq!(batch.received()[0].from, a.local_addr().unwrap());
        assert_eq!(batch.received()[0].ttl, Some(9));
        let closed = b.local_addr().unwrap();
        drop(b);
        send(&a, Some(&closed), &places(b"anybody"), None).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut original = [0; 64];
        let error = take_queued_error(&a, &mut original).unwrap().unwrap();
        // Destination unreachable, port unreachable (RFC 4443 §3.1).
        assert_eq!((error.to, error.kind, error.code), (closed, 1, 4));
        assert_eq!(error.from, Some(closed.ip()));
        assert_eq!(&original[..error.len], b"anybody");
    }

    #[test]
    fn what_is_too_large_for_the_loopback_is_too_big_in_the_words_of_ipv6() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let to = socket.local_addr().unwrap();
        sockopt::set_receive_errors(&socket, true).unwrap();
        sockopt::set_dont_fragment(&socket, true, true).unwrap();
        // With both headers it is 39 bytes larger than the loopback's MTU of 65,536.
        let error = send(&socket, Some(&to), &places(&[0; 65_527]), None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        let queued = take_queued_error(&socket, &mut [0; 64]).unwrap().unwrap();
        assert_eq!((queued.kind, queued.code, queued.mtu), (2, 0, 65_536));
    }
}
