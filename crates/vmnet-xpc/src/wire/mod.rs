//! Messages as bytes, and back.
//!
//! | file | what |
//! | --- | --- |
//! | `mod` | the frame around a message, and the limits |
//! | `write` | a dictionary to bytes and descriptors |
//! | `read` | bytes and descriptors to a dictionary |
//! | `stream` | frames out of a stream that comes in pieces |
//!
//! A frame is 24 bytes of head and a body. All numbers are little-endian. Descriptors travel beside the bytes, in the order
//! in which the body names them. What comes from a peer is limited in size, depth, number of objects and of
//! descriptors, and memory is only taken for what has arrived.

mod read;
mod stream;
mod write;

pub use read::{ReadError, read};
pub use stream::{Frame, Stream};
pub use write::{WriteError, write};

use std::os::fd::OwnedFd;

/// The most bytes of a body.
pub const MOST_BYTES: usize = 16 << 20;
/// How deep containers can be in each other.
pub const MOST_DEPTH: usize = 64;
/// The most objects in a message.
pub const MOST_OBJECTS: usize = 1 << 18;
/// The most descriptors in a message; the kernel's limit for one call is 253.
pub const MOST_DESCRIPTORS: usize = 64;

/// How long a frame's head is.
pub const HEAD: usize = 24;
const MAGIC: u32 = u32::from_le_bytes(*b"VXP1");

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A message.
    Message,
    /// A message that wants an answer.
    Question,
    /// An answer.
    Reply,
    /// That there was an answer which could not be sent.
    Refusal,
}

/// What a frame's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the body.
    pub length: u32,
    /// Which question this is, or answers.
    pub id: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// Descriptors beside the body.
    pub descriptors: u8,
}

impl Head {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEAD] {
        let purpose = match self.purpose {
            Purpose::Message => 0,
            Purpose::Question => 1,
            Purpose::Reply => 2,
            Purpose::Refusal => 3,
        };
        let mut bytes = [0; HEAD];
        let fields = MAGIC.to_le_bytes().into_iter();
        let fields = fields
            .chain(self.length.to_le_bytes())
            .chain(self.id.to_le_bytes());
        for (place, byte) in bytes
            .iter_mut()
            .zip(fields.chain([purpose, self.descriptors]))
        {
            *place = byte;
        }
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    ///
    /// What no peer of ours writes.
    pub fn from_bytes(bytes: &[u8; HEAD]) -> Result<Self, ReadError> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(ReadError::Truncated)?;
        let (length, rest) = rest.split_first_chunk().ok_or(ReadError::Truncated)?;
        let (id, rest) = rest.split_first_chunk().ok_or(ReadError::Truncated)?;
        let (&[purpose, descriptors], reserved) =
            rest.split_first_chunk().ok_or(ReadError::Truncated)?;
        if u32::from_le_bytes(*magic) != MAGIC || reserved.iter().any(|byte| *byte != 0) {
            return Err(ReadError::NoFrame);
        }
        let purpose = match purpose {
            0 => Purpose::Message,
            1 => Purpose::Question,
            2 => Purpose::Reply,
            3 => Purpose::Refusal,
            _ => return Err(ReadError::NoFrame),
        };
        let length = u32::from_le_bytes(*length);
        if length as usize > MOST_BYTES {
            return Err(ReadError::TooLong);
        }
        if usize::from(descriptors) > MOST_DESCRIPTORS {
            return Err(ReadError::TooManyDescriptors);
        }
        Ok(Self {
            length,
            id: u64::from_le_bytes(*id),
            purpose,
            descriptors,
        })
    }
}

/// A message's body and the descriptors beside it.
#[derive(Debug, Default)]
pub struct Written {
    /// The body.
    pub bytes: Vec<u8>,
    /// The descriptors, in the body's order.
    pub descriptors: Vec<OwnedFd>,
}

/// What stands before a value.
mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const INT64: u8 = 3;
    pub(super) const UINT64: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const DATE: u8 = 6;
    pub(super) const DATA: u8 = 7;
    pub(super) const STRING: u8 = 8;
    pub(super) const UUID: u8 = 9;
    pub(super) const FD: u8 = 10;
    pub(super) const ENDPOINT: u8 = 11;
    pub(super) const ARRAY: u8 = 12;
    pub(super) const DICTIONARY: u8 = 13;
}

#[cfg(test)]
mod tests;
