//! Options of sockets that `rustix` does not know.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

fn set<T>(fd: impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn get<T: Copy>(fd: impl AsFd, level: i32, name: i32, mut value: T) -> io::Result<T> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which is plain numbers at every caller below.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(&mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Where `MSG_PEEK` begins, in bytes from the front of the receive queue (`SO_PEEK_OFF`). The kernel moves it on
/// with every peek, and back with every byte that is removed. TCP has it since Linux 6.9.
///
/// # Errors
/// The kernel is older.
pub fn set_peek_offset(fd: impl AsFd, offset: i32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &offset)
}

/// What a socket's queues hold and may hold (`SO_MEMINFO`), in bytes of kernel memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Sent and not yet given up by the device or the peer.
    pub send_allocated: u32,
    /// What the send queue may hold (`SO_SNDBUF`).
    pub send_limit: u32,
    /// What the send queue holds.
    pub send_queued: u32,
}

/// Asks for [`Memory`].
///
/// # Errors
/// As the kernel says.
pub fn memory(fd: impl AsFd) -> io::Result<Memory> {
    // include/uapi/linux/sock_diag.h: SK_MEMINFO_*
    let [_, _, send_allocated, send_limit, _, send_queued, ..] =
        get(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, [0u32; 9])?;
    Ok(Memory {
        send_allocated,
        send_limit,
        send_queued,
    })
}

/// The error that waits on a socket, which is cleared.
#[must_use]
pub fn take_error(fd: impl AsFd) -> Option<io::Error> {
    match get(fd, libc::SOL_SOCKET, libc::SO_ERROR, 0i32) {
        Ok(0) => None,
        Ok(code) => Some(io::Error::from_raw_os_error(code)),
        Err(error) => Some(error),
    }
}

/// Closing sends a reset instead of a FIN.
///
/// # Errors
/// As the kernel says.
pub fn set_reset_on_close(fd: impl AsFd) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Urgent data is data like any other.
///
/// # Errors
/// As the kernel says.
pub fn set_urgent_inline(fd: impl AsFd) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, &1i32)
}

/// The send and receive queues may hold so many bytes: beyond the host's limits for users where this process has
/// privileges, else as far as the host allows.
///
/// # Errors
/// As the kernel says.
pub fn set_queues(fd: impl AsFd, bytes: i32) -> io::Result<()> {
    for (forced, allowed) in [
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
    ] {
        if set(fd.as_fd(), libc::SOL_SOCKET, forced, &bytes).is_err() {
            set(fd.as_fd(), libc::SOL_SOCKET, allowed, &bytes)?;
        }
    }
    Ok(())
}

/// ICMP errors about datagrams are queued with the datagram in question (`IP_RECVERR`).
///
/// # Errors
/// As the kernel says.
pub fn set_receive_errors(fd: impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &1i32)
    } else {
        set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, &1i32)
    }
}

/// Datagrams of one sender and size may be received as one (`UDP_GRO`, Linux 5.0).
///
/// # Errors
/// The kernel is older.
pub fn set_udp_gro(fd: impl AsFd) -> io::Result<()> {
    set(fd, libc::IPPROTO_UDP, libc::UDP_GRO, &1i32)
}

/// Received datagrams come with their TTL, or hop limit.
///
/// # Errors
/// As the kernel says.
pub fn set_receive_ttl(fd: impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1i32)
    } else {
        set(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, &1i32)
    }
}

/// An IPv6 socket that is not bound yet hears IPv6 alone, or IPv4 too, whatever the host's default is.
///
/// # Errors
/// As the kernel says.
pub fn set_v6_only(fd: impl AsFd, only: bool) -> io::Result<()> {
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &i32::from(only))
}

/// Hops that datagrams may take.
///
/// # Errors
/// As the kernel says.
pub fn set_ttl(fd: impl AsFd, v6: bool, ttl: u8) -> io::Result<()> {
    if v6 {
        set(
            fd,
            libc::IPPROTO_IPV6,
            libc::IPV6_UNICAST_HOPS,
            &i32::from(ttl),
        )
    } else {
        set(fd, libc::IPPROTO_IP, libc::IP_TTL, &i32::from(ttl))
    }
}

/// Datagrams must not be cut on their way: larger ones are refused with `EMSGSIZE`.
///
/// # Errors
/// As the kernel says.
pub fn set_dont_fragment(fd: impl AsFd, v6: bool, dont: bool) -> io::Result<()> {
    let (do_not, may) = (libc::IP_PMTUDISC_DO, libc::IP_PMTUDISC_DONT);
    let value = if dont { do_not } else { may };
    if v6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &value)
    } else {
        set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &value)
    }
}

/// The MTU of the path of a connected socket.
///
/// # Errors
/// The socket is not connected.
pub fn path_mtu(fd: impl AsFd, v6: bool) -> io::Result<u32> {
    let mtu: i32 = if v6 {
        get(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU, 0)?
    } else {
        get(fd, libc::IPPROTO_IP, libc::IP_MTU, 0)?
    };
    Ok(mtu.unsigned_abs())
}

/// Removes up to `len` bytes from the front of a TCP receive queue without copying them. Answers how many.
///
/// # Errors
/// As the kernel says.
pub fn discard(fd: impl AsFd, len: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC, TCP counts and removes bytes and writes none to the null buffer (tcp(7)).
    let result = unsafe { libc::recv(fd.as_fd().as_raw_fd(), std::ptr::null_mut(), len, flags) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
