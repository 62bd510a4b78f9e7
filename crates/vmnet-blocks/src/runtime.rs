//! The runtime functions of the Blocks ABI, exported, and the ones that the program uses.
//!
//! In a shared library the dynamic linker takes whichever definition comes first in the program's order of libraries, so
//! another runtime wins where it is linked before this one. In a static archive these functions are members of their
//! own and are only taken where nothing else has defined them.

use crate::layout::{
    BYREF_CALLER, Block, Byref, ByrefWithHelpers, DescriptorWithHelpers, FIELD_IS_BLOCK,
    FIELD_IS_BYREF, FIELD_IS_WEAK, HAS_COPY_DISPOSE, IS_GLOBAL, NEEDS_FREE, ONE_REFERENCE,
    REFERENCES,
};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

/// What `isa` of a block points at. Nobody looks inside without an Objective-C runtime.
#[repr(C)]
#[derive(Debug)]
pub struct Class([usize; 32]);

/// `isa` of blocks on the stack.
#[unsafe(no_mangle)]
pub static _NSConcreteStackBlock: Class = Class([0; 32]);
/// `isa` of blocks that captured nothing.
#[unsafe(no_mangle)]
pub static _NSConcreteGlobalBlock: Class = Class([0; 32]);
/// `isa` of blocks on the heap.
#[unsafe(no_mangle)]
pub static _NSConcreteMallocBlock: Class = Class([0; 32]);
/// Only names in garbage-collected programs, which no longer exist; linked by old ones.
#[unsafe(no_mangle)]
pub static _NSConcreteAutoBlock: Class = Class([0; 32]);
/// As [`_NSConcreteAutoBlock`].
#[unsafe(no_mangle)]
pub static _NSConcreteFinalizingBlock: Class = Class([0; 32]);
/// As [`_NSConcreteAutoBlock`].
#[unsafe(no_mangle)]
pub static _NSConcreteWeakBlockVariable: Class = Class([0; 32]);

// Addresses as the dynamic linker resolves them for the program: an `extern` declaration beside the definitions could be
// bound to them at compile time.
std::arch::global_asm!(
    ".pushsection .data.rel.vmnet_blocks,\"aw\"",
    ".balign 8",
    ".hidden vmnet_blocks_copy",
    ".globl vmnet_blocks_copy",
    "vmnet_blocks_copy: .8byte _Block_copy",
    ".hidden vmnet_blocks_release",
    ".globl vmnet_blocks_release",
    "vmnet_blocks_release: .8byte _Block_release",
    ".popsection",
);

unsafe extern "C" {
    safe static vmnet_blocks_copy: unsafe extern "C" fn(*const c_void) -> *mut c_void;
    safe static vmnet_blocks_release: unsafe extern "C" fn(*const c_void);
}

/// Copies a block with the program's runtime.
///
/// # Safety
///
/// `block` is null or a block.
#[must_use]
pub unsafe fn copy(block: *const c_void) -> *mut c_void {
    // SAFETY: The caller's promise is the ABI's.
    unsafe { vmnet_blocks_copy(block) }
}

/// Gives back a reference that [`copy`] made.
///
/// # Safety
///
/// `block` came from [`copy`], and this reference has not been given back.
pub unsafe fn release(block: *const c_void) {
    // SAFETY: The caller's promise is the ABI's.
    unsafe { vmnet_blocks_release(block) }
}

/// Takes a reference of a block; one on the stack is copied to the heap first. Null if there is no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Block_copy(block: *const c_void) -> *mut c_void {
    let source = block.cast::<Block>();
    // SAFETY: Null or a block, says the ABI.
    let Some(head) = (unsafe { source.as_ref() }) else {
        return ptr::null_mut();
    };
    let flags = head.flags.load(Ordering::Relaxed);
    if flags & NEEDS_FREE != 0 {
        take_reference(&head.flags);
        return block.cast_mut();
    }
    if flags & IS_GLOBAL != 0 {
        return block.cast_mut();
    }
    // SAFETY: A block on the stack has a descriptor, whose size is that of the block.
    unsafe { copy_to_heap(source) }
}

/// Copies a block from the stack, with one reference.
unsafe fn copy_to_heap(source: *const Block) -> *mut c_void {
    // SAFETY: The caller has a block on the stack.
    let head = unsafe { &*source };
    // SAFETY: Every block has a descriptor.
    let Ok(size) = usize::try_from(unsafe { (*head.descriptor).size }) else {
        return ptr::null_mut();
    };
    // SAFETY: Any size may be asked for.
    let copy = unsafe { libc::malloc(size) }.cast::<Block>();
    if copy.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `source` has `size` bytes, as `copy` has, and the two are apart.
    unsafe { ptr::copy_nonoverlapping(source.cast::<u8>(), copy.cast::<u8>(), size) };
    // SAFETY: Just written, and known to nobody else.
    unsafe { (*copy).isa = (&raw const _NSConcreteMallocBlock).cast() };
    let flags = head.flags.load(Ordering::Relaxed);
    // SAFETY: As above.
    unsafe { &(*copy).flags }.store(
        (flags & !(REFERENCES | 1)) | NEEDS_FREE | ONE_REFERENCE,
        Ordering::Relaxed,
    );
    if flags & HAS_COPY_DISPOSE != 0 {
        // SAFETY: The flag says that the descriptor has helpers.
        let helpers = unsafe { &*head.descriptor.cast::<DescriptorWithHelpers>() };
        if let Some(helper) = helpers.copy {
            // SAFETY: The helper copies from this block into its copy.
            unsafe { helper(copy.cast(), source.cast()) };
        }
    }
    copy.cast()
}

/// Gives back a reference; the last one frees the block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Block_release(block: *const c_void) {
    let block = block.cast::<Block>();
    // SAFETY: Null or a block, says the ABI.
    let Some(head) = (unsafe { block.as_ref() }) else {
        return;
    };
    let flags = head.flags.load(Ordering::Relaxed);
    if flags & NEEDS_FREE == 0 || flags & IS_GLOBAL != 0 || !drop_reference(&head.flags) {
        return;
    }
    if flags & HAS_COPY_DISPOSE != 0 {
        // SAFETY: The flag says that the descriptor has helpers.
        let helpers = unsafe { &*head.descriptor.cast::<DescriptorWithHelpers>() };
        if let Some(helper) = helpers.dispose {
            // SAFETY: Nobody else has the block now.
            unsafe { helper(block.cast()) };
        }
    }
    // SAFETY: `NEEDS_FREE` is only set by `copy_to_heap`, and this was the last reference.
    unsafe { libc::free(block.cast_mut().cast()) };
}

/// Called by copy helpers for each capture that is more than bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Block_object_assign(
    destination: *mut c_void,
    object: *const c_void,
    flags: c_int,
) {
    let kept = if flags & BYREF_CALLER != 0 {
        object.cast_mut()
    } else if flags & FIELD_IS_BLOCK == FIELD_IS_BLOCK {
        // SAFETY: The flags say that it is a block.
        unsafe { copy(object) }
    } else if flags & !FIELD_IS_WEAK == FIELD_IS_BYREF {
        // SAFETY: The flags say that it is a `__block` variable.
        unsafe { keep_byref(object.cast_mut().cast()) }.cast()
    } else {
        object.cast_mut()
    };
    // SAFETY: The helper names a pointer inside the copy.
    unsafe { destination.cast::<*mut c_void>().write(kept) };
}

/// Called by dispose helpers for each capture that is more than bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Block_object_dispose(object: *const c_void, flags: c_int) {
    if flags & BYREF_CALLER != 0 {
        return;
    }
    if flags & FIELD_IS_BLOCK == FIELD_IS_BLOCK {
        // SAFETY: The flags say that it is a block, which `_Block_object_assign` copied.
        unsafe { release(object) };
    } else if flags & !FIELD_IS_WEAK == FIELD_IS_BYREF {
        // SAFETY: The flags say that it is a `__block` variable, on the stack or kept.
        unsafe { drop_byref(object.cast_mut().cast()) };
    }
}

/// Takes a reference of a variable; one on the stack is moved to the heap first.
unsafe fn keep_byref(variable: *mut Byref) -> *mut Byref {
    // SAFETY: The caller has a variable.
    let target = unsafe { (*variable).forwarding };
    // SAFETY: `forwarding` always points at the variable.
    let flags = unsafe { &(*target).flags };
    if flags.load(Ordering::Relaxed) & NEEDS_FREE != 0 {
        take_reference(flags);
        return target;
    }
    // SAFETY: On the stack, as its flags say, where only this thread is.
    unsafe { move_to_heap(variable) }
}

/// Moves a variable to the heap, with two references: its scope's and the block's.
unsafe fn move_to_heap(variable: *mut Byref) -> *mut Byref {
    // SAFETY: The caller has a variable on the stack.
    let (size, flags) = unsafe {
        let size = (*variable).size as usize;
        (size, (*variable).flags.load(Ordering::Relaxed))
    };
    // SAFETY: Any size may be asked for.
    let moved = unsafe { libc::malloc(size) }.cast::<Byref>();
    if moved.is_null() {
        // The ABI has no way to say it, and the variable's scope is about to end.
        std::process::abort();
    }
    let references = NEEDS_FREE | (2 * ONE_REFERENCE);
    // SAFETY: Both are of `size` bytes and apart; the helper is there if the flags say so.
    unsafe {
        ptr::copy_nonoverlapping(variable.cast::<u8>(), moved.cast::<u8>(), size);
        (*moved).isa = ptr::null();
        (*moved).forwarding = moved;
        (*moved).flags.store(flags | references, Ordering::Relaxed);
        (*variable).forwarding = moved;
        if flags & HAS_COPY_DISPOSE != 0
            && let Some(keep) = (*variable.cast::<ByrefWithHelpers>()).keep
        {
            keep(moved, variable);
        }
    }
    moved
}

/// Gives back a reference of a variable; the last one frees it.
unsafe fn drop_byref(variable: *mut Byref) {
    // SAFETY: The caller has a variable.
    let target = unsafe { (*variable).forwarding };
    // SAFETY: `forwarding` always points at the variable.
    let count = unsafe { &(*target).flags };
    let flags = count.load(Ordering::Relaxed);
    if flags & NEEDS_FREE == 0 || !drop_reference(count) {
        return;
    }
    // SAFETY: This was the last reference, and `move_to_heap` made it.
    unsafe {
        if flags & HAS_COPY_DISPOSE != 0
            && let Some(destroy) = (*target.cast::<ByrefWithHelpers>()).destroy
        {
            destroy(target);
        }
        libc::free(target.cast());
    }
}

/// Counts up, until the count is full: then what it counts lives for ever.
fn take_reference(flags: &std::sync::atomic::AtomicI32) {
    let _full = flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
        (old & REFERENCES != REFERENCES).then_some(old + ONE_REFERENCE)
    });
}

/// Counts down; true if nobody is left.
fn drop_reference(flags: &std::sync::atomic::AtomicI32) -> bool {
    flags
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            let count = old & REFERENCES;
            (count != REFERENCES && count != 0).then_some(old - ONE_REFERENCE)
        })
        .is_ok_and(|old| old & REFERENCES == ONE_REFERENCE)
}

#[cfg(test)]
mod tests;
