//! Many datagrams by a Unix socket in one call (`sendmmsg`).

use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::SocketAddrUnix;

/// Datagrams that one call sends.
const AT_ONCE: usize = 64;

/// Sends datagrams in order, to `to` or to the peer of a connected socket, as many as the socket takes at once. Answers
/// how many.
///
/// # Errors
/// As the kernel says of the first one; nothing was sent.
pub fn send<'a>(
    fd: impl AsFd,
    to: Option<&SocketAddrUnix>,
    datagrams: impl Iterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    let mut address = to.map(to_raw);
    // SAFETY: `iovec` and `mmsghdr` are integers and pointers; all zero is a value of them.
    let mut pieces: [libc::iovec; AT_ONCE] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; AT_ONCE] = unsafe { zeroed() };
    let mut count = 0;
    for ((piece, message), datagram) in pieces.iter_mut().zip(&mut messages).zip(datagrams) {
        piece.iov_base = datagram.as_ptr().cast_mut().cast();
        piece.iov_len = datagram.len();
        message.msg_hdr.msg_iov = piece;
        message.msg_hdr.msg_iovlen = 1;
        if let Some((address, len)) = &mut address {
            message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            message.msg_hdr.msg_namelen = *len;
        }
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers point to `pieces`, `address` and the datagrams, which outlive the call; the
    // kernel only reads them.
    let sent =
        unsafe { libc::sendmmsg(fd.as_fd().as_raw_fd(), messages.as_mut_ptr(), count, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn to_raw(address: &SocketAddrUnix) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: `sockaddr_un` is made of integers; all zero is a value of it.
    let mut raw: libc::sockaddr_un = unsafe { zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // An abstract name follows a zero byte and ends with its length; a path ends with a zero byte (unix(7)).
    let (start, name) = match (address.abstract_name(), address.path_bytes()) {
        (Some(name), _) => (1, name),
        (None, Some(path)) => (0, path),
        (None, None) => (0, &[][..]),
    };
    for (to, from) in raw.sun_path.iter_mut().skip(start).zip(name) {
        *to = *from as libc::c_char;
    }
    let len =
        offset_of!(libc::sockaddr_un, sun_path) + start + name.len() + usize::from(start == 0);
    (
        raw,
        len.min(size_of::<libc::sockaddr_un>()) as libc::socklen_t,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn one_call_takes_what_fits_and_says_how_many() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let frames: Vec<Vec<u8>> = (0..3u8).map(|n| vec![n; 100]).collect();
        let sent = send(&ours, None, frames.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(sent, 3);
        let mut seen = [0; 200];
        for n in 0..3u8 {
            assert_eq!(theirs.recv(&mut seen).unwrap(), 100);
            assert_eq!(seen[..100], [n; 100]);
        }
        let many = vec![vec![0; 10]; 100_000];
        let mut total = 0;
        let error = loop {
            match send(&ours, None, many.iter().map(Vec::as_slice)) {
                Ok(sent) => total += sent,
                Err(error) => break error,
            }
        };
        assert!(total > 0);
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(send(&ours, None, std::iter::empty()).unwrap(), 0);
    }

    #[test]
    fn to_paths_and_to_abstract_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guest");
        let ours = UnixDatagram::unbound().unwrap();
        let name = format!("vmnet-test-{}", std::process::id());
        let bound = [
            UnixDatagram::bind(&path).unwrap(),
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
        ];
        let to = [
            SocketAddrUnix::new(&path).unwrap(),
            SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap(),
        ];
        for (socket, to) in bound.iter().zip(&to) {
            assert_eq!(
                send(&ours, Some(to), [&b"frame"[..]].into_iter()).unwrap(),
                1
            );
            let mut seen = [0; 8];
            assert_eq!(socket.recv(&mut seen).unwrap(), 5);
        }
        drop(bound);
        let error = send(&ours, Some(&to[0]), [&b"frame"[..]].into_iter()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
