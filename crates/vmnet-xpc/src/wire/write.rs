//! A dictionary to bytes and descriptors.

use super::{MOST_BYTES, MOST_DEPTH, MOST_DESCRIPTORS, MOST_OBJECTS, Written, tag};
use crate::dictionary::Dictionary;
use crate::object::Body;
use std::os::fd::AsFd;

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteError {
    /// It has more than [`MOST_BYTES`].
    TooLong,
    /// Its containers are deeper in each other than [`MOST_DEPTH`], or in themselves.
    TooDeep,
    /// It has more than [`MOST_OBJECTS`].
    TooManyObjects,
    /// It has more than [`MOST_DESCRIPTORS`].
    TooManyDescriptors,
    /// It has a connection or an error in it, which mean nothing elsewhere. An endpoint can be sent.
    NotSendable,
    /// The system has no descriptors left.
    NoDescriptors,
}

struct Writer {
    out: Written,
    objects: usize,
}

/// A dictionary to bytes and descriptors.
///
/// # Errors
///
/// Beyond a limit, or not sendable.
pub fn write(dictionary: &Dictionary) -> Result<Written, WriteError> {
    let mut writer = Writer {
        out: Written::default(),
        objects: 0,
    };
    writer.dictionary(dictionary, 0)?;
    Ok(writer.out)
}

impl Writer {
    fn raw(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if self.out.bytes.len() + bytes.len() > MOST_BYTES {
            return Err(WriteError::TooLong);
        }
        self.out.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn count(&mut self, count: usize) -> Result<(), WriteError> {
        let count = u32::try_from(count).map_err(|_| WriteError::TooLong)?;
        self.raw(&count.to_le_bytes())
    }

    fn counted(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.count(bytes.len())?;
        self.raw(bytes)
    }

    fn fixed<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) -> Result<(), WriteError> {
        self.raw(&[tag])?;
        self.raw(&bytes)
    }

    fn descriptor(&mut self, tag: u8, descriptor: impl AsFd) -> Result<(), WriteError> {
        if self.out.descriptors.len() == MOST_DESCRIPTORS {
            return Err(WriteError::TooManyDescriptors);
        }
        let copy = rustix::io::fcntl_dupfd_cloexec(descriptor, 3);
        self.out
            .descriptors
            .push(copy.map_err(|_| WriteError::NoDescriptors)?);
        self.raw(&[tag])
    }

    fn dictionary(&mut self, dictionary: &Dictionary, depth: usize) -> Result<(), WriteError> {
        let entries = dictionary.snapshot();
        self.count(entries.len())?;
        for (key, value) in entries {
            self.counted(key.to_bytes())?;
            self.value(value.body(), depth + 1)?;
        }
        Ok(())
    }

    fn value(&mut self, body: &Body, depth: usize) -> Result<(), WriteError> {
        self.objects += 1;
        if self.objects > MOST_OBJECTS {
            return Err(WriteError::TooManyObjects);
        }
        if depth > MOST_DEPTH {
            return Err(WriteError::TooDeep);
        }
        match body {
            Body::Null => self.raw(&[tag::NULL]),
            Body::Bool(false) => self.raw(&[tag::FALSE]),
            Body::Bool(true) => self.raw(&[tag::TRUE]),
            Body::Int64(value) => self.fixed(tag::INT64, value.to_le_bytes()),
            Body::Uint64(value) => self.fixed(tag::UINT64, value.to_le_bytes()),
            Body::Double(value) => self.fixed(tag::DOUBLE, value.to_bits().to_le_bytes()),
            Body::Date(value) => self.fixed(tag::DATE, value.to_le_bytes()),
            Body::Uuid(value) => self.fixed(tag::UUID, *value),
            Body::Data(bytes) => {
                self.raw(&[tag::DATA])?;
                self.counted(bytes)
            }
            Body::String(text) => {
                self.raw(&[tag::STRING])?;
                self.counted(text.to_bytes())
            }
            Body::Fd(descriptor) => self.descriptor(tag::FD, descriptor),
            Body::Endpoint(endpoint) => self.descriptor(tag::ENDPOINT, endpoint.descriptor()),
            Body::Array(array) => {
                self.raw(&[tag::ARRAY])?;
                let values = array.snapshot();
                self.count(values.len())?;
                values
                    .iter()
                    .try_for_each(|value| self.value(value.body(), depth + 1))
            }
            Body::Dictionary(dictionary) => {
                self.raw(&[tag::DICTIONARY])?;
                self.dictionary(dictionary, depth)
            }
            Body::Connection(_) | Body::Error(_) => Err(WriteError::NotSendable),
        }
    }
}
