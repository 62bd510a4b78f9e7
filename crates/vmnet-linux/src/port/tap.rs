//! A tap with a virtio-net header before each frame: large segments and unfinished checksums pass both ways.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vmnet_core::Drop;
use vmnet_wire::offload::{Checksum, Kind, Offload};
use vmnet_wire::segment::Layout;
use vmnet_wire::unfinished;

use crate::lane::PortOffload;
use crate::port::{FRAME_MAX, Outgoing, software};
use crate::sys::places::Places;

/// Frames that a tap made by us holds on the way to us (`txqueuelen`).
pub(crate) const QUEUE: usize = 4096;

/// A tap.
#[derive(Debug)]
pub(crate) struct Tap {
    fd: OwnedFd,
    /// The kernel on the other side takes several UDP datagrams as one (Linux 6.2).
    udp_segments: bool,
    /// Bytes of the virtio-net header.
    header: usize,
}

impl Tap {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            udp_segments: true,
            header: Offload::HEADER_LEN,
        }
    }

    /// A packet socket, whose frames come and go as a tap's do; before them are so many bytes of the virtio-net header.
    pub(crate) fn packet_socket(fd: OwnedFd, header: usize) -> Self {
        Self {
            header: header.min(Offload::HEADER_LEN),
            ..Self::new(fd)
        }
    }

    /// Bytes of the virtio-net header before each frame.
    pub(crate) fn header(&self) -> usize {
        self.header
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads the next frame into `frame`, of at least [`FRAME_MAX`] bytes. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// The tap is gone, or a frame's header says what cannot be (`InvalidData`).
    pub(crate) fn receive(&self, frame: &mut [u8]) -> io::Result<Option<(usize, Offload)>> {
        debug_assert!(frame.len() >= FRAME_MAX);
        let mut header = [0; Offload::HEADER_LEN];
        let (said, _) = header.split_at_mut(self.header);
        let mut pieces = [IoSliceMut::new(said), IoSliceMut::new(frame)];
        let len = match rustix::io::readv(&self.fd, &mut pieces) {
            Ok(len) => len,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let len = len
            .checked_sub(self.header)
            .ok_or(io::ErrorKind::InvalidData)?;
        let offload = read_offload(&header)?;
        judge(frame.get(..len).unwrap_or(&[]), &offload)?;
        Ok(Some((len, offload)))
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// The frame was dropped.
    pub(crate) fn send(
        &mut self,
        frame: &Outgoing<'_>,
        mtu: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Drop> {
        let udp = frame
            .offload
            .segmentation
            .is_some_and(|s| s.kind == Kind::Udp);
        let too_long = frame.offload.segmentation.is_none() && frame.is_too_long(mtu);
        if too_long || (udp && !self.udp_segments) {
            let (fd, header) = (self.fd.as_fd(), self.header);
            let takes = PortOffload::default();
            return software::send(frame, mtu, takes, scratch, &mut |pieces| {
                let frame = Outgoing {
                    head: pieces.head,
                    body: pieces.body,
                    offload: Offload::VALID,
                };
                dropped(try_write((fd, header), &frame, &mut Vec::new()))
            });
        }
        match try_write((self.fd.as_fd(), self.header), frame, scratch) {
            // The kernel is older, or whoever opened the tap did not ask for it.
            Err(error) if udp && error.raw_os_error() == Some(libc::EINVAL) => {
                self.udp_segments = false;
                self.send(frame, mtu, scratch)
            }
            written => dropped(written),
        }
    }
}

/// What a virtio-net header says.
///
/// # Errors
/// It says what nobody asked for.
pub(crate) fn read_offload(header: &[u8; Offload::HEADER_LEN]) -> io::Result<Offload> {
    Offload::read(header).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Looks whether what a header says of its frame can be.
///
/// # Errors
/// It cannot.
pub(crate) fn judge(frame: &[u8], offload: &Offload) -> io::Result<()> {
    let says_little =
        offload.segmentation.is_none() && !matches!(offload.checksum, Checksum::Partial { .. });
    if says_little || unfinished::is_sound(frame, offload) {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn try_write(
    (fd, length): (BorrowedFd<'_>, usize),
    frame: &Outgoing<'_>,
    scratch: &mut Vec<u8>,
) -> io::Result<usize> {
    let headers = match frame.offload.segmentation {
        // A head that is all headers, or the first bytes of a guest's frame.
        Some(_) => {
            Layout::find(frame.head, frame.len()).map_or(frame.head.len(), |layout| layout.payload)
        }
        None => frame.head.len(),
    };
    let header = frame.offload.write(headers);
    let header = header.get(..length).unwrap_or(&header);
    let mut places = Places::new();
    places.push(header);
    places.push(frame.head);
    frame.body.name_to(&mut places);
    if places.is_whole() {
        return places.write(fd);
    }
    let body = frame.body.gathered(scratch);
    let mut places = Places::new();
    places.push(header);
    places.push(frame.head);
    places.push(body);
    places.write(fd)
}

/// A frame that was not written is lost: the interface is down, or its queue is full.
fn dropped(written: io::Result<usize>) -> Result<(), Drop> {
    written.map(|_| ()).map_err(|_| Drop::PortFull)
}
