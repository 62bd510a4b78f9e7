//! Descriptors become slices of guest memory.

use std::ops::Range;

use super::layout::{DESCRIPTOR, INDIRECT, NEXT, WRITE, split_meta};
use crate::memory::Slices;

/// Most descriptors of a chain: as many as one system call takes buffers.
pub const CHAIN_MAX: u16 = 1024;
/// Most pieces of memory of a chain. Linux makes 19 of its largest frame.
const PIECES_MAX: usize = 512;

/// Buffers that the driver made available together: first those that we may read, then those to write to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// Where its slices begin in the list.
    start: usize,
    /// Where the writable ones begin.
    writable_start: usize,
    /// Where they end.
    end: usize,
    /// Bytes to read.
    pub readable: u64,
    /// Bytes to write to.
    pub writable: u64,
    /// It cannot be used, and has neither slices nor bytes. It is given back like any other.
    pub fault: Option<Fault>,
}

/// What is wrong with a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, thiserror::Error)]
pub enum Fault {
    /// A buffer is not in the guest's memory.
    #[error("a buffer is outside of the guest's memory")]
    Outside,
    /// A buffer to read behind one to write to.
    #[error("a buffer to read comes behind one to write to")]
    Order,
    /// An indirect table that is empty, too long, not of whole descriptors, or not all in memory.
    #[error("an indirect table is not of a possible length, or outside of the guest's memory")]
    Table,
    /// An indirect table in an indirect table.
    #[error("an indirect table is in an indirect table")]
    Nested,
    /// Something behind an indirect table, or a loop in it.
    #[error("an indirect table is not the end of its chain, or does not end itself")]
    NotLast,
    /// Buffers to read where there should be some to write to, or the other way round.
    #[error("the buffers are for the other direction")]
    Direction,
    /// More than anybody needs.
    #[error("the buffers are in too many pieces")]
    Pieces,
}

impl Chain {
    /// A chain of one buffer.
    #[inline(always)]
    pub(super) fn of_one(slices: &mut Slices, buffer: Buffer) -> Self {
        let start = slices.len();
        let Buffer { addr, len, write } = buffer;
        if len == 0 || slices.push_near(addr, len).is_none() {
            let mut walk = Walk::new(slices);
            walk.buffer(addr, len, if write { WRITE } else { 0 });
            return walk.end();
        }
        let end = slices.len();
        let len = u64::from(len);
        let (writable_start, readable, writable) = if write {
            (start, 0, len)
        } else {
            (end, len, 0)
        };
        Self {
            start,
            writable_start,
            end,
            readable,
            writable,
            fault: None,
        }
    }

    /// Its slices to read, in the list that it was taken into.
    #[must_use]
    pub fn to_read(&self) -> Range<usize> {
        self.start..self.writable_start
    }

    /// Its slices to write to.
    #[must_use]
    pub fn to_write(&self) -> Range<usize> {
        self.writable_start..self.end
    }
}

/// The buffer of a chain that has only one, as most have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Buffer {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    /// To write to.
    pub(crate) write: bool,
}

impl Buffer {
    /// What a descriptor says, if it is all of its chain.
    #[inline(always)]
    pub(super) fn alone(addr: u64, len: u32, flags: u16) -> Option<Self> {
        let write = flags & WRITE != 0;
        (flags & (NEXT | INDIRECT) == 0).then_some(Self { addr, len, write })
    }
}

/// A chain while its descriptors are read.
#[derive(Debug)]
pub(super) struct Walk<'s> {
    slices: &'s mut Slices,
    chain: Chain,
}

impl<'s> Walk<'s> {
    #[inline]
    pub(super) fn new(slices: &'s mut Slices) -> Self {
        let start = slices.len();
        Self {
            slices,
            chain: Chain {
                start,
                writable_start: start,
                end: start,
                ..Chain::default()
            },
        }
    }

    /// The next buffer.
    #[inline]
    pub(super) fn buffer(&mut self, addr: u64, len: u32, flags: u16) {
        if self.chain.fault.is_some() {
            return;
        }
        let len = u64::from(len);
        if flags & WRITE != 0 {
            self.chain.writable = self.chain.writable.saturating_add(len);
        } else if self.chain.writable > 0 {
            return self.fault(Fault::Order);
        } else {
            self.chain.readable = self.chain.readable.saturating_add(len);
        }
        if self.slices.push(addr, len).is_err() {
            return self.fault(Fault::Outside);
        }
        if flags & WRITE == 0 {
            self.chain.writable_start = self.slices.len();
        }
        if self.slices.len().saturating_sub(self.chain.start) > PIECES_MAX {
            self.fault(Fault::Pieces);
        }
    }

    /// An indirect table of a split ring: its descriptors name each other.
    pub(super) fn split_table(&mut self, addr: u64, len: u32, flags: u16) {
        let Some(entries) = self.entries(len, flags) else {
            return;
        };
        let mut index = 0;
        for _ in 0..entries {
            let Some((addr, len, flags, next)) = self.entry(addr, entries, index) else {
                return;
            };
            self.table_buffer(addr, len, flags);
            if flags & NEXT == 0 {
                return;
            }
            index = next;
        }
        self.fault(Fault::NotLast);
    }

    /// An indirect table of a packed ring: all of its descriptors, in order.
    pub(super) fn packed_table(&mut self, addr: u64, len: u32, flags: u16) {
        let Some(entries) = self.entries(len, flags) else {
            return;
        };
        for index in 0..entries {
            // The second half has length, id and flags: the flags are the last here.
            let Some((addr, len, _, flags)) = self.entry(addr, entries, index) else {
                return;
            };
            self.table_buffer(addr, len, flags);
            if self.chain.fault.is_some() {
                return;
            }
        }
    }

    /// How many descriptors a table of `len` bytes has.
    fn entries(&mut self, len: u32, flags: u16) -> Option<u16> {
        if flags & NEXT != 0 {
            self.fault(Fault::NotLast);
            return None;
        }
        let descriptor = u32::try_from(DESCRIPTOR).unwrap_or(u32::MAX);
        let entries = len.checked_div(descriptor).unwrap_or(0);
        let whole = len.checked_rem(descriptor) == Some(0);
        match u16::try_from(entries) {
            Ok(entries @ 1..=CHAIN_MAX) if whole => Some(entries),
            _ => {
                self.fault(Fault::Table);
                None
            }
        }
    }

    /// Descriptor `index` of a table of `entries` at `table`, read once.
    fn entry(&mut self, table: u64, entries: u16, index: u16) -> Option<(u64, u32, u16, u16)> {
        let len = u64::try_from(DESCRIPTOR).unwrap_or(0);
        let mut bytes = [0; DESCRIPTOR];
        let at = u64::from(index).saturating_mul(len);
        let addr = table.checked_add(at).filter(|_| index < entries);
        let read = addr.map(|addr| self.slices.read_at(addr, &mut bytes));
        if read != Some(Ok(())) {
            self.fault(Fault::Table);
            return None;
        }
        let [
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            m0,
            m1,
            m2,
            m3,
            m4,
            m5,
            m6,
            m7,
        ] = bytes;
        let addr = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        let meta = u64::from_le_bytes([m0, m1, m2, m3, m4, m5, m6, m7]);
        let (len, second, third) = split_meta(meta);
        Some((addr, len, second, third))
    }

    fn table_buffer(&mut self, addr: u64, len: u32, flags: u16) {
        if flags & INDIRECT != 0 {
            self.fault(Fault::Nested);
        } else {
            self.buffer(addr, len, flags);
        }
    }

    /// The chain is of no use, for the first reason that is found.
    #[cold]
    fn fault(&mut self, fault: Fault) {
        let fault = self.chain.fault.unwrap_or(fault);
        let start = self.chain.start;
        self.slices.truncate(start);
        self.chain = Chain {
            start,
            writable_start: start,
            end: start,
            fault: Some(fault),
            ..Chain::default()
        };
    }

    #[inline]
    pub(super) fn end(mut self) -> Chain {
        self.chain.end = self.slices.len();
        self.chain
    }
}
