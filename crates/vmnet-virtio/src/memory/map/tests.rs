use super::*;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, len).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn source(guest_addr: u64, size: u64, offset: u64, file: OwnedFd) -> RegionSource {
    RegionSource {
        guest_addr,
        user_addr: guest_addr.wrapping_add(0x7000_0000_0000),
        size,
        offset,
        file,
    }
}

fn sealed(len: u64) -> OwnedFd {
    memfd(len, SealFlags::SHRINK)
}

fn heap(regions: &[(u64, usize)]) -> MemoryMap {
    MemoryMap::of_heap(regions)
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn a_file_is_shared_from_its_offset_on() {
    let file = sealed(0x5000);
    let other = file.try_clone().unwrap();
    let map = MemoryMap::new([source(0x10_0000, 0x1800, 0x2345, file)]).unwrap();
    map.guest(0x10_0010, 5).unwrap().copy_from(b"hello");
    let mut seen = [0; 5];
    rustix::io::pread(&other, &mut seen, 0x2355).unwrap();
    assert_eq!(&seen, b"hello");
    rustix::io::pwrite(&other, b"!", 0x2345 + 0x17ff).unwrap();
    let mut last = [0];
    map.guest(0x10_17ff, 1).unwrap().copy_to(&mut last);
    assert_eq!(&last, b"!");
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn what_can_shrink_is_refused_with_a_remedy() {
    let on_disk: OwnedFd = tempfile::tempfile().unwrap().into();
    ftruncate(&on_disk, 0x2000).unwrap();
    let refused = MemoryMap::new([source(0, 0x2000, 0, on_disk)]).unwrap_err();
    assert!(matches!(refused, MapError::NotSealable), "{refused}");
    assert!(refused.to_string().contains("memory-backend-memfd"));

    let unsealable = memfd(0x2000, SealFlags::SEAL);
    let refused = MemoryMap::new([source(0, 0x2000, 0, unsealable)]).unwrap_err();
    assert!(matches!(refused, MapError::NotSealed), "{refused}");

    let open = memfd(0x2000, SealFlags::empty());
    let other = open.try_clone().unwrap();
    let _map = MemoryMap::new([source(0, 0x2000, 0, open)]).unwrap();
    assert!(
        ftruncate(&other, 0x1000).is_err(),
        "sealed by us, as the VMM has left it open"
    );
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn what_is_too_short_or_impossible_is_refused() {
    let make = |size, offset| MemoryMap::new([source(0x1000, size, offset, sealed(0x2000))]);
    assert!(make(0x2000, 0).is_ok());
    assert!(make(0x1000, 0x1000).is_ok());
    let Err(MapError::Short { have, need }) = make(0x2000, 1) else {
        panic!("too short");
    };
    assert_eq!((have, need), (0x2000, 0x2001));
    assert!(matches!(
        make(0, 0),
        Err(MapError::Empty { guest_addr: 0x1000 })
    ));
    assert!(matches!(make(u64::MAX, 2), Err(MapError::Overflow)));
    assert!(matches!(make(1, u64::MAX), Err(MapError::Overflow)));
    let last = MemoryMap::new([source(u64::MAX - 0xfff, 0x1000, 0, sealed(0x2000))]);
    assert!(matches!(last, Err(MapError::Overflow)));
    let two = |second| {
        MemoryMap::new([
            source(second, 0x1000, 0, sealed(0x2000)),
            source(0x1000, 0x1000, 0, sealed(0x2000)),
        ])
    };
    assert!(matches!(
        two(0x1fff),
        Err(MapError::Overlap { addr: 0x1fff })
    ));
    assert!(two(0x2000).is_ok());
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn regions_come_and_go_and_the_others_stay_where_they_are() {
    let map = MemoryMap::new([source(0x1000, 0x1000, 0, sealed(0x1000))]).unwrap();
    map.guest(0x1000, 1).unwrap().copy_from(b"x");
    let two = map.with(source(0x2000, 0x1000, 0, sealed(0x1000))).unwrap();
    drop(map);
    assert_eq!(two.len(), 2);
    let one = two.without(0x2000, 0x7000_0000_2000, 0x1000).unwrap();
    assert!(matches!(
        one.without(0x2000, 0x7000_0000_2000, 0x1000),
        Err(MapError::Unknown { guest_addr: 0x2000 })
    ));
    drop(two);
    let mut byte = [0];
    one.guest(0x1000, 1).unwrap().copy_to(&mut byte);
    assert_eq!(&byte, b"x");
    let none = one.without(0x1000, 0x7000_0000_1000, 0x1000).unwrap();
    assert!(none.is_empty());
}

#[test]
fn words_must_be_aligned_and_in_one_region() {
    let map = heap(&[(0x1000, 0x1000), (0x2000, 0x1000)]);
    let words = map.user_words::<AtomicU16>(0x1ffe, 1).unwrap();
    words[0].store(0x4142, Ordering::Relaxed);
    let mut bytes = [0; 2];
    map.guest(0x1ffe, 2).unwrap().copy_to(&mut bytes);
    assert_eq!(&bytes, b"BA");
    for (addr, count) in [(0x1ffe, 2), (0x1001, 1), (0x3000, 1), (0x0ffe, 1)] {
        assert!(
            map.user_words::<AtomicU16>(addr, count).is_err(),
            "{addr:x}"
        );
    }
    assert!(map.user_words::<AtomicU64>(0x1000, usize::MAX / 4).is_err());
    drop(map);
    assert_eq!(words[0].load(Ordering::Relaxed), 0x4142, "kept mapped");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pieces are the bytes that were asked for, or nothing.
    #[test]
    fn translation_is_what_a_list_of_bytes_would_say(
        lens in prop::collection::vec((0_u64..3, 1_usize..40), 0..5),
        asks in prop::collection::vec((0_u64..200, 0_u64..120, any::<usize>()), 1..20),
    ) {
        let mut regions = Vec::new();
        let mut at = 5;
        let mut model = vec![false; 400];
        for (gap, len) in lens {
            at += gap;
            regions.push((at, len));
            model[at as usize..at as usize + len].fill(true);
            at += len as u64;
        }
        let map = heap(&regions);
        for &(start, len) in &regions {
            for byte in 0..len as u64 {
                let value = [(start + byte) as u8];
                map.guest(start + byte, 1).unwrap().copy_from(&value);
            }
        }
        for (addr, len, mut hint) in asks {
            let mut seen = Vec::new();
            let mut pieces = 0;
            let found = map.each_piece(addr, len, &mut hint, |piece| {
                let mut bytes = vec![0; piece.len()];
                piece.copy_to(&mut bytes);
                seen.extend(bytes);
                pieces += 1;
            });
            let range = addr as usize..(addr + len) as usize;
            if len == 0 {
                prop_assert_eq!(pieces, 0);
                continue;
            }
            prop_assert_eq!(found.is_ok(), model[range.clone()].iter().all(|there| *there));
            if found.is_ok() {
                let expected: Vec<u8> = range.map(|byte| byte as u8).collect();
                prop_assert_eq!(seen, expected);
                prop_assert!(pieces <= regions.len());
            }
        }
        prop_assert!(map.each_piece(u64::MAX - 3, 10, &mut 0, |_| ()).is_err());
    }
}
