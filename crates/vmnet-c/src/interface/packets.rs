//! Reading and writing. `struct vmpktdesc` is used where it is: nothing is allocated for a packet.

use super::{Ref, running, status};
use crate::argument::Return;
use openvmnet::{Error, MAX_PACKETS, PacketBuffers, Status, WritePacket};
use std::ffi::c_int;
use std::io::{IoSlice, IoSliceMut};
use std::slice;
use vmnet_xpc::border;

/// No packet has more bytes: what a program says beyond is no room for more.
const MOST_BYTES: usize = 1 << 17;
/// `UIO_MAXIOV`
const MOST_PIECES: usize = 1024;

/// `struct vmpktdesc`.
#[repr(C)]
#[derive(Debug)]
pub struct Packet {
    size: usize,
    pieces: *mut libc::iovec,
    count: u32,
    /// Ignored: there are programs that never set it.
    flags: u32,
}

impl Packet {
    /// Its buffers, as they are described; none if they are not.
    #[inline]
    unsafe fn pieces<'a>(&self) -> Option<&'a mut [libc::iovec]> {
        let count = usize::try_from(self.count).ok()?;
        if self.pieces.is_null() || !(1..=MOST_PIECES).contains(&count) {
            return None;
        }
        // SAFETY: The caller has as many there, and this call is the only one that looks at them.
        Some(unsafe { slice::from_raw_parts_mut(self.pieces, count) })
    }
}

/// The packets of a call, and where their number is told.
#[inline]
unsafe fn described<'a>(
    packets: *mut Packet,
    count: *mut c_int,
) -> Result<(&'a mut [Packet], &'a mut c_int), Status> {
    // SAFETY: The caller has null, or a count.
    let told = unsafe { count.as_mut() }.ok_or(Status::InvalidArgument)?;
    let count = usize::try_from(*told).or(Err(Status::InvalidArgument))?;
    if count == 0 {
        return Ok((&mut [], told));
    }
    if packets.is_null() {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: The caller has as many there.
    Ok((unsafe { slice::from_raw_parts_mut(packets, count) }, told))
}

fn tell(told: &mut c_int, count: usize) {
    *told = c_int::try_from(count).unwrap_or(c_int::MAX);
}

/// Room for packets that are read.
struct Room<'a>(&'a mut [Packet]);

impl Room<'_> {
    /// Every packet has buffers.
    unsafe fn check(&self) -> Result<(), Status> {
        let has_room = |packet: &Packet| {
            // SAFETY: The caller has what the packets describe.
            unsafe { packet.pieces() }.is_some_and(|pieces| {
                let only = pieces.len() == 1;
                let is_there = |piece: &libc::iovec| {
                    !piece.iov_base.is_null() || (piece.iov_len == 0 && !only) || packet.size == 0
                };
                pieces.iter().all(is_there)
            })
        };
        if self.0.iter().all(has_room) {
            Ok(())
        } else {
            Err(Status::InvalidArgument)
        }
    }
}

impl PacketBuffers for Room<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn fill(
        &mut self,
        index: usize,
        put: impl FnOnce(usize, &mut [IoSliceMut<'_>]) -> Option<usize>,
    ) -> bool {
        let Some(packet) = self.0.get_mut(index) else {
            return false;
        };
        // SAFETY: `check` has looked at it.
        let Some(pieces) = (unsafe { packet.pieces() }) else {
            return false;
        };
        let [only] = pieces else {
            let mut places: Vec<_> = pieces
                .iter()
                .filter(|piece| !piece.iov_base.is_null())
                // SAFETY: The caller has a buffer of this length there.
                .map(|piece| unsafe { place(piece.iov_base.cast(), piece.iov_len) })
                .collect();
            let Some(length) = put(packet.size, &mut places) else {
                return false;
            };
            packet.size = length;
            return true;
        };
        // Its own length is that of the packet before: programs set it once.
        // SAFETY: The caller has a buffer of the packet's size there.
        let mut places = [unsafe { place(only.iov_base.cast(), packet.size) }];
        let Some(length) = put(packet.size, &mut places) else {
            return false;
        };
        packet.size = length;
        only.iov_len = length;
        true
    }
}

/// Memory of the program.
#[inline]
unsafe fn place<'a>(at: *mut u8, length: usize) -> IoSliceMut<'a> {
    if at.is_null() {
        return IoSliceMut::new(&mut []);
    }
    // SAFETY: The caller has a buffer of this length there, for the length of the call.
    IoSliceMut::new(unsafe { slice::from_raw_parts_mut(at, length.min(MOST_BYTES)) })
}

/// Reads what waits, into as many packets as there are. Never waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_read(
    interface: Ref,
    packets: *mut Packet,
    count: *mut c_int,
) -> Return {
    let read = || {
        // SAFETY: The caller has packets and a count, or null.
        let (packets, told) = unsafe { described(packets, count) }?;
        let most = packets.len().min(MAX_PACKETS);
        let mut room = Room(packets.get_mut(..most).unwrap_or_default());
        // SAFETY: The caller has what the packets describe.
        unsafe { room.check() }?;
        // SAFETY: The caller has null or a live handle.
        let read = unsafe { running(interface, |interface| status(interface.read(&mut room))) };
        tell(told, read?);
        Ok(())
    };
    border(Err(Status::Failure), read)
        .err()
        .unwrap_or(Status::Success)
        .code()
}

/// What of the packets' buffers stands in the way of taking them as they are.
enum Buffers {
    Fine,
    /// There are empty ones without an address.
    Holes,
}

/// Looks at the packets that are to be written.
unsafe fn look(packets: &[Packet]) -> Result<Buffers, Status> {
    let mut buffers = Buffers::Fine;
    for packet in packets {
        // SAFETY: The caller has what the packets describe.
        let pieces = unsafe { packet.pieces() }.ok_or(Status::InvalidArgument)?;
        for piece in pieces {
            if piece.iov_base.is_null() {
                if piece.iov_len != 0 {
                    return Err(Status::InvalidArgument);
                }
                buffers = Buffers::Holes;
            }
            if piece.iov_len > MOST_BYTES {
                // It is more than any packet has; the packet's own size counts.
                buffers = Buffers::Holes;
            }
        }
    }
    Ok(buffers)
}

/// The packets' buffers, without those that have no address, and none longer than a packet.
unsafe fn without_holes<'a>(packets: &[Packet]) -> Vec<Vec<IoSlice<'a>>> {
    let of = |packet: &Packet| {
        // SAFETY: `look` has been there.
        let pieces = unsafe { packet.pieces() }.unwrap_or_default();
        pieces
            .iter()
            .filter(|piece| !piece.iov_base.is_null())
            .map(|piece| {
                let length = piece.iov_len.min(MOST_BYTES);
                // SAFETY: The caller has a buffer of this length there, for the length of the call.
                IoSlice::new(unsafe { slice::from_raw_parts(piece.iov_base.cast(), length) })
            })
            .collect()
    };
    packets.iter().map(of).collect()
}

/// Writes packets from where they are.
#[inline]
unsafe fn write_as_they_are(
    interface: &openvmnet::Interface,
    packets: &[Packet],
) -> Result<usize, Error> {
    interface.write_from(packets.iter().map(|packet| WritePacket {
        size: packet.size,
        // SAFETY: An `IoSlice` has the layout of an `iovec`, and `look` has found addresses in all.
        buffers: unsafe {
            let pieces = packet.pieces().unwrap_or_default();
            slice::from_raw_parts(pieces.as_ptr().cast::<IoSlice<'_>>(), pieces.len())
        },
    }))
}

#[cold]
unsafe fn write_without_holes(
    interface: &openvmnet::Interface,
    packets: &[Packet],
) -> Result<usize, Error> {
    // SAFETY: `look` has been there.
    let all = unsafe { without_holes(packets) };
    let written = packets
        .iter()
        .zip(&all)
        .map(|(packet, buffers)| WritePacket {
            size: packet.size,
            buffers,
        });
    interface.write_from(written)
}

/// Writes all of the packets, or none. Where there is no room for a while, it drops them as a switch does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_write(
    interface: Ref,
    packets: *mut Packet,
    count: *mut c_int,
) -> Return {
    let write = || {
        // SAFETY: The caller has packets and a count, or null.
        let (packets, told) = unsafe { described(packets, count) }?;
        if packets.len() > MAX_PACKETS {
            return Err(Status::TooManyPackets);
        }
        let packets = &*packets;
        // SAFETY: The caller has what the packets describe.
        let buffers = unsafe { look(packets) }?;
        // SAFETY: The caller has null or a live handle, and `look` has seen the packets.
        let written = unsafe {
            running(interface, |interface| {
                status(match buffers {
                    Buffers::Fine => write_as_they_are(interface, packets),
                    Buffers::Holes => write_without_holes(interface, packets),
                })
            })
        };
        tell(told, written?);
        Ok(())
    };
    border(Err(Status::Failure), write)
        .err()
        .unwrap_or(Status::Success)
        .code()
}
