//! What stands in line to be sent.

use super::link::Link;
use crate::wire::{Head, Purpose, Written};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// The most bytes that may wait for a peer that does not read.
const MOST_BYTES: usize = 64 << 20;

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

/// What stands in line to be sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Outgoing {
    /// Puts a message into the line; false if the line is too long.
    pub(super) fn push(&mut self, written: Written, purpose: Purpose, id: u64) -> bool {
        let (Ok(length), Ok(descriptors)) = (
            u32::try_from(written.bytes.len()),
            u8::try_from(written.descriptors.len()),
        ) else {
            return false;
        };
        let mut bytes = Head {
            length,
            id,
            purpose,
            descriptors,
        }
        .to_bytes()
        .to_vec();
        bytes.extend_from_slice(&written.bytes);
        self.bytes += bytes.len();
        self.frames.push_back(Frame {
            bytes,
            sent: 0,
            descriptors: written.descriptors,
        });
        self.bytes <= MOST_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self, link: &Link) -> Result<(), Errno> {
        while let Some(frame) = self.frames.front_mut() {
            let rest = frame.bytes.get(frame.sent..).unwrap_or_default();
            match link.send(rest, &frame.descriptors) {
                Ok(sent) => {
                    // They went with the first byte.
                    frame.descriptors.clear();
                    frame.sent += sent;
                    self.bytes = self.bytes.saturating_sub(sent);
                    if frame.sent >= frame.bytes.len() {
                        self.frames.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
