//! A packet socket that sees and sends the Ethernet frames of one interface, with a virtio-net header before each
//! (packet(7), `PACKET_VNET_HDR`): large segments and unfinished checksums pass both ways.
//!
//! It sees what comes in by the interface and what the host itself sends by it, but never what it sends. What nobody
//! here wants is refused by a filter in the kernel, before it is copied (socket filter, kernel
//! `Documentation/networking/filter.rst`).
//!
//! The kernel takes a frame's VLAN tag off and tells it beside the frame (`PACKET_AUXDATA`); [`receive`] puts it back, so that
//! a frame of a VLAN does not look as if it were of the LAN itself.

use std::io;
use std::mem::{size_of, zeroed};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `linux/if_packet.h`: the length of the virtio-net header, since Linux 6.4.
const PACKET_VNET_HDR_SZ: libc::c_int = 24;
/// Bytes of a virtio-net header without the number of buffers, which older kernels have.
const SHORT_HEADER: libc::c_int = 10;
/// The same with it.
const HEADER: libc::c_int = 12;
/// Bytes that wait on the way to us, and from us.
const QUEUE_BYTES: libc::c_int = 8 << 20;
/// Bytes of a VLAN tag.
pub const TAG: usize = 4;
/// Bytes of a frame before its VLAN tag: two MACs.
const BEFORE_TAG: usize = 12;
/// `linux/if_packet.h`: there is a tag, and the kernel knows of which kind (since Linux 3.14).
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// Guests that the filter knows. If there are more, everything that the host sends is looked at.
const GUESTS_MAX: usize = 400;

/// What a socket hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hears {
    /// What comes from the LAN, for whatever station (the interface is promiscuous as long as the socket is open), and what
    /// the host sends to guests and to all.
    All,
    /// What the host sends to guests and to all.
    Host,
}

/// Opens a non-blocking socket on the interface with this index. It hears nothing of the host for guests before
/// [`set_filter`] has told it who they are.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_RAW` over the network namespace, `ENODEV` without such an interface.
pub fn open(interface: u32, mac: [u8; 6], hears: Hears) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is heard before it is bound, and by then it has its filter.
    // SAFETY: no memory is passed.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if set(&socket, libc::SOL_PACKET, PACKET_VNET_HDR_SZ, &HEADER).is_err() {
        set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
    }
    for (forced, wished) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        // Without CAP_NET_ADMIN the host's limit holds, which is no error.
        set(&socket, libc::SOL_SOCKET, forced, &QUEUE_BYTES)
            .or_else(|_| set(&socket, libc::SOL_SOCKET, wished, &QUEUE_BYTES))?;
    }
    set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
    set_filter(&socket, mac, &[], hears)?;
    bind(&socket, interface)?;
    if hears == Hears::All {
        // The kernel counts such memberships, and ends this one with the socket.
        // SAFETY: `packet_mreq` is made of integers; all zero is a value of it.
        let mut membership: libc::packet_mreq = unsafe { zeroed() };
        membership.mr_ifindex = interface as libc::c_int;
        membership.mr_type = libc::PACKET_MR_PROMISC as libc::c_ushort;
        set(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            &membership,
        )?;
    }
    Ok(socket)
}

/// Bytes of the virtio-net header before each frame.
#[must_use]
pub fn header_length(socket: impl AsFd) -> usize {
    let mut length: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers lead to values of ours of the size given, which outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_VNET_HDR_SZ,
            (&raw mut length).cast(),
            &raw mut size,
        )
    };
    let length = if answer == 0 && length > 0 {
        length
    } else {
        SHORT_HEADER
    };
    usize::try_from(length).unwrap_or(0)
}

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where it lies in the buffer.
    pub place: Range<usize>,
    /// It has a tag that its virtio-net header does not count.
    pub tagged: bool,
}

#[repr(C, align(8))]
struct Control([u8; 64]);

/// Reads the next frame into `frame`, with its VLAN tag, and its virtio-net header of [`header_length`] bytes into `header`.
/// [`TAG`] bytes of `frame` may stay free before it.
///
/// # Errors
///
/// As the kernel says; `InvalidData` for what is no frame behind a header.
pub fn receive(socket: impl AsFd, header: &mut [u8], frame: &mut [u8]) -> io::Result<Received> {
    let before = header.len();
    let (_, behind) = frame
        .split_at_mut_checked(TAG)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut list = [
        libc::iovec {
            iov_base: header.as_mut_ptr().cast(),
            iov_len: before,
        },
        libc::iovec {
            iov_base: behind.as_mut_ptr().cast(),
            iov_len: behind.len(),
        },
    ];
    let mut control = Control([0; 64]);
    // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = list.as_mut_ptr();
    message.msg_iovlen = list.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: all pointers in `message` lead to locals and to `header` and `frame`, which live through the call.
    let came = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    let came = usize::try_from(came).map_err(|_| io::Error::last_os_error())?;
    let len = came.checked_sub(before).ok_or(io::ErrorKind::InvalidData)?;
    let Some(tag) = tag_of(&message) else {
        return Ok(Received {
            place: TAG..TAG + len,
            tagged: false,
        });
    };
    if len < BEFORE_TAG {
        return Err(io::ErrorKind::InvalidData.into());
    }
    frame.copy_within(TAG..TAG + BEFORE_TAG, 0);
    frame[BEFORE_TAG..BEFORE_TAG + TAG].copy_from_slice(&tag);
    Ok(Received {
        place: 0..TAG + len,
        tagged: true,
    })
}

/// The tag that the kernel took off, as it stood in the frame.
fn tag_of(message: &libc::msghdr) -> Option<[u8; TAG]> {
    // SAFETY: `message` is as recvmsg left it, and its control messages lie in a buffer that is still there.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie whole in the buffer.
        let header = unsafe { at.read_unaligned() };
        let whole = size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>();
        if header.cmsg_level == libc::SOL_PACKET
            && header.cmsg_type == libc::PACKET_AUXDATA
            && header.cmsg_len >= whole
        {
            // SAFETY: the message is of this kind, all of whose bytes are there as its length says.
            let told = unsafe {
                libc::CMSG_DATA(at)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned()
            };
            return tag(&told);
        }
        // SAFETY: as above.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
    None
}

fn tag(told: &libc::tpacket_auxdata) -> Option<[u8; TAG]> {
    if told.tp_status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let kind = match told.tp_status & TP_STATUS_VLAN_TPID_VALID {
        0 => libc::ETH_P_8021Q as u16,
        _ => told.tp_vlan_tpid,
    };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), told.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}

/// Tells the kernel which frames are wanted: `mac` is the interface's own. Needs no privilege.
///
/// # Errors
///
/// `ENOMEM`.
pub fn set_filter(
    socket: impl AsFd,
    mac: [u8; 6],
    guests: &[[u8; 6]],
    hears: Hears,
) -> io::Result<()> {
    let mut program = program(mac, guests, hears);
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // The kernel copies the program, which has at most 4096 instructions.
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// The filter: each frame that is wanted is taken whole.
fn program(mac: [u8; 6], guests: &[[u8; 6]], hears: Hears) -> Vec<libc::sock_filter> {
    use libc::{
        BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
        SKF_AD_OFF, SKF_AD_PKTTYPE,
    };
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let ancillary = |what: libc::c_int| SKF_AD_OFF.wrapping_add(what) as u32;
    let load_word = |at: u32| step(BPF_LD | BPF_W | BPF_ABS, at, 0, 0);
    let load_half = |at: u32| step(BPF_LD | BPF_H | BPF_ABS, at, 0, 0);
    let if_equal = |value: u32, yes: u8, no: u8| step(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no);
    let take = step(BPF_RET | BPF_K, u32::MAX, 0, 0);
    let leave = step(BPF_RET | BPF_K, 0, 0, 0);
    let word = |mac: [u8; 6]| u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]);
    let half = |mac: [u8; 6]| u32::from(u16::from_be_bytes([mac[0], mac[1]]));
    // A MAC that is the destination: five steps, the last of which is reached if it is.
    let matches = |mac: [u8; 6], then| {
        [
            load_word(2),
            if_equal(word(mac), 0, 3),
            load_half(0),
            if_equal(half(mac), 0, 1),
            then,
        ]
    };
    let mut program = vec![
        load_word(ancillary(SKF_AD_PKTTYPE)),
        if_equal(u32::from(libc::PACKET_OUTGOING), 9, 0),
    ];
    // From the LAN: eight steps and one that ends.
    match hears {
        Hears::All => {
            program.extend(matches(mac, leave));
            program.extend([take, take, take, take]);
        }
        Hears::Host => program.extend([leave; 9]),
    }
    // From the host.
    program.extend([
        step(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0),
        step(BPF_JMP | BPF_JSET | BPF_K, 1, 0, 1),
        take,
    ]);
    if guests.len() > GUESTS_MAX {
        program.push(take);
        return program;
    }
    for guest in guests {
        program.extend(matches(*guest, take));
    }
    program.push(leave);
    program
}

fn bind(socket: &OwnedFd, interface: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is made of integers; all zero is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface as i32;
    // SAFETY: `address` is a `sockaddr_ll` of the length given and outlives the call.
    let answer = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets an option to a value of the type that it takes.
fn set<T>(socket: impl AsFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads one value of the size given, which outlives the call, and what it points to, which does too.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
