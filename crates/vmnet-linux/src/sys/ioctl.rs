//! The ioctls of a tap (kernel `Documentation/networking/tuntap.rst`, `linux/if_tun.h`) and of a namespace (`ioctl_ns(2)`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Bytes of an interface name with its final zero.
const NAME_LEN: usize = libc::IFNAMSIZ;

/// Attaches an open `/dev/net/tun` to the interface `name`, which is made if it is not there; answers its real name.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the network namespace, `EBUSY` if somebody else holds the interface,
/// `EINVAL` if the interface is no tap or `name` is too long.
pub fn tun_set_interface(tun: impl AsFd, name: &str, flags: libc::c_int) -> io::Result<String> {
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is and which outlives the call.
    let answer = unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    checked(answer)?;
    Ok(name_in(&request))
}

fn name_in(request: &libc::ifreq) -> String {
    let name = request.ifr_name.iter().take_while(|&&c| c != 0);
    let bytes: Vec<u8> = name.map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The flags (`IFF_TAP`, `IFF_VNET_HDR`, ...) of the interface behind `tun`.
///
/// # Errors
///
/// `EBADFD` if no interface is attached, `ENOTTY` if the descriptor is no tun device.
pub fn tun_interface_flags(tun: impl AsFd) -> io::Result<libc::c_int> {
    let mut request = interface_request("")?;
    // SAFETY: TUNGETIFF writes one `ifreq`, which `request` is and which outlives the call.
    let answer = unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    checked(answer)?;
    // SAFETY: the kernel filled the flags member of the union; any bit pattern is a valid integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags as u16))
}

/// The name of the interface behind `tun`, or behind the device of a macvtap.
///
/// # Errors
///
/// `ENOTTY` if the descriptor is neither.
pub fn tun_interface_name(tun: impl AsFd) -> io::Result<String> {
    let mut request = interface_request("")?;
    // SAFETY: TUNGETIFF writes one `ifreq`, which `request` is and which outlives the call.
    let answer = unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    checked(answer)?;
    Ok(name_in(&request))
}

/// Lets the interface behind `tun` stay when nobody has it open any more.
///
/// # Errors
///
/// `EBADFD` if no interface is attached.
pub fn tun_set_persistent(tun: impl AsFd) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
    let answer = unsafe {
        libc::ioctl(
            tun.as_fd().as_raw_fd(),
            libc::TUNSETPERSIST,
            1 as libc::c_ulong,
        )
    };
    checked(answer)
}

/// Sets how long the virtio-net header before each frame is.
///
/// # Errors
///
/// `EINVAL` for a length below 10.
pub fn tun_set_header_length(tun: impl AsFd, length: libc::c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    let answer = unsafe {
        libc::ioctl(
            tun.as_fd().as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            &raw const length,
        )
    };
    checked(answer)
}

/// Tells which unfinished segments (`TUN_F_*`) the reader of the tap takes.
///
/// # Errors
///
/// `EINVAL` for a flag this kernel does not have.
pub fn tun_set_offload(tun: impl AsFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    let answer = unsafe {
        libc::ioctl(
            tun.as_fd().as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(flags),
        )
    };
    checked(answer)
}

/// The network namespace that the interface behind `tun` is in (Linux 5.7).
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over it, `EBADFD` if no interface is attached.
pub fn tun_network_namespace(tun: impl AsFd) -> io::Result<OwnedFd> {
    /// `_IO('T', 227)`, `linux/if_tun.h`.
    const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;
    // SAFETY: TUNGETDEVNETNS has no argument and answers a descriptor.
    let answer = unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), TUNGETDEVNETNS as _) };
    checked(answer)?;
    // SAFETY: just made by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

/// The user namespace that a namespace belongs to.
///
/// # Errors
///
/// `EPERM` if it is outside of ours, `ENOTTY` if the descriptor is no namespace.
pub fn owning_user_namespace(namespace: impl AsFd) -> io::Result<OwnedFd> {
    /// `_IO(0xb7, 0x1)`, `linux/nsfs.h`.
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: NS_GET_USERNS has no argument and answers a descriptor.
    let answer = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS as _) };
    checked(answer)?;
    // SAFETY: just made by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

/// An `ifreq` that carries `name`.
fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= NAME_LEN || name.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an interface name has at most 15 bytes",
        ));
    }
    // SAFETY: `ifreq` is made of integers and byte arrays; all zero is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
