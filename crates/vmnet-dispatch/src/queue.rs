//! Queues.

use crate::border::border;
use crate::object::{Head, Kept, Tag, head};
use crate::source::events;
use crate::time::Moment;
use crate::work::{Function, Work};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};
use vmnet_queue::Queue;
use vmnet_queue::queue::Kind;

/// The queue of the main thread: `dispatch_get_main_queue()` is its address.
#[unsafe(no_mangle)]
pub static _dispatch_main_q: Head = Head::immortal(Tag::MainQueue);

/// `DISPATCH_QUEUE_CONCURRENT` is its address.
#[unsafe(no_mangle)]
pub static _dispatch_queue_attr_concurrent: Head = Head::immortal(Tag::ConcurrentAttribute);

static GLOBAL_QUEUE: Head = Head::immortal(Tag::GlobalQueue);

/// A queue that a program made.
#[repr(C)]
#[derive(Debug)]
pub struct QueueObject {
    head: Head,
    pub(crate) queue: Arc<Queue>,
    label: CString,
}

/// A queue of C, and a reference that keeps it while it has work.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    queue: Arc<Queue>,
    kept: Arc<Kept>,
}

impl Target {
    /// The queue that C means; nothing for null and for what is no queue.
    ///
    /// # Safety
    ///
    /// Null, or a live object.
    pub(crate) unsafe fn new(object: *const c_void) -> Option<Self> {
        static MAIN: OnceLock<Arc<Queue>> = OnceLock::new();
        static GLOBAL: OnceLock<Arc<Queue>> = OnceLock::new();
        // SAFETY: The caller's promise.
        let head = unsafe { head(object) }?;
        let queue = match head.tag() {
            Tag::MainQueue => MAIN.get_or_init(|| Queue::new(Kind::Main)),
            Tag::GlobalQueue => GLOBAL.get_or_init(|| Queue::new(Kind::Concurrent)),
            // SAFETY: The tag says what it is.
            Tag::Queue => unsafe { &(*object.cast::<QueueObject>()).queue },
            Tag::ConcurrentAttribute | Tag::Semaphore | Tag::Group | Tag::Source => return None,
        };
        Some(Self {
            queue: Arc::clone(queue),
            kept: Arc::new(Kept::new(head)),
        })
    }

    /// The global queue.
    pub(crate) fn global() -> Option<Self> {
        // SAFETY: It is an object, and lives for ever.
        unsafe { Self::new((&raw const GLOBAL_QUEUE).cast()) }
    }

    /// Does something on it.
    pub(crate) fn push(&self, job: vmnet_queue::Job) {
        let kept = Arc::clone(&self.kept);
        self.queue.push(Box::new(move || {
            job();
            drop(kept);
        }));
    }

    fn push_exclusive(&self, job: vmnet_queue::Job) {
        let kept = Arc::clone(&self.kept);
        let job: vmnet_queue::Job = Box::new(move || {
            job();
            drop(kept);
        });
        if self.kept_is_global() {
            self.queue.push(job);
        } else {
            self.queue.push_exclusive(job);
        }
    }

    /// Barriers on the global queue are ordinary work: it is everybody's.
    fn kept_is_global(&self) -> bool {
        Self::global().is_some_and(|global| Arc::ptr_eq(&global.queue, &self.queue))
    }
}

/// Makes a queue: serial without an attribute.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_queue_create(
    label: *const c_char,
    attribute: *const c_void,
) -> *mut c_void {
    border(ptr::null_mut(), || {
        let concurrent = ptr::eq(
            attribute,
            (&raw const _dispatch_queue_attr_concurrent).cast(),
        );
        let label = if label.is_null() {
            CString::default()
        } else {
            // SAFETY: The caller gives a string.
            unsafe { CStr::from_ptr(label) }.to_owned()
        };
        Box::into_raw(Box::new(QueueObject {
            head: Head::new(Tag::Queue),
            queue: Queue::new(if concurrent {
                Kind::Concurrent
            } else {
                Kind::Serial
            }),
            label,
        }))
        .cast()
    })
}

/// The queue of everybody. There is one, whatever the priority.
#[unsafe(no_mangle)]
pub extern "C" fn dispatch_get_global_queue(_identifier: isize, _flags: usize) -> *mut c_void {
    (&raw const GLOBAL_QUEUE).cast_mut().cast()
}

/// What a queue was called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_queue_get_label(queue: *const c_void) -> *const c_char {
    // SAFETY: The caller has a live object.
    match unsafe { head(queue) }.map(Head::tag) {
        // SAFETY: The tag says what it is.
        Some(Tag::Queue) => unsafe { &*queue.cast::<QueueObject>() }.label.as_ptr(),
        Some(Tag::MainQueue) => c"com.apple.main-thread".as_ptr(),
        Some(Tag::GlobalQueue) => c"com.apple.root.default-qos".as_ptr(),
        _ => c"".as_ptr(),
    }
}

/// Makes this thread the one of the main queue, for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_main() -> ! {
    // SAFETY: It is an object, and lives for ever.
    if let Some(main) = unsafe { Target::new((&raw const _dispatch_main_q).cast()) } {
        main.queue.serve();
    }
    std::process::abort()
}

unsafe fn push(queue: *const c_void, work: Option<Work>, exclusive: bool) {
    border((), || {
        // SAFETY: The caller has a live queue.
        let (Some(target), Some(work)) = (unsafe { Target::new(queue) }, work) else {
            return;
        };
        if exclusive {
            target.push_exclusive(work.job());
        } else {
            target.push(work.job());
        }
    });
}

/// Calls a function on a queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_async_f(
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<Function>,
) {
    // SAFETY: The caller has a live queue.
    unsafe { push(queue, Work::function(function, context), false) };
}

/// Calls a block on a queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_async(queue: *mut c_void, block: *const c_void) {
    // SAFETY: The caller has a live queue, and a `void (^)(void)`.
    unsafe { push(queue, Work::block(block), false) };
}

/// Calls a function on a queue, alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_barrier_async_f(
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<Function>,
) {
    // SAFETY: The caller has a live queue.
    unsafe { push(queue, Work::function(function, context), true) };
}

/// Calls a block on a queue, alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_barrier_async(queue: *mut c_void, block: *const c_void) {
    // SAFETY: The caller has a live queue, and a `void (^)(void)`.
    unsafe { push(queue, Work::block(block), true) };
}

unsafe fn wait(queue: *const c_void, exclusive: bool, work: impl FnOnce()) {
    border((), || {
        // SAFETY: The caller has a live queue.
        if let Some(target) = unsafe { Target::new(queue) } {
            target.queue.wait_for_turn(exclusive, work);
        }
    });
}

/// Calls a function here when the queue's turn comes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_sync_f(
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<Function>,
) {
    if let Some(function) = function {
        // SAFETY: The caller has a live queue, and gives context and function together.
        unsafe { wait(queue, false, || function(context)) };
    }
}

/// Calls a block here when the queue's turn comes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_sync(queue: *mut c_void, block: *const c_void) {
    if !block.is_null() {
        // SAFETY: The caller has a live queue, and a `void (^)(void)`.
        unsafe { wait(queue, false, || vmnet_blocks::held::call(block)) };
    }
}

/// Calls a block here when the queue is its alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_barrier_sync(queue: *mut c_void, block: *const c_void) {
    if !block.is_null() {
        // SAFETY: The caller has a live queue, and a `void (^)(void)`.
        unsafe { wait(queue, true, || vmnet_blocks::held::call(block)) };
    }
}

unsafe fn push_later(when: u64, queue: *const c_void, work: Option<Work>) {
    border((), || {
        // SAFETY: The caller has a live queue.
        let (Some(target), Some(work)) = (unsafe { Target::new(queue) }, work) else {
            return;
        };
        match (Moment::from_raw(when).deadline(), events::get()) {
            (Some(deadline), Some(events)) => events.push_at(deadline, target, work.job()),
            (Some(_), None) => target.push(work.job()),
            (None, _) => {}
        }
    });
}

/// Calls a function on a queue at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_after_f(
    when: u64,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<Function>,
) {
    // SAFETY: The caller has a live queue.
    unsafe { push_later(when, queue, Work::function(function, context)) };
}

/// Calls a block on a queue at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_after(when: u64, queue: *mut c_void, block: *const c_void) {
    // SAFETY: The caller has a live queue, and a `void (^)(void)`.
    unsafe { push_later(when, queue, Work::block(block)) };
}
