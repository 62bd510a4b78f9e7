//! Bytes in many places, of ours and in guests' memory, for one system call.

use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsFd, AsRawFd};

use vmnet_virtio::memory::GuestSlice;

/// Most places. A frame of 64 KiB of a Linux guest has 20, and several may leave together.
pub const PLACES_MAX: usize = 128;

/// A list of places, which are borrowed for as long as it is.
pub struct Places<'a> {
    list: [MaybeUninit<libc::iovec>; PLACES_MAX],
    count: usize,
    /// There were more than the list holds.
    full: bool,
    bytes: PhantomData<&'a [u8]>,
}

impl std::fmt::Debug for Places<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places")
            .field("count", &self.count)
            .field("full", &self.full)
            .finish_non_exhaustive()
    }
}

impl Default for Places<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Places<'a> {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self {
            list: [const { MaybeUninit::uninit() }; PLACES_MAX],
            count: 0,
            full: false,
            bytes: PhantomData,
        }
    }

    fn add(&mut self, place: libc::iovec) {
        if place.iov_len == 0 {
            return;
        }
        match self.list.get_mut(self.count) {
            Some(free) => {
                free.write(place);
                self.count += 1;
            }
            None => self.full = true,
        }
    }

    /// Bytes of ours to be read by the kernel.
    pub fn push(&mut self, bytes: &'a [u8]) {
        self.add(libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
    }

    /// Bytes of a guest, to be read or written by the kernel.
    pub fn push_guest(&mut self, slice: GuestSlice<'a>) {
        self.add(slice.as_iovec());
    }

    /// All places that were pushed are in the list. If not, the bytes have to be gathered first.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.full
    }

    /// The list, as the kernel takes it. Valid for as long as the places are.
    #[must_use]
    pub fn as_ptr(&self) -> *const libc::iovec {
        self.list.as_ptr().cast()
    }

    /// Places in the list.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Writes all bytes by one call (`writev`).
    ///
    /// # Errors
    /// As the kernel says. `EFAULT`: a guest's memory has vanished.
    pub fn write(&self, fd: impl AsFd) -> io::Result<usize> {
        // At most PLACES_MAX.
        let count = self.count as libc::c_int;
        // SAFETY: the first `count` entries are written, and name bytes that are borrowed for as long as `self`; the
        // kernel only reads them.
        let written = unsafe { libc::writev(fd.as_fd().as_raw_fd(), self.as_ptr(), count) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Sends all bytes by one call, without waiting (`sendmsg`).
    ///
    /// # Errors
    /// As the kernel says. `EFAULT`: a guest's memory has vanished.
    pub fn send(&self, fd: impl AsFd) -> io::Result<usize> {
        // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = self.as_ptr().cast_mut();
        message.msg_iovlen = self.count;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: as in `write`; nothing else is pointed to.
        let sent = unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const message, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Places in a guest's memory for the kernel to write to.
#[derive(Debug, Default)]
pub struct Room<'a>(Places<'a>);

impl<'a> Room<'a> {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that may be written to.
    pub fn push(&mut self, slice: GuestSlice<'a>) {
        self.0.push_guest(slice);
    }

    /// All places that were pushed are in the list.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.0.is_whole()
    }

    /// Peeks at what a stream socket has received, from where its `SO_PEEK_OFF` stands.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn peek(&mut self, fd: impl AsFd) -> io::Result<usize> {
        // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = self.0.as_ptr().cast_mut();
        message.msg_iovlen = self.0.count;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: the first `count` entries are written, and all of them are guest memory, which anybody may write to
        // and to which no reference exists.
        let len = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, flags) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_datagram_of_many_places() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut places = Places::new();
        for piece in [&b"one "[..], b"", b"two ", b"three"] {
            places.push(piece);
        }
        assert_eq!(places.count(), 3);
        let mut seen = [0; 32];
        for sent in [places.send(&ours), places.write(&ours)] {
            assert_eq!(sent.unwrap(), 13);
            let len = theirs.recv(&mut seen).unwrap();
            assert_eq!(&seen[..len], b"one two three");
        }
    }

    #[test]
    fn too_many_places_are_noticed() {
        let mut places = Places::new();
        for _ in 0..PLACES_MAX {
            places.push(b"x");
        }
        assert!(places.is_whole());
        places.push(b"");
        assert!(places.is_whole());
        places.push(b"x");
        assert!(!places.is_whole());
    }
}
