//! `CFRetain` and `CFRelease` on networks and configurations.
//!
//! A program may also link a CoreFoundation of its own. Objects that are not ours are handed on to it.

use std::ffi::{CStr, c_void};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use vmnet_xpc::border;

/// What the first word of our objects points at, and no other's.
static MARK: u64 = u64::from_be_bytes(*b"openvmnt");

/// The beginning of an object.
#[repr(C)]
struct Head {
    mark: *const u64,
    references: AtomicUsize,
    free: unsafe fn(NonNull<Self>),
}

/// An object that holds something.
#[repr(C)]
pub struct Full<T> {
    head: Head,
    value: T,
}

impl<T> Deref for Full<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A new object with one reference, for C.
pub(crate) fn created<T>(value: T) -> *mut Full<T> {
    unsafe fn free<T>(head: NonNull<Head>) {
        // SAFETY: `created` made this box for this type, and the last reference is gone.
        drop(unsafe { Box::from_raw(head.as_ptr().cast::<Full<T>>()) });
    }
    let head = Head {
        mark: &raw const MARK,
        references: AtomicUsize::new(1),
        free: free::<T>,
    };
    Box::into_raw(Box::new(Full { head, value }))
}

/// An object of C, if it is ours.
unsafe fn ours<'a>(object: *const c_void) -> Option<&'a Head> {
    // SAFETY: The caller has null or a live object, which begins with a pointer.
    let head = unsafe { object.cast::<Head>().as_ref() }?;
    std::ptr::eq(head.mark, &raw const MARK).then_some(head)
}

/// The function of this name in a library behind this one.
fn theirs(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: The name is a string.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) })
}

/// Takes a reference.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFRetain(object: *const c_void) -> *const c_void {
    border(object, || {
        // SAFETY: The caller has null or a live object.
        if let Some(head) = unsafe { ours(object) } {
            head.references.fetch_add(1, Ordering::Relaxed);
        } else if let Some(retain) = theirs(c"CFRetain").filter(|_| !object.is_null()) {
            // SAFETY: CoreFoundation's function of this name has this type.
            let retain: unsafe extern "C" fn(*const c_void) -> *const c_void =
                unsafe { std::mem::transmute(retain) };
            // SAFETY: The object is CoreFoundation's.
            return unsafe { retain(object) };
        }
        object
    })
}

/// Gives back a reference; the last one frees the object. Null is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CFRelease(object: *const c_void) {
    border((), || {
        // SAFETY: The caller has null or a live object.
        if let Some(head) = unsafe { ours(object) } {
            if head.references.fetch_sub(1, Ordering::AcqRel) == 1 {
                let free = head.free;
                // SAFETY: It was the last reference.
                unsafe { free(NonNull::from(head)) };
            }
        } else if let Some(release) = theirs(c"CFRelease").filter(|_| !object.is_null()) {
            // SAFETY: CoreFoundation's function of this name has this type.
            let release: unsafe extern "C" fn(*const c_void) =
                unsafe { std::mem::transmute(release) };
            // SAFETY: The object is CoreFoundation's.
            unsafe { release(object) };
        }
    });
}
