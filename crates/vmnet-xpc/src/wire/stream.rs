//! Frames out of a stream that comes in pieces.

use super::{HEAD, Head, MOST_DESCRIPTORS, Purpose, ReadError, read};
use crate::dictionary::Dictionary;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// A message that has arrived.
#[derive(Debug)]
pub struct Frame {
    /// Which question it is, or answers.
    pub id: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// What it says.
    pub message: Dictionary,
}

/// What has arrived and is not a frame yet.
#[derive(Debug, Default)]
pub struct Stream {
    bytes: Vec<u8>,
    /// How many of `bytes` have been read.
    read: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl Stream {
    /// Something has arrived.
    pub fn push(&mut self, bytes: &[u8], descriptors: impl IntoIterator<Item = OwnedFd>) {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.descriptors.extend(descriptors);
    }

    /// The next frame that is whole. After an error there is none any more.
    ///
    /// # Errors
    ///
    /// What arrived is not what peers of ours write.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else {
            return self.wait();
        };
        let head = Head::from_bytes(head)?;
        let length = usize::try_from(head.length).map_err(|_| ReadError::TooLong)?;
        let Some(body) = rest.get(..length) else {
            return self.wait();
        };
        let count = usize::from(head.descriptors);
        if self.descriptors.len() < count {
            return Err(ReadError::NoDescriptor);
        }
        let message = read(body, self.descriptors.drain(..count))?;
        self.read += HEAD + length;
        Ok(Some(Frame {
            id: head.id,
            purpose: head.purpose,
            message,
        }))
    }

    /// No frame yet. Descriptors come with the first bytes of their frame, so only those of one can be waiting.
    fn wait(&self) -> Result<Option<Frame>, ReadError> {
        if self.descriptors.len() > MOST_DESCRIPTORS {
            return Err(ReadError::TooManyDescriptors);
        }
        Ok(None)
    }
}
