//! `CFRetain` and `CFRelease` on networks, configurations and interfaces.
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

/// A reference of an object, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reference<T>(NonNull<Full<T>>);

// SAFETY: References are counted atomically; what the object holds may go with them.
unsafe impl<T: Send + Sync> Send for Reference<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Reference<T> {}

impl<T> Reference<T> {
    /// A reference of its own of what C has.
    ///
    /// # Safety
    ///
    /// Null, or a live object of this type.
    pub(crate) unsafe fn retained(object: *mut Full<T>) -> Option<Self> {
        let object = NonNull::new(object)?;
        // SAFETY: The caller's promise.
        let head = unsafe { &object.as_ref().head };
        head.references.fetch_add(1, Ordering::Relaxed);
        Some(Self(object))
    }
}

impl<T> Deref for Reference<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: An object lives as long as its references.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> Clone for Reference<T> {
    fn clone(&self) -> Self {
        // SAFETY: As above.
        let head = unsafe { &self.0.as_ref().head };
        head.references.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T> Drop for Reference<T> {
    fn drop(&mut self) {
        // SAFETY: The reference is this one's to give.
        unsafe { release(self.0.cast()) };
    }
}

/// Gives back a reference; the last one frees the object.
unsafe fn release(head: NonNull<Head>) {
    // SAFETY: The caller has a reference of it.
    let (references, free) = unsafe { (&head.as_ref().references, head.as_ref().free) };
    if references.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: It was the last reference.
        unsafe { free(head) };
    }
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
        let is_ours = unsafe { ours(object) }.is_some();
        if let Some(whole) = NonNull::new(object.cast_mut()).filter(|_| is_ours) {
            // SAFETY: The caller gives its reference away. The pointer is the caller's, and so one to the whole object.
            unsafe { release(whole.cast()) };
        } else if let Some(release) = theirs(c"CFRelease").filter(|_| !object.is_null()) {
            // SAFETY: CoreFoundation's function of this name has this type.
            let release: unsafe extern "C" fn(*const c_void) =
                unsafe { std::mem::transmute(release) };
            // SAFETY: The object is CoreFoundation's.
            unsafe { release(object) };
        }
    });
}
