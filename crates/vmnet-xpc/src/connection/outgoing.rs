//! What stands in line to be sent.

use super::link::Link;
use crate::failure::Unsent;
use crate::wire::{HEAD, Head, Purpose, Written};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// The most bytes that may wait for a peer that does not read.
const MOST_BYTES: usize = 64 << 20;
/// Beyond that, what those are told whose answers found no room.
const REFUSALS: usize = 1 << 20;

/// Whether an error is one of the message, and the socket goes on.
fn is_of_the_message(error: Errno) -> bool {
    matches!(
        error,
        Errno::TOOMANYREFS | Errno::INVAL | Errno::MSGSIZE | Errno::NOMEM | Errno::NOBUFS
    )
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
    purpose: Purpose,
    id: u64,
}

/// A message that the kernel does not take. Nothing of it went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) purpose: Purpose,
    pub(super) id: u64,
}

/// What stands in line to be sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Outgoing {
    /// Puts a message into the line, unless that is too long.
    pub(super) fn push(
        &mut self,
        written: Written,
        purpose: Purpose,
        id: u64,
    ) -> Result<(), Unsent> {
        let (Ok(length), Ok(descriptors)) = (
            u32::try_from(written.bytes.len()),
            u8::try_from(written.descriptors.len()),
        ) else {
            return Err(Unsent::LineFull);
        };
        let most = match purpose {
            Purpose::Refusal => MOST_BYTES + REFUSALS,
            Purpose::Message | Purpose::Question | Purpose::Reply => MOST_BYTES,
        };
        if self.bytes + HEAD + written.bytes.len() > most {
            return Err(Unsent::LineFull);
        }
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
            purpose,
            id,
        });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends what the socket takes, up to a message that is refused: that one is taken out of the line.
    pub(super) fn flush(&mut self, link: &Link) -> Result<Option<Refused>, Errno> {
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
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) if frame.sent == 0 && is_of_the_message(error) => {
                    let (purpose, id) = (frame.purpose, frame.id);
                    self.bytes = self.bytes.saturating_sub(frame.bytes.len());
                    self.frames.pop_front();
                    return Ok(Some(Refused { purpose, id }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_no_answer_is_told_in_a_full_line_too() {
        let written = |len: usize| Written {
            bytes: vec![0; len],
            descriptors: Vec::new(),
        };
        let mut line = Outgoing::default();
        line.push(written(MOST_BYTES - HEAD), Purpose::Reply, 1)
            .unwrap();
        for purpose in [Purpose::Message, Purpose::Question, Purpose::Reply] {
            assert_eq!(line.push(written(8), purpose, 2), Err(Unsent::LineFull));
        }
        let told = (0..REFUSALS)
            .take_while(|_| line.push(written(8), Purpose::Refusal, 2).is_ok())
            .count();
        assert_eq!(told, REFUSALS / (HEAD + 8));
    }
}
