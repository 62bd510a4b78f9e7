//! Ring structures in guest memory, by atomic accesses.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use super::mapping::Mapping;
use super::slice::GuestSlice;

/// A structure that others may change while we refer to it.
///
/// # Safety
/// It consists of atomics only, has no padding, and any bytes are a value of it.
pub unsafe trait Word {}

// SAFETY: any two bytes are an `AtomicU16`.
unsafe impl Word for AtomicU16 {}
// SAFETY: any four bytes are an `AtomicU32`.
unsafe impl Word for AtomicU32 {}
// SAFETY: any eight bytes are an `AtomicU64`.
unsafe impl Word for AtomicU64 {}
// SAFETY: an array has no padding beyond that of its elements.
unsafe impl<T: Word, const N: usize> Word for [T; N] {}

/// One structure (`Words<T>`) or a list of them (`Words<[T]>`) in guest memory, which it keeps mapped.
///
/// It consists of atomics, so what the guest does to it is at worst a surprising value.
pub struct Words<T: ?Sized> {
    words: NonNull<T>,
    _mapping: Arc<Mapping>,
}

// SAFETY: these are atomics in memory that belongs to no thread.
unsafe impl<T: Word> Send for Words<T> {}
// SAFETY: as above.
unsafe impl<T: Word> Sync for Words<T> {}
// SAFETY: as above.
unsafe impl<T: Word> Send for Words<[T]> {}
// SAFETY: as above.
unsafe impl<T: Word> Sync for Words<[T]> {}

impl<T: Word> Words<[T]> {
    /// `count` structures in `piece`, which is in `mapping`; `None` if it is not aligned or not so long.
    pub(super) fn new(mapping: &Arc<Mapping>, piece: GuestSlice<'_>, count: usize) -> Option<Self> {
        let start = piece.as_ptr().cast::<T>();
        if !start.is_aligned() || count.checked_mul(size_of::<T>())? > piece.len() {
            return None;
        }
        Some(Self {
            words: NonNull::slice_from_raw_parts(NonNull::new(start)?, count),
            _mapping: Arc::clone(mapping),
        })
    }

    /// The first alone, if there is one.
    pub(super) fn first_only(self) -> Option<Words<T>> {
        let first = NonNull::from(self.first()?);
        Some(Words {
            words: first,
            _mapping: self._mapping,
        })
    }
}

impl<T: Word> Deref for Words<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it is an element of the list that `new` checked, with the same mapping.
        unsafe { self.words.as_ref() }
    }
}

impl<T: Word> Deref for Words<[T]> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` has checked alignment and length; the bytes stay mapped with `_mapping`; any
        // bytes are a `T`, and as `T` is made of atomics, others may change them meanwhile.
        unsafe { self.words.as_ref() }
    }
}

impl<T: ?Sized> fmt::Debug for Words<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "words at {:p}", self.words)
    }
}
