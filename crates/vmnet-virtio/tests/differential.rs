//! Our split ring and that of `virtio-queue`, on two memories to which the same driver does the same: what they
//! find and what they write must be equal.

use std::fs::File;
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmnet_virtio::memory::{MemoryMap, RegionSource, Slices};
use vmnet_virtio::ring::{Ring, RingConfig};

/// Two regions of so many bytes, next to each other: buffers lie across the border.
const REGION: u64 = 0x1_0000;
/// Where the used ring is. The mock's own place for it is in the middle of its available ring.
const USED: u64 = 0x4000;
/// Where buffers and tables are, behind the ring.
const DATA: u64 = 0xf000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A buffer: its length and whether the device writes to it.
type Part = (u16, bool);

#[derive(Clone, Debug)]
enum Step {
    Chain { parts: Vec<Part>, indirect: bool },
    UsedEvent(u16),
    Take,
    Give { count: usize },
    EnableKicks,
    DisableKicks,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lens = || prop::collection::vec(prop_oneof![Just(0_u16), 1_u16..300], 0..4);
    let parts = (lens(), lens()).prop_map(|(readable, writable)| {
        let readable = readable.into_iter().map(|len| (len, false));
        let writable = writable.into_iter().map(|len| (len, true));
        let mut parts: Vec<Part> = readable.chain(writable).collect();
        if parts.is_empty() {
            parts.push((1, true));
        }
        parts
    });
    let step = prop_oneof![
        4 => (parts, any::<bool>()).prop_map(|(parts, indirect)| Step::Chain { parts, indirect }),
        1 => any::<u16>().prop_map(Step::UsedEvent),
        4 => Just(Step::Take),
        3 => (1_usize..4).prop_map(|count| Step::Give { count }),
        1 => Just(Step::EnableKicks),
        1 => Just(Step::DisableKicks),
    ];
    prop::collection::vec(step, 1..200)
}

fn memory() -> (File, GuestMemoryMmap) {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("differential", flags).unwrap());
    ftruncate(&file, 2 * REGION).unwrap();
    let ranges = [0, REGION].map(|start| {
        let offset = FileOffset::new(file.try_clone().unwrap(), start);
        (GuestAddress(start), REGION as usize, Some(offset))
    });
    let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
    (file, memory)
}

fn map(file: &File) -> MemoryMap {
    let regions = [0, REGION].map(|start| RegionSource {
        guest_addr: start,
        user_addr: start + 0x7f00_0000_0000,
        size: REGION,
        offset: start,
        file: file.try_clone().unwrap().into(),
    });
    MemoryMap::new(regions).unwrap()
}

fn image(memory: &GuestMemoryMmap) -> Vec<u8> {
    let mut bytes = vec![0; 2 * REGION as usize];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// The driver of one of the memories.
struct Driver<'m> {
    memory: &'m GuestMemoryMmap,
    mock: MockSplitQueue<'m, GuestMemoryMmap>,
    size: u16,
    avail: u16,
    /// Next free descriptor, and next free byte for buffers and tables. Both go round.
    descriptor: u16,
    data: u64,
    seed: u8,
}

impl<'m> Driver<'m> {
    fn new(memory: &'m GuestMemoryMmap, size: u16) -> Self {
        Self {
            memory,
            mock: MockSplitQueue::create(memory, GuestAddress(0), size),
            size,
            avail: 0,
            descriptor: 0,
            data: DATA,
            seed: 0,
        }
    }

    fn take_data(&mut self, len: u64) -> u64 {
        if self.data + len > 2 * REGION {
            self.data = DATA;
        }
        let at = self.data;
        self.data += len;
        at
    }

    fn chain(&mut self, parts: &[Part], indirect: bool) {
        let table = self.take_data(16 * parts.len() as u64);
        let head = self.descriptor;
        let last = parts.len() - 1;
        for (index, &(len, write)) in parts.iter().enumerate() {
            self.seed = self.seed.wrapping_add(1);
            let addr = self.take_data(len.into());
            let bytes = vec![self.seed; len.into()];
            self.memory.write_slice(&bytes, GuestAddress(addr)).unwrap();
            let mut flags = if write { WRITE } else { 0 };
            if index < last {
                flags |= NEXT;
            }
            let next = if indirect {
                index as u16 + 1
            } else {
                (self.descriptor + 1) % self.size
            };
            let raw = RawDescriptor::from(Descriptor::new(addr, len.into(), flags, next));
            if indirect {
                let at = GuestAddress(table + 16 * index as u64);
                self.memory.write_obj(raw, at).unwrap();
            } else {
                self.mock.desc_table().store(self.descriptor, raw).unwrap();
                self.descriptor = next;
            }
        }
        if indirect {
            let len = 16 * parts.len() as u32;
            let raw = RawDescriptor::from(Descriptor::new(table, len, INDIRECT, 0));
            self.mock.desc_table().store(self.descriptor, raw).unwrap();
            self.descriptor = (self.descriptor + 1) % self.size;
        }
        let slot = usize::from(self.avail % self.size);
        self.mock.avail().ring().ref_at(slot).unwrap().store(head);
        self.avail = self.avail.wrapping_add(1);
        self.mock.avail().idx().store(self.avail);
    }

    fn used_event(&self, event: u16) {
        let at = self.mock.avail_addr().0 + 4 + 2 * u64::from(self.size);
        self.memory.write_obj(event, GuestAddress(at)).unwrap();
    }
}

/// What a device finds in a chain: bytes to read, and how many to write to.
type Found = (Vec<u8>, u64);

fn theirs(queue: &mut Queue, memory: &GuestMemoryMmap) -> Option<(u16, Found)> {
    let chain = queue.pop_descriptor_chain(memory)?;
    let head = chain.head_index();
    let (mut bytes, mut writable) = (Vec::new(), 0);
    for descriptor in chain {
        if descriptor.is_write_only() {
            writable += u64::from(descriptor.len());
        } else {
            let mut part = vec![0; descriptor.len() as usize];
            memory.read_slice(&mut part, descriptor.addr()).unwrap();
            bytes.extend(part);
        }
    }
    Some((head, (bytes, writable)))
}

fn ours(ring: &mut Ring, slices: &mut Slices) -> Option<Found> {
    slices.clear();
    let chain = ring.take(slices).unwrap()?;
    assert_eq!(chain.fault, None);
    let mut bytes = Vec::new();
    for slice in slices.get(chain.to_read()) {
        let mut part = vec![0; slice.len()];
        slice.copy_to(&mut part);
        bytes.extend(part);
    }
    assert_eq!(bytes.len() as u64, chain.readable);
    let written = slices.get(chain.to_write());
    assert_eq!(
        written.iter().map(|slice| slice.len() as u64).sum::<u64>(),
        chain.writable
    );
    Some((bytes, chain.writable))
}

fn compare(size: u16, event_idx: bool, steps: &[Step]) {
    let ((_, their_memory), (file, our_memory)) = (memory(), memory());
    let mut drivers = [&their_memory, &our_memory].map(|memory| Driver::new(memory, size));
    let mut queue = Queue::new(size).unwrap();
    queue.set_size(size);
    queue
        .try_set_desc_table_address(drivers[0].mock.desc_table_addr())
        .unwrap();
    queue
        .try_set_avail_ring_address(drivers[0].mock.avail_addr())
        .unwrap();
    queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
    queue.set_ready(true);
    assert!(queue.is_valid(&their_memory));
    queue.set_event_idx(event_idx);
    let user = |addr: GuestAddress| addr.0 + 0x7f00_0000_0000;
    let config = RingConfig {
        size,
        descriptors: user(drivers[1].mock.desc_table_addr()),
        driver: user(drivers[1].mock.avail_addr()),
        device: user(GuestAddress(USED)),
        packed: false,
        event_idx,
        indirect: true,
        base: 0,
    };
    let map = Arc::new(map(&file));
    let mut ring = Ring::start(&map, config).unwrap();
    let mut slices = Slices::new(map);
    assert!(ring.wants_call(), "the first time it is always asked");

    // Chains that are offered and not given back: how many descriptors each has, oldest first.
    let mut counts = std::collections::VecDeque::new();
    let mut heads = std::collections::VecDeque::new();
    for step in steps {
        match step {
            Step::Chain { parts, indirect } => {
                let count = if *indirect { 1 } else { parts.len() };
                if counts.iter().sum::<usize>() + count > usize::from(size) {
                    continue;
                }
                counts.push_back(count);
                drivers
                    .iter_mut()
                    .for_each(|driver| driver.chain(parts, *indirect));
            }
            Step::UsedEvent(event) => {
                // Near the used index, where it matters.
                let event = queue.next_used().wrapping_add(event % 9).wrapping_sub(4);
                drivers.iter().for_each(|driver| driver.used_event(event));
            }
            Step::Take => {
                let expected = theirs(&mut queue, &their_memory);
                let found = ours(&mut ring, &mut slices);
                assert_eq!(found.as_ref(), expected.as_ref().map(|(_, found)| found));
                heads.extend(expected.map(|(head, _)| head));
            }
            Step::Give { count } => {
                let count = (*count).min(heads.len());
                for head in heads.drain(..count) {
                    let written = u32::from(head) * 3;
                    queue.add_used(&their_memory, head, written).unwrap();
                    ring.give(written);
                    counts.pop_front();
                }
                ring.publish();
                let wants = ring.wants_call();
                if count > 0 {
                    let needs = queue.needs_notification(&their_memory).unwrap();
                    assert_eq!(wants, needs);
                }
            }
            Step::EnableKicks => {
                let more = queue.enable_notification(&their_memory).unwrap();
                assert_eq!(ring.enable_kicks(), more);
            }
            Step::DisableKicks => {
                queue.disable_notification(&their_memory).unwrap();
                ring.disable_kicks();
            }
        }
        assert!(image(&their_memory) == image(&our_memory), "after {step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn our_split_ring_does_what_virtio_queue_does(
        bits in 2_u32..6,
        event_idx: bool,
        steps in steps(),
    ) {
        compare(1 << bits, event_idx, &steps);
    }
}
