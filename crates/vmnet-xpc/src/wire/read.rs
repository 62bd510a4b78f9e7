//! Bytes and descriptors to a dictionary.

use super::{MOST_DEPTH, MOST_OBJECTS, tag};
use crate::array::Array;
use crate::connection::Endpoint;
use crate::dictionary::Dictionary;
use crate::object::{Body, Object};
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Why what a peer sent is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// It ends too early.
    Truncated,
    /// Something follows it.
    TooMuch,
    /// It does not begin like a frame.
    NoFrame,
    /// It has more bytes than [`super::MOST_BYTES`].
    TooLong,
    /// Its containers are deeper in each other than [`MOST_DEPTH`].
    TooDeep,
    /// It has more objects than [`MOST_OBJECTS`].
    TooManyObjects,
    /// It has more descriptors than [`super::MOST_DESCRIPTORS`], or than it names.
    TooManyDescriptors,
    /// It names a descriptor that did not come.
    NoDescriptor,
    /// A value of a type that nobody knows.
    UnknownType(u8),
    /// Text with a 0 in it.
    BrokenText,
    /// Two values of one name.
    SameName,
}

struct Reader<'a, D> {
    rest: &'a [u8],
    descriptors: D,
    objects: usize,
}

/// A body and the descriptors beside it to a dictionary.
///
/// # Errors
///
/// It is no message, or beyond a limit.
pub fn read(
    bytes: &[u8],
    descriptors: impl Iterator<Item = OwnedFd>,
) -> Result<Dictionary, ReadError> {
    let mut reader = Reader {
        rest: bytes,
        descriptors,
        objects: 0,
    };
    let dictionary = reader.dictionary(0)?;
    if !reader.rest.is_empty() {
        return Err(ReadError::TooMuch);
    }
    if reader.descriptors.next().is_some() {
        return Err(ReadError::TooManyDescriptors);
    }
    Ok(dictionary)
}

impl<D: Iterator<Item = OwnedFd>> Reader<'_, D> {
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn count(&mut self) -> Result<usize, ReadError> {
        let count = u32::from_le_bytes(self.fixed()?);
        usize::try_from(count).map_err(|_| ReadError::TooLong)
    }

    fn counted(&mut self) -> Result<&[u8], ReadError> {
        let count = self.count()?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<CString, ReadError> {
        CString::new(self.counted()?).map_err(|_| ReadError::BrokenText)
    }

    fn descriptor(&mut self) -> Result<OwnedFd, ReadError> {
        self.descriptors.next().ok_or(ReadError::NoDescriptor)
    }

    fn dictionary(&mut self, depth: usize) -> Result<Dictionary, ReadError> {
        let dictionary = Dictionary::default();
        for _ in 0..self.count()? {
            let key = self.text()?;
            let value = self.value(depth + 1)?;
            if dictionary.set(&key, Some(value)).is_some() {
                return Err(ReadError::SameName);
            }
        }
        Ok(dictionary)
    }

    fn value(&mut self, depth: usize) -> Result<Object, ReadError> {
        self.objects += 1;
        if self.objects > MOST_OBJECTS {
            return Err(ReadError::TooManyObjects);
        }
        if depth > MOST_DEPTH {
            return Err(ReadError::TooDeep);
        }
        let [tag] = self.fixed()?;
        let body = match tag {
            tag::NULL => Body::Null,
            tag::FALSE => Body::Bool(false),
            tag::TRUE => Body::Bool(true),
            tag::INT64 => Body::Int64(i64::from_le_bytes(self.fixed()?)),
            tag::UINT64 => Body::Uint64(u64::from_le_bytes(self.fixed()?)),
            tag::DOUBLE => Body::Double(f64::from_bits(u64::from_le_bytes(self.fixed()?))),
            tag::DATE => Body::Date(i64::from_le_bytes(self.fixed()?)),
            tag::UUID => Body::Uuid(self.fixed()?),
            tag::DATA => Body::Data(self.counted()?.into()),
            tag::STRING => Body::String(self.text()?),
            tag::FD => Body::Fd(self.descriptor()?),
            tag::ENDPOINT => Body::Endpoint(Endpoint::new(self.descriptor()?)),
            tag::ARRAY => {
                let array = Array::default();
                for _ in 0..self.count()? {
                    array.push(self.value(depth + 1)?);
                }
                Body::Array(array)
            }
            tag::DICTIONARY => Body::Dictionary(self.dictionary(depth)?),
            unknown => return Err(ReadError::UnknownType(unknown)),
        };
        Ok(Object::new(body))
    }
}
