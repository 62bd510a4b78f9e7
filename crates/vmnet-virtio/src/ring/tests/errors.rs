//! Drivers that err: each mistake has its answer.

use std::sync::atomic::Ordering;

use super::*;
use crate::memory::MemoryMap;

const SIZE: u16 = 8;
const DATA: u64 = 0x1_0000_8000;

/// A driver that writes what it is told.
struct Rogue {
    memory: Arc<MemoryMap>,
    config: RingConfig,
    device: Ring,
    slices: Slices,
}

impl Rogue {
    fn new(packed: bool, indirect: bool) -> Self {
        let mut memory = OwnMemory::of_heap(0x1_0000);
        let shape = Shape {
            size: SIZE,
            packed,
            event_idx: false,
            indirect: u16::from(indirect),
        };
        let config = DriverRing::new(&mut memory, shape).unwrap().config();
        Self {
            device: Ring::start(memory.map(), config).unwrap(),
            slices: Slices::new(Arc::clone(memory.map())),
            memory: Arc::clone(memory.map()),
            config,
        }
    }

    /// Writes a descriptor: of a split ring with flags and next, of a packed one with id and flags.
    fn write(&self, at: u64, index: u64, addr: u64, len: u32, second: u16, third: u16) {
        let words = self
            .memory
            .user_words::<layout::RawDescriptor>(at + 16 * index, 1)
            .unwrap();
        words[0][0].store(addr, Ordering::Relaxed);
        words[0][1].store(layout::meta(len, second, third), Ordering::Relaxed);
    }

    fn split(&self, index: u64, addr: u64, len: u32, flags: u16, next: u16) {
        self.write(self.config.descriptors, index, addr, len, flags, next);
    }

    fn packed(&self, index: u64, addr: u64, len: u32, flags: u16) {
        let flags = flags | layout::AVAIL;
        self.write(self.config.descriptors, index, addr, len, 7, flags);
    }

    fn table(&self, entries: &[(u64, u32, u16, u16)]) {
        for (index, &(addr, len, second, third)) in (0..).zip(entries) {
            self.write(DATA, index, addr, len, second, third);
        }
    }

    /// Makes `heads` available, and `index` of them known.
    fn avail(&self, heads: &[u16], index: u16) {
        let areas = layout::SplitAreas::find(&self.memory, &self.config).unwrap();
        for (slot, head) in areas.avail_ring.iter().zip(heads) {
            slot.store(*head, Ordering::Relaxed);
        }
        areas.avail.index.store(index, Ordering::Release);
    }

    fn take(&mut self) -> Result<Option<Chain>, RingError> {
        self.device.take(&mut self.slices)
    }

    /// The next chain has this fault and no bytes, and the ring goes on.
    fn expect_fault(&mut self, fault: Fault) {
        let chain = self.take().unwrap().expect("a chain");
        assert_eq!(chain.fault, Some(fault));
        assert_eq!((chain.readable, chain.writable), (0, 0));
        assert!(chain.to_read().is_empty() && chain.to_write().is_empty());
        assert_eq!(self.slices.len(), 0, "no slice of it stays");
        self.device.give(0);
        self.device.publish();
        assert_eq!(self.take(), Ok(None));
    }

    fn expect_end(&mut self, error: RingError) {
        assert_eq!(self.take(), Err(error));
        assert_eq!(self.take(), Err(error), "it stays so");
        assert_eq!(self.device.broken(), Some(error));
    }
}

#[test]
fn an_index_that_jumps_ends_the_ring() {
    let mut ahead = Rogue::new(false, false);
    ahead.avail(&[], SIZE + 1);
    ahead.expect_end(RingError::Jumped {
        ahead: SIZE + 1,
        size: SIZE,
    });

    let mut back = Rogue::new(false, false);
    back.split(0, DATA, 1, 0, 0);
    back.avail(&[0, 0], 2);
    assert!(back.take().unwrap().is_some());
    assert!(back.take().unwrap().is_some());
    back.avail(&[0], 1);
    back.expect_end(RingError::Jumped {
        ahead: 1,
        size: SIZE,
    });

    let mut more = Rogue::new(false, false);
    more.split(0, DATA, 1, 0, 0);
    more.avail(&[0; 8], SIZE);
    (0..SIZE).for_each(|_| assert!(more.take().unwrap().is_some()));
    more.avail(&[0], SIZE + 1);
    more.expect_end(RingError::Jumped {
        ahead: SIZE + 1,
        size: SIZE,
    });
}

#[test]
fn a_descriptor_that_is_none_ends_the_ring() {
    let mut head = Rogue::new(false, false);
    head.avail(&[SIZE], 1);
    head.expect_end(RingError::Descriptor {
        index: SIZE,
        size: SIZE,
    });

    let mut next = Rogue::new(false, false);
    next.split(3, DATA, 1, NEXT, 0xffff);
    next.avail(&[3], 1);
    next.expect_end(RingError::Descriptor {
        index: 0xffff,
        size: SIZE,
    });
}

#[test]
fn a_loop_ends_the_ring() {
    let mut split = Rogue::new(false, false);
    split.split(0, DATA, 1, NEXT, 1);
    split.split(1, DATA, 1, NEXT, 0);
    split.avail(&[0], 1);
    split.expect_end(RingError::Endless(SIZE));

    let mut packed = Rogue::new(true, false);
    for index in 0..u64::from(SIZE) {
        packed.packed(index, DATA, 1, NEXT);
    }
    packed.expect_end(RingError::Endless(SIZE));
}

#[test]
fn what_was_not_negotiated_ends_the_ring() {
    let mut split = Rogue::new(false, false);
    split.split(0, DATA, 16, INDIRECT, 0);
    split.avail(&[0], 1);
    split.expect_end(RingError::Indirect);

    let mut packed = Rogue::new(true, false);
    packed.packed(0, DATA, 16, INDIRECT);
    packed.expect_end(RingError::Indirect);
}

#[test]
fn buffers_outside_of_memory_are_a_fault_of_their_chain() {
    for (addr, len) in [
        (0, 1),
        (0x1_0000_ffff, 2),
        (0x1_0001_0000, 1),
        (u64::MAX, 1),
        (u64::MAX - 1, u32::MAX),
        (DATA, u32::MAX),
    ] {
        let mut split = Rogue::new(false, true);
        split.split(0, DATA, 5, NEXT, 1);
        split.split(1, addr, len, 0, 0);
        split.avail(&[0], 1);
        split.expect_fault(Fault::Outside);

        let mut packed = Rogue::new(true, true);
        packed.packed(1, addr, len, 0);
        packed.packed(0, DATA, 5, NEXT);
        packed.expect_fault(Fault::Outside);
    }
}

#[test]
fn what_is_to_be_read_comes_first() {
    let mut split = Rogue::new(false, false);
    split.split(0, DATA, 5, NEXT | WRITE, 1);
    split.split(1, DATA, 5, 0, 0);
    split.avail(&[0], 1);
    split.expect_fault(Fault::Order);
}

#[test]
fn empty_buffers_count_nothing() {
    let mut split = Rogue::new(false, false);
    split.split(0, 0, 0, NEXT, 1);
    split.split(1, DATA, 3, NEXT, 2);
    split.split(2, u64::MAX, 0, NEXT | WRITE, 4);
    split.split(4, DATA, 6, WRITE, 0);
    split.avail(&[0], 1);
    let chain = split.take().unwrap().unwrap();
    assert_eq!((chain.fault, chain.readable, chain.writable), (None, 3, 6));
    assert_eq!((chain.to_read(), chain.to_write()), (0..1, 1..2));
}

#[test]
fn tables_of_impossible_lengths_are_faults() {
    for len in [0, 8, 17, 16 * u32::from(chain::CHAIN_MAX) + 16, u32::MAX] {
        for packed in [false, true] {
            let mut rogue = Rogue::new(packed, true);
            rogue.split(0, DATA, len, INDIRECT, 0);
            rogue.avail(&[0], 1);
            if packed {
                rogue.packed(0, DATA, len, INDIRECT);
            }
            rogue.expect_fault(Fault::Table);
        }
    }
}

#[test]
fn tables_that_leave_memory_or_themselves_are_faults() {
    let mut outside = Rogue::new(false, true);
    outside.split(0, 0x1_0000_fff8, 16, INDIRECT, 0);
    outside.avail(&[0], 1);
    outside.expect_fault(Fault::Table);

    let mut beyond = Rogue::new(false, true);
    beyond.table(&[(DATA, 1, NEXT, 1)]);
    beyond.split(0, DATA, 16, INDIRECT, 0);
    beyond.avail(&[0], 1);
    beyond.expect_fault(Fault::NotLast);

    let mut wild = Rogue::new(false, true);
    wild.table(&[(DATA, 1, NEXT, 9), (DATA, 1, 0, 0)]);
    wild.split(0, DATA, 32, INDIRECT, 0);
    wild.avail(&[0], 1);
    wild.expect_fault(Fault::Table);

    let mut circle = Rogue::new(false, true);
    circle.table(&[(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)]);
    circle.split(0, DATA, 32, INDIRECT, 0);
    circle.avail(&[0], 1);
    circle.expect_fault(Fault::NotLast);
}

#[test]
fn tables_in_tables_are_faults() {
    let mut split = Rogue::new(false, true);
    split.table(&[(DATA, 16, INDIRECT, 0)]);
    split.split(0, DATA, 16, INDIRECT, 0);
    split.avail(&[0], 1);
    split.expect_fault(Fault::Nested);

    let mut packed = Rogue::new(true, true);
    packed.table(&[(DATA, 16, 0, INDIRECT)]);
    packed.packed(0, DATA, 16, INDIRECT);
    packed.expect_fault(Fault::Nested);
}

#[test]
fn a_table_is_the_end_of_its_chain() {
    let mut split = Rogue::new(false, true);
    split.table(&[(DATA, 1, 0, 0)]);
    split.split(0, DATA, 16, INDIRECT | NEXT, 1);
    split.split(1, DATA, 1, 0, 0);
    split.avail(&[0], 1);
    split.expect_fault(Fault::NotLast);

    let mut behind_direct = Rogue::new(false, true);
    behind_direct.table(&[(DATA, 1, 0, 0)]);
    behind_direct.split(0, DATA, 4, NEXT, 1);
    behind_direct.split(1, DATA, 16, INDIRECT, 0);
    behind_direct.avail(&[0], 1);
    let chain = behind_direct.take().unwrap().unwrap();
    assert_eq!((chain.fault, chain.readable), (None, 5), "which is allowed");
}

#[test]
fn buffers_in_too_many_pieces_are_a_fault() {
    let mut rogue = Rogue::new(false, true);
    let mut entries: Vec<_> = (1..=600).map(|next| (DATA, 1, NEXT, next)).collect();
    entries.push((DATA, 1, 0, 0));
    rogue.table(&entries);
    rogue.split(0, DATA, 16 * 601, INDIRECT, 0);
    rogue.avail(&[0], 1);
    rogue.expect_fault(Fault::Pieces);
}
