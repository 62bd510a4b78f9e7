use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::driver::{Shape, Transmit};
use crate::memory::{MapError, MemoryMap, OwnMemory, RegionSource, Unsealed};
use crate::net::{Burst, BurstLimits, Features, FromGuest};
use crate::ring::RingError;

const LEN: u64 = 1 << 20;

/// A file like those that a VMM cannot seal.
fn unsealable() -> OwnedFd {
    let file = memfd_create("guard", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, LEN).unwrap();
    file
}

fn source(file: &OwnedFd, guest_addr: u64) -> RegionSource {
    RegionSource {
        guest_addr,
        user_addr: guest_addr,
        size: LEN,
        offset: 0,
        file: file.try_clone().unwrap(),
    }
}

fn guarded(file: &OwnedFd, guest_addr: u64) -> MemoryMap {
    MemoryMap::with_unsealed([source(file, guest_addr)], Unsealed::Guard).unwrap()
}

#[test]
fn memory_that_vanishes_is_lost_and_nothing_else_is() {
    let (file, other_file) = (unsealable(), unsealable());
    let refused = MemoryMap::new([source(&file, 0)]);
    assert!(matches!(refused, Err(MapError::NotSealed)));
    let (map, other) = (guarded(&file, 0), guarded(&other_file, 0));
    for map in [&map, &other] {
        map.guest(5, 3).unwrap().copy_from(b"abc");
        assert!(!map.lost());
    }
    ftruncate(&file, 0).unwrap();
    assert!(!map.lost(), "nobody has touched it");
    let mut bytes = [9; 3];
    map.guest(5, 3).unwrap().copy_to(&mut bytes);
    assert_eq!(bytes, [0; 3]);
    assert!(map.lost());
    map.guest(LEN - 3, 3).unwrap().copy_from(b"end");
    other.guest(5, 3).unwrap().copy_to(&mut bytes);
    assert_eq!(&bytes, b"abc");
    assert!(!other.lost());
    drop(map);
    // The place is free again, and what comes there is not lost.
    assert!(!guarded(&other_file, 0).lost());
}

#[test]
fn a_port_whose_memory_vanishes_ends_and_says_why() {
    let mut memory = OwnMemory::new(LEN).unwrap();
    let shape = Shape {
        size: 8,
        packed: false,
        event_idx: true,
        indirect: 0,
    };
    let config = Transmit::new(&mut memory, shape, 4096).unwrap().config();
    let file = unsealable();
    let map = Arc::new(guarded(&file, config.descriptors & !0xfff));
    let mut from = FromGuest::start(map, config, Features::VERSION_1).unwrap();
    let mut burst = Burst::new(BurstLimits {
        frames: 8,
        bytes: 1 << 16,
        head: 64,
    });
    assert_eq!(from.receive(&mut burst), Ok(0));
    ftruncate(&file, 0).unwrap();
    // The first look finds zeros where the ring was.
    let _ = from.receive(&mut burst);
    assert_eq!(from.receive(&mut burst), Err(RingError::MemoryLost));
    assert_eq!(from.ring().broken(), Some(RingError::MemoryLost));
}

/// Other mistakes end the process as they did before: seen from outside, in a process of its own.
#[test]
fn other_memory_is_not_guarded() {
    const ROLE: &str = "VMNET_TEST_TOUCHES_LOST_MEMORY";
    if std::env::var_os(ROLE).is_some() {
        let (file, guarded_file) = (unsealable(), unsealable());
        let _handler_is_there = guarded(&guarded_file, 0);
        let len = usize::try_from(LEN).unwrap();
        // SAFETY: a new mapping disturbs nothing.
        let pages = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                rustix::mm::ProtFlags::READ,
                rustix::mm::MapFlags::SHARED,
                &file,
                0,
            )
        };
        let first = pages.unwrap().cast::<u8>();
        ftruncate(&file, 0).unwrap();
        // SAFETY: the page is mapped; that the access ends the process is what is tested.
        let byte = unsafe { first.read_volatile() };
        panic!("read {byte} from nowhere");
    }
    let name = "memory::guard::tests::other_memory_is_not_guarded";
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(ROLE, "1")
        .output()
        .unwrap()
        .status;
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}
