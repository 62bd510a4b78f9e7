//! The datapath where there are no rings: a pair of sequenced-packet sockets, each packet behind its virtio-net header. What the
//! service's socket ports do with offloads is the same as with rings.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

use super::Statistics;
use super::arriving::Arriving;
use super::drain::Drain;
use super::finish::{Agreed, HEAD, HEADER, header_of};
use super::packet::{PacketBuffers, WritePacket};
use super::parameters::MAX_PACKETS;
use super::rings::{NO_OFFLOAD, PATIENCE, Seen, gather};
use crate::membership::lock;

/// Packets, and bytes of them, that are taken from the socket to be counted.
const PACKETS: usize = 4096;
const BYTES: usize = 16 << 20;

/// A socket to the service, and packets that came by it.
#[derive(Debug)]
pub(super) struct Datagrams {
    /// Readable when one of the two below is.
    ready: OwnedFd,
    /// Readable while packets are here that the socket has no more.
    taken: OwnedFd,
    inner: Mutex<Inner>,
    writing: Mutex<Vec<u8>>,
}

#[derive(Debug)]
struct Inner {
    /// None: it is stopped.
    socket: Option<OwnedFd>,
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    arrived: u16,
    reads: u64,
}

/// A pair of sockets, one of them for the service.
///
/// # Errors
/// There are too many open files.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // As many as the kernel lets it have.
    let _widened = rustix::net::sockopt::set_socket_send_buffer_size(&pair.0, 4 << 20);
    Ok(pair)
}

impl Datagrams {
    /// A datapath over `socket`.
    ///
    /// # Errors
    /// There are too many open files.
    pub(super) fn new(socket: OwnedFd, agreed: &Agreed) -> io::Result<Self> {
        let ready = epoll::create(CreateFlags::CLOEXEC)?;
        let taken = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let none = EventData::new_u64(0);
        epoll::add(&ready, &taken, none, EventFlags::IN)?;
        epoll::add(&ready, &socket, none, EventFlags::IN)?;
        Ok(Self {
            ready,
            taken,
            inner: Mutex::new(Inner {
                socket: Some(socket),
                packets: VecDeque::new(),
                bytes: 0,
                buffer: vec![0; agreed.max + HEADER],
                scratch: Vec::new(),
                arrived: 0,
                reads: 0,
            }),
            writing: Mutex::default(),
        })
    }

    pub(super) fn line(&self) -> Option<OwnedFd> {
        let inner = lock(&self.inner);
        inner.socket.as_ref().and_then(|it| it.try_clone().ok())
    }

    /// Goes on with another socket.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub(super) fn reconnect(&self, socket: OwnedFd) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        let Some(before) = inner.socket.as_ref() else {
            return Ok(());
        };
        // Others may hold it too, so that closing it would not end its events.
        let _removed = epoll::delete(&self.ready, before);
        epoll::add(&self.ready, &socket, EventData::new_u64(0), EventFlags::IN)?;
        inner.socket = Some(socket);
        Ok(())
    }

    /// Waits until the service has taken what was written: it lets go when it has come to the end.
    pub(super) fn drain(&self) {
        let _written = lock(&self.writing);
        let Some(socket) = self.line() else { return };
        if rustix::net::shutdown(&socket, rustix::net::Shutdown::Write).is_ok() {
            let drain = Drain::begin();
            while drain.wait(None, socket.as_fd()) {}
        }
    }

    pub(super) fn end(&self) {
        let mut inner = lock(&self.inner);
        if let Some(socket) = inner.socket.take() {
            let _removed = epoll::delete(&self.ready, &socket);
        }
        inner.packets.clear();
        self.signal();
    }

    pub(super) fn watch(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    fn signal(&self) {
        // It is as full as it gets, or done.
        let _signalled = rustix::io::write(&self.taken, &1_u64.to_ne_bytes());
    }

    /// Takes what is in the socket, so that it can be counted.
    pub(super) fn seen(&self) -> Seen {
        let mut inner = lock(&self.inner);
        let before = inner.packets.len();
        while inner.packets.len() < PACKETS && inner.bytes < BYTES && inner.take() {}
        if before == 0 && !inner.packets.is_empty() {
            self.signal();
        }
        Seen {
            waiting: inner.packets.len(),
            arrived: inner.arrived,
            reads: inner.reads,
        }
    }

    pub(super) fn read<P: PacketBuffers + ?Sized>(
        &self,
        packets: &mut P,
        agreed: &Agreed,
        statistics: &Statistics,
    ) -> usize {
        let mut inner = lock(&self.inner);
        let had = !inner.packets.is_empty();
        inner.reads += 1;
        let most = packets.count().min(MAX_PACKETS);
        let mut count = 0;
        while count < most {
            if inner.packets.is_empty() && !inner.take() {
                break;
            }
            let Some(packet) = inner.packets.pop_front() else {
                break;
            };
            inner.bytes -= packet.len();
            let scratch = &mut inner.scratch;
            let arriving = Arriving::of_bytes(&packet, agreed, scratch);
            if arriving
                .is_some_and(|it| packets.fill(count, |room, to| it.put(room, to, statistics)))
            {
                count += 1;
            } else {
                Statistics::add(&statistics.bad, 1);
            }
        }
        if had && inner.packets.is_empty() {
            let _cleared = rustix::io::read(&self.taken, &mut [0_u8; 8]);
        }
        count
    }

    pub(super) fn write<'a>(
        &self,
        packets: impl Iterator<Item = WritePacket<'a>>,
        agreed: &Agreed,
        statistics: &Statistics,
    ) {
        let mut buffer = lock(&self.writing);
        let Some(socket) = self.line() else { return };
        let until = Instant::now() + PATIENCE;
        for packet in packets {
            compose(&packet, agreed, &mut buffer);
            if !send_within(socket.as_fd(), &buffer, until) {
                Statistics::add(&statistics.dropped, 1);
            }
        }
    }
}

impl Inner {
    /// Takes one packet from the socket.
    fn take(&mut self) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        loop {
            match recv(socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Ok((_, 0)) => return false,
                Ok((len, whole)) if whole <= len => {
                    let packet = self.buffer.get(..len).unwrap_or_default().to_vec();
                    self.bytes += packet.len();
                    self.packets.push_back(packet);
                    self.arrived = self.arrived.wrapping_add(1);
                    return true;
                }
                // Longer than any that was agreed upon.
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// A packet as it goes to the service.
fn compose(packet: &WritePacket<'_>, agreed: &Agreed, to: &mut Vec<u8>) {
    to.clear();
    let mut end = packet.size;
    let mut known = 0;
    if let Some(leaves) = agreed.leaves() {
        let mut head = [0; HEAD];
        known = gather(packet, &mut head);
        let head = head.get_mut(..known).unwrap_or_default();
        let header;
        (header, end) = header_of(head, packet.size, leaves);
        to.extend(header);
        known = known.min(end);
        to.extend_from_slice(head.get(..known).unwrap_or_default());
    } else if !agreed.header {
        to.extend(NO_OFFLOAD);
    }
    let mut left = end - known;
    let mut skip = known;
    for piece in packet.buffers {
        let Some(piece) = piece.get(skip..) else {
            skip -= piece.len();
            continue;
        };
        skip = 0;
        let piece = piece.get(..left).unwrap_or(piece);
        to.extend_from_slice(piece);
        left -= piece.len();
    }
}

/// Sends a packet, and waits for room: whether it went.
fn send_within(socket: BorrowedFd<'_>, packet: &[u8], until: Instant) -> bool {
    loop {
        match send(socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::NOBUFS) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
                let _waited = poll(&mut polled, Some(&timespec(left)));
            }
            Err(_) => return false,
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}
