//! What all objects share.
//!
//! Some objects are data symbols, whose addresses are constants of programs. These can end up in the program itself (copy
//! relocations), so their size is part of the ABI: a [`Head`], and never more.

use crate::border::border;
use crate::group::Group;
use crate::queue::QueueObject;
use crate::semaphore::Semaphore;
use crate::source::SourceObject;
use crate::work::Function;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// References of an object that is never freed.
const IMMORTAL: usize = usize::MAX;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Tag {
    MainQueue,
    GlobalQueue,
    ConcurrentAttribute,
    Queue,
    Semaphore,
    Group,
    Source,
}

/// The beginning of every object.
#[repr(C)]
#[derive(Debug)]
pub struct Head {
    references: AtomicUsize,
    tag: Tag,
    context: AtomicPtr<c_void>,
    finalizer: AtomicPtr<c_void>,
}

impl Head {
    /// Of an object that is never freed.
    pub(crate) const fn immortal(tag: Tag) -> Self {
        Self::with(tag, IMMORTAL)
    }

    /// Of an object with one reference.
    pub(crate) const fn new(tag: Tag) -> Self {
        Self::with(tag, 1)
    }

    const fn with(tag: Tag, references: usize) -> Self {
        Self {
            references: AtomicUsize::new(references),
            tag,
            context: AtomicPtr::new(ptr::null_mut()),
            finalizer: AtomicPtr::new(ptr::null_mut()),
        }
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    fn retain(&self) {
        if self.references.load(Ordering::Relaxed) != IMMORTAL {
            self.references.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// True if that was the last reference.
    fn release(&self) -> bool {
        self.references.load(Ordering::Relaxed) != IMMORTAL
            && self.references.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Asks for the program's finalizer, as the last thing.
    fn finalize(&self) {
        let finalizer = self.finalizer.load(Ordering::Acquire);
        let context = self.context.load(Ordering::Acquire);
        if !finalizer.is_null() && !context.is_null() {
            // SAFETY: `dispatch_set_finalizer_f` put a function of this type there.
            let function: Function = unsafe { std::mem::transmute(finalizer) };
            // SAFETY: The program wants its context given to its finalizer.
            unsafe { function(context) };
        }
    }
}

/// A reference of an object.
#[derive(Debug)]
pub(crate) struct Kept(*const Head);

// SAFETY: References are counted atomically, and all objects may be used from any thread.
unsafe impl Send for Kept {}
// SAFETY: As above.
unsafe impl Sync for Kept {}

impl Kept {
    /// Takes a reference.
    pub(crate) fn new(head: &Head) -> Self {
        head.retain();
        Self(head)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: This is a reference of a live object.
        unsafe { give_back(self.0) };
    }
}

/// Gives back a reference of an object.
unsafe fn give_back(object: *const Head) {
    // SAFETY: The caller has a reference.
    let head = unsafe { &*object };
    if !head.release() {
        return;
    }
    head.finalize();
    let object = object.cast_mut();
    // SAFETY: The tag says which box it is, and this was the last reference.
    unsafe {
        match head.tag {
            Tag::MainQueue | Tag::GlobalQueue | Tag::ConcurrentAttribute => {}
            Tag::Queue => drop(Box::from_raw(object.cast::<QueueObject>())),
            Tag::Semaphore => drop(Box::from_raw(object.cast::<Semaphore>())),
            Tag::Group => drop(Box::from_raw(object.cast::<Group>())),
            Tag::Source => drop(Box::from_raw(object.cast::<SourceObject>())),
        }
    }
}

/// The head of an object of C.
pub(crate) unsafe fn head<'a>(object: *const c_void) -> Option<&'a Head> {
    // SAFETY: C gives null or a live object, and keeps it during the call.
    unsafe { object.cast::<Head>().as_ref() }
}

/// Takes a reference.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_retain(object: *mut c_void) {
    // SAFETY: The caller has a live object.
    if let Some(head) = unsafe { head(object) } {
        head.retain();
    }
}

/// Gives back a reference; the last one frees the object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_release(object: *mut c_void) {
    border((), || {
        if !object.is_null() {
            // SAFETY: The caller gives its reference away.
            unsafe { give_back(object.cast()) };
        }
    });
}

/// Lets a queue start nothing, or a source report nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_suspend(object: *mut c_void) {
    border((), || {
        // SAFETY: The caller has a live object.
        match unsafe { head(object) }.map(Head::tag) {
            // SAFETY: The tag says what it is.
            Some(Tag::Queue) => unsafe { &*object.cast::<QueueObject>() }.queue.suspend(),
            // SAFETY: The tag says what it is.
            Some(Tag::Source) => unsafe { &*object.cast::<SourceObject>() }.suspend(),
            _ => {}
        }
    });
}

/// Takes back one suspension. A source begins with one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_resume(object: *mut c_void) {
    border((), || {
        // SAFETY: The caller has a live object.
        match unsafe { head(object) }.map(Head::tag) {
            // SAFETY: The tag says what it is.
            Some(Tag::Queue) => unsafe { &*object.cast::<QueueObject>() }.queue.resume(),
            // SAFETY: The tag says what it is.
            Some(Tag::Source) => unsafe { &*object.cast::<SourceObject>() }.resume(),
            _ => {}
        }
    });
}

/// Takes back the suspension with which a source begins, once; nothing for what is active.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_activate(object: *mut c_void) {
    border((), || {
        // SAFETY: The caller has a live object.
        if unsafe { head(object) }.map(Head::tag) == Some(Tag::Source) {
            // SAFETY: The tag says what it is.
            unsafe { &*object.cast::<SourceObject>() }.activate();
        }
    });
}

/// Sets what [`dispatch_get_context`] gives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_set_context(object: *mut c_void, context: *mut c_void) {
    // SAFETY: The caller has a live object.
    if let Some(head) = unsafe { head(object) } {
        head.context.store(context, Ordering::Release);
    }
}

/// What [`dispatch_set_context`] set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_get_context(object: *mut c_void) -> *mut c_void {
    // SAFETY: The caller has a live object.
    unsafe { head(object) }.map_or(ptr::null_mut(), |head| head.context.load(Ordering::Acquire))
}

/// Sets what gets the context when the last reference is given back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_set_finalizer_f(
    object: *mut c_void,
    finalizer: Option<Function>,
) {
    // SAFETY: The caller has a live object.
    if let Some(head) = unsafe { head(object) } {
        let finalizer = finalizer.map_or(ptr::null_mut(), |function| function as *mut c_void);
        head.finalizer.store(finalizer, Ordering::Release);
    }
}
