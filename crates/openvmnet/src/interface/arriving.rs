//! A frame on its way from the service to a program's buffers.

use std::io::IoSliceMut;

use vmnet_virtio::driver::ReceivedFrame;
use vmnet_virtio::memory::GuestSlice;
use vmnet_virtio::net::Header;

use super::Statistics;
use super::finish::{Agreed, HEADER, Work};

/// A frame on its way to a program.
pub(super) struct Arriving<'a> {
    /// What goes in front.
    header: Option<[u8; HEADER]>,
    parts: &'a [GuestSlice<'a>],
    /// A copy in which everything is done, in place of `parts`.
    done: Option<&'a [u8]>,
    len: usize,
}

impl<'a> Arriving<'a> {
    /// `None`: it is to be dropped.
    #[inline]
    pub(super) fn of(
        frame: &ReceivedFrame<'a>,
        agreed: &Agreed,
        scratch: &'a mut Vec<u8>,
    ) -> Option<Self> {
        let mut arriving = Self {
            header: agreed.header.then(|| frame.header.with_buffers(1).0),
            parts: frame.parts,
            done: None,
            len: frame.len,
        };
        if agreed.finishes() {
            let Header(header) = frame.header;
            let work = Work::of(&header, agreed)?;
            if work != Work::None {
                arriving.finish(work, scratch)?;
            }
        }
        Some(arriving)
    }

    /// The same of a packet that lies in one piece, behind its header.
    pub(super) fn of_bytes(
        packet: &'a [u8],
        agreed: &Agreed,
        scratch: &'a mut Vec<u8>,
    ) -> Option<Self> {
        let (header, frame) = packet.split_first_chunk::<HEADER>()?;
        let work = Work::of(header, agreed)?;
        let mut arriving = Self {
            header: agreed.header.then(|| Header(*header).with_buffers(1).0),
            parts: &[],
            done: Some(frame),
            len: frame.len(),
        };
        if work != Work::None {
            scratch.clear();
            scratch.extend_from_slice(frame);
            if !work.do_to(scratch) {
                return None;
            }
            arriving.done = Some(scratch);
        }
        Some(arriving)
    }

    fn finish(&mut self, work: Work, scratch: &'a mut Vec<u8>) -> Option<()> {
        scratch.resize(self.len, 0);
        let mut rest = scratch.as_mut_slice();
        for part in self.parts {
            let copied = part.copy_to(rest);
            rest = rest.get_mut(copied..).unwrap_or_default();
        }
        let done = work.do_to(scratch);
        self.done = Some(scratch);
        done.then_some(())
    }

    /// Copies it to a program's buffers: how many bytes.
    #[inline]
    pub(super) fn put(
        &self,
        room: usize,
        to: &mut [IoSliceMut<'_>],
        statistics: &Statistics,
    ) -> Option<usize> {
        let mut into = Scatter {
            to,
            at: 0,
            left: room,
        };
        let header = self.header.as_ref().map_or(&[][..], |header| &header[..]);
        let mut copied = if header.is_empty() {
            0
        } else {
            into.write(header)
        };
        match self.done {
            Some(done) => copied += into.write(done),
            None => {
                for part in self.parts {
                    copied += into.write_guest(*part);
                }
            }
        }
        if copied < self.len + header.len() {
            Statistics::add(&statistics.truncated, 1);
        }
        Some(copied)
    }
}

/// A program's buffers that are being filled.
struct Scatter<'a, 'b> {
    to: &'a mut [IoSliceMut<'b>],
    /// Bytes of the first one that are full.
    at: usize,
    /// Bytes that may come.
    left: usize,
}

impl Scatter<'_, '_> {
    /// The place for the next bytes, at most `len`; empty: there is none.
    #[inline]
    fn place(&mut self, len: usize) -> &mut [u8] {
        while self.to.first().is_some_and(|first| first.len() <= self.at) {
            let to = std::mem::take(&mut self.to);
            self.to = to.get_mut(1..).unwrap_or_default();
            self.at = 0;
        }
        let left = self.left;
        let at = self.at;
        let place = self.to.first_mut().and_then(|first| first.get_mut(at..));
        let place = place.unwrap_or_default();
        let len = place.len().min(len).min(left);
        place.get_mut(..len).unwrap_or_default()
    }

    fn took(&mut self, len: usize) {
        self.at += len;
        self.left -= len;
    }

    fn write(&mut self, mut bytes: &[u8]) -> usize {
        let mut written = 0;
        loop {
            let place = self.place(bytes.len());
            let len = place.len();
            if len == 0 {
                return written;
            }
            let (now, rest) = bytes.split_at(len);
            place.copy_from_slice(now);
            bytes = rest;
            written += len;
            self.took(len);
        }
    }

    #[inline]
    fn write_guest(&mut self, mut bytes: GuestSlice<'_>) -> usize {
        let mut written = 0;
        loop {
            let len = bytes.copy_to(self.place(bytes.len()));
            if len == 0 {
                return written;
            }
            (_, bytes) = bytes.split_at(len);
            written += len;
            self.took(len);
        }
    }
}
