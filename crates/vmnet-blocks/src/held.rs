//! A block that is kept past the call it came by.

use crate::layout::Block;
use crate::runtime;
use std::ffi::c_void;
use std::ptr::NonNull;

/// A reference of a block, given back when dropped.
#[derive(Debug)]
pub struct Held(NonNull<Block>);

// SAFETY: Blocks are handed between threads by their programs; references are counted atomically.
unsafe impl Send for Held {}
// SAFETY: As above; nothing here changes a block.
unsafe impl Sync for Held {}

impl Held {
    /// Copies a block; nothing if it is null, or there is no memory.
    ///
    /// # Safety
    ///
    /// `block` is null or a block that may be called from any thread.
    #[must_use]
    pub unsafe fn copy(block: *const c_void) -> Option<Self> {
        // SAFETY: The caller's promise.
        NonNull::new(unsafe { runtime::copy(block) }.cast()).map(Self)
    }

    /// The first argument of [`Held::invoke`].
    #[must_use]
    pub fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// The block's function, whose first argument is the block. Only who knows the block's type can call it.
    #[must_use]
    pub fn invoke(&self) -> *const c_void {
        // SAFETY: A block lives as long as its references.
        unsafe { self.0.as_ref() }.invoke
    }

    /// Gives the reference away, to be given back through [`runtime::release`].
    #[must_use]
    pub fn into_raw(self) -> *mut c_void {
        std::mem::ManuallyDrop::new(self).as_ptr()
    }

    /// Calls a block without arguments.
    ///
    /// # Safety
    ///
    /// It is a `void (^)(void)`.
    pub unsafe fn call(&self) {
        // SAFETY: The caller knows its type.
        unsafe { call(self.as_ptr()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: This reference came from `copy`.
        unsafe { runtime::release(self.as_ptr()) }
    }
}

/// The function of a block that need not be kept.
///
/// # Safety
///
/// `block` is a block.
#[must_use]
pub unsafe fn invoke(block: *const c_void) -> *const c_void {
    // SAFETY: The caller's promise.
    unsafe { (*block.cast::<Block>()).invoke }
}

/// Calls a block without arguments that need not be kept.
///
/// # Safety
///
/// `block` is a `void (^)(void)`.
pub unsafe fn call(block: *const c_void) {
    // SAFETY: The function of such a block has this type.
    let function: unsafe extern "C" fn(*const c_void) =
        unsafe { std::mem::transmute(invoke(block)) };
    // SAFETY: The caller's promise.
    unsafe { function(block) }
}
