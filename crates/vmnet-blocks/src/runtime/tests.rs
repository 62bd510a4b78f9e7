use super::{_Block_copy, _Block_release, _NSConcreteMallocBlock, _NSConcreteStackBlock};
use crate::layout::{
    Block, Descriptor, DescriptorWithHelpers, HAS_COPY_DISPOSE, IS_GLOBAL, NEEDS_FREE,
    ONE_REFERENCE, REFERENCES,
};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// A block with one captured pointer, at which its helpers count.
#[repr(C)]
struct Counting {
    head: Block,
    captured: *const AtomicUsize,
}

unsafe extern "C" fn copied(destination: *mut c_void, source: *const c_void) {
    assert_ne!(destination.cast_const(), source);
    // SAFETY: Both are `Counting`.
    unsafe { (*(*source.cast::<Counting>()).captured).fetch_add(1, Ordering::Relaxed) };
}

unsafe extern "C" fn disposed(block: *const c_void) {
    // SAFETY: It is a `Counting`.
    unsafe { (*(*block.cast::<Counting>()).captured).fetch_add(100, Ordering::Relaxed) };
}

static DESCRIPTOR: DescriptorWithHelpers = DescriptorWithHelpers {
    plain: Descriptor {
        reserved: 0,
        size: size_of::<Counting>() as u64,
    },
    copy: Some(copied),
    dispose: Some(disposed),
};

fn on_the_stack(count: &AtomicUsize) -> Counting {
    Counting {
        head: Block {
            isa: (&raw const _NSConcreteStackBlock).cast(),
            flags: AtomicI32::new(HAS_COPY_DISPOSE),
            reserved: 0,
            invoke: ptr::null(),
            descriptor: (&raw const DESCRIPTOR).cast(),
        },
        captured: count,
    }
}

#[test]
fn a_copy_is_counted_and_disposed_of_once() {
    let count = AtomicUsize::new(0);
    let block = on_the_stack(&count);
    // SAFETY: A block, its copies, and as many releases.
    unsafe {
        let first = _Block_copy((&raw const block).cast());
        assert_ne!(first.cast_const(), (&raw const block).cast());
        assert_eq!(
            (*first.cast::<Block>()).isa,
            (&raw const _NSConcreteMallocBlock).cast()
        );
        let second = _Block_copy(first);
        assert_eq!(first, second);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        _Block_release(first);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        _Block_release(second);
        assert_eq!(count.load(Ordering::Relaxed), 101);
    }
}

#[test]
fn null_and_global_blocks_are_left_alone() {
    let count = AtomicUsize::new(0);
    let block = on_the_stack(&count);
    block.head.flags.store(IS_GLOBAL, Ordering::Relaxed);
    // SAFETY: Null, and a block.
    unsafe {
        assert!(_Block_copy(ptr::null()).is_null());
        _Block_release(ptr::null());
        let copy = _Block_copy((&raw const block).cast());
        assert_eq!(copy.cast_const(), (&raw const block).cast());
        _Block_release(copy);
    }
    assert_eq!(block.head.flags.load(Ordering::Relaxed), IS_GLOBAL);
}

#[test]
fn a_full_count_stays_full() {
    let count = AtomicUsize::new(0);
    let block = on_the_stack(&count);
    let full = NEEDS_FREE | REFERENCES;
    block.head.flags.store(full, Ordering::Relaxed);
    // SAFETY: A block that its flags say is on the heap; with a full count it is not freed.
    unsafe {
        let copy = _Block_copy((&raw const block).cast());
        _Block_release(copy);
        _Block_release(copy);
    }
    assert_eq!(block.head.flags.load(Ordering::Relaxed), full);
    assert_eq!(full & ONE_REFERENCE, ONE_REFERENCE);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}
